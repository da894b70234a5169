"""Sensitivity maps of receive coils: those of a simulated birdcage, and an estimate from calibration lines.

Maps are complex64 (coil, y, x) with Σ|S|² = 1, so that Σ conj(S) S is the identity.
"""

import numpy as np

from scigen.errors import UserError
from scigen.mri.fourier import ifft2c
from scigen.mri.masks import LEAST

RING = (1.5, 2.0)
"""Radius of the ring of coils, over half the field of view: its corners, at √2, lie within."""

SPREAD = 0.1
"""Standard deviation of the logarithm of the coils' gains."""

WIDEST = 24
"""Lines of the calibration region that are used at most, along each axis."""

NEGLIGIBLE = 1e-6
"""√Σ|S|² over its maximum below which maps count as zero."""


def birdcage(coils: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Maps of coils on a ring: 1 / distance, and the phase of the direction, as of small loops.

    Radius and rotation of the ring, gain and phase of the coils are random.

    Args:
        coils: their number; a single one sees everything alike.
        shape: Y, X.
        rng: random numbers.

    Returns:
        (C, Y, X) complex64 with Σ|S|² = 1 everywhere; of one coil, ones.

    Raises:
        UserError: if there is no coil.
    """
    if coils < 1:
        raise UserError(f"coils={coils}: expected 1 or more.")
    if coils == 1:
        return np.ones((1, *shape), np.complex64)
    y, x = ((np.arange(n) - n // 2) / (n / 2) for n in shape)
    angle = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(coils) / coils
    centre = rng.uniform(*RING) * np.exp(1j * angle)
    apart = (x[None] + 1j * y[:, None]) - centre[:, None, None]
    gain = np.exp(SPREAD * rng.standard_normal(coils) + 1j * rng.uniform(0, 2 * np.pi, coils))
    return normalise(gain[:, None, None] / np.conj(apart))


def normalise(maps: np.ndarray, negligible: float = NEGLIGIBLE) -> np.ndarray:
    """Maps over √Σ|S|², zero where that is negligible.

    Args:
        maps: (…, coil, y, x).
        negligible: √Σ|S|² over its maximum.

    Returns:
        complex64 with Σ|S|² = 1 wherever it is not zero.

    Raises:
        UserError: if they are NaN or infinite somewhere, or zero everywhere.
    """
    maps = np.asarray(maps, np.complex128)
    if not np.isfinite(maps).all():
        raise UserError(f"The coil maps are NaN or infinite in {int((~np.isfinite(maps)).sum())} places: correct them.")
    root = np.sqrt((maps.real**2 + maps.imag**2).sum(-3, keepdims=True))
    if not root.any():
        raise UserError("The coil maps are zero everywhere: give maps that cover the object.")
    there = root > negligible * root.max()
    return np.where(there, maps / np.where(there, root, 1), 0).astype(np.complex64)


def calibration(mask: np.ndarray) -> tuple[int, int]:
    """Height and width of the largest fully sampled rectangle of a mask (Y, X) around its centre; zeros if none.

    The rectangle of n rows begins n // 2 before the central row; likewise columns.
    """
    mask = np.asarray(mask, bool)
    order = [_outwards(n) for n in mask.shape]
    full = np.logical_and.accumulate(np.logical_and.accumulate(mask[np.ix_(*order)], 0), 1)
    area = full * np.arange(1, mask.shape[0] + 1)[:, None] * np.arange(1, mask.shape[1] + 1)
    row, column = np.unravel_index(area.argmax(), area.shape)
    return (int(row) + 1, int(column) + 1) if full[row, column] else (0, 0)


def estimate(kspace: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Maps from the calibration region: coil images of low resolution over their root sum of squares.

    At most 24 × 24 samples around the centre are used, under a Hann window. The phase is taken relative to a virtual
    coil, the leading principal component of the coil images, so that the image keeps its phase (up to the one of this
    coil). Maps are given everywhere, not only where there is an object: outside they are meaningless, and so is what
    they carry, but nothing of the object is cut off. Maps that vary within 1 / (width of the region) are blurred, and
    outside of the object noise decides.

    Args:
        kspace: (C, Y, X) complex, zero where it is not sampled.
        mask: (Y, X) bool.

    Returns:
        (C, Y, X) complex64 with Σ|S|² = 1.

    Raises:
        UserError: if the calibration region has fewer than 4 lines, or no signal.
    """
    if kspace.ndim != 3 or kspace.shape[1:] != mask.shape:
        raise UserError(f"k-space {kspace.shape} and mask {mask.shape}: expected (coil, ky, kx) and (ky, kx).")
    height, width = calibration(mask)
    if min(height, width) < LEAST:
        raise UserError(
            f"The coil maps cannot be estimated: the calibration region has {min(height, width)} fully sampled lines "
            f"around the centre of k-space, expected {LEAST} or more. Give sens_maps."
        )
    window = _hann(mask.shape[0], min(height, WIDEST))[:, None] * _hann(mask.shape[1], min(width, WIDEST))
    images = ifft2c(kspace.astype(np.complex128) * window)
    if not images.any():
        raise UserError("The coil maps cannot be estimated: k-space is zero around its centre. Give sens_maps.")
    flat = images.reshape(len(images), -1)
    _, vectors = np.linalg.eigh(flat @ flat.conj().T)
    virtual = np.tensordot(vectors[:, -1].conj(), images, 1)
    modulus = np.abs(virtual)
    phase = np.where(modulus > 0, virtual.conj(), 1) / np.where(modulus > 0, modulus, 1)
    return normalise(images * phase, 0.0)


def _outwards(size: int) -> np.ndarray:
    """Points of an axis: c, c − 1, c + 1, c − 2, … of the centre c = size // 2."""
    steps = np.arange(size)
    return size // 2 + np.where(steps % 2, -(steps + 1) // 2, steps // 2)


def _hann(size: int, width: int) -> np.ndarray:
    """A window of that width around the centre, above zero within."""
    offset = np.arange(size) - size // 2
    inside = (offset >= -(width // 2)) & (offset < width - width // 2)
    return np.where(inside, np.cos(np.pi * offset / (width + 1)) ** 2, 0)
