"""Panels that fields share: spectra, rank histograms, spread–skill and coverage, training curves."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

from scigen.errors import UserError
from scigen.plots.style import ROLES, Look

PLAIN = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
"""Box behind numbers, so that no line runs through them."""


def spectra(
    top: Axes,
    bottom: Axes,
    wavenumber: ArrayLike,
    truth: ArrayLike,
    power: Mapping[str, ArrayLike],
    looks: Mapping[str, Look],
    *,
    units: str = "",
    labels: Mapping[str, str] | None = None,
    band: float = 0.15,
    share: float = 1e-3,
) -> None:
    """Power spectra on logarithmic axes, and below them each contender's ratio to the truth.

    Args:
        top: where the spectra go.
        bottom: where the ratios go.
        wavenumber: (K,) from 1 on.
        truth: (K,) [units²].
        power: (K,) [units²] by contender.
        looks: by contender.
        units: of the field.
        labels: legend texts by contender; their names by default.
        band: half width of the shaded band around a ratio of one.
        share: wavenumbers beyond the last that holds so much of the variance are shaded: nothing is asked of them.
    """
    k, reference = np.asarray(wavenumber, float), np.asarray(truth, float)
    top.loglog(k, reference, color=ROLES["truth"], lw=2.4, label="truth", zorder=1)
    bottom.axhspan(1 - band, 1 + band, color="#009e73", alpha=0.10, lw=0)
    bottom.axhline(1, color=ROLES["truth"], lw=1)
    held = reference > share * reference.sum()
    highest = 1 + 2 * band
    for name, values in power.items():
        look, values = looks[name], np.asarray(values, float)
        top.loglog(k, values, color=look.color, ls=look.dash, label=(labels or {}).get(name, name))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = values / reference
        bottom.semilogx(k, ratio, color=look.color, ls=look.dash)
        highest = max(highest, *ratio[held & np.isfinite(ratio)], 0)
    if held.any() and not held[-1]:
        for ax in (top, bottom):
            ax.axvspan(k[held][-1] + 0.5, k[-1] + 0.5, color="#f3f3f3", lw=0, zorder=0)
    shown = reference[reference > 0]
    if shown.size:
        top.set_ylim(shown.min() / 10, reference.max() * 4)
    bottom.set_ylim(0, min(2.0, 1.1 * highest))
    for ax in (top, bottom):
        ax.set_xlim(k[0] * 0.9, k[-1] + 0.5)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    top.tick_params(labelbottom=False)
    top.set_ylabel(f"power [{_squared(units)}]" if units else "power")
    bottom.set_ylabel("ratio to truth")
    bottom.set_xlabel("wavenumber [half waves across the region]")


def _squared(units: str) -> str:
    """K² of K, (m s-1)² of m s-1."""
    return f"({units})²" if any(c in units for c in " /-") else f"{units}²"


def rank_histogram(ax: Axes, shares: ArrayLike, look: Look, *, title: str = "", highest: float | None = None) -> None:
    """Rank histogram with the line that a reliable ensemble keeps to.

    Args:
        ax: where it goes.
        shares: (M + 1,) counts or shares.
        look: of the contender.
        title: of the panel.
        highest: upper end of the axis as a multiple of flat, to share it between panels.
    """
    shares = np.asarray(shares, float)
    flat = shares / shares.sum() * shares.size
    ax.bar(np.arange(shares.size), flat, width=0.92, color=look.color, alpha=0.85)
    ax.axhline(1, color=ROLES["truth"], lw=1, ls=(0, (4, 2)))
    ax.set(xlim=(-0.7, shares.size - 0.3), ylim=(0, highest or max(1.5, 1.1 * float(flat.max()))))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set_title(title, fontweight="normal", fontsize=9)
    ax.grid(False, axis="x")


def intervals(
    ax: Axes,
    rows: Mapping[str, ArrayLike],
    looks: Mapping[str, Look],
    *,
    target: float,
    reach: float = 0.12,
    title: str = "",
) -> None:
    """Numbers with their intervals, one row a contender, beside the target: spread–skill, CRPS ratios, coverage.

    The axis stays close to the target, where differences matter; what lies beyond is an arrow at its end.

    Args:
        ax: where it goes.
        rows: (estimate, low, high), or (estimate,) alone, by contender; rows that are NaN are left out.
        looks: by contender.
        target: the value wished for.
        reach: half width of the axis, in units of the target.
        title: of the panel.
    """
    shown = {n: np.atleast_1d(np.asarray(values, float)) for n, values in rows.items()}
    shown = {n: values for n, values in shown.items() if np.isfinite(values[0])}
    low, high = target * (1 - reach), target * (1 + reach)
    ax.axvline(target, color=ROLES["truth"], lw=1, ls=(0, (4, 2)), zorder=0)
    for i, (name, values) in enumerate(shown.items()):
        look = looks[name]
        if len(values) == 3 and np.isfinite(values[1]):
            ax.plot(values[1:], [i, i], color=look.color, lw=3, solid_capstyle="butt", alpha=0.45, zorder=1)
        marker = "<" if values[0] < low else ">" if values[0] > high else "o"
        face = look.color if look.dash == "-" else "white"
        at = float(np.clip(values[0], low, high))
        ax.plot(at, i, marker, color=look.color, mfc=face, ms=6, clip_on=False, zorder=2)
        offset, side = ((6, "left") if marker == "<" else (-6, "right")) if marker != "o" else (0, "center")
        ax.annotate(
            f"{values[0]:.3f}",
            (at, i),
            (offset, 5),
            textcoords="offset points",
            ha=side,
            fontsize=8,
            bbox=PLAIN,
            zorder=1.5,
        )
    ax.set_xlim(low, high)
    ax.set_yticks(range(len(shown)), list(shown))
    ax.set_ylim(len(shown) - 0.4, -0.8)
    ax.grid(False, axis="y")
    ax.tick_params(left=False)
    ax.set_title(title, fontweight="normal", fontsize=9)


def training_curves(ax: Axes, path: str | Path, columns: Sequence[str] | None = None) -> list[str]:
    """Curves from the `metrics.csv` of Lightning's CSVLogger, on a logarithmic axis where all values are positive.

    Args:
        ax: where they go.
        path: of the file, with a column `step`.
        columns: which to draw; by default all whose name has "loss" in it.

    Returns:
        The columns drawn.

    Raises:
        UserError: if the file is missing, or holds none of the columns.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no training log {path}: give the metrics.csv of a run folder.")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0]) if rows else []
    wanted = list(columns) if columns is not None else [n for n in names if "loss" in n]
    missing = [n for n in wanted if n not in names]
    if missing or not wanted or "step" not in names:
        raise UserError(f"The training log {path} has the columns {names}, expected step and {missing or ['a loss']}.")
    lowest = math.inf
    for name in wanted:
        points = [(float(r["step"]), float(r[name])) for r in rows if r[name] not in ("", None) and r["step"]]
        points = [p for p in points if math.isfinite(p[1])]
        if points:
            ax.plot(*zip(*points, strict=True), label=name, lw=1.2)
            lowest = min(lowest, *(p[1] for p in points))
    if 0 < lowest < math.inf:
        ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.legend()
    return wanted
