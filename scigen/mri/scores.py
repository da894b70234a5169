"""Scores of some slices of a contender from what is kept of each, see `scigen.mri.statistics`."""

import math

import numpy as np
import xarray as xr

from scigen.metrics import ensemble
from scigen.mri import quality

LEVELS = (0.5, 0.9)
"""Coverage levels asked for; the nearest ones that M members give are reported."""


def by_slice(stats: xr.Dataset, key: str) -> np.ndarray:
    """A score of every slice: PSNR with the volume's maximum, or the members' mean χ² or residual."""
    if key == "psnr":
        return quality.decibels(stats["mean_error"], 1.0)
    name = {"chi_square": "chi", "residual": "relative"}[key]
    return stats[name].mean("member").values if name in stats else np.full(stats.sizes["slice"], np.nan)


def sums(values: xr.DataArray, subjects: np.ndarray) -> np.ndarray:
    """Sums over the slices of every subject, (subject, …), in the order of first appearance."""
    each = values.transpose("slice", ...).values
    return np.stack([each[subjects == s].sum(0) for s in dict.fromkeys(subjects)])


def volumes(values: xr.DataArray, subjects: np.ndarray) -> np.ndarray:
    """Means over the slices of every subject, likewise."""
    return sums(values, subjects) / sums(xr.ones_like(values), subjects)


def scores(stats: xr.Dataset, subjects: np.ndarray) -> xr.Dataset:
    """Scores of some slices of one contender from their statistics."""
    members = stats.attrs["members"]
    total = stats.sum("slice")
    out = xr.Dataset()
    error = volumes(stats["mean_error"], subjects)
    out["psnr"] = float(quality.decibels(error, 1.0).mean())
    out["psnr_member"] = float(quality.decibels(volumes(stats["member_error"], subjects), 1.0).mean())
    out["ssim"] = float(volumes(stats["ssim"], subjects).mean())
    out["nmse"] = float((error / volumes(stats["power"], subjects)).mean())
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
