"""Schedules with α² + s² = 1 in closed form."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scigen.core.teachers.schedule import Schedule


@dataclass(frozen=True)
class VariancePreserving(Schedule):
    """α² + s² = 1, so α = 1/√(1 + σ²)."""

    def alpha(self, sigma: Tensor) -> Tensor:
        """1/√(1 + σ²)."""
        return (1 + sigma**2).rsqrt()

    def speed(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(α', −α α'/s = −α'/σ)."""
        slope = self.slope(sigma)
        return slope, -slope / sigma

    @abstractmethod
    def slope(self, sigma: Tensor) -> Tensor:
        """dα/dt at σ, per unit of what the network is told."""


@dataclass(frozen=True)
class VpLinear(VariancePreserving):
    """β(t) = β_min + (β_max − β_min) t on t ∈ [0, 1] (Song et al. 2021, arXiv:2011.13456).

    Attributes:
        beta_min: β(0).
        beta_max: β(1).
        times: what t = 1 is called.
        first: smallest t.
    """

    kind = "vp_linear"
    beta_min: float = 0.1
    beta_max: float = 20.0
    times: float = 1.0
    first: float = 1e-5

    def time(self, sigma: Tensor) -> Tensor:
        """The root t of ½ ∫β = ½ ln(1 + σ²), without the cancellation that the root has at small σ."""
        wide, twice = self.beta_max - self.beta_min, (sigma**2).log1p()
        root = (self.beta_min**2 + 2 * wide * twice).sqrt()
        return self.times * 2 * twice / (root + self.beta_min)

    def sigma(self, time: Tensor) -> Tensor:
        """√(e^∫β − 1)."""
        t = time / self.times
        return (self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2).expm1().sqrt()

    def slope(self, sigma: Tensor) -> Tensor:
        """−½ β α."""
        beta = self.beta_min + (self.beta_max - self.beta_min) * self.time(sigma) / self.times
        return -0.5 * beta * self.alpha(sigma) / self.times

    @property
    def ends(self) -> tuple[float, float]:
        """At the first t and at 1."""
        low, high = self.sigma(torch.tensor([self.first * self.times, self.times], dtype=torch.float64)).tolist()
        return low, high


@dataclass(frozen=True)
class VpCosine(VariancePreserving):
    """α = cos θ/cos θ₀, θ = ½π (t + s)/(1 + s) on t ∈ [0, 1] (Nichol and Dhariwal 2021, arXiv:2102.09672).

    Attributes:
        offset: s.
        times: what t = 1 is called.
        first: smallest t.
        last: largest t, below 1, where σ is infinite.
    """

    kind = "vp_cosine"
    offset: float = 0.008
    times: float = 1.0
    first: float = 1e-3
    last: float = 0.995

    @property
    def _start(self) -> float:
        return 0.5 * math.pi * self.offset / (1 + self.offset)

    def time(self, sigma: Tensor) -> Tensor:
        """The root t of cos θ = α cos θ₀; by tangents, which keep their digits at both ends."""
        tangent = (sigma**2 + math.sin(self._start) ** 2).sqrt() / math.cos(self._start)
        return self.times * (tangent.atan() * (1 + self.offset) * 2 / math.pi - self.offset)

    def sigma(self, time: Tensor) -> Tensor:
        """√(cos² θ₀/cos² θ − 1) = √(sin(θ − θ₀) sin(θ + θ₀))/cos θ."""
        angle = 0.5 * math.pi * (time / self.times + self.offset) / (1 + self.offset)
        return ((angle - self._start).sin() * (angle + self._start).sin()).clamp_min(0).sqrt() / angle.cos()

    def slope(self, sigma: Tensor) -> Tensor:
        """−sin θ/cos θ₀ · dθ/dt."""
        tangent = (sigma**2 + math.sin(self._start) ** 2).sqrt() / math.cos(self._start)
        rate = 0.5 * math.pi / (1 + self.offset) / self.times
        return -self.alpha(sigma) * tangent * rate

    @property
    def ends(self) -> tuple[float, float]:
        """At the first and the last t."""
        both = torch.tensor([self.first, self.last], dtype=torch.float64) * self.times
        low, high = self.sigma(both).tolist()
        return low, high
