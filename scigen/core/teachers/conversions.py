"""From what another model predicts, on its own schedule, to D(x; σ) in EDM's variables: exact, affine, level by level.

Every schedule is y = α x₀ + s ε, so that y = α x_σ with σ = s/α: scaling the input and relabelling the time is all
there is to it (Karras et al. 2022, arXiv:2206.00364, §2 and table 1). And every prediction P is linear in x₀ and ε, so
that D = skip · x + out · P(scale · x, time).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from scigen.core.denoise import preconditioning
from scigen.errors import UserError

PREDICTIONS = ("x0", "epsilon", "v", "score", "velocity", "edm")
"""x₀; ε; v = α ε − s x₀; ∇ log p(y); dy/dt; the network of EDM's preconditioning."""


class Affine(NamedTuple):
    """D = skip · x + out · P(scale · x, time): each (B,), or (B, C) where channels differ, float64; time (B,)."""

    skip: Tensor
    out: Tensor
    scale: Tensor
    time: Tensor


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


@dataclass(frozen=True)
class Table(VariancePreserving):
    """A variance-preserving schedule of discrete times 0, 1, …: what DDPM's network was trained on.

    Between them times are interpolated linearly in ln σ, which embeddings of the time follow smoothly; beyond the ends
    the network is told the end, while the scaling stays exact.

    Attributes:
        sigmas: increasing levels, one a time.
        nearest: whether the network is told the nearest time (in σ) and none between.
    """

    kind = "table"
    sigmas: tuple[float, ...] = ()
    nearest: bool = False

    def __post_init__(self) -> None:
        """Check the levels.

        Raises:
            UserError: unless two at least are positive, finite and increasing.
        """
        own = tuple(float(s) for s in self.sigmas)
        object.__setattr__(self, "sigmas", own)
        steps = pairwise(own)
        if len(own) < 2 or not all(0 < s < math.inf for s in own) or any(b <= a for a, b in steps):
            raise UserError(
                f"A table of noise levels must be positive, finite and increasing, two at least: {str(own)[:80]}."
            )

    @classmethod
    def of_alphas(cls, alphas_cumprod: Tensor) -> "Table":
        """From ᾱ of every time, decreasing; times beyond σ = 1000, where nothing of the data is left, are no levels."""
        kept = alphas_cumprod.double()[alphas_cumprod > 1e-6]
        return cls(tuple(((1 - kept) / kept).sqrt().tolist()))

    def time(self, sigma: Tensor) -> Tensor:
        """Interpolated, or the nearest."""
        levels = torch.tensor(self.sigmas, dtype=torch.float64, device=sigma.device)
        own = sigma.double()
        if self.nearest:
            return (own[..., None] - levels).abs().argmin(-1).double()
        own = own.clamp(levels[0], levels[-1]).log()
        logs = levels.log()
        above = torch.searchsorted(logs, own.contiguous()).clamp(1, len(levels) - 1)
        low, high = logs[above - 1], logs[above]
        return above - 1 + (own - low) / (high - low)

    def sigma(self, time: Tensor) -> Tensor:
        """The inverse of the interpolation."""
        logs = torch.tensor(self.sigmas, dtype=torch.float64, device=time.device).log()
        low = time.double().floor().clamp(0, len(logs) - 2).long()
        return torch.lerp(logs[low], logs[low + 1], time.double() - low).exp()

    def slope(self, sigma: Tensor) -> Tensor:
        """There is none."""
        raise UserError("A table of noise levels has no velocity: predicts=velocity needs a schedule in closed form.")

    @property
    def ends(self) -> tuple[float, float]:
        """First and last level."""
        return self.sigmas[0], self.sigmas[-1]


SCHEDULES: dict[str, type[Schedule]] = {k.kind: k for k in (Edm, VpLinear, VpCosine, RectifiedFlow, TrigFlow, Table)}


def schedule(words: str | Mapping[str, Any]) -> Schedule:
    """A schedule by its name, or by `kind` and its numbers.

    Raises:
        UserError: for an unknown one, or a number that it does not have.
    """
    own = {"kind": words} if isinstance(words, str) else dict(words)
    kind = own.pop("kind", None)
    if kind not in SCHEDULES:
        raise UserError(f"schedule={kind}: unknown; use one of {', '.join(SCHEDULES)}.")
    known = [f.name for f in fields(SCHEDULES[kind])]
    if strange := [k for k in own if k not in known]:
        raise UserError(f"schedule {kind} has no {strange[0]}; it has {', '.join(known)}.")
    try:
        own = {k: tuple(v) if isinstance(v, list) else v for k, v in own.items()}
        made = SCHEDULES[kind](**own)
        low, high = made.ends
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"schedule {kind} with {own}: {error}.") from error
    if not 0 < low < high < math.inf:
        raise UserError(f"schedule {kind} with {own}: its levels, σ ∈ [{low:g}, {high:g}], are no range.")
    return made


def affine(own: Schedule, predicts: str, sigma: Tensor, sigma_data: float = 1.0) -> Affine:
    """How D follows from a prediction, at σ (B,) float64.

    Args:
        own: the schedule of the network.
        predicts: one of PREDICTIONS.
        sigma: levels of x = x₀ + σ ε.
        sigma_data: of EDM's preconditioning, where that is what is predicted.

    Raises:
        UserError: for an unknown prediction, or a velocity on a table.
    """
    alpha, time, one = own.alpha(sigma), own.time(sigma), torch.ones_like(sigma)
    s, scale = alpha * sigma, alpha / own.unit
    if predicts == "x0":
        return Affine(0 * one, one, scale, time)
    if predicts == "epsilon":
        return Affine(one, -sigma, scale, time)
    if predicts == "v":  # x₀ = (α y − s v)/(α² + s²)
        total = alpha**2 + s**2
        return Affine(alpha**2 / total, -s / total, scale, time)
    if predicts == "score":  # of y: −ε/s
        return Affine(one, s**2 / alpha, scale, time)
    if predicts == "velocity":  # x₀ = (s' y − s u)/(s' α − s α')
        d_alpha, d_s = own.speed(sigma)
        total = d_s * alpha - s * d_alpha
        return Affine(d_s * alpha / total, -s * own.unit / total, scale, time)
    if predicts == "edm":
        skip, out, c_in, _ = preconditioning(sigma, sigma_data)
        return Affine(skip, out, c_in, time)
    raise UserError(f"predicts={predicts}: unknown; use one of {', '.join(PREDICTIONS)}.")
