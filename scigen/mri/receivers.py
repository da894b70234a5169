"""Coils of a scan: their maps, given or estimated, those that are dead, and the strength of their noise."""

import logging
from collections.abc import Sequence

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.mri.coils import estimate
from scigen.mri.layout import MAPS
from scigen.mri.sampled import refuse

log = logging.getLogger(__name__)

OUTERMOST = 0.1
"""Share of the samples, those farthest from the centre of k-space, that the noise is estimated from."""

MAD = 0.6744897501960817
"""Median of |n| for n of the standard normal distribution."""

UNIT = 1e-3
"""How far Σ|S|² may be from one."""

SUPPORT = 1e-6
"""Σ|S|² over its maximum below which there is no object."""


def maps_of(
    ds: xr.Dataset, kspace: np.ndarray, mask: np.ndarray, live: np.ndarray, keys: Sequence[str], name: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Normalised maps (slice, coil, y, x) of the live coils, and the factor of the image if they changed."""
    s, c, h, w = kspace.shape
    if "sens_maps" in ds:
        if set(ds["sens_maps"].dims) != set(MAPS):
            raise UserError(f"{name}: 'sens_maps' has the dimensions {ds['sens_maps'].dims}, expected {MAPS}.")
        maps = np.array(ds["sens_maps"].transpose(*MAPS).values, np.complex64)
        if maps.shape != kspace.shape:
            raise UserError(f"{name}: sens_maps is {maps.shape}, k-space {kspace.shape}: give both on one grid.")
        if not np.isfinite(maps).all():
            raise UserError(f"{name}: sens_maps is NaN or infinite somewhere. Give none, and they are estimated.")
        _warn_dead(~live & (maps != 0).any((2, 3)), keys, name)
        maps[~live] = 0
        refuse(~(maps != 0).any((1, 2, 3)), keys, name, "has no map of a coil that has a signal: correct sens_maps")
        return _normalised(maps, name)
    _warn_dead(~live, keys, name)
    maps = np.zeros((s, c, h, w), np.complex64)
    if live.sum(1).max() > 1:
        log.info("%s: no sens_maps are given: estimated from the calibration region.", name)
    for i, coils in enumerate(live):
        maps[i, coils] = 1 if coils.sum() == 1 else _estimated(kspace[i, coils], mask[i], f"{name}, slice {keys[i]}")
    return maps, None


def _estimated(kspace: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
    """Maps (coil, y, x) from the calibration region."""
    try:
        return estimate(kspace, mask)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _warn_dead(dead: np.ndarray, keys: Sequence[str], name: str) -> None:
    """Tell of coils without a signal."""
    where = np.argwhere(dead)
    if len(where):
        coils = ", ".join(map(str, sorted({int(c) for _, c in where})))
        slices = sorted({keys[s] for s, _ in where})
        more = f" and {len(slices) - 1} more slices" if len(slices) > 1 else ""
        log.warning("%s: coil %s has no signal in %s%s: dropped.", name, coils, slices[0], more)


def _normalised(maps: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Maps with Σ|S|² = 1 on the support, and √Σ|S|² before if it was not."""
    total = np.square(np.abs(maps), dtype=np.float64).sum(1)
    support = total > SUPPORT * total.max((1, 2), keepdims=True)
    off = np.abs(total - 1)[support].max(initial=0.0)
    if off <= UNIT:
        return maps, None
    log.warning("%s: Σ|S|² of sens_maps is up to %.3g away from one: normalised.", name, off)
    root = np.sqrt(np.where(support, total, 1))
    return np.where(support[:, None], maps / root[:, None], 0).astype(np.complex64), np.where(support, root, 0)


def estimate_noise(kspace: np.ndarray, mask: np.ndarray) -> float:
    """Standard deviation of the noise per real and imaginary part, of one slice.

    The median absolute value of real and imaginary parts over 0.6745, of the tenth of the samples that is farthest from
    the centre, where noise outweighs signal. What signal is there makes it an upper bound.

    Args:
        kspace: (coil, ky, kx), live coils only.
        mask: (ky, kx) bool.
    """
    y, x = (np.abs(np.arange(n) - n // 2) / max(n / 2, 1) for n in mask.shape)
    radius = np.hypot(y[:, None], x)[mask]
    outer = radius >= np.quantile(radius, 1 - OUTERMOST)
    samples = kspace[:, mask][:, outer].astype(np.complex128)
    return float(np.median(np.abs(np.concatenate([samples.real.ravel(), samples.imag.ravel()]))) / MAD)


def noise_of(ds: xr.Dataset, kspace: np.ndarray, mask: np.ndarray, live: np.ndarray, name: str) -> np.ndarray:
    """Standard deviations (slice,), estimated where they are not known."""
    s = len(kspace)
    given = np.asarray(ds["noise_std"].values, np.float64) if "noise_std" in ds else np.full(s, np.nan)
    noise = np.broadcast_to(given, (s,)).copy()
    wrong = noise[(noise < 0) | np.isinf(noise)]
    if wrong.size:
        raise UserError(f"{name}: noise_std={wrong[0]:g}: expected numbers from zero on, or NaN where it is unknown.")
    unknown = np.flatnonzero(np.isnan(noise))
    for i in unknown:
        noise[i] = estimate_noise(kspace[i, live[i]], mask[i])
    if len(unknown):
        log.info(
            "%s: noise_std of %d slices is not known: %.3g estimated from the outermost samples (median).",
            name, len(unknown), np.median(noise[unknown]),
        )  # fmt: skip
    return noise
