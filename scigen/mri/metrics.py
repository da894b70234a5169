"""Judging reconstructions: fidelity, calibration and data consistency of ensembles, one slice in memory at a time."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.metrics.bootstrap import ratio_interval
from scigen.metrics.report import plain, plain_interval, reference
from scigen.mri import quality
from scigen.mri.scores import LEVELS, by_slice, scores, sums, volumes
from scigen.mri.statistics import SPREADS, maxima, statistics

log = logging.getLogger(__name__)

ALL = "all"
"""The group of all slices."""


def evaluate(truth: xr.Dataset, samples: Mapping[str, xr.Dataset], *, seed: int = 0) -> xr.Dataset:
    """Judge contenders side by side on the slices that all have.

    Magnitudes are in units of the maximum of the subject's true volume, so that scans of any scale weigh alike. A
    volume is a subject's slices, in a group those of them that the group has. Intervals are 95 %, of subjects
    resampled.

    Args:
        truth: image_re, image_im (slice, y, x), the coordinate subject, and, for the data's consistency, kspace (slice,
            coil, ky, kx), mask (slice, ky, kx), sens_maps (slice, coil, y, x), noise_std (slice); for groups,
            acceleration and coils (slice).
        samples: by name, image_re and image_im (slice, member, y, x); attrs may hold `scigen_nfe` (network calls a
            member) and `scigen_role` (teacher, student, baseline). They may be lazy and larger than memory.
        seed: of bootstrap and rank ties.

    Returns:
        By model and group ("all", and acceleration × coils where there are several). Fidelity of |mean of members|:
        psnr, ssim, nmse (mean over volumes), psnr_slice, ssim_slice, nmse_slice (mean over slices, each with its own
        maximum); psnr_member (of single members, by volume), psnr_difference (interval: volume by volume, less the
        teacher's) [dB]. Calibration of magnitudes over the object: crps (fair), crps_ratio (interval, over the
        teacher's), rmse, spread, spread_skill (corrected), coverage (level) with coverage_nominal, rank_histogram
        (shares, rank), rank_deviation, correlation (of spread and |error|, pixels), spread_count, spread_binned and
        error_binned (spread_bin: rms); crps_everywhere, over all pixels. In k-space: spread_sampled,
        spread_unsampled, error_sampled, error_unsampled (rms over coefficients, of members about their mean and of the
        mean about the truth). Consistency: chi_square (‖A x − y‖²/(2σ²N) of members, N measured complex numbers: 1),
        worst_chi (largest |χ² − 1| of a member, in units of 4/√(2N)), within (share of members within one unit),
        residual (‖A x − y‖/‖y‖). By model and slice: slice_psnr (with the volume's maximum), slice_chi_square,
        slice_residual.
        What cannot be said is NaN. Coordinates of model: nfe, role, members, distinct (members of the slice that has
        the fewest different ones). attrs: samples (slices), subjects.

    Raises:
        UserError: if the archives do not fit together, or a value is not finite.
    """
    truth, paired = _paired(truth, samples)
    groups, top = _groups(truth), maxima(truth)
    stats = {}
    for name, ds in paired.items():
        log.info("judging %s: %d slices × %d members", name, ds.sizes["slice"], ds.sizes["member"])
        stats[name] = statistics(truth, ds, top, name, seed)
    subjects = truth["subject"].values
    rows = []
    for s in stats.values():
        parts = [scores(s.isel(slice=index), subjects[index]) for index in groups.values()]
        rows.append(xr.concat(parts, xr.Variable("group", np.array(list(groups)))))
    report = xr.concat(rows, xr.Variable("model", np.array(list(stats))), join="outer")
    report = report.assign_coords(
        interval=["estimate", "low", "high"],
        level=list(LEVELS),
        spread_bin=np.sqrt(SPREADS[1:] * SPREADS[:-1]),
        slices=("group", [len(index) for index in groups.values()]),
        nfe=("model", [float(samples[m].attrs.get("scigen_nfe", math.nan)) for m in stats]),
        role=("model", np.array([str(samples[m].attrs.get("scigen_role", m)) for m in stats])),
        members=("model", [s.attrs["members"] for s in stats.values()]),
        distinct=("model", [int(s["distinct"].min()) for s in stats.values()]),
    )
    for key, value in _against_teacher(report, stats, groups, subjects, seed).items():
        report[key] = value
    report = report.assign_coords(slice=[str(s) for s in truth["slice"].values])
    for key in ("psnr", "chi_square", "residual"):
        report[f"slice_{key}"] = (("model", "slice"), np.stack([by_slice(s, key) for s in stats.values()]))
    report.attrs = {"samples": truth.sizes["slice"], "subjects": len(set(subjects))}
    return report


def _paired(truth: xr.Dataset, samples: Mapping[str, xr.Dataset]) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
    """The slices that all have, in the truth's order; truth with a subject, samples with members."""
    if not samples:
        raise UserError("There are no samples to judge.")
    for name, ds in {"truth": truth, **samples}.items():
        if missing := {"image_re", "image_im"} - set(ds.data_vars):
            raise UserError(f"{name} has no variable {', '.join(sorted(missing))}: it has {list(ds.data_vars)}.")
        if "slice" not in ds.coords or not ds.indexes["slice"].is_unique:
            raise UserError(f"{name} needs a coordinate slice of different names.")
        sizes = [tuple(d.sizes[k] for k in ("y", "x")) for d in (ds, truth)]
        if sizes[0] != sizes[1]:
            raise UserError(f"{name} has images of {sizes[0]} pixels, the truth of {sizes[1]}.")
    keys = truth["slice"].values
    for ds in samples.values():
        keys = keys[np.isin(keys, ds["slice"].values)]
    if not len(keys):
        raise UserError("Truth and samples share no slice: judge samples of the scans that the truth answers.")
    truth = truth.sel(slice=keys)
    if "subject" not in truth.coords:
        truth = truth.assign_coords(subject=("slice", [str(k).rsplit("/", 1)[0] for k in keys]))
    chosen = {n: ds.sel(slice=keys) for n, ds in samples.items()}
    return truth, {n: ds if "member" in ds.dims else ds.expand_dims("member", 1) for n, ds in chosen.items()}


def _groups(truth: xr.Dataset) -> dict[str, np.ndarray]:
    """Positions of the slices of every group: all, and each acceleration × number of coils."""
    count = truth.sizes["slice"]
    out = {ALL: np.arange(count)}
    if not {"acceleration", "coils"} <= set(truth.variables):
        return out
    pairs = list(zip(np.round(truth["acceleration"].values.astype(float)), truth["coils"].values, strict=True))
    different = sorted(set(pairs))
    if len(different) > 1:
        for pair in different:
            name = f"{pair[0]:g}×, {pair[1]:g} coil{'s' if pair[1] != 1 else ''}"
            out[name] = np.array([i for i, p in enumerate(pairs) if p == pair])
    return out


def _against_teacher(
    report: xr.Dataset, stats: Mapping[str, xr.Dataset], groups: Mapping[str, np.ndarray], subjects: np.ndarray,
    seed: int,
) -> dict[str, xr.DataArray]:  # fmt: skip
    """psnr_difference and crps_ratio to the teacher with most calls, (model, group, interval); subjects resampled."""
    teacher = reference(report, "teacher")
    values = {k: np.full((len(stats), len(groups), 3), np.nan) for k in ("psnr_difference", "crps_ratio")}
    if teacher is not None:
        for i, own in enumerate(stats.values()):
            for j, index in enumerate(groups.values()):
                mine, theirs, who = own.isel(slice=index), stats[teacher].isel(slice=index), subjects[index]
                a, b = (quality.decibels(volumes(s["mean_error"], who), 1.0) for s in (mine, theirs))
                apart = np.subtract(a, b, out=np.zeros_like(a), where=a != b)  # two perfect answers do not differ
                if np.isfinite(apart).all():
                    values["psnr_difference"][i, j] = ratio_interval(apart, np.ones_like(apart), seed=seed)
                else:
                    values["psnr_difference"][i, j, 0] = apart.mean()
                values["crps_ratio"][i, j] = ratio_interval(*(sums(s["crps"], who) for s in (mine, theirs)), seed=seed)
    return {k: xr.DataArray(v, dims=("model", "group", "interval")) for k, v in values.items()}


def to_json(report: xr.Dataset) -> dict[str, Any]:
    """The report as JSON types: model → group → numbers; what is not finite becomes null."""
    out: dict[str, Any] = {}
    numbers = [
        "psnr", "psnr_member", "psnr_slice", "ssim", "ssim_slice", "nmse", "nmse_slice", "crps", "crps_everywhere",
        "rmse", "spread", "spread_skill", "rank_deviation", "correlation", "spread_sampled", "spread_unsampled",
        "error_sampled", "error_unsampled", "chi_square", "worst_chi", "within", "residual",
    ]  # fmt: skip
    for model in map(str, report["model"].values):
        own = report.sel(model=model)
        out[model] = {}
        for group in map(str, report["group"].values):
            one = own.sel(group=group)
            row: dict[str, Any] = {
                "nfe": plain(one["nfe"]), "members": int(one["members"]), "distinct": int(one["distinct"]),
                "role": str(one["role"].values), "samples": int(one["slices"]),
            }  # fmt: skip
            row |= {key: plain(one[key]) for key in numbers}
            row |= {key: plain_interval(one[key]) for key in ("psnr_difference", "crps_ratio")}
            row["coverage"] = {
                f"{level:g}": {
                    k: plain(one[n].sel(level=level))
                    for k, n in (("nominal", "coverage_nominal"), ("observed", "coverage"))
                }
                for level in one["level"].values
            }
            if "held_ratio" in one and group == ALL:
                row["held_out"] = {"ratio": plain_interval(one["held_ratio"]), "residual": plain(one["held_residual"])}
            row["rank_histogram"] = plain(one["rank_histogram"][: int(one["members"]) + 1])
            out[model][group] = row
    return out
