"""Schedules of diffusion models: y = α x₀ + s ε at a time t, told by the level σ = s/α.

y = α x_σ: scaling the input and relabelling the time is all there is to a schedule (Karras et al. 2022,
arXiv:2206.00364, §2 and table 1).
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule(ABC):
    """y = α x₀ + s ε at a time t; all of it as functions of σ = s/α, (B,) float64.

    Attributes:
        kind: what configurations call it.
        unit: what the network's input is divided by, and its velocity multiplied by.
    """

    kind: ClassVar[str]

    @abstractmethod
    def time(self, sigma: Tensor) -> Tensor:
        """What the network is told of the level σ."""

    @abstractmethod
    def sigma(self, time: Tensor) -> Tensor:
        """The level of a time: inverse of `time`."""

    @abstractmethod
    def alpha(self, sigma: Tensor) -> Tensor:
        """α at σ."""

    @abstractmethod
    def speed(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(dα/dt, ds/dt) at σ.

        Raises:
            UserError: if the schedule is a table, which has no derivatives.
        """

    @property
    @abstractmethod
    def ends(self) -> tuple[float, float]:
        """Smallest and largest σ that a network on this schedule has met, as far as the schedule says."""

    @property
    def unit(self) -> float:
        """1, but for TrigFlow."""
        return 1.0

    def to_dict(self) -> dict[str, Any]:
        """JSON types that `schedule` takes."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Edm(Schedule):
    """y = x₀ + σ ε, σ the time.

    Attributes:
        sigma_min: smallest level.
        sigma_max: largest.
        log_time: whether the network is told ¼ ln σ.
    """

    kind = "edm"
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    log_time: bool = False

    def time(self, sigma: Tensor) -> Tensor:
        """The level itself, or ¼ ln σ."""
        return 0.25 * sigma.log() if self.log_time else sigma

    def sigma(self, time: Tensor) -> Tensor:
        """Its inverse."""
        return (4 * time).exp() if self.log_time else time

    def alpha(self, sigma: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(sigma)

    def speed(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(0, 1), by σ."""
        return torch.zeros_like(sigma), torch.ones_like(sigma)

    @property
    def ends(self) -> tuple[float, float]:
        """As given."""
        return self.sigma_min, self.sigma_max


@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """y = (1 − τ) x₀ + τ ε on τ ∈ [0, 1] (Liu et al. 2023, arXiv:2209.03003).

    Attributes:
        times: what the end of the time axis is called.
        data_last: whether the time runs the other way, from noise at 0 to data at `times`.
        first: smallest τ.
        last: largest τ, below 1, where σ is infinite.
    """

    kind = "rectified_flow"
    times: float = 1.0
    data_last: bool = False
    first: float = 1e-3
    last: float = 0.995

    def time(self, sigma: Tensor) -> Tensor:
        """The share τ = σ/(1 + σ)."""
        return self.times * (1 / (1 + sigma) if self.data_last else sigma / (1 + sigma))

    def sigma(self, time: Tensor) -> Tensor:
        """τ/(1 − τ)."""
        t = time / self.times
        return (1 - t) / t if self.data_last else t / (1 - t)

    def alpha(self, sigma: Tensor) -> Tensor:
        """1 − τ."""
        return 1 / (1 + sigma)

    def speed(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(−1, 1), or the other way round; velocities are per unit of τ, whatever `times` calls it."""
        one = torch.ones_like(sigma)
        return (one, -one) if self.data_last else (-one, one)

    @property
    def ends(self) -> tuple[float, float]:
        """At the first and the last τ."""
        return self.first / (1 - self.first), self.last / (1 - self.last)


@dataclass(frozen=True)
class TrigFlow(Schedule):
    """y = cos t x₀ + sin t σ_data ε on t ∈ [0, π/2]; the network takes y/σ_data and gives dy/dt/σ_data.

    Source: Lu and Song 2024, arXiv:2410.11081, §3.

    Attributes:
        sigma_data: standard deviation of the data.
        sigma_min: smallest level.
        sigma_max: largest.
    """

    kind = "trigflow"
    sigma_data: float = 1.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def time(self, sigma: Tensor) -> Tensor:
        """The angle atan(σ/σ_data)."""
        return (sigma / self.sigma_data).atan()

    def sigma(self, time: Tensor) -> Tensor:
        """σ_data tan t."""
        return self.sigma_data * time.tan()

    def alpha(self, sigma: Tensor) -> Tensor:
        """The cosine of t."""
        return self.sigma_data * (self.sigma_data**2 + sigma**2).rsqrt()

    def speed(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(−sin t, σ_data cos t)."""
        alpha = self.alpha(sigma)
        return -sigma * alpha / self.sigma_data, self.sigma_data * alpha

    @property
    def ends(self) -> tuple[float, float]:
        """As given."""
        return self.sigma_min, self.sigma_max

    @property
    def unit(self) -> float:
        """σ_data."""
        return self.sigma_data
