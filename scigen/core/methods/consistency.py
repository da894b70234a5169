"""Consistency: the student's output is the same along a path of the probability-flow ODE.

L = E λ(t) ‖f(x_t; t) − sg f(x_r; r)‖²,  r < t neighbours on a grid, f(x; 0) = x

Distillation: x_r is one Heun or Euler step of the teacher from x_t (Song et al. 2023, arXiv:2303.01469, algorithm 2).
Tuning: x_r = x₀ + r ε with the data and the noise of x_t, no teacher (ECT, Geng et al. 2024, arXiv:2406.14548). On a
Gaussian mode the fixed point of the first is the product of the solver's gains; that of the second is Euler's, and
with a constant ratio ρ = r/t its variance is √ρ of the truth. The number of levels grows in stages, each finer than the
last.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, DenoiserLike, DenoiserModule, expand, loss_weight
from scigen.core.methods.base import Batch, Distiller
from scigen.core.noise import karras_sigmas
from scigen.errors import UserError


def teacher_step(
    teacher: DenoiserLike, x: Tensor, t: Tensor, r: Tensor, condition: Condition | None, heun: bool = True
) -> Tensor:
    """x_r from x_t by one step of the teacher's ODE: Heun where r > 0, else Euler; per-sample levels t, r (B,)."""
    first = (x - teacher(x, t, condition)) / expand(t, x)
    ahead = x + expand(r - t, x) * first
    if not heun:
        return ahead
    inner = r > 0
    safe = torch.where(inner, r, t)
    second = (ahead - teacher(ahead, safe, condition)) / expand(safe, x)
    return torch.where(expand(inner, x) > 0, x + expand(r - t, x) * 0.5 * (first + second), ahead)


def consistency_loss(
    student: DenoiserLike,
    x_t: Tensor,
    x_r: Tensor,
    t: Tensor,
    r: Tensor,
    condition: Condition | None,
    sigma_data: float,
) -> Tensor:
    """The loss of every sample, (B,): x_t, x_r (B, C, *S) at levels t > r ≥ 0 (B,); where r = 0 the target is x_r."""
    with torch.no_grad():
        safe = torch.where(r > 0, r, t)
        target = torch.where(expand(r, x_r) > 0, student(x_r, safe, condition), x_r)
    return loss_weight(t, sigma_data) * (student(x_t, t, condition) - target).square().flatten(1).mean(1)


class Consistency(Distiller):
    """Consistency distillation, or tuning on data, with a grid that is refined in stages."""

    def __init__(
        self,
        student: DenoiserModule,
        teacher: nn.Module,
        sigmas: Sequence[float],
        sigma_min: float,
        levels: Sequence[int] = (10, 20, 40),
        rho: float = 7.0,
        heun: bool = True,
        tuning: bool = False,
    ) -> None:
        """Set student, teacher and grid.

        Args:
            student: initialised from the teacher.
            teacher: frozen; not called when tuning.
            sigmas: the student's sampling levels; the first is σ_max.
            sigma_min: smallest level of the grid above 0.
            levels: number of levels in each stage, equal shares of the training.
            rho: ρ of the grid.
            heun: whether the teacher's step is Heun's (else Euler's).
            tuning: whether x_r comes from the data instead of the teacher.

        Raises:
            UserError: for fewer than two levels.
        """
        super().__init__(student, teacher, sigmas)
        if not levels or min(levels) < 2:
            raise UserError(f"method.levels={list(levels)}: consistency needs at least two levels in each stage.")
        self.heun, self.tuning = heun, tuning
        self.grids = [torch.cat([karras_sigmas(n, sigma_min, sigmas[0], rho), torch.zeros(1)]).float() for n in levels]
        self.stage = 0

    def at(self, progress: float) -> None:
        """Choose the stage."""
        self.stage = min(int(progress * len(self.grids)), len(self.grids) - 1)

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Mean consistency loss; the level of each sample is drawn uniformly (stratified) from the grid."""
        grid = self.grids[self.stage].to(batch.x.device)
        n = len(batch.x)
        u = (torch.randperm(n, device=grid.device) + torch.rand(n, device=grid.device)) / n
        i = (u * (len(grid) - 1)).long().clamp_max(len(grid) - 2)
        t, r = grid[i], grid[i + 1]
        noise = torch.randn_like(batch.x)
        x_t = batch.x + expand(t, batch.x) * noise
        with torch.no_grad():
            if self.tuning:
                x_r = batch.x + expand(r, batch.x) * noise
            else:
                x_r = teacher_step(self.teacher, x_t, t, r, batch.condition, self.heun)
        each = consistency_loss(self.student, x_t, x_r, t, r, batch.condition, self.student.sigma_data)
        return {"loss": each.mean(), "levels": torch.tensor(float(len(grid) - 1))}
