"""Pictures of generated microstructures beside held-out ones: blocks and slices, S₂ curves, target against achieved."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from scigen.materials.preview import colors_of, isometric, slices
from scigen.materials.statistics import phase_names
from scigen.metrics.report import reference
from scigen.plots import style

SHOWN = 3
"""Specimens on the page of blocks."""


def figures(
    report: xr.Dataset, truth: xr.Dataset, samples: Mapping[str, xr.Dataset], folder: Path
) -> list[tuple[str, Path]]:
    """Draw all pictures of a report: (caption, path) of each.

    Args:
        report: of `evaluate` on the same truth and samples.
        truth: phase (specimen, z, y, x).
        samples: by name, phase (specimen, member, z, y, x).
        folder: where the PNG files go.
    """
    return [
        volumes(report, truth, samples, folder / "volumes.png"),
        curves(report, folder / "two_point.png"),
        transport(report, folder / "transport.png"),
    ]


def volumes(
    report: xr.Dataset, truth: xr.Dataset, samples: Mapping[str, xr.Dataset], path: Path
) -> tuple[str, Path]:  # fmt: skip
    """Blocks and middle slices: a column a specimen, rows for the held-out one and the first member of contenders."""
    common = truth["specimen"].values
    for ds in samples.values():
        common = common[np.isin(common, ds["specimen"].values)]
    keys = common[np.unique(np.linspace(0, len(common) - 1, SHOWN).astype(int))]
    chosen = ["truth", *_contenders(report)]
    names, colors = phase_names(truth), colors_of(len(phase_names(truth)))
    unit = str(truth.attrs.get("voxel_unit", "voxel"))
    step = [float(v) for v in np.atleast_1d(truth.attrs.get("voxel_size", [1.0] * 3))]
    with style.canvas(4.3 * len(keys) + 0.6, 1.9 * len(chosen) + 0.6) as figure:
        axes = figure.subplots(len(chosen), 2 * len(keys), squeeze=False, width_ratios=[1.25, 1] * len(keys))
        for i, name in enumerate(chosen):
            for j, key in enumerate(keys):
                ds = truth if name == "truth" else samples[name]
                labels = ds["phase"].sel(specimen=key)
                labels = labels.isel(member=0) if "member" in labels.dims else labels
                values = np.asarray(labels.values).astype(np.uint8)
                isometric(axes[i, 2 * j], values, colors, step, unit)
                ax = axes[i, 2 * j + 1]
                slices([ax], values, colors, step, unit)
                ax.set_title("")
                if i == 0:
                    share = ", ".join(f"{n} {float((values == p).mean()):.2f}" for p, n in enumerate(names))
                    axes[0, 2 * j].set_title(share, fontsize=9)
            axes[i, 0].text(
                -0.16, 0.5, name, rotation=90, transform=axes[i, 0].transAxes, ha="right", va="center",
                fontweight="bold", fontsize=9,
            )  # fmt: skip
        style.save(figure, path)
    return (
        "Held-out specimens and the first member that each contender makes under the same conditions"
        f" ({', '.join(names)}; block and middle slice across z).",
        path,
    )


def curves(report: xr.Dataset, path: Path) -> tuple[str, Path]:
    """Radial S₂ of every phase beside the held-out band, and along the axes."""
    phases = [str(p) for p in report["phase"].values]
    shown = phases if len(phases) > 2 else phases[:1]
    looks = style.looks(dict(zip(report["model"].values, report["role"].values, strict=True)))
    lags = np.arange(report.sizes["lag"])
    with style.canvas(10.0, 2.9 * len(shown) + 0.5) as figure:
        axes = figure.subplots(len(shown), 3, squeeze=False)
        for row, phase in zip(axes, shown, strict=True):
            one = report.sel(phase=phase)
            row[0].fill_between(lags, one["band_low"], one["band_high"], color="#1a1a1a", alpha=0.15, lw=0)
            row[0].plot(lags, one["two_point_radial_truth"], color="#1a1a1a", label="held-out")
            for ax, axis in zip(row[1:], ("z", "x"), strict=True):
                ax.plot(lags, one["two_point_truth"].sel(axis=axis), color="#1a1a1a")
                ax.set_title(f"S₂ of {phase} along {axis}")
            for model, look in looks.items():
                mine = one.sel(model=model)
                row[0].plot(lags, mine["two_point_radial"], color=look.color, ls=look.dash, lw=1.2, label=str(model))
                for ax, axis in zip(row[1:], ("z", "x"), strict=True):
                    ax.plot(lags, mine["two_point"].sel(axis=axis), color=look.color, ls=look.dash, lw=1.2)
            row[0].set_title(f"S₂ of {phase}, all directions")
            for ax in row:
                ax.set_xlabel("lag [voxels]")
        handles, texts = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper left", ncols=4)
        style.save(figure, path)
    return (
        "Two-point probability: mean over specimens and members; the band is the 95 % interval of the held-out mean"
        " under resampling of specimens.",
        path,
    )


def transport(report: xr.Dataset, path: Path) -> tuple[str, Path]:
    """Target against achieved diffusivity, a panel a contender: every specimen, with the spread of its members."""
    models = [*_contenders(report)]
    rows, columns = style.grid_shape(len(models), 3)
    looks = style.looks(dict(zip(report["model"].values, report["role"].values, strict=True)))
    conductors = [str(c) for c in report["conductor"].values]
    with style.canvas(3.3 * columns, 3.1 * rows) as figure:
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax in axes.flat[len(models) :]:
            ax.set_visible(False)
        top = float(max(report["diffusivity_target"].max(), report["diffusivity"].max())) * 1.05 + 1e-3
        for ax, model in zip(axes.flat, models, strict=False):
            one = report.sel(model=model)
            ax.plot([0, top], [0, top], color="#999999", lw=0.8)
            for k, axis in enumerate("zyx"):
                target = one["diffusivity_target"].isel(axis=k).values.ravel()
                got, spread = (one[n].isel(axis=k).values.ravel() for n in ("diffusivity", "diffusivity_spread"))
                ax.errorbar(
                    target, got, spread, fmt="os^"[k], ms=3, lw=0.6, color=looks[model].color, alpha=0.7, label=axis
                )  # fmt: skip
            ax.set(xlim=(0, top), ylim=(0, top), xlabel="target", ylabel="achieved")
            ax.set_title(f"{model}: R² {float(one['diffusivity_r2']):.3f}")
        axes[0, 0].legend(title="axis")
        style.save(figure, path)
    return (
        f"Effective diffusivity of {', '.join(conductors)} over that of free space, by a solver on the output: target"
        " against the mean of the members; bars are the members' standard deviation.",
        path,
    )


def _contenders(report: xr.Dataset) -> list[str]:
    """The converged teacher, the students, the baseline."""
    teacher = reference(report, "teacher")
    roles = dict(zip(map(str, report["model"].values), map(str, report["role"].values), strict=True))
    chosen = [teacher] if teacher else []
    chosen += [m for m, r in roles.items() if r == "student"]
    chosen += [m for m, r in roles.items() if r not in ("student", "teacher")]
    return chosen or list(roles)
