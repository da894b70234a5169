"""The judgement of microstructures in words and rows: what a volume must have, one row a contender, and a verdict."""

import math

import numpy as np
import xarray as xr

from scigen.metrics.report import reference
from scigen.plots.style import labelled
from scigen.plots.table import NOTHING, Cell, Column, Table, interval, number, text


def tables(report: xr.Dataset) -> list[Table]:
    """Structure and transport of every contender; then distances between distributions.

    Args:
        report: of `evaluate`.
    """
    return [_main(report), _distances(report)]


def verdict(report: xr.Dataset) -> str:
    """Each student against the teacher and the held-out specimens, in a sentence."""
    teacher = reference(report, "teacher")
    students = [str(m) for m, r in zip(report["model"].values, report["role"].values, strict=True) if r == "student"]
    return "\n".join(_sentence(report, m, teacher) for m in students)


def _main(report: xr.Dataset) -> Table:
    """The main table."""
    triple = bool(np.isfinite(report["triple_line_ratio"]).any())
    told = " ".join(map(str, report["conductor"].values))
    several = "of the phase where it is worst"
    line = [Column("triple line", "length of triple lines over the held-out's, with a 95 % interval; 1")]
    columns = [
        Column("contender", numeric=False),
        Column("calls", "network calls a member (NFE)"),
        Column("φ error", f"mean |φ − target| of the raw output, {several} [percentage points]; 0"),
        Column(
            "S₂ error",
            f"mean over lags and axes of |S₂ − the held-out's| over φ(1−φ), {several}; beside it what as many real"
            " specimens differ by through chance alone",
        ),
        Column("surface", f"specific surface over the held-out's, {several}, with a 95 % interval; 1"),
        *(line if triple else []),
        Column("D_eff R²", f"achieved against target effective diffusivity of {told} along z, y, x, by a solver; 1"),
        Column("D_eff rmse", "root-mean-square distance from the target [D₀]; 0", minor=True),
        Column("diversity", "variance of S₂ among members of a condition over the teacher's, with a 95 % interval; 1"),
        Column("structure", "the same of (S₂ − φ²)/φ(1−φ), which scatter of φ does not move; 1"),
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    for model in map(str, report["model"].values):
        one = report.sel(model=model)
        surface = one["surface_ratio"]
        worst = _farthest(surface.sel(interval="estimate").values)
        error = int(np.argmax(one["two_point_error"].values))
        nfe = float(one["nfe"])
        rows.append(
            [
                text(model),
                text(f"{nfe:g}" if nfe > 0 else NOTHING),
                number(100 * float(one["fraction_error"].max()), 2),
                (_percent(one["two_point_error"][error]), f"chance {_percent(one['two_point_floor'][error])}"),
                interval(surface.isel(phase=worst).values),
                *([interval(one["triple_line_ratio"].values)] if triple else []),
                number(float(one["diffusivity_r2"]), 3),
                number(float(one["diffusivity_rmse"]), 2),
                interval(one["diversity_ratio"].values, 2),
                interval(one["structure_ratio"].values, 2),
            ]
        )
    cut = any(str(r) == "baseline" for r in report["role"].values)
    base = float(report["diffusivity_r2_fraction"].max())
    notes = [
        f"Volume fraction alone explains R² {base:.3f} of the diffusivity (a cubic fitted to these very targets).",
        f"Diversity: {float(report['freedom'].max()):g} degrees of freedom. Surface by Crofton's formula.",
        *(["The Gaussian level cut is told each held-out specimen's own S₂ map; the others are not."] if cut else []),
    ]
    return Table(f"{report.attrs['samples']} held-out specimens", columns, rows, notes)


def _distances(report: xr.Dataset) -> Table:
    """Distances between distributions, and the process parameters."""
    names = {
        "surface": "surface", "mean_chord": "mean chord", "euler": "Euler", "connected": "connected",
        "effective_diffusivity": "D_eff", "triple_line": "triple line",
    }  # fmt: skip
    keep = [
        d for d in map(str, report["descriptor"].values) if np.isfinite(report["wasserstein"].sel(descriptor=d)).any()
    ]
    hint = "Wasserstein-1 distance from the held-out specimens' distribution, over its standard deviation; 0"
    columns = [Column("contender", numeric=False), *(Column(names[d], hint) for d in keep)]
    parameters = list(map(str, report["parameter"].values)) if "parameter" in report.coords else []
    columns += [
        Column(p.replace("_", " "), f"rms distance of ln {p} as read off the volumes from the held-out specimen's")
        for p in parameters
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    for model in map(str, report["model"].values):
        one = report.sel(model=model)
        row = [text(model), *(number(float(one["wasserstein"].sel(descriptor=d)), 2) for d in keep)]
        rows.append(row + [number(float(one["process_rmse"].sel(parameter=p)), 2) for p in parameters])
    notes = []
    if parameters:
        own = ", ".join(
            f"{p.replace('_', ' ')} {float(report['process_error'].sel(parameter=p)):.2f}" for p in parameters
        )  # fmt: skip
        notes.append(f"Parameters of real held-out specimens are read off with rms errors of ln: {own}.")
    return Table("Distances of distributions, and process parameters", columns, rows, notes)


def _farthest(ratio: np.ndarray) -> int:
    """Which ratio is farthest from 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return int(np.argmax(np.nan_to_num(np.abs(np.log(ratio)), nan=-1.0)))


def _percent(value: xr.DataArray | float) -> str:
    """A share as percent."""
    v = 100 * float(value)
    return NOTHING if math.isnan(v) else f"{v:.1f} %"


def _sentence(report: xr.Dataset, model: str, teacher: str | None) -> str:
    """One student."""
    one = report.sel(model=model)
    surface = one["surface_ratio"].sel(interval="estimate").values
    worst = surface[_farthest(surface)]
    parts = [
        f"raw fractions off by {100 * float(one['fraction_error'].max()):.2f} points",
        f"S₂ by {_percent(one['two_point_error'].max())} of φ(1−φ)",
        f"surface {worst:.2f} × the held-out's",
    ]
    if np.isfinite(one["triple_line_ratio"]).any():
        parts.append(f"triple lines {float(one['triple_line_ratio'].sel(interval='estimate')):.2f} ×")
    r2 = float(one["diffusivity_r2"])
    if teacher and math.isfinite(r2):
        parts.append(f"diffusivity R² {r2:.3f}, the teacher's {float(report['diffusivity_r2'].sel(model=teacher)):.3f}")
        ratio, pure = (float(one[k].sel(interval="estimate")) for k in ("diversity_ratio", "structure_ratio"))
        if math.isfinite(ratio):
            parts.append(f"diversity {ratio:.2f} × the teacher's, of the structure alone {pure:.2f} ×")
    name = labelled([model], [float(one["nfe"])])[model]
    return f"{name}: " + ", ".join(parts) + "."
