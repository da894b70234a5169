"""Laws of the noise level σ in training and grids of σ in sampling.

A variance-exploding process adds noise of standard deviation σ: x_σ = x₀ + σ ε. Training draws σ from a law on
[σ_min, σ_max]; sampling walks down a grid σ_0 > σ_1 > … > σ_{N-1} and then to 0, which every sampler implies.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor

from scigen.core.draws import strata
from scigen.errors import UserError


class NoiseLaw(ABC):
    """Law of σ in training, on [sigma_min, sigma_max].

    Draws are stratified: a batch of n takes one σ from each of n slices of equal probability, in random order, which
    keeps the law and lowers the variance of the loss.
    """

    def __init__(self, sigma_min: float, sigma_max: float) -> None:
        """Set the range of σ, in normalised data units.

        Raises:
            UserError: unless 0 < sigma_min < sigma_max.
        """
        check_range(sigma_min, sigma_max)
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """σ at probability u ∈ [0, 1] (inverse of the distribution function); same shape as u."""

    def draw(self, n: int, *, device: torch.device | str = "cpu") -> Tensor:
        """Draw n noise levels, stratified (`draws`): (n,)."""
        return self.quantile(strata(n, device).clamp(0.0, 1.0))


class LogUniform(NoiseLaw):
    """ln σ uniform on [ln σ_min, ln σ_max]: every octave of scales gets the same attention."""

    def quantile(self, u: Tensor) -> Tensor:
        """σ = σ_min (σ_max / σ_min)^u."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** u


class LogNormal(NoiseLaw):
    """ln σ ~ N(p_mean, p_std²), truncated to [σ_min, σ_max] (Karras et al. 2022, arXiv:2206.00364, table 1)."""

    def __init__(self, sigma_min: float, sigma_max: float, p_mean: float = -1.2, p_std: float = 1.2) -> None:
        """Set range, mean and standard deviation of ln σ.

        Raises:
            UserError: if the range is empty, p_std is not positive, or an end of the range lies more than six
                standard deviations out, where it would practically never be trained.
        """
        super().__init__(sigma_min, sigma_max)
        if p_std <= 0:
            raise UserError(f"noise.p_std={p_std} must be positive.")
        self.p_mean, self.p_std = float(p_mean), float(p_std)
        z = [(math.log(s) - p_mean) / p_std for s in (sigma_min, sigma_max)]
        if z[0] < -6 or z[1] > 6:
            raise UserError(
                f"noise: ln σ ~ N({p_mean}, {p_std}²) practically never reaches σ ∈ [{sigma_min:g}, {sigma_max:g}], the"
                " range that the sampler walks through. Enlarge noise.p_std or use noise=loguniform."
            )
        self._edges = [0.5 * math.erfc(-v / math.sqrt(2)) for v in z]

    def quantile(self, u: Tensor) -> Tensor:
        """σ = exp(p_mean + p_std Φ⁻¹(·)) at the u-quantile of the truncated law."""
        low, high = self._edges
        z = torch.special.ndtri((low + (high - low) * u.double()).clamp(1e-12, 1 - 1e-12))
        sigma = torch.exp(self.p_mean + self.p_std * z)
        return sigma.clamp(self.sigma_min, self.sigma_max).to(u.dtype)


def check_range(sigma_min: float, sigma_max: float) -> None:
    """Raise UserError unless 0 < sigma_min < sigma_max < ∞."""
    if not 0 < sigma_min < sigma_max < math.inf:
        raise UserError(
            f"Noise levels need 0 < sigma_min < sigma_max, not sigma_min={sigma_min}, sigma_max={sigma_max}."
        )


def check_levels(levels: Iterable[float], what: str = "Sampling levels") -> list[float]:
    """The levels of a grid as floats.

    Raises:
        UserError: unless there is one at least, all are positive and finite, and each is below the one before.
    """
    grid = [float(s) for s in levels]
    if not grid or not all(0 < s < math.inf for s in grid) or any(b >= a for a, b in pairwise(grid)):
        raise UserError(f"{what} must be positive and strictly decreasing (0 is implied), not {grid}.")
    return grid


def karras_sigmas(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Grid of n noise levels, decreasing, evenly spaced in σ^(1/ρ): (n,) float64.

    Args:
        n: number of levels; one level is [σ_max].
        sigma_min: last level above the implied 0.
        sigma_max: first level.
        rho: ρ; large values approach a logarithmic grid (arXiv:2206.00364, equation 5; its ρ is 7).

    Raises:
        UserError: for n < 1 or an empty range.
    """
    check_range(sigma_min, sigma_max)
    if n < 1:
        raise UserError(f"A sampling grid needs at least one level, not {n}.")
    ramp = torch.linspace(0, 1, n, dtype=torch.float64) if n > 1 else torch.zeros(1, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return (high + ramp * (low - high)) ** rho


def log_sigmas(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Grid of n noise levels, decreasing, with a constant ratio: (n,) float64."""
    check_range(sigma_min, sigma_max)
    if n < 1:
        raise UserError(f"A sampling grid needs at least one level, not {n}.")
    ends = torch.tensor([sigma_max, sigma_min], dtype=torch.float64).log()
    return torch.linspace(float(ends[0]), float(ends[1]), n, dtype=torch.float64).exp()


def sigma_range(x: Tensor) -> tuple[float, float]:
    """Noise levels (σ_min, σ_max) that suit the data, rounded to two digits, σ_max upwards.

    σ_max = 10 √λ_max: sampling starts from N(0, σ_max²), which gives a mode of variance λ only σ_max²/(λ + σ_max²) of
    it, so this costs the largest mode at most 1 %. σ_min is a fifth of the spread of the smallest scales (the diagonal
    Haar details): ending there costs them 4 %; it is kept within [0.002, 0.05].

    Args:
        x: training samples, normalised, (N, C, *S).
    """
    flat = (x - x.mean(0)).flatten(1).double()
    largest = float(torch.linalg.eigvalsh(flat @ flat.mT / max(len(flat) - 1, 1))[-1])
    detail = x.double()
    for axis in range(2, x.ndim):
        even = detail.shape[axis] // 2 * 2
        pairs = detail.narrow(axis, 0, even).unflatten(axis, (even // 2, 2))
        detail = (pairs.select(axis + 1, 0) - pairs.select(axis + 1, 1)) / math.sqrt(2)
    smallest = float(detail.square().mean())
    sigma_max = max(10 * math.sqrt(largest), 1.0)
    sigma_min = min(max(0.2 * math.sqrt(smallest), 0.002), 0.05)
    unit = 10.0 ** (math.floor(math.log10(sigma_max)) - 1)
    return float(f"{sigma_min:.2g}"), float(f"{math.ceil(sigma_max / unit) * unit:.2g}")
