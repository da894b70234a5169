"""Where the origin lies: scans of uncentred transforms are found out, and shifted."""

import logging

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.mri.fourier import ifft2c
from scigen.mri.layout import KSPACE, MASK
from scigen.mri.sampled import given_mask, named_axes

log = logging.getLogger(__name__)

UNCENTRED = 4.0
"""Energy at the edges over that in the middle from which k-space, or an image, counts as shifted by half its size."""

SMALLEST = 16
"""Points that an axis has at least for its centring to be judged."""


def recentred(ds: xr.Dataset) -> xr.Dataset:
    """Scans of an uncentred FFT as those of a centred one.

    Where most energy lies at the edges of k-space it is shifted by half its size, and so is the mask; where the image
    then lies at the borders, it is shifted likewise by a phase that is linear in k (for even sizes: a checkerboard).
    Each axis is judged on its own.

    Args:
        ds: as for `check_scans`.

    Raises:
        UserError: as `check_scans`, if axes or mask are wrong.
    """
    name = str(ds.encoding.get("source", "The scan"))
    ds = named_axes(ds, name)
    kspace = np.array(ds["kspace"].values, np.complex64)
    mask = given_mask(ds, name)
    axes = tuple(axis for axis, ratio in zip((-2, -1), _edges(_energy(kspace)), strict=True) if ratio > 1)
    if axes:
        kspace = np.fft.fftshift(kspace, axes)
        mask = None if mask is None else np.fft.fftshift(mask, axes)
    turned = tuple(axis for axis, ratio in zip((-2, -1), _edges(_blurred(kspace)), strict=True) if ratio > 1)
    for axis in turned:
        n = kspace.shape[axis]
        phase = np.exp(2j * np.pi * ((np.arange(n) - n // 2) * (n // 2) % n) / n).astype(np.complex64)
        kspace = kspace * (phase[:, None] if axis == -2 else phase)
    words = {-2: "y", -1: "x"}
    log.info(
        "%s: fft_centred=false: k-space is shifted along %s, the image along %s.", name,
        " and ".join(f"k{words[a]}" for a in axes) or "no axis", " and ".join(words[a] for a in turned) or "no axis",
    )  # fmt: skip
    out = ds.assign(kspace=(KSPACE, kspace))
    if mask is not None:
        out = out.drop_vars("mask").assign(mask=(MASK, mask))
    out.encoding["source"] = name
    return out


def require_centred(kspace: np.ndarray, name: str) -> None:
    """Refuse what an uncentred FFT leaves: the peak of k-space at a corner, or the image cut in four."""
    energy = _energy(kspace)
    ratio = max(_edges(energy))
    if ratio > UNCENTRED and _unsampled(energy):
        raise UserError(
            f"{name}: the middle of k-space is zero: the FFT was not centred, and fft_centred=false shifts it, or the"
            " scan has no calibration lines, without which scale and phase of an image are unknown."
        )
    if ratio > UNCENTRED:
        raise UserError(
            f"{name}: the edges of k-space hold {ratio:.3g} times the energy of its middle, expected the peak in the "
            "middle: the FFT was not centred. fft_centred=false shifts it."
        )
    if min(_edges(_blurred(kspace))) > UNCENTRED:
        raise UserError(
            f"{name}: the image lies at the borders, its middle is empty: the FFT was not centred (k-space has the "
            "phase of a checkerboard). fft_centred=false takes it away."
        )


def _unsampled(energy: np.ndarray) -> bool:
    """Whether the middle quarter along ky or kx holds nothing."""
    return any(
        not energy.sum(a)[n // 2 - n // 8 : n // 2 + n // 8].any() for a, n in ((1, len(energy)), (0, len(energy[0])))
    )


def _energy(kspace: np.ndarray) -> np.ndarray:
    """Energy (ky, kx) of all slices and coils; one slice after another, to need little memory beside them."""
    out = np.zeros(kspace.shape[-2:])
    for one in kspace:
        finite = np.nan_to_num(one, posinf=0, neginf=0)
        out += np.square(finite.real, dtype=np.float64).sum(0) + np.square(finite.imag, dtype=np.float64).sum(0)
    return out


def _blurred(kspace: np.ndarray) -> np.ndarray:
    """Energy (y, x) of the image as the middle quarter of ky and kx shows it, which is free of aliasing."""
    rows, columns = (slice(n // 2 - n // 8, n // 2 + n // 8 + 1) for n in kspace.shape[-2:])
    out = np.zeros(kspace.shape[-2:])
    for one in kspace:
        middle = np.zeros((1, *one.shape), np.complex64)
        middle[0, :, rows, columns] = np.nan_to_num(one[:, rows, columns], posinf=0, neginf=0)
        out += _energy(ifft2c(middle))
    return out


def _edges(energy: np.ndarray) -> tuple[float, float]:
    """Energy in the outermost quarter over that in the middle one, along y and x; 1 where it cannot be judged."""
    out = []
    for axis in (1, 0):
        profile = energy.sum(axis)
        n, q = len(profile), len(profile) // 8
        outer, inner = profile[:q].sum() + profile[n - q :].sum(), profile[n // 2 - q : n // 2 + q].sum()
        out.append(1.0 if n < SMALLEST or outer + inner == 0 else float(outer / max(inner, 1e-9 * outer)))
    return out[0], out[1]
