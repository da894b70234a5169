"""Pictures of calibration: rank histograms, reliability, spread against error, spectra, tails."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from scipy import stats

from scigen.plots import panels, style
from scigen.plots.style import ROLES, Look

WIDTH = 9.2


def figures(report: xr.Dataset, folder: Path) -> list[tuple[str, Path]]:
    """All pictures of a report.

    Args:
        report: of `scigen.metrics.judging.evaluate`.
        folder: where the PNG files go.

    Returns:
        (caption, path) of each.
    """
    names = [str(m) for m in report["model"].values]
    looks = style.looks(dict(zip(names, map(str, report["role"].values), strict=True)))
    crowd = [m for m in names if int(report["members"].sel(model=m)) > 1]
    found = []
    if crowd:
        found.append((RANKS, _grid(report, crowd, looks, _ranks, folder / "ranks.png", "rank of the truth")))
        found.append((SPREADS, _columns(report, crowd, looks, _spread_error, folder / "spread-error.png")))
    if report.sizes["threshold"]:
        found.append(
            (
                RELIABLE,
                _grid(report, names, looks, _reliability, folder / "reliability.png", "forecast probability", 2.5),
            )
        )
    if "power" in report:
        found.append((SPECTRA, _spectra(report, names, looks, folder / "spectra.png")))
    found.append((TAILS, _columns(report, names, looks, _tails, folder / "tails.png")))
    return found


RANKS = "Rank histograms: flat for a reliable ensemble, U-shaped for an over-confident one, sloping for a biased one."
SPREADS = (
    "Error of the ensemble mean where the spread is so large; on the line for a reliable ensemble, but for the scatter "
    "of the spread of few members, which flattens it. Points are larger where there are more cells."
)
RELIABLE = "Reliability: how often the event came where it was foretold with this probability; thin: climatology."
SPECTRA = "Power spectra of members, and their ratio to the truth's."
TAILS = "Quantiles of all values, against the truth's, both from its median in units of its standard deviation."


def _grid(
    report: xr.Dataset,
    models: list[str],
    looks: Mapping[str, Look],
    draw: object,
    path: Path,
    label: str,
    tall: float = 1.7,
) -> Path:
    """A row a variable, a column a contender."""
    variables = [str(v) for v in report["variable"].values]
    width = max(min(WIDTH, 2.6 * len(models)), 4.2)
    with style.canvas(width, tall * len(variables) + 0.4) as figure:
        axes = figure.subplots(len(variables), len(models), squeeze=False, sharey=True, sharex=draw is _reliability)
        for row, variable in zip(axes, variables, strict=True):
            for ax, model in zip(row, models, strict=True):
                draw(ax, report.sel(variable=variable, model=model, group="all"), looks[model])  # type: ignore[operator]
                ax.set_title(model if variable == variables[0] else "", fontweight="normal", fontsize=9)
            row[0].set_ylabel(variable)
        figure.supxlabel(label, fontsize=9)
        return style.save(figure, path)


def _columns(report: xr.Dataset, models: list[str], looks: Mapping[str, Look], draw: object, path: Path) -> Path:
    """A panel a variable, contenders together."""
    variables = [str(v) for v in report["variable"].values]
    rows, columns = style.grid_shape(len(variables))
    with style.canvas(max(min(WIDTH, 3.4 * columns), 4.6), 3.0 * rows) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, variable in zip(axes, variables, strict=False):
            one = report.sel(variable=variable)
            for model in models:
                draw(ax, one.sel(model=model, group="all"), looks[model], model)  # type: ignore[operator]
            units = str(one["units"].values)
            ax.set_title(f"{variable} [{units}]" if units else variable, fontsize=9)
            low, high = ax.get_xlim()
            ax.plot([low, high], [low, high], color=ROLES["truth"], lw=1, ls=(0, (4, 2)), zorder=0)
            ax.set_xlim(low, high)
        for ax in axes[len(variables) :]:
            ax.remove()
        axes[0].legend()
        return style.save(figure, path)


def _ranks(ax: Axes, one: xr.Dataset, look: Look) -> None:
    panels.rank_histogram(ax, one["rank"].values[: int(one["members"]) + 1], look)
    p = float(one["rank_p"])
    if not math.isnan(p):
        told = "p < 0.001" if p < 1e-3 else f"p = {p:.2g}"
        ax.text(0.5, 0.97, told, transform=ax.transAxes, ha="center", va="top", fontsize=8, bbox=panels.PLAIN)


def _reliability(ax: Axes, one: xr.Dataset, look: Look) -> None:
    """Thresholds together, the highest boldest."""
    ax.plot([0, 1], [0, 1], color=ROLES["truth"], lw=1, ls=(0, (4, 2)), zorder=0)
    count = one.sizes["threshold"]
    for i, label in enumerate(one["threshold"].values):
        told = one.sel(threshold=label)
        known = told["reliability_share"].values > 0
        faint = 0.35 + 0.65 * (i + 1) / count
        x, y = (told[f"reliability_{k}"].values[known] for k in ("forecast", "observed"))
        ax.plot(x, y, color=look.color, alpha=faint, marker="o", ms=3, lw=1.2, label=f"> {label}")
        u = float(told["brier_uncertainty"])
        rate = (told["reliability_observed"] * told["reliability_share"]).sum()
        if u > 0:
            ax.axhline(float(rate), color=look.color, alpha=0.4 * faint, lw=0.7)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.legend(fontsize=7)


def _spread_error(ax: Axes, one: xr.Dataset, look: Look, model: str) -> None:
    members = int(one["members"])
    spread = one["spread_bin"].values * np.sqrt((members + 1) / members)
    error, share = one["error_bin"].values, one["share_bin"].values
    known = share > 1e-4
    ax.plot(spread[known], error[known], color=look.color, ls=look.dash, lw=1, label=model)
    ax.scatter(spread[known], error[known], s=4 + 120 * share[known], color=look.color, alpha=0.7, lw=0)
    ax.set(xlabel="spread × √((M+1)/M)", ylabel="error of the mean")
    reach = 1.05 * max(
        spread[known].max(initial=0), error[known].max(initial=0), ax.get_xlim()[1] * (len(ax.lines) > 1)
    )
    ax.set(xlim=(0, reach or 1), ylim=(0, reach or 1))


def _tails(ax: Axes, one: xr.Dataset, look: Look, model: str) -> None:
    middle, scale = float(one["quantile_truth"].sel(quantile=0.5)), 1.0
    inner = one["quantile_truth"].sel(quantile=[0.1, 0.9]).values
    scale = float(np.diff(inner)[0]) / (2 * stats.norm.ppf(0.9)) or 1.0
    theirs, mine = ((one[k].values - middle) / scale for k in ("quantile_truth", "quantile_value"))
    ax.plot(theirs, mine, color=look.color, ls=look.dash, marker="o", ms=3, lw=1.2, label=model)
    ax.set(xlabel="quantile of the truth", ylabel="of the members")


def _spectra(report: xr.Dataset, models: list[str], looks: Mapping[str, Look], path: Path) -> Path:
    """Spectra above, ratios below, a column a variable."""
    labels = style.labelled(models, [float(v) for v in report["nfe"].values])
    variables = [
        str(v) for v in report["variable"].values if report["power"].sel(variable=v, group="all").notnull().any()
    ]
    with style.canvas(max(min(WIDTH, 3.4 * len(variables)), 4.6), 4.2) as figure:
        axes = figure.subplots(2, len(variables), squeeze=False, height_ratios=[2, 1])
        for column, variable in zip(axes.T, variables, strict=True):
            one = report.sel(variable=variable, group="all")
            k = one["wavenumber"].values
            known = one["power_truth"].notnull().all("model").values
            panels.spectra(
                column[0], column[1], k[known], one["power_truth"].values[0][known],
                {m: one["power"].sel(model=m).values[known] for m in models}, looks, units=str(one["units"].values),
                labels=labels,
            )  # fmt: skip
            column[0].set_title(variable, fontsize=9)
        axes[0][0].legend()
        return style.save(figure, path)
