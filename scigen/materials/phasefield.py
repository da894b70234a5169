"""Spinodal decomposition: the Cahn–Hilliard equation of two or more phases on a torus, by a semi-implicit Fourier step.

∂u_i/∂t = ∇²(g(u_i) − β − Σ_a κ_a ∂²u_i/∂a²),   g(u) = 2u(1−u)(1−2u),   β = mean of g(u_j) over the phases

for concentrations u_i that add up to 1: the gradient flow of Σ_i u_i²(1−u_i)² + ½ Σ_a κ_a |∂_a u_i|², with β the
multiplier of that constraint (Boyer & Lapuerta 2006, doi:10.1051/m2an:2006028, equal surface tensions). Where only
two phases are present β is 0 and this is the usual equation, whose interface is (1 + tanh(x/√(2κ)))/2. Three interfaces
meet in true triple lines.

The step takes the stiff linear part implicitly, with a stabilising A ∇²u on both sides (Eyre 1998). Everything is in
voxels and units of the mobility.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft

STABILISER = 1.0
"""A; at least half of the largest |g'| on [0, 1], which is 1 in the interior well."""
NOISE = 0.05
"""Standard deviation of the initial concentrations."""

Array = NDArray[np.float32]


def chemical(u: np.ndarray) -> np.ndarray:
    """g(u) = d/du u²(1−u)²."""
    return 2 * u * (1 - u) * (1 - 2 * u)


class CahnHilliard:
    """One simulation of P phases on a torus."""

    def __init__(
        self,
        size: Sequence[int],
        fractions: Sequence[float],
        kappa: Sequence[float],
        rng: np.random.Generator,
        dt: float = 0.25,
    ) -> None:
        """Set the start: a mixture of these mean concentrations, with noise.

        Args:
            size: voxels along z, y, x.
            fractions: (P,) mean concentrations that add up to 1.
            kappa: κ along z, y, x, gradient energy [voxel²].
            rng: draws the noise.
            dt: time step.
        """
        self.shape, self.dt, self.time = tuple(size), dt, 0.0
        mean = np.asarray(fractions, np.float64)
        noise = rng.standard_normal((len(mean) - 1, *self.shape)).astype(np.float32) * np.float32(NOISE)
        noise -= noise.mean(axis=(1, 2, 3), keepdims=True)
        waves = [fft.fftfreq(n) if a < 2 else fft.rfftfreq(n) for a, n in enumerate(self.shape)]
        squares = [(2 * np.pi * k.reshape([-1 if i == a else 1 for i in range(3)])) ** 2 for a, k in enumerate(waves)]
        k2 = sum(squares)
        gradient = sum(k * s for k, s in zip(kappa, squares, strict=True))
        self.front = (dt * k2).astype(np.float32)
        self.below = (1 / (1 + dt * k2 * (STABILISER + gradient))).astype(np.float32)
        self.modes = fft.rfftn(noise + mean[:-1, None, None, None].astype(np.float32), axes=(1, 2, 3))

    @property
    def concentrations(self) -> Array:
        """u_i, (P, Z, Y, X)."""
        own = fft.irfftn(self.modes, s=self.shape, axes=(1, 2, 3))
        return np.concatenate([own, 1 - own.sum(0, keepdims=True)])

    def advance(self, time: float) -> None:
        """Go on until a time, rounded to whole steps."""
        for _ in range(round((time - self.time) / self.dt)):
            u = self.concentrations
            drive = chemical(u)
            drive = drive[:-1] - (drive.mean(0) if len(u) > 2 else 0)
            force = fft.rfftn(drive, axes=(1, 2, 3))
            self.modes = (self.modes + self.front * (STABILISER * self.modes - force)) * self.below
            self.time += self.dt

    def snapshots(self, times: Sequence[float]) -> Iterator[Array]:
        """Concentrations (P, Z, Y, X) at these times, ascending."""
        for time in times:
            self.advance(time)
            yield self.concentrations
