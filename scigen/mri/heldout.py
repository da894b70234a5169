"""Held-out lines: a part of what was measured is kept from the reconstruction, and its prediction compared with it.

It needs no truth, so that it can be done with any scan. It says whether the ensemble's spread covers its error on the
frequencies of those lines, given the others: nothing of what no scan has measured.
"""

import hashlib

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.mri.coils import calibration
from scigen.mri.fourier import fft2c

SHARE = 0.2
"""Of the samples outside the calibration region that is kept from the reconstruction."""


def divided(scans: xr.Dataset, share: float = SHARE, seed: int = 0) -> tuple[xr.Dataset, np.ndarray]:
    """Scans without a share of their measured lines, and where these lie.

    Lines are columns; where a mask is not made of them single samples are held out. The calibration region stays whole.
    What is drawn for a slice depends on the seed and its name alone. Slices that measured nothing but a calibration
    region have nothing to hold out.

    Args:
        scans: checked, see `scigen.mri.checks.check_scans`.
        share: of the lines outside the calibration region, one at least.
        seed: of the choice.

    Returns:
        The scans, and (slice, ky, kx) bool.

    Raises:
        UserError: for a share that is none, or scans without anything to hold out.
    """
    if not 0 < share < 1:
        raise UserError(f"share={share:g}: expected a share of the measured lines between 0 and 1, such as {SHARE:g}.")
    mask = scans["mask"].values
    held = np.zeros_like(mask)
    for i, key in enumerate(map(str, scans["slice"].values)):
        number = int.from_bytes(hashlib.sha256(f"held|{key}".encode()).digest()[:8], "little")
        held[i] = _held(mask[i], share, np.random.default_rng([seed, number]))
    if not held.any():
        raise UserError("The scans measured nothing but their calibration regions: there are no lines to hold out.")
    rest = scans.assign(kspace=scans["kspace"] * ~held[:, None], mask=(scans["mask"].dims, mask & ~held))
    return rest.transpose(*scans.dims), held


def _held(mask: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """What one slice holds out, (ky, kx)."""
    height, width = mask.shape
    rows, columns = calibration(mask)
    centre = np.zeros_like(mask)
    if min(rows, columns):
        top, left = height // 2 - rows // 2, width // 2 - columns // 2
        centre[top : top + rows, left : left + columns] = True
    out = np.zeros_like(mask)
    if (mask == mask.any(0)).all():
        free = np.flatnonzero(mask.any(0) & ~centre[height // 2])
        out[:, rng.permutation(free)[: _count(share, len(free))]] = True
    else:
        free = np.flatnonzero(mask & ~centre)
        out.flat[rng.permutation(free)[: _count(share, len(free))]] = True
    return out


def _count(share: float, free: int) -> int:
    """How many of those that are free: one at least, if there is one."""
    return min(max(1, round(share * free)), free)


def compared(scans: xr.Dataset, held: np.ndarray, images: xr.Dataset) -> xr.Dataset:
    """What was measured at the held-out places beside what an ensemble predicts there.

    With M members the mean of their predictions differs from y by the noise, by their mean's error, whose variance is
    the ensemble's if it is calibrated, and by the scatter of a mean of M: E|y − ȳ|² = 2σ_y² + (1 + 1/M) V, with V the
    variance among members of real and imaginary part together.

    Args:
        scans: whole, as of `divided`.
        held: of `divided`.
        images: `image_re`, `image_im` (slice, member, y, x) of the same slices in this order, reconstructed without.

    Returns:
        By slice: `ratio` of Σ|y − ȳ|² to its expectation, 1; above it members are too sure, or wrong. `residual`
        ‖y − ȳ‖/‖y‖, `spread` √(ΣV/Σ|y|²), `samples` that were held out, coils counted. NaN where nothing was, and
        `ratio` where neither noise nor spread is known.
    """
    rows = []
    for i in range(scans.sizes["slice"]):
        one, own = scans.isel(slice=i), images.isel(slice=i).transpose("member", "y", "x")
        members = own["image_re"].values + 1j * own["image_im"].values
        rows.append(_one(one, held[i], members.astype(np.complex64)))
    names = ("ratio", "residual", "spread", "samples")
    out = xr.Dataset({n: ("slice", np.array(v)) for n, v in zip(names, zip(*rows, strict=True), strict=True)})
    keep = {c: scans[c] for c in ("slice", "subject") if c in scans.coords}
    return out.assign_coords(keep).assign_attrs(members=images.sizes["member"])


def _one(scan: xr.Dataset, held: np.ndarray, members: np.ndarray) -> tuple[float, float, float, int]:
    """Ratio, residual, spread and number of samples of one slice."""
    maps = scan["sens_maps"].values
    live = np.abs(maps).max((1, 2)) > 0
    y = scan["kspace"].values[live][:, held].astype(np.complex128)
    if not y.size:
        return np.nan, np.nan, np.nan, 0
    count, sigma = len(members), float(scan["noise_std"].values)
    made = np.stack([fft2c(maps[live] * m)[:, held] for m in members]).astype(np.complex128)
    gap, power = (np.abs(y - made.mean(0)) ** 2).sum(), (np.abs(y) ** 2).sum()
    variance = (np.abs(made - made.mean(0)) ** 2).sum() / (count - 1) if count > 1 else 0.0
    expected = 2 * sigma**2 * y.size + (1 + 1 / count) * variance
    ratio = gap / expected if expected > 0 else np.nan
    return float(ratio), float(np.sqrt(gap / power)), float(np.sqrt(variance / power)), int(y.size)
