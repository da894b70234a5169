"""The judgement of weather ensembles in words and rows: one table a variable, one row a contender, and a verdict."""

import numpy as np
import xarray as xr

from scigen.metrics.report import reference
from scigen.plots.style import labelled
from scigen.plots.table import NOTHING, Cell, Column, Table, interval, number, text


def tables(report: xr.Dataset) -> list[Table]:
    """One table a variable: cost, skill, calibration and fidelity of every contender.

    Args:
        report: of `evaluate`.
    """
    return [_table(report.sel(variable=v), report) for v in report["variable"].values]


def verdict(report: xr.Dataset) -> str:
    """Each student against the teacher, and the teacher against the exact law where it is known, worst variable first.

    Args:
        report: of `evaluate`.

    Returns:
        A sentence each; empty if there is nothing to set against each other.
    """
    teacher, exact = reference(report, "teacher"), reference(report, "exact")
    roles = dict(zip(map(str, report["model"].values), map(str, report["role"].values), strict=True))
    pairs = [(m, teacher) for m, r in roles.items() if r == "student" and teacher]
    pairs += [(teacher, exact)] if teacher and exact else []
    return "\n".join(_sentence(report, str(model), str(against)) for model, against in pairs)


def _table(one: xr.Dataset, report: xr.Dataset) -> Table:
    """The table of one variable."""
    units = str(one["units"].values)
    models = [str(m) for m in one["model"].values]
    against = [(role, name) for role in ("exact", "teacher") if (name := reference(report, role)) and len(models) > 1]
    nominal = float(one["coverage_nominal"].sel(level=0.9).fillna(0.0).max()) or 0.9
    percent = f"{100 * nominal:.3g} %"
    conserved = [Column("‖Ax−y‖", f"root-mean-square error of the coarse field [{units}]; 0")]
    conserved = conserved if "conservation" in one else []
    wet = bool(one["wet_share_truth"].notnull())
    rain = [
        Column("wet", "share of cells with rain, over the truth's; 1"),
        Column("99.9 %", "this quantile over the truth's; 1"),
    ] * wet
    far = "power of a member over the truth's, at the wavenumber k where it is farthest from 1, with a 95 % interval; 1"
    columns = [
        Column("contender", numeric=False),
        Column("calls", "network calls a member (NFE)"),
        Column("members", minor=True),
        Column("fair CRPS", f"continuous ranked probability score, fair to any number of members [{units}]; small"),
        *(Column(f"÷ {role}", f"fair CRPS over that of {name}, with a 95 % interval") for role, name in against),
        Column("RMSE", f"root-mean-square error of the ensemble mean [{units}]; small", minor=True),
        Column("spread / skill", "spread over error with the (M+1)/M correction, with a 95 % bootstrap interval; 1"),
        Column(f"cover {percent}", f"share of truths inside the interval that should hold {percent} of them"),
        Column("ranks", "deviation of the rank histogram from flat, Σ|p − 1/(M+1)|; 0", minor=True),
        *conserved,
        *rain,
        Column("worst power", far),
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    for model in models:
        row = one.sel(model=model)
        tail = row.sel(quantile=0.999)
        worst, spread = interval(row["power_ratio_worst"].values, 2)
        cover = float(row["coverage"].sel(level=0.9))
        rows.append(
            [
                text(model),
                text(f"{nfe:g}" if (nfe := float(row["nfe"])) > 0 else NOTHING),
                text(int(row["members"])),
                number(float(row["crps"]), 4),
                *(
                    interval(row["crps_ratio"].sel(reference=name).values) if name != model else text(1)
                    for _, name in against
                ),
                number(float(row["rmse"]), 4),
                interval(row["spread_skill"].values, 2),
                text(NOTHING if np.isnan(cover) else f"{100 * cover:.1f} %"),
                number(float(row["rank_deviation"]), 2),
                *([number(float(row["conservation"]), 2)] if "conservation" in row else []),
                *(
                    [_over(row, "wet_share", "wet_share_truth"), _over(tail, "quantile_value", "quantile_truth")]
                    if wet
                    else []
                ),
                (worst, f"{spread} k={int(row['power_ratio_where'])}" if worst != NOTHING else ""),
            ]
        )
    title = (
        f"{one['variable'].item()} [{units}]: {report.attrs['samples']} times" if units else f"{one['variable'].item()}"
    )
    return Table(title, columns, rows, _notes(one))


def _over(row: xr.Dataset, key: str, truth: str) -> Cell:
    """A number over the truth's."""
    return number(float(row[key]) / float(row[truth]) if float(row[truth]) else float("nan"), 3)


def _notes(one: xr.Dataset) -> list[str]:
    """What a reader of the table must know."""
    notes = []
    nominal = one["coverage_nominal"].sel(level=0.9)
    if nominal.notnull().any() and np.nanmin(nominal) != np.nanmax(nominal):
        shares = ", ".join(
            f"{m} {100 * v:.1f} %" for m, v in zip(one["model"].values, nominal.values, strict=True) if not np.isnan(v)
        )
        notes.append(f"Coverage differs in what a reliable ensemble has, because the member counts differ: {shares}.")
    return notes


def _sentence(report: xr.Dataset, model: str, against: str) -> str:
    """One contender against another: the variable where it does worst, for each of three scores."""
    mine, theirs = report.sel(model=model), report.sel(model=against)
    ratio = mine["crps_ratio"].sel(reference=against)
    at = ratio.sel(interval="estimate").idxmax("variable").item()
    skill, other = (r["spread_skill"].sel(interval="estimate") for r in (mine, theirs))
    parts = [
        f"at worst, fair CRPS {' '.join(interval(ratio.sel(variable=at).values))} × that of {_called(theirs)} ({at})"
    ]
    if skill.notnull().any():
        off = abs(skill - 1).idxmax("variable").item()
        parts.append(
            f"spread–skill {float(skill.sel(variable=off)):.2f} against {float(other.sel(variable=off)):.2f} ({off})"
        )
    worst = mine["power_ratio_worst"].sel(interval="estimate", drop=True)
    if worst.notnull().any():
        far = abs(xr.apply_ufunc(np.log, worst)).idxmax("variable").item()
        power, k = float(worst.sel(variable=far)), int(mine["power_ratio_where"].sel(variable=far))
        parts.append(f"power {power:.2f} × the truth's at wavenumber {k} ({far})")
    return f"{_called(mine)}: " + "; ".join(parts) + "."


def _called(one: xr.Dataset) -> str:
    """Name of a contender with its network calls."""
    name = str(one["model"].item())
    return labelled([name], [float(one["nfe"])])[name]
