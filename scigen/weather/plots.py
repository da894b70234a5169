"""Pictures of weather ensembles beside the truth: maps, spectra, calibration, rank histograms."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from scigen.metrics.report import reference
from scigen.plots import panels, style
from scigen.weather.area import centres_of, latitude
from scigen.weather.metrics import SHARE
from scigen.weather.pairing import pair, space_dims
from scigen.weather.sphere import corners, degrees, unit_vectors

ROWS = 3
"""Ensembles shown on one page of maps, beside the exact one."""
MEMBERS = 3
"""Members shown of each."""

Panel = tuple[str, np.ndarray, bool]
"""One map: title, field (Y, X), whether it is a spread."""


def figures(
    report: xr.Dataset, truth: xr.Dataset, samples: Mapping[str, xr.Dataset], folder: str | Path, *, time: Any = None
) -> list[tuple[str, Path]]:
    """Draw all pictures of a report.

    Args:
        report: of `evaluate` on the same truth and samples.
        truth: dims (time, Y, X).
        samples: by name, dims (time, member, Y, X); only one time is read of them.
        folder: where the PNG files go.
        time: which time the maps show; by default the middle one.

    Returns:
        (caption, path) of each picture, maps of each variable first.
    """
    folder = Path(folder)
    truth, paired = pair(truth, samples)
    when = truth["time"].values[truth.sizes["time"] // 2] if time is None else time
    truth, paired = truth.sel(time=when).load(), {m: ds.sel(time=when) for m, ds in paired.items()}
    out = [maps(report, truth, paired, str(v), folder / f"maps_{v}.png") for v in report["variable"].values]
    return [*out, spectra(report, folder / "spectra.png"), *calibration(report, folder)]


def maps(
    report: xr.Dataset, truth: xr.Dataset, samples: Mapping[str, xr.Dataset], variable: str, path: Path
) -> tuple[str, Path]:
    """Maps at one time: truth and baseline above, then members, mean and spread of each ensemble, on shared scales.

    Args:
        report: of `evaluate`.
        truth: dims (Y, X).
        samples: dims (member, Y, X).
        variable: to show.
        path: of the picture.

    Returns:
        (caption, path).
    """
    fields = {m: ds[variable].values.astype(np.float64) for m, ds in samples.items()}
    crowd = _ensembles(report)
    exact = reference(report, "exact")
    exact = exact if exact and len(fields[exact]) > 1 else None
    single = next((m for m, f in fields.items() if len(f) == 1), None)

    rows: list[list[Panel | None]] = [[("truth", truth[variable].values.astype(np.float64), False)]]
    rows[0].append((single, fields[single][0], False) if single else None)
    rows[0] += _summary(fields[exact], f"{exact}, ", members=1) if exact else [None] * 3
    rows += [_summary(fields[m], "", members=MEMBERS) for m in crowd]
    drawn = [p for row in rows for p in row if p is not None]
    spreads = [field for _, field, spread in drawn if spread]
    scales = (_field_scale(np.stack([field for _, field, spread in drawn if not spread])), _spread_scale(spreads))
    units = str(truth[variable].attrs.get("units", ""))
    box = _Box(truth, space_dims(truth.expand_dims("time")))
    columns = MEMBERS + 2 if spreads else 2
    height = float(np.clip(2.0 * box.ratio, 0.8, 3.2)) + 0.3
    with style.canvas(2.15 * columns + 1.1, height * len(rows) + 0.45) as figure:
        figure.suptitle(f"{variable} at {_moment(truth)}", x=0.01, ha="left", fontsize=11, fontweight="bold")
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for i, row in enumerate(rows):
            images: list[Any] = [None, None]
            for j, (ax, panel) in enumerate(zip(axes[i], row, strict=False)):
                ax.set_visible(panel is not None)
                if panel is not None:
                    title, field, spread = panel
                    images[spread] = _map(ax, field, title, box, scales[spread])
                    below = rows[i + 1][j] if i + 1 < len(rows) else None
                    box.ticks(ax, bottom=below is None, left=j == 0 or row[j - 1] is None)
            _bar(figure, images[0], axes[i, : MEMBERS + 1], units, "both")
            if images[1] is not None:
                _bar(figure, images[1], axes[i, -1], units, "max")
            if i:
                axes[i, 0].set_ylabel(crowd[i - 1], fontweight="bold", fontsize=10)
        style.save(figure, path)
    shown = [name for name in ([exact] if exact else []) + crowd if name]
    caption = f"{variable} [{units}] at {_moment(truth)}: the truth" + (f", {single}" if single else "")
    caption += f", and members, mean and spread of {', '.join(shown)}" if shown else ""
    return f"{caption}. Fields share one colour scale, spreads another.", path


def spectra(report: xr.Dataset, path: Path) -> tuple[str, Path]:
    """Spectra of single members beside the truth's, and their ratio, a column a variable: (caption, path)."""
    variables, looks, labels = list(report["variable"].values), _looks(report), _labels(report)
    rows, columns = style.grid_shape(len(variables))
    with style.canvas(3.4 * columns + 0.4, 4.6 * rows + 0.5) as figure:
        axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[3, 2] * rows)
        for ax in axes.flat:
            ax.set_visible(False)
        for i, variable in enumerate(variables):
            one = report.sel(variable=variable)
            top, bottom = (axes[2 * (i // columns) + j, i % columns] for j in (0, 1))
            top.set_visible(True), bottom.set_visible(True)
            power = {m: one["power"].sel(model=m).values for m in looks}
            units = str(one["units"].values)
            truth = one["power_truth"].values
            panels.spectra(
                top, bottom, one["wavenumber"].values, truth, power, looks, units=units, labels=labels, share=SHARE
            )
            top.set_title(str(variable))
            if i % columns:
                bottom.set_ylabel("")
        handles, texts = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper left", ncols=min(len(texts), 2 * columns))
        style.save(figure, path)
    caption = (
        "Power spectra of single members (averaged over members and times, never of the ensemble mean) and their ratio "
        "to the truth's; the band is ±15 %. Grey: wavenumbers beyond which each holds less than 0.1 % of the variance. "
        "Wavenumber k has a wavelength of 2N/k cells, N the shortest side of the region."
    )
    return caption, path


def calibration(report: xr.Dataset, folder: Path) -> list[tuple[str, Path]]:
    """Spread–skill, coverage and CRPS ratios, and rank histograms: (caption, path) of each; none without ensembles."""
    crowd = [str(m) for m in report["model"].values if int(report["members"].sel(model=m)) > 1]
    if not crowd:
        return []
    looks, variables = _looks(report), list(report["variable"].values)
    against = reference(report, "teacher") or reference(report, "exact") or crowd[0]
    with style.canvas(9.6, len(variables) * (0.34 * len(looks) + 0.75) + 0.2) as figure:
        axes = figure.subplots(len(variables), 3, squeeze=False)
        for row, variable in zip(axes, variables, strict=True):
            one = report.sel(variable=variable)
            nominal = float(one["coverage_nominal"].sel(model=crowd[-1], level=0.9))
            skill = {m: one["spread_skill"].sel(model=m).values for m in crowd}
            cover = {m: [float(one["coverage"].sel(model=m, level=0.9))] for m in crowd}
            ratio = {m: one["crps_ratio"].sel(model=m, reference=against).values for m in looks if m != against}
            panels.intervals(row[0], skill, looks, target=1, title=f"{variable}: spread–skill")
            panels.intervals(
                row[1], cover, looks, target=nominal, title=f"coverage of the {100 * nominal:.0f} % interval"
            )
            panels.intervals(row[2], ratio, looks, target=1, title=f"fair CRPS ÷ that of {against}")
            row[1].tick_params(labelleft=False)
        path = style.save(figure, folder / "calibration.png")
    bars = (
        "Spread–skill ratio with its (M+1)/M correction, coverage, and fair CRPS ratio, with 95 % bootstrap intervals."
    )
    with style.canvas(min(2.0 * len(crowd) + 0.6, 12), 1.5 * len(variables) + 0.4) as figure:
        axes = figure.subplots(len(variables), len(crowd), squeeze=False, sharey="row")
        for row, variable in zip(axes, variables, strict=True):
            histogram = report["rank_histogram"].sel(variable=variable, model=crowd)
            highest = max(1.5, 1.1 * float((histogram * histogram.notnull().sum("rank")).max()))
            for ax, model in zip(row, crowd, strict=True):
                shares = np.asarray(histogram.sel(model=model).dropna("rank"))
                panels.rank_histogram(
                    ax, shares, looks[model], title=model if variable == variables[0] else "", highest=highest
                )
            row[0].set_ylabel(f"{variable}\nfrequency ÷ flat")
            for ax in row[1:]:
                ax.tick_params(left=False)
        figure.supxlabel("rank of the truth among the members", fontsize=9)
        ranks = style.save(figure, folder / "ranks.png")
    flat = (
        "Rank histograms: flat for a reliable ensemble, U-shaped for an over-confident one, sloping for a biased one."
    )
    return [(bars, path), (flat, ranks)]


class _Box:
    """Where the cells of a region lie, and how its axes are labelled."""

    def __init__(self, ds: xr.Dataset, dims: tuple[str, str]) -> None:
        self.dims = dims
        self.geographic = latitude(ds, dims) is not None and latitude(ds, dims).dims[0] == dims[0]  # type: ignore[union-attr]
        self.y, self.x = (
            np.asarray(ds[d].values if d in ds.indexes else np.arange(ds.sizes[d]), np.float64) for d in dims
        )
        self.metres = all(str(ds[d].attrs.get("units")) in ("m", "metre", "meter") for d in dims if d in ds.indexes)
        self.corners: tuple[np.ndarray, np.ndarray] | None = None
        edges = []
        for c in (self.x, self.y):
            half = 0.5 * (c[-1] - c[0]) / max(len(c) - 1, 1) or 0.5
            edges += [c[0] - half, c[-1] + half]
        place = centres_of(ds, dims)
        if place and min(place[0].shape) > 1:
            lat, lon = degrees(corners(unit_vectors(*place)), np.asarray(np.take(place[1], place[1].size // 2)))
            if np.ptp(lon) < 300:  # a map that holds a pole is drawn in its own rows and columns
                self.corners, self.geographic, self.y = (lon, lat), True, lat
                edges = [lon.min(), lon.max(), lat.min(), lat.max()]
        self.extent = tuple(edges)
        self.aspect = 1 / max(float(np.cos(np.deg2rad(self.y.mean()))), 0.1) if self.geographic else 1.0
        self.ratio = self.aspect * abs(edges[3] - edges[2]) / abs(edges[1] - edges[0])

    def ticks(self, ax: Axes, *, bottom: bool, left: bool) -> None:
        """Few ticks, in degrees where the grid has them, labelled only where asked."""
        ax.grid(False)
        for axis, letters in ((ax.yaxis, "NS"), (ax.xaxis, "EW")):
            axis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
            if self.geographic:
                axis.set_major_formatter(FuncFormatter(lambda v, _, s=letters: _degrees(v, s)))
                if abs(self.extent[1] - self.extent[0]) > 180:
                    axis.set_major_locator(MultipleLocator(45 if letters == "NS" else 90))
            elif self.metres:
                axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v / 1000:g} km"))
        ax.tick_params(labelbottom=bottom, labelleft=left, length=2.5)


def _degrees(value: float, letters: str) -> str:
    """51.5°N of 51.5; longitudes beyond 180 count westwards."""
    if letters == "EW":
        value = (value + 180) % 360 - 180
    return f"{abs(value):g}°" + (letters[int(value < 0)] if value % 180 else "")


def _ensembles(report: xr.Dataset) -> list[str]:
    """Ensembles that get a row of maps: the converged teacher, students, others; further teachers if there is room."""
    teacher, exact = reference(report, "teacher"), reference(report, "exact")
    order = {teacher: 0}

    def place(name: str) -> int:
        role = str(report["role"].sel(model=name).values)
        return order.get(name, {"student": 1, "teacher": 3}.get(role, 2))

    names = [str(m) for m in report["model"].values if int(report["members"].sel(model=m)) > 1 and str(m) != exact]
    return sorted(names, key=place)[:ROWS]


def _summary(field: np.ndarray, prefix: str, members: int) -> list[Panel | None]:
    """So many members, mean and spread of an ensemble (member, Y, X)."""
    shown: list[Panel | None] = [
        (f"{prefix}member {i + 1}", field[i], False) if i < len(field) else None for i in range(members)
    ]
    return [*shown, (f"{prefix}mean", field.mean(0), False), (f"{prefix}spread", field.std(0, ddof=1), True)]


def _map(ax: Axes, field: np.ndarray, title: str, box: _Box, scale: Mapping[str, Any]) -> Any:
    """One map."""
    image: Any
    if box.corners is None:
        image = ax.imshow(field, extent=box.extent, aspect=box.aspect, origin="lower", **scale)
    else:
        image = ax.pcolormesh(*box.corners, field, rasterized=True, **scale)
        ax.set_aspect(box.aspect)
    ax.set_xlim(min(box.extent[:2]), max(box.extent[:2]))
    ax.set_ylim(min(box.extent[2:]), max(box.extent[2:]))
    ax.set_title(title, fontweight="normal", fontsize=9)
    for spine in ax.spines.values():
        spine.set_visible(True)
    return image


def _bar(figure: Figure, image: Any, axes: Any, units: str, extend: str) -> None:
    """A colour bar with the units."""
    bar = figure.colorbar(image, ax=axes, aspect=18, pad=0.015, shrink=0.92, extend=extend)
    bar.set_label(units, fontsize=8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7.5, length=2)


def _field_scale(values: np.ndarray) -> dict[str, Any]:
    """Colour scale of a field: centred on zero where it takes both signs, sequential otherwise."""
    low, high = (float(v) for v in np.quantile(values, [0.002, 0.998]))
    reach = max(-low, high)
    if low < 0 < high and min(-low, high) > 0.15 * reach:
        return {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
    return {"cmap": "viridis", "vmin": low, "vmax": high if high > low else low + 1.0}


def _spread_scale(spreads: list[np.ndarray]) -> dict[str, Any]:
    """Colour scale of spreads: from zero to nearly the widest."""
    widest = max((float(np.quantile(s, 0.998)) for s in spreads), default=0.0)
    return {"cmap": "magma", "vmin": 0.0, "vmax": widest or 1.0}


def _looks(report: xr.Dataset) -> dict[str, style.Look]:
    """Looks of the contenders by their roles."""
    return style.looks(dict(zip(map(str, report["model"].values), map(str, report["role"].values), strict=True)))


def _labels(report: xr.Dataset) -> dict[str, str]:
    """Legend texts of the contenders."""
    return style.labelled([str(m) for m in report["model"].values], report["nfe"].values.tolist())


def _moment(ds: xr.Dataset) -> str:
    """The time of a dataset, to the minute."""
    return str(ds["time"].values)[:16].replace("T", " ")
