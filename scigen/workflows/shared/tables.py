"""The judgement in rows: a table a variable, one row a contender, and one of groups where there are some."""

import numpy as np
import xarray as xr

from scigen.metrics.summary import excludes
from scigen.plots.table import NOTHING, Cell, Column, Table, interval, number, text


def tables(report: xr.Dataset) -> list[Table]:
    """A table of scores for every variable; behind them those by group.

    Args:
        report: of `scigen.metrics.judging.evaluate`.
    """
    variables = list(report["variable"].values)
    whole = [_table(report.sel(variable=v), report, first=i == 0) for i, v in enumerate(variables)]
    return whole + [_groups(report.sel(variable=v)) for v in variables if report.sizes["group"] > 1]


def _table(one: xr.Dataset, report: xr.Dataset, first: bool) -> Table:
    """The table of one variable."""
    units, chosen = str(one["units"].values), str(report.attrs["reference"])
    scores = list(map(str, one["score"].values))
    models = [str(m) for m in one["model"].values]
    unit = f" [{units}]" if units else ""
    several = len(models) > 1
    level = max(one["level"].values)
    covered = f"coverage {level:g}"
    nominal = float(one["coverage_nominal"].sel(level=level).max())
    share = f"{100 * (nominal if np.isfinite(nominal) else level):.3g} %"
    columns = [
        Column("contender", numeric=False),
        Column("calls", "network calls a member (NFE)", minor=True),
        Column("members", minor=True),
        Column("fair CRPS", f"continuous ranked probability score, fair to any number of members{unit}; small"),
        *[Column(f"÷ {chosen}", f"fair CRPS over that of {chosen}; * where the interval excludes 1")] * several,
        Column("RMSE", f"root-mean-square error of the ensemble mean{unit}; small", minor=True),
        Column("MAE", f"mean absolute error of the ensemble mean{unit}; small", minor=True),
        Column("bias", f"of the ensemble mean{unit}; 0", minor=True),
        Column("spread / skill", "spread over error with the (M+1)/M correction; 1 for a reliable ensemble"),
        Column(f"cover {share}", f"share of truths inside the interval that should hold {share} of them"),
        Column("flat ranks p", "probability of ranks as uneven as these in a reliable ensemble (χ², clustered)"),
        Column("Brier skill", "1 − fair Brier score over climatology's, at the highest threshold; large", minor=True),
        *[Column("energy", f"fair energy score of patches over √cells{unit}; small")] * ("energy" in scores),
        *[Column("variogram", f"fair variogram score of patches{unit}; small", minor=True)] * ("variogram" in scores),
        *[Column("spectrum", "log-spectral distance of members from the truth [dB]; 0")] * ("spectrum" in scores),
        Column("99.99 %", "this quantile's distance from the median over the truth's; 1", minor=True),
        Column("diversity", "spread over the standard deviation of the truth over samples", minor=True),
    ]  # fmt: skip
    rows = []
    for model in models:
        row = one.sel(model=model)
        value = row["value"].sel(group="all")

        def told(score: str, value: xr.DataArray = value) -> Cell:
            return _told(value.sel(score=score).values) if score in scores else text(NOTHING)

        cover = 100 * value.sel(score=covered).values if covered in scores else np.full(3, np.nan)
        rows.append(
            [
                text(model),
                text(f"{calls:g}" if (calls := float(row["nfe"])) > 0 else NOTHING),
                text(int(row["members"])),
                told("crps"),
                *[_against(row, "crps", chosen)] * several,
                told("rmse"),
                told("mae"),
                told("bias"),
                told("spread_skill"),
                _told(cover, " %"),
                text(_p(float(row["rank_p"].sel(group="all")))),
                number(_event(row), 3),
                *[told("energy")] * ("energy" in scores),
                *[told("variogram")] * ("variogram" in scores),
                *[told("spectrum")] * ("spectrum" in scores),
                number(_tail(row), 3),
                told("diversity"),
            ]
        )
    title = f"{one['variable'].item()}{unit}: {report.attrs['samples']} samples"
    notes = [f"Intervals: 95 %, bootstrap of blocks of {report.attrs['block']} samples."] if first else []
    return Table(title, columns, rows, [*(report.attrs["notes"] if first else []), *notes])


def _groups(one: xr.Dataset) -> Table:
    """Main scores by group."""
    scores = list(map(str, one["score"].values))
    level = f"coverage {max(one['level'].values):g}"
    shown = [s for s in ("crps", "bias", "rmse", "spread_skill", level) if s in scores]
    heads = {"crps": "fair CRPS", "bias": "bias", "rmse": "RMSE", "spread_skill": "spread / skill", level: level}
    columns = [Column("group", numeric=False), Column("contender", numeric=False), *(Column(heads[s]) for s in shown)]
    columns.append(Column("flat ranks p"))
    rows = [
        [
            text(group),
            text(model),
            *(_told(one["value"].sel(group=group, model=model, score=s).values) for s in shown),
            text(_p(float(one["rank_p"].sel(group=group, model=model)))),
        ]
        for group in one["group"].values
        for model in one["model"].values
    ]
    return Table(f"{one['variable'].item()}, by group", columns, rows)


def _told(values: np.ndarray, unit: str = "") -> Cell:
    """Estimate with its interval, the digits that the interval's width leaves."""
    estimate, low, high = (float(v) for v in values)
    if np.isnan(low) or high <= low or not np.isfinite(high - low):
        return (number(estimate, 4)[0] + (unit if np.isfinite(estimate) else ""), "")
    decimals = int(np.clip(1 - np.floor(np.log10(high - low)), 0, 8))
    if max(abs(low), abs(high)) < 1e-4 or max(abs(low), abs(high)) >= 1e6:
        return number(estimate, 4)[0] + unit, f"[{number(low, 4)[0]}–{number(high, 4)[0]}]"
    shown, detail = interval(values, decimals)
    return shown.replace("-", "−") + unit, detail.replace("-", "−").replace("–", " to " if low < 0 else "–")


def _against(row: xr.Dataset, score: str, chosen: str) -> Cell:
    """The ratio to the reference, starred where it is certain."""
    if str(row["model"].item()) == chosen:
        return text(1)
    values = row["against"].sel(group="all", score=score).values
    shown, detail = _told(values)
    return shown + ("*" if excludes(values[1], values[2], 1.0) else ""), detail


def _p(value: float) -> str:
    """A probability, not with more digits than it deserves."""
    if np.isnan(value):
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _event(row: xr.Dataset) -> float:
    """Brier skill of the highest threshold."""
    known = row["threshold_value"].dropna("threshold")
    return float(row["brier_skill"].sel(group="all", threshold=known.idxmax())) if known.size else float("nan")


def _tail(row: xr.Dataset) -> float:
    """The 99.99 % quantile above the median, over that of the truth."""
    mine, theirs = (
        row[k].sel(quantile=0.9999) - row[k].sel(quantile=0.5) for k in ("quantile_value", "quantile_truth")
    )
    return float(mine) / float(theirs) if float(theirs) else float("nan")
