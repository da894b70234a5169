"""Pictures of reconstructions: examples with error and spread, calibration, quality by group, consistency."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from scigen.metrics.report import reference
from scigen.mri.metrics import ALL
from scigen.plots import style
from scigen.plots.panels import rank_histogram

SHOWN = 3
"""Example slices, of as many groups as there are."""
ROWS = 4
"""Contenders on a page of examples."""
LEAST = 0.05
"""χ² at the end of its axis."""
FEWEST = 50
"""Pixels that a bin of spread must hold to be drawn."""


def figures(
    report: xr.Dataset, truth: xr.Dataset, samples: Mapping[str, xr.Dataset], folder: Path
) -> list[tuple[str, Path]]:
    """Draw all pictures of a report: (caption, path) of each.

    Args:
        report: of `evaluate` on the same truth and samples.
        truth: image_re, image_im (slice, y, x), with the mask if there is one.
        samples: by name, image_re, image_im (slice, member, y, x).
        folder: where the PNG files go.
    """
    made = [
        example(report, truth, samples, key, folder / f"example-{i + 1}.png")
        for i, key in enumerate(_examples(report, truth))
    ]
    if (report["members"] > 1).any():
        made.append(calibration(report, folder / "calibration.png"))
    made.append(quality(report, folder / "quality.png"))
    return made


def example(
    report: xr.Dataset, truth: xr.Dataset, samples: Mapping[str, xr.Dataset], key: str, path: Path
) -> tuple[str, Path]:  # fmt: skip
    """One slice: a row a contender with mean, members, error and spread; truth, zero-filled and mask at the left."""
    one = truth.sel(slice=key)
    target = _magnitude(one)
    chosen = _contenders(report)
    aside: list[tuple[str, np.ndarray]] = [("truth", target)]
    if "zero-filled" in samples:
        aside.append(("zero-filled", _magnitude(samples["zero-filled"].sel(slice=key)).reshape(target.shape)))
    if "mask" in one:
        aside.append(("sampled k-space", np.asarray(one["mask"].values, float)))
    made = {n: _members(samples[n].sel(slice=key)) for n in chosen}
    means = {n: np.abs(m.mean(0)) for n, m in made.items()}
    errors = {n: np.abs(m - target) for n, m in means.items()}
    bright: dict[str, Any] = {"cmap": "gray", "vmin": 0.0, "vmax": float(np.quantile(target, 0.999)) or 1.0}
    most = max((float(np.quantile(errors[n], 0.998)) for n in chosen[:2]), default=0.0)
    dark: dict[str, Any] = {"cmap": "magma", "vmin": 0.0, "vmax": most or 1.0}
    rows = max(len(chosen), len(aside))
    height = target.shape[0] / target.shape[1]
    with style.canvas(10.6, (1.5 * height + 0.26) * rows + 0.1) as figure:
        axes = figure.subplots(rows, 6, squeeze=False)
        for ax in axes.flat:
            ax.axis("off")
        for ax, (title, image) in zip(axes[:, 0], aside, strict=False):
            _image(ax, image, title, {"cmap": "gray"} if title.startswith("sampled") else bright)
        drawn: list[Any] = [None, None]
        for row, name in zip(axes, chosen, strict=False):
            members = np.abs(made[name])
            several = len(members) > 1
            drawn[0] = _image(row[1], means[name], "mean" if several else "image", bright)
            for i in range(2 if several else 0):
                _image(row[2 + i], members[i], f"member {i + 1}", bright)
            drawn[1] = _image(row[4], errors[name], f"|error|{' of the mean' if several else ''}", dark)
            if several:
                _image(row[5], members.std(0, ddof=1), "spread", dark)
            row[1].set_title(f"{name}: {'mean' if several else 'image'}", fontsize=8, fontweight="bold")
        for image, label in zip(drawn, ("|error|, spread", "magnitude")[::-1], strict=True):
            bar = figure.colorbar(image, ax=axes, aspect=28, pad=0.01, shrink=0.9, extend="max")
            bar.set_label(label, fontsize=8)
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=7, length=2)
        style.save(figure, path)
    about = ""
    if {"acceleration", "coils"} <= set(one.variables):
        about = f" ({float(one['acceleration']):.2g}×, {int(one['coils'])} coil{'s' if int(one['coils']) != 1 else ''})"
    return (
        f"Slice {key}{about}: magnitudes (grey); error of the mean, and spread among members, on one scale.",
        path,
    )


def calibration(report: xr.Dataset, path: Path) -> tuple[str, Path]:
    """Error against spread, and rank histograms."""
    total = report.sel(group=ALL)
    looks = _looks(report)
    names = [str(m) for m in report["model"].values if int(report["members"].sel(model=m)) > 1]
    down, across = style.grid_shape(len(names), 2 if len(names) < 5 else 3)
    with style.canvas(4.0 + 2.5 * across, max(3.6, 1.9 * down)) as figure:
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[4.0, 2.5 * across])[0]
        ax = left.subplots()
        reach: list[float] = []
        for name in names:
            one = total.sel(model=name)
            held = one["spread_count"].values >= FEWEST
            factor = np.sqrt(1 + 1 / int(one["members"]))
            spread, error = (100 * one[f"{k}_binned"].values[held] for k in ("spread", "error"))
            ax.loglog(factor * spread, error, color=looks[name].color, ls=looks[name].dash, marker=".", label=name)
            reach += [*(factor * spread), *error]
        reach = [v for v in reach if v > 0] or [0.1, 10.0]
        ends = [min(reach) / 1.2, max(reach) * 1.2]
        ax.plot(ends, ends, color=style.ROLES["truth"], lw=1, ls=(0, (4, 2)))
        ax.set(xlabel="spread [% of the volume's maximum]", ylabel="rms error of the mean [%]", xlim=ends, ylim=ends)
        ax.set_title("Error where the spread is so large")
        ax.legend(loc="upper left")
        shares = {
            n: total["rank_histogram"].sel(model=n).values[: int(report["members"].sel(model=n)) + 1] for n in names
        }
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axis.set_minor_formatter(NullFormatter())
        top = max(1.5, *(1.1 * float((v * v.size).max()) for v in shares.values()))
        panels = right.subplots(down, across, squeeze=False, sharey=True)
        for panel in panels.flat[len(names) :]:
            panel.set_visible(False)
        for panel, name in zip(panels.flat, names, strict=False):
            rank_histogram(panel, shares[name], looks[name], title=name, highest=top)
        for panel in panels[-1]:
            panel.set_xlabel("rank of the truth")
        style.save(figure, path)
    return (
        "Calibration of magnitudes on the object. Left: pixels binned by their spread (corrected for the number of"
        " members), on the dashed line for reliable ensembles; few members scatter, which turns the curve flatter."
        " Right: rank histograms, flat for reliable ensembles.",
        path,
    )


def quality(report: xr.Dataset, path: Path) -> tuple[str, Path]:
    """PSNR by group, and χ² of every slice where the noise is known."""
    looks = _looks(report)
    labels = style.labelled([str(m) for m in report["model"].values], report["nfe"].values.tolist())
    groups = [str(g) for g in report["group"].values]
    chi = report["slice_chi_square"]
    told = bool(np.isfinite(chi).any())
    with style.canvas(10.0 if told else 6.5, 3.6) as figure:
        axes = figure.subplots(1, 2 if told else 1, squeeze=False, width_ratios=[1.6, 1] if told else [1])[0]
        width = 0.8 / len(labels)
        finite = report["psnr"].values[np.isfinite(report["psnr"].values)]
        floor = float(np.floor(finite.min())) - 2 if finite.size else 0.0
        marks = _marks(report)
        for i, (name, label) in enumerate(labels.items()):
            at = np.arange(len(groups)) + (i + 0.5) * width - 0.4
            value = report["psnr"].sel(model=name).values
            face = looks[name].color if looks[name].dash == "-" else "white"
            axes[0].plot(at, value, marks[name], color=looks[name].color, mfc=face, ms=6, label=label)
            axes[0].vlines(at, floor, value, color=looks[name].color, lw=1, alpha=0.35)
        axes[0].set_xticks(range(len(groups)), [g.replace(", ", "\n") for g in groups])
        axes[0].set_ylabel("PSNR of the mean [dB]")
        axes[0].grid(False, axis="x")
        axes[0].set_ylim(bottom=floor)
        axes[0].set_title("Quality by acceleration and coils" if len(groups) > 1 else "Quality")
        if told:
            rng = np.random.default_rng(0)
            for i, name in enumerate(labels):
                value = chi.sel(model=name).values
                value = np.clip(value[np.isfinite(value)], LEAST, None)
                jitter = i + rng.uniform(-0.25, 0.25, len(value))
                axes[1].plot(value, jitter, ".", color=looks[name].color, ms=4, alpha=0.6)
            axes[1].axvline(1, color=style.ROLES["truth"], lw=1, ls=(0, (4, 2)), zorder=0)
            axes[1].set_xscale("log")
            axes[1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes[1].xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axes[1].xaxis.set_minor_formatter(NullFormatter())
            axes[1].set_xlim(0.8 * LEAST if (chi < 2 * LEAST).any() else 0.5, 1.25 * max(2.0, float(chi.max())))
            axes[1].set_yticks(range(len(labels)), list(labels.values()))
            axes[1].set_ylim(len(labels) - 0.5, -0.5)
            axes[1].grid(False, axis="y")
            axes[1].set_title("χ² of the data, a dot a slice")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(labels), 4))
        style.save(figure, path)
    more = (
        f" Right: χ² of the measured k-space, mean over members: 1 where it is kept to its noise; less than {LEAST} is"
        f" drawn there."
        if told
        else ""
    )
    return f"PSNR of the mean's magnitude (data range: the volume's maximum), over all slices and by group.{more}", path


def _examples(report: xr.Dataset, truth: xr.Dataset) -> list[str]:
    """Slices of median PSNR of the first student (else contender), one of every group, the hardest groups first."""
    chosen = _contenders(report)
    models = list(report["model"].values)
    students = [n for n in chosen if str(report["role"].sel(model=n).values) == "student"]
    score = report["slice_psnr"].isel(model=models.index((students or chosen)[0]))
    kept = truth.sel(slice=report["slice"].values)
    if {"acceleration", "coils"} <= set(kept.variables):
        pairs = list(zip(np.round(kept["acceleration"].values), -kept["coils"].values, strict=True))
    else:
        pairs = [(0.0, 0)] * len(score)
    order = sorted(set(pairs), reverse=True)
    if len(order) == 1:
        sorts = np.argsort(score.values)
        places = np.unique(np.linspace(0, len(sorts) - 1, SHOWN + 2).round().astype(int)[1:-1])
        return [str(report["slice"].values[sorts[p]]) for p in places]
    out = []
    for pair in [order[i] for i in np.unique(np.linspace(0, len(order) - 1, SHOWN).round().astype(int))]:
        own = np.array([i for i, p in enumerate(pairs) if p == pair])
        out.append(str(report["slice"].values[own[np.argsort(score.values[own])[len(own) // 2]]]))
    return out


def _contenders(report: xr.Dataset) -> list[str]:
    """The converged teacher, students, the best others: as many as have room; zero-filled has its own place."""
    teacher = reference(report, "teacher")

    def place(name: str) -> tuple[int, float]:
        role = str(report["role"].sel(model=name).values)
        rank = 0 if name == teacher else {"student": 1, "teacher": 3}.get(role, 2)
        return rank, -float(report["psnr"].sel(model=name, group=ALL)) if rank == 2 else 0.0

    names = sorted(map(str, report["model"].values), key=place)
    return [n for n in names if n != "zero-filled"][:ROWS] or names[:ROWS]


def _members(ds: xr.Dataset) -> np.ndarray:
    """Complex members (member, y, x) of a slice."""
    image = np.asarray(ds["image_re"].values) + 1j * np.asarray(ds["image_im"].values)
    return image.reshape(-1, *image.shape[-2:])


def _magnitude(ds: xr.Dataset) -> np.ndarray:
    """|image|, of the members' mean."""
    return np.abs(_members(ds).mean(0))


def _image(ax: Axes, values: np.ndarray, title: str, scale: Mapping[str, Any]) -> Any:
    """One image, its first row at the top."""
    shown = ax.imshow(values, origin="upper", **scale)
    ax.set_title(title, fontweight="normal", fontsize=8)
    return shown


def _looks(report: xr.Dataset) -> dict[str, style.Look]:
    """Looks of the contenders by their roles."""
    return style.looks(dict(zip(map(str, report["model"].values), map(str, report["role"].values), strict=True)))


def _marks(report: xr.Dataset) -> dict[str, str]:
    """Markers that tell contenders of one role apart."""
    seen: dict[str, int] = {}
    out = {}
    for name, role in zip(map(str, report["model"].values), map(str, report["role"].values), strict=True):
        out[name] = "osD^vP"[seen.get(role, 0) % 6]
        seen[role] = seen.get(role, 0) + 1
    return out
