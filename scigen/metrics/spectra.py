"""Radial power spectra of fields on limited areas (cosine transform) and on tori (Fourier transform)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from scigen.errors import UserError


def annuli(shape: tuple[int, int], periodic: bool = False) -> NDArray[np.int64]:
    """The wavenumber that each mode of a (Y, X) field is counted under, 0 for the mean alone.

    Wavenumbers count half waves (cosine transform) or whole waves (periodic) along the shortest side, also for modes
    along the longer one, so that one wavenumber is one wavelength: 2N/k or N/k cells, N the shortest side. Modes are
    rounded to the nearest integer; those longer than the first annulus join it, and those in the corners, beyond the
    last full annulus, keep annuli of their own: nothing is dropped.

    Args:
        shape: (Y, X), at least two cells each.
        periodic: Fourier modes instead of cosines.

    Returns:
        (Y, X) integers.

    Raises:
        UserError: if a side has a single cell.
    """
    if min(shape) < 2:
        raise UserError(f"A spectrum needs at least 2 x 2 cells, got {shape[0]} x {shape[1]}: take a larger region.")
    y, x = (fft.fftfreq(n) if periodic else np.arange(n) / n for n in shape)
    radius = min(shape) * np.hypot(y[:, None], x[None, :])
    index = np.maximum(np.floor(radius + 0.5).astype(np.int64), 1)
    index[0, 0] = 0
    return index


def power_spectrum(field: ArrayLike, periodic: bool = False) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Variance of a field by wavenumber; summed over wavenumbers it is the variance in space about the mean.

    Limited areas take the two-dimensional DCT-II, whose mirrored extension has no jump at the border, so that neither
    window nor trend removal is needed (Denis, Côté & Laprise 2002, Mon. Wea. Rev. 130, eq. 11 ff.). Cells count alike,
    whatever their area.

    Args:
        field: (…, Y, X) [units].
        periodic: take the Fourier transform instead, for fields on a torus.

    Returns:
        (wavenumbers 1 … K as `annuli` counts them, power (…, K) [units²]).

    Raises:
        UserError: if a side has a single cell.
    """
    values = np.asarray(field, np.float64)
    index = annuli((values.shape[-2], values.shape[-1]), periodic).ravel()
    if periodic:
        modes = np.abs(fft.fft2(values, norm="forward")) ** 2
    else:
        modes = fft.dctn(values, type=2, norm="ortho", axes=(-2, -1)) ** 2 / index.size
    count = int(index.max()) + 1
    rows = [np.bincount(index, row, count) for row in modes.reshape(-1, index.size)]
    power = np.array(rows, np.float64).reshape(*values.shape[:-2], count)
    return np.arange(1, count, dtype=np.int64), power[..., 1:]
