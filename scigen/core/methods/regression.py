"""Regression on the teacher's end points: the student jumps from noise to where the teacher's ODE leads.

L = E ‖G(σ_max ε; σ_max, c) − Φ(σ_max ε, c)‖² / σ_data²,   Φ = the converged teacher, cached

(Luhman & Luhman 2021, arXiv:2101.02388)

The noise ties every sample to its own end point, so the spread is inherited and nothing collapses to the mean.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, DenoiserLike, DenoiserModule
from scigen.core.methods.base import Batch, Distiller
from scigen.errors import UserError


def regression_loss(
    student: DenoiserLike, noise: Tensor, end: Tensor, sigma_max: float, condition: Condition | None, sigma_data: float
) -> Tensor:
    """The loss of every pair, (B,): noise and end points (B, C, *S)."""
    sigma = torch.full((len(noise),), sigma_max, device=noise.device)
    return (student(sigma_max * noise, sigma, condition) - end).square().flatten(1).mean(1) / sigma_data**2


class Regression(Distiller):
    """One call: the student meets the teacher's ODE end point on cached pairs."""

    def __init__(self, student: DenoiserModule, teacher: nn.Module, sigmas: Sequence[float], pairs: int = 1024) -> None:
        """Set student and teacher.

        Args:
            student: initialised from the teacher.
            teacher: frozen.
            sigmas: one level, the teacher's σ_max.
            pairs: number of cached pairs.

        Raises:
            UserError: for more than one level.
        """
        super().__init__(student, teacher, sigmas)
        if len(sigmas) != 1:
            raise UserError(f"method=regression trains a student of one step, not of {len(sigmas)} ({list(sigmas)}).")
        self.pairs = pairs

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Mean squared distance to the end points.

        Raises:
            UserError: if the batch has no noise.
        """
        if batch.noise is None:
            raise UserError("method=regression trains on (noise, end point) pairs of its teacher, not on data.")
        sigma_data = self.student.sigma_data
        each = regression_loss(self.student, batch.noise, batch.x, self.sigmas[0], batch.condition, sigma_data)
        return {"loss": each.mean()}
