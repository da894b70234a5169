"""Radial power spectra of fields in any dimension: limited areas (cosine transform), tori (Fourier transform)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from scigen.errors import UserError


def annuli(shape: tuple[int, ...], periodic: bool | Sequence[bool] = False) -> NDArray[np.int64]:
    """The wavenumber that each mode of a field is counted under, 0 for the mean alone.

    Wavenumbers count half waves, or whole waves where every axis is periodic, along the shortest side, also for modes
    along the longer one, so that one wavenumber is one wavelength: 2N/k or N/k cells, N the shortest side. Modes are
    rounded to the nearest integer; those longer than the first annulus join it, and those in the corners, beyond the
    last full annulus, keep annuli of their own: nothing is dropped.

    Args:
        shape: of a field in space, at least two cells each.
        periodic: Fourier modes instead of cosines, along every axis or each.

    Returns:
        Integers of this shape.

    Raises:
        UserError: if a side has a single cell.
    """
    if min(shape) < 2:
        size, least = (" x ".join(map(str, s)) for s in (shape, [2] * len(shape)))
        raise UserError(f"A spectrum needs at least {least} cells, got {size}: take a larger region.")
    wraps = _wraps(periodic, len(shape))
    waves = 1 if all(wraps) else 2
    sides = (waves * fft.fftfreq(n) if w else np.arange(n) / n for n, w in zip(shape, wraps, strict=True))
    radius = min(shape) * np.sqrt(sum(a**2 for a in np.meshgrid(*sides, indexing="ij", sparse=True)))
    index = np.maximum(np.floor(radius + 0.5).astype(np.int64), 1)
    index[(0,) * len(shape)] = 0
    return index


def power_spectrum(
    field: ArrayLike, periodic: bool | Sequence[bool] = False, dims: int = 2
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Variance of a field by wavenumber; summed over wavenumbers it is the variance in space about the mean.

    Limited areas take the DCT-II, whose mirrored extension has no jump at the border, so that neither
    window nor trend removal is needed (Denis, Côté & Laprise 2002, Mon. Wea. Rev. 130, eq. 11 ff.). Cells count alike,
    whatever their area.

    Args:
        field: (…, *S) [units], e.g. (…, Y, X).
        periodic: take the Fourier transform instead, along every axis (a torus) or each (a band around the globe).
        dims: number of space dimensions, the last ones.

    Returns:
        (wavenumbers 1 … K as `annuli` counts them, power (…, K) [units²]).

    Raises:
        UserError: if a side has a single cell.
    """
    values = np.asarray(field, np.float64)
    shape = values.shape[-dims:]
    index = annuli(shape, periodic).ravel()
    wraps = _wraps(periodic, dims)
    round_, across = ([i - dims for i in range(dims) if wraps[i] == kind] for kind in (True, False))
    modes = fft.fftn(values, norm="forward", axes=round_) if round_ else values
    if across:
        modes = fft.dctn(modes, type=2, norm="ortho", axes=across) / np.sqrt(np.prod([shape[i] for i in across]))
    modes = np.abs(modes) ** 2
    count = int(index.max()) + 1
    rows = [np.bincount(index, row, count) for row in modes.reshape(-1, index.size)]
    power = np.array(rows, np.float64).reshape(*values.shape[:-dims], count)
    return np.arange(1, count, dtype=np.int64), power[..., 1:]


def _wraps(periodic: bool | Sequence[bool], dims: int) -> list[bool]:
    """One truth an axis."""
    return [periodic] * dims if isinstance(periodic, bool) else list(periodic)
