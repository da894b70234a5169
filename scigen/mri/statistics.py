"""What is kept of every slice of a contender: sums and scores, of which all numbers of a report are made."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.blocks import Forward
from scigen.metrics import ensemble
from scigen.mri import quality
from scigen.mri.fourier import fft2c

OBJECT = 0.05
"""The object: pixels brighter than this share of the volume's maximum."""
SPREADS = np.geomspace(1e-4, 1.0, 41)
"""Edges of the bins of spread, shares of the volume's maximum."""
BUDGET = 2**21
"""Complex numbers of k-space that are made at once."""


def image_of(ds: xr.Dataset, name: str) -> np.ndarray:
    """Image of one slice, members first if it has them."""
    ds = ds[["image_re", "image_im"]].transpose(..., "y", "x")
    image = np.asarray(ds["image_re"].values, np.float32) + 1j * np.asarray(ds["image_im"].values, np.float32)
    if not np.isfinite(image).all():
        bad = int((~np.isfinite(image)).sum())
        raise UserError(f"{name} has NaN or infinite pixels in {bad} places of slice {ds['slice'].item()}.")
    return image


def maxima(truth: xr.Dataset) -> np.ndarray:
    """The largest magnitude of every slice's volume, (slice,)."""
    each = np.array([np.abs(image_of(one, "truth")).max() for one in _slices(truth[["image_re", "image_im"]], "truth")])
    subjects = truth["subject"].values
    tops = {s: float(each[subjects == s].max()) for s in set(subjects)}
    if blank := sorted(str(s) for s, v in tops.items() if not v > 0):
        raise UserError(f"The truth of {', '.join(blank)} is zero everywhere: leave it out.")
    return np.array([tops[s] for s in subjects])


def statistics(truth: xr.Dataset, ds: xr.Dataset, top: np.ndarray, name: str, seed: int) -> xr.Dataset:
    """Sums and scores of every slice of a contender, (slice, …), of which all others are made.

    Parts judged apart are the whole once they are strung together (`xr.concat`) in the order of the slices.

    Args:
        truth: dims (slice, y, x), with what was measured.
        ds: its images (slice, member, y, x) of the same slices.
        top: the largest magnitude of every slice's volume, see `maxima`.
        name: of the contender, for messages.
        seed: of the order of ties in the ranks; with the slice's name it fixes them.
    """
    measured = {"kspace", "mask", "sens_maps"} <= set(truth.data_vars)
    rows: dict[str, list[Any]] = {}
    pairs = zip(_slices(truth, "truth"), _slices(ds[["image_re", "image_im"]], name), strict=True)
    for i, (one, own) in enumerate(pairs):
        rng = np.random.default_rng([seed, *str(one["slice"].item()).encode()])  # whatever else is judged, in any order
        target, members = image_of(one, "truth") / top[i], image_of(own, name) / top[i]
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
    return out.assign_coords(slice=truth["slice"].values)


def _slices(ds: xr.Dataset, what: str) -> Iterator[xr.Dataset]:
    """One slice after the other, in memory."""
    source = Forward(ds, "slice", what)
    for i in range(ds.sizes["slice"]):
        yield source[slice(i, i + 1)].isel(slice=0)


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
