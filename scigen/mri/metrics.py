"""Judging reconstructions: fidelity, calibration and data consistency of ensembles, one slice in memory at a time."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.metrics import ensemble
from scigen.metrics.bootstrap import ratio_interval
from scigen.metrics.report import plain, plain_interval, reference
from scigen.mri import quality
from scigen.mri.fourier import fft2c

log = logging.getLogger(__name__)

OBJECT = 0.05
"""The object: pixels brighter than this share of the volume's maximum."""
LEVELS = (0.5, 0.9)
"""Coverage levels asked for; the nearest ones that M members give are reported."""
SPREADS = np.geomspace(1e-4, 1.0, 41)
"""Edges of the bins of spread, shares of the volume's maximum."""
ALL = "all"
"""The group of all slices."""
BUDGET = 2**21
"""Complex numbers of k-space that are made at once."""


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
    groups, top = _groups(truth), _maxima(truth)
    stats = {}
    for name, ds in paired.items():
        log.info("judging %s: %d slices × %d members", name, ds.sizes["slice"], ds.sizes["member"])
        stats[name] = _statistics(truth, ds, top, name, seed)
    subjects = truth["subject"].values
    rows = []
    for s in stats.values():
        scores = [_scores(s.isel(slice=index), subjects[index]) for index in groups.values()]
        rows.append(xr.concat(scores, xr.Variable("group", np.array(list(groups)))))
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
        report[f"slice_{key}"] = (("model", "slice"), np.stack([_by_slice(s, key) for s in stats.values()]))
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


def _complex(ds: xr.Dataset, name: str) -> np.ndarray:
    """Image of one slice, members first if it has them."""
    ds = ds[["image_re", "image_im"]].transpose(..., "y", "x")
    image = np.asarray(ds["image_re"].values, np.float32) + 1j * np.asarray(ds["image_im"].values, np.float32)
    if not np.isfinite(image).all():
        bad = int((~np.isfinite(image)).sum())
        raise UserError(f"{name} has NaN or infinite pixels in {bad} places of slice {ds['slice'].item()}.")
    return image


def _maxima(truth: xr.Dataset) -> np.ndarray:
    """The largest magnitude of every slice's volume, (slice,)."""
    each = np.array([np.abs(_complex(truth.isel(slice=i), "truth")).max() for i in range(truth.sizes["slice"])])
    subjects = truth["subject"].values
    tops = {s: float(each[subjects == s].max()) for s in set(subjects)}
    if blank := sorted(str(s) for s, v in tops.items() if not v > 0):
        raise UserError(f"The truth of {', '.join(blank)} is zero everywhere: leave it out.")
    return np.array([tops[s] for s in subjects])


def _statistics(truth: xr.Dataset, ds: xr.Dataset, top: np.ndarray, name: str, seed: int) -> xr.Dataset:
    """Sums and scores of every slice of a contender, (slice, …), of which all others are made."""
    rng = np.random.default_rng(seed)
    measured = {"kspace", "mask", "sens_maps"} <= set(truth.data_vars)
    rows: dict[str, list[Any]] = {}
    for i in range(truth.sizes["slice"]):
        one, own = truth.isel(slice=i), ds.isel(slice=i)
        target, members = _complex(one, "truth") / top[i], _complex(own, name) / top[i]
        row = _fidelity(np.abs(target), members) | _calibration(np.abs(target), np.abs(members), rng)
        row["distinct"] = len({m.tobytes() for m in members})
        if measured:
            row |= _consistency(one, members * top[i]) | _frequencies(one["mask"].values, target, members)
        for key, value in row.items():
            rows.setdefault(key, []).append(value)
    dims = {
        "member_error": "member", "chi": "member", "relative": "member", "ranks": "rank",
        "spread_count": "spread_bin", "spread_binned": "spread_bin", "error_binned": "spread_bin",
    }  # fmt: skip
    out = xr.Dataset({k: (("slice", dims[k]) if k in dims else "slice", np.array(v)) for k, v in rows.items()})
    out.attrs = {"members": ds.sizes["member"]}
    return out


def _fidelity(target: np.ndarray, members: np.ndarray) -> dict[str, Any]:
    """Of the mean's magnitude and of single members; data range 1 is the volume's maximum, `own` the slice's."""
    mean = np.abs(members.mean(0))
    own = float(target.max())
    return {
        "own": own,
        "mean_error": float(((mean - target).astype(np.float64) ** 2).mean()),
        "member_error": ((np.abs(members) - target).astype(np.float64) ** 2).mean((1, 2)),
        "power": float((target.astype(np.float64) ** 2).mean()),
        "ssim": quality.ssim(target, mean, 1.0),
        "ssim_own": quality.ssim(target, mean, own),
    }


def _calibration(target: np.ndarray, members: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """Sums over the object's pixels of what magnitudes of an ensemble are judged by."""
    inside = target > OBJECT
    count = len(members)
    crps = ensemble.fair_crps(members, target)
    members, target = members[:, inside].astype(np.float64), target[inside].astype(np.float64)
    error = np.abs(members.mean(0) - target)
    variance = members.var(0, ddof=1) if count > 1 else np.zeros_like(error)
    spread = np.sqrt(variance)
    place = np.clip(np.digitize(spread, SPREADS) - 1, 0, len(SPREADS) - 2)
    bins = len(SPREADS) - 1
    return {
        "crps_everywhere": float(crps.mean()),
        "pixels": int(inside.sum()),
        "crps": float(crps[inside].sum()),
        "squared_error": float((error**2).sum()),
        "variance": float(variance.sum()),
        "ranks": np.bincount(ensemble.ranks(members, target, rng), minlength=count + 1),
        "sum_spread": float(spread.sum()),
        "sum_error": float(error.sum()),
        "product": float((spread * error).sum()),
        "spread_count": np.bincount(place, minlength=bins),
        "spread_binned": np.bincount(place, variance, bins),
        "error_binned": np.bincount(place, error**2, bins),
    }


def _consistency(scan: xr.Dataset, members: np.ndarray) -> dict[str, Any]:
    """χ² and relative residual of every member of a slice."""
    maps, mask, kspace = (np.asarray(scan[n].values) for n in ("sens_maps", "mask", "kspace"))
    live = np.abs(maps).max((1, 2)) > 0
    maps, kspace = maps[live], kspace[live][:, mask]
    squared = np.empty(len(members))
    step = max(1, BUDGET // max(maps.size, 1))
    for low in range(0, len(members), step):
        made = fft2c(maps * members[low : low + step, None])[..., mask]
        squared[low : low + step] = (np.abs(made - kspace).astype(np.float64) ** 2).sum((1, 2))
    power = float((np.abs(kspace).astype(np.float64) ** 2).sum())
    sigma = float(scan["noise_std"].values) if "noise_std" in scan.variables else math.nan
    known = sigma > 0 and kspace.size > 0
    return {
        "chi": squared / (2 * sigma**2 * kspace.size) if known else np.full(len(members), np.nan),
        "relative": np.sqrt(squared / power) if power > 0 else np.full(len(members), np.nan),
        "numbers": 2 * kspace.size,
    }


def _frequencies(mask: np.ndarray, target: np.ndarray, members: np.ndarray) -> dict[str, float]:
    """Sums over coefficients of k-space, sampled and not, of spread among members and error of their mean, squared."""
    mean = members.mean(0)
    error = np.abs(fft2c(mean - target)).astype(np.float64) ** 2
    spread = np.zeros_like(error)
    if len(members) > 1:
        for one in members:
            spread += np.abs(fft2c(one - mean)).astype(np.float64) ** 2 / (len(members) - 1)
    out: dict[str, float] = {}
    for key, where in (("sampled", mask), ("unsampled", ~mask)):
        out |= {f"count_{key}": float(where.sum()), f"spread_{key}": float(spread[where].sum())}
        out[f"error_{key}"] = float(error[where].sum())
    return out


def _by_slice(stats: xr.Dataset, key: str) -> np.ndarray:
    """A score of every slice: PSNR with the volume's maximum, or the members' mean χ² or residual."""
    if key == "psnr":
        return quality.decibels(stats["mean_error"], 1.0)
    name = {"chi_square": "chi", "residual": "relative"}[key]
    return stats[name].mean("member").values if name in stats else np.full(stats.sizes["slice"], np.nan)


def _sums(values: xr.DataArray, subjects: np.ndarray) -> np.ndarray:
    """Sums over the slices of every subject, (subject, …), in the order of first appearance."""
    each = values.transpose("slice", ...).values
    return np.stack([each[subjects == s].sum(0) for s in dict.fromkeys(subjects)])


def _volumes(values: xr.DataArray, subjects: np.ndarray) -> np.ndarray:
    """Means over the slices of every subject, likewise."""
    return _sums(values, subjects) / _sums(xr.ones_like(values), subjects)


def _scores(stats: xr.Dataset, subjects: np.ndarray) -> xr.Dataset:
    """Scores of some slices of one contender from their statistics."""
    members = stats.attrs["members"]
    total = stats.sum("slice")
    out = xr.Dataset()
    error = _volumes(stats["mean_error"], subjects)
    out["psnr"] = float(quality.decibels(error, 1.0).mean())
    out["psnr_member"] = float(quality.decibels(_volumes(stats["member_error"], subjects), 1.0).mean())
    out["ssim"] = float(_volumes(stats["ssim"], subjects).mean())
    out["nmse"] = float((error / _volumes(stats["power"], subjects)).mean())
    shown = stats.isel(slice=stats["own"].values > 0)  # a blank slice has no quality of its own
    out["psnr_slice"] = float(quality.decibels(shown["mean_error"], shown["own"]).mean())
    out["ssim_slice"] = float(shown["ssim_own"].mean())
    out["nmse_slice"] = float((shown["mean_error"] / shown["power"]).mean())
    out["crps_everywhere"] = float(stats["crps_everywhere"].mean())
    pixels = max(int(total["pixels"]), 1)
    out["crps"], out["rmse"] = float(total["crps"]) / pixels, math.sqrt(float(total["squared_error"]) / pixels)
    ranks = total["ranks"].values
    out["rank_histogram"] = ("rank", ranks / max(ranks.sum(), 1))
    several = members > 1 and ranks.sum() > 0
    hits = [ensemble.coverage(ranks, level) if several else (math.nan, math.nan) for level in LEVELS]
    out["coverage"], out["coverage_nominal"] = (("level", np.array(v, float)) for v in zip(*hits, strict=True))
    out["rank_deviation"] = float(ensemble.rank_deviation(ranks)) if several else math.nan
    out["spread"] = math.sqrt(float(total["variance"]) / pixels) if several else math.nan
    out["spread_skill"] = float(ensemble.spread_skill(total["variance"], total["squared_error"], members))
    out["correlation"] = _correlation(total, pixels) if several else math.nan
    count = total["spread_count"]
    out["spread_count"] = count if several else 0 * count
    for key in ("spread_binned", "error_binned"):
        out[key] = np.sqrt((total[key] / count).where(out["spread_count"] > 0))
    for key in ("sampled", "unsampled"):
        for kind in ("spread", "error"):
            said = f"count_{key}" in total and float(total[f"count_{key}"]) > 0 and (several or kind == "error")
            value = float(total[f"{kind}_{key}"] / total[f"count_{key}"]) if said else math.nan
            out[f"{kind}_{key}"] = math.sqrt(value)
    for key in ("chi_square", "worst_chi", "within", "residual"):
        out[key] = math.nan
    if "chi" in stats:
        known = stats.isel(slice=np.isfinite(stats["chi"].values).all(1))
        if known.sizes["slice"]:
            off = np.abs(known["chi"] - 1) * np.sqrt(known["numbers"]) / 4
            out["chi_square"], out["worst_chi"] = float(known["chi"].mean()), float(off.max())
            out["within"] = float((off <= 1).mean())
        out["residual"] = float(stats["relative"].mean())
    return out.assign_coords(rank=np.arange(members + 1))


def _correlation(total: xr.Dataset, pixels: int) -> float:
    """Pearson's, of spread and |error| over pixels, from sums."""
    s, e = float(total["sum_spread"]) / pixels, float(total["sum_error"]) / pixels
    variances = (float(total["variance"]) / pixels - s**2) * (float(total["squared_error"]) / pixels - e**2)
    return (float(total["product"]) / pixels - s * e) / math.sqrt(variances) if variances > 1e-24 else math.nan


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
                a, b = (quality.decibels(_volumes(s["mean_error"], who), 1.0) for s in (mine, theirs))
                apart = np.subtract(a, b, out=np.zeros_like(a), where=a != b)  # two perfect answers do not differ
                if np.isfinite(apart).all():
                    values["psnr_difference"][i, j] = ratio_interval(apart, np.ones_like(apart), seed=seed)
                else:
                    values["psnr_difference"][i, j, 0] = apart.mean()
                values["crps_ratio"][i, j] = ratio_interval(*(_sums(s["crps"], who) for s in (mine, theirs)), seed=seed)
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
            row["rank_histogram"] = plain(one["rank_histogram"][: int(one["members"]) + 1])
            out[model][group] = row
    return out
