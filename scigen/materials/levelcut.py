"""Level-cut Gaussian fields: the phase is where a field of unit variance exceeds a threshold t.

Their statistics are known, so they are truth for the metrics; with the two-point statistics of a sample they are the
cheapest imitation of it (Cahn 1965, J. Chem. Phys. 42, 93; Berk 1987, Phys. Rev. Lett. 58, 2718; Quiblier 1984, J.
Colloid Interface Sci. 98, 84). ρ is the correlation of the field, and `minus_rho2` is −ρ''(0) [1 / length²].
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, special

from scigen.errors import UserError
from scigen.materials.indicator import Mask

Array = NDArray[np.float64]


def volume_fraction(t: ArrayLike) -> Array:
    """φ = Φ(−t)."""
    return np.asarray(special.ndtr(-np.asarray(t, np.float64)))


def threshold(phi: ArrayLike) -> Array:
    """The t of a volume fraction."""
    return np.asarray(-special.ndtri(np.asarray(phi, np.float64)))


def two_point(rho: ArrayLike, t: float) -> Array:
    """S2 = φ² + ∫₀^asin ρ exp(−t² / (1 + sin θ)) dθ / 2π, of the shape of ρ in [−1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    end = np.arcsin(np.clip(np.asarray(rho, np.float64), -1, 1))
    out = np.full(end.shape, float(volume_fraction(t)) ** 2)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        up = np.maximum(1 + np.sin(end * node), 1e-300)
        out += weight * end * np.exp(-t * t / up) / (2 * np.pi)
    return out


def surface(t: ArrayLike, minus_rho2: ArrayLike) -> Array:
    """Specific surface (2 / π) √(−ρ''(0)) e^(−t² / 2) [1 / length]."""
    return np.asarray(2 / np.pi * np.sqrt(minus_rho2) * np.exp(-np.square(t) / 2))


def euler(t: ArrayLike, minus_rho2: ArrayLike) -> Array:
    """Euler number a volume (−ρ''(0))^(3/2) (t² − 1) e^(−t² / 2) / 4π² [1 / length³] (Adler 1981)."""
    t2 = np.square(np.asarray(t, np.float64))
    return np.asarray(np.power(minus_rho2, 1.5) * (t2 - 1) * np.exp(-t2 / 2) / (4 * np.pi**2))


def gaussian_field(shape: Sequence[int], spectrum: Callable[[Array], ArrayLike] | ArrayLike, seed: int) -> Array:
    """A periodic Gaussian field of expectation 0 and variance 1.

    Args:
        shape: (Z, Y, X).
        spectrum: power, up to a factor: a function of |k| [cycles a voxel], or an array of this shape in the order of
            `numpy.fft.fftn`.
        seed: of the noise.

    Raises:
        UserError: if the power has another shape, or is negative or zero everywhere.
    """
    sides = tuple(shape)
    if callable(spectrum):
        k = np.meshgrid(*(fft.fftfreq(n) for n in sides), indexing="ij", sparse=True)
        power = np.asarray(spectrum(np.sqrt(sum(a * a for a in k))), np.float64)
    else:
        power = np.asarray(spectrum, np.float64)
    if power.shape != sides:
        raise UserError(
            f"The spectrum has the shape {power.shape}, the field {sides}: give one on the field's own grid."
        )
    if not (power >= 0).all() or not power.any():
        raise UserError("A spectrum is nowhere negative nor NaN, and somewhere positive.")
    noise = fft.fftn(np.random.default_rng(seed).standard_normal(sides))
    return np.ascontiguousarray(fft.ifftn(noise * np.sqrt(power / power.mean())).real)


def matched(s2: ArrayLike, phi: float) -> Array:
    """Correlation of the Gaussian field whose level cut has these two-point statistics.

    S2 grows with ρ at a given φ, so its law is inverted by a table. What comes out need not be a correlation: of those
    with ρ(0) = 1 and no negative power the nearest in least squares is taken, so the cut has S2 only as nearly as a
    Gaussian field can. S2 that is averaged over samples gives a better one than that of a single sample.

    Args:
        s2: map on periodic lags (Z, Y, X), as `correlation.two_point` gives it.
        phi: volume fraction.

    Returns:
        ρ on the same lags.

    Raises:
        UserError: if the volume fraction is not between 0 and 1, or S2 is NaN.
    """
    values = np.asarray(s2, np.float64)
    if not 0 < phi < 1 or not np.isfinite(values).all():
        raise UserError(f"Only a phase of which there is some and not all has a correlation, got φ = {phi!r}.")
    angle = np.linspace(-np.pi / 2, np.pi / 2, 2001)
    law = np.maximum.accumulate(two_point(np.sin(angle), float(threshold(phi))))
    rho = np.sin(np.interp(values, law, angle))
    rho = fft.ifftn(_nearest_power(fft.fftn(rho).real)).real
    return rho / rho[0, 0, 0]


def levelcut(shape: Sequence[int], rho: ArrayLike, phi: float, seed: int) -> Mask:
    """A level cut of a Gaussian field of correlation ρ, with exactly round(φ Z Y X) voxels in the phase.

    Args:
        shape: (Z, Y, X), that of ρ.
        rho: correlation on periodic lags (Z, Y, X), as `matched` gives it.
        phi: volume fraction in [0, 1].
        seed: of the noise.

    Raises:
        UserError: if the shape is not that of ρ, or φ not in [0, 1].
    """
    if not 0 <= phi <= 1:
        raise UserError(f"A volume fraction is in [0, 1], got {phi!r}.")
    field = gaussian_field(shape, np.maximum(fft.fftn(np.asarray(rho, np.float64)).real, 0), seed)
    count = round(phi * field.size)
    out = np.zeros(field.size, np.bool_)
    out[np.argsort(field, axis=None)[field.size - count :]] = True
    return out.reshape(field.shape)


def _nearest_power(power: Array) -> Array:
    """The nearest power without negative values and of mean 1: max(power − λ, 0), a projection on the simplex."""
    falling = np.sort(power, axis=None)[::-1]
    excess = (np.cumsum(falling) - power.size) / np.arange(1, power.size + 1)
    return np.maximum(power - excess[np.flatnonzero(falling > excess)[-1]], 0)
