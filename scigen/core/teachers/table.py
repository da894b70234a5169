"""The schedule of discrete times, as DDPM's networks are trained."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from scigen.core.teachers.variance_preserving import VariancePreserving
from scigen.errors import UserError


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
