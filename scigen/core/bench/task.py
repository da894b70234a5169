"""Task: a known law, what may be drawn from it, and its exact answer to any noise."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scigen.core.denoise import Condition
from scigen.core.methods.base import Batch
from scigen.core.oracle import RotatedProduct
from scigen.core.posterior import Posterior

FAR = 1e4
"""σ over σ_max from where exact samples start: what is missing of the law there is below 1e-8."""
ROWS = 512
"""Rows that are solved at once, so that they stay in the cache."""


@dataclass(frozen=True)
class Task:
    """A law of vectors (n,), conditional where it is a posterior; it is the teacher too.

    Attributes:
        name: of the task.
        about: what it is, in a line.
        law: exact denoiser with the attribute `sigma_data`, float64.
        sigma_min: lowest noise level.
        sigma_max: highest noise level.
        split: a direction (n,): samples are counted by the sign of their part along it; None where modes are no matter.
    """

    name: str
    about: str
    law: RotatedProduct
    sigma_min: float
    sigma_max: float
    split: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample."""
        return (len(self.law.rotation),)

    @property
    def scalars(self) -> int:
        """Number of condition scalars."""
        if not isinstance(self.law, Posterior):
            return 0
        return self.law.forwards(torch.zeros(1, *self.shape, dtype=self.law.rotation.dtype)).shape[1]

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """n training samples with their conditions, float32."""
        batch = self.truth(n, generator)
        return replace(batch, x=batch.x.float(), condition={k: v.float() for k, v in batch.condition.items()})

    def truth(self, n: int, generator: torch.Generator) -> Batch:
        """n samples with their conditions, float64."""
        x = self.law.draw(n, generator)
        return Batch(x, self.law.measure(x, generator) if isinstance(self.law, Posterior) else {})

    def exact(self, noise: Tensor, condition: Condition | None = None) -> Tensor:
        """Where the exact flow leads noise ε (B, n) of unit variance, float64.

        It starts so far above σ_max that the answers have the law itself: a few-step student's noise σ_max ε lacks the
        share λ/(λ + σ_max²) of a mode's variance, and that is its own error.
        """
        sigma, parts = torch.tensor(FAR * self.sigma_max, dtype=torch.float64), []
        for rows in torch.arange(len(noise)).split(ROWS):
            own = {k: v[rows] for k, v in (condition or {}).items()}
            far = sigma.expand(len(rows))
            parts.append(self.law.flow_map(sigma * noise[rows].double(), far, torch.zeros_like(far), own))
        return torch.cat(parts)
