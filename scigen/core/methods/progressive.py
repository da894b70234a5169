"""Progressive distillation: one step of the student is two of the model before it, until few steps are left.

x″ = two steps from x at σ down to σ″;   x̂ = (x″ − (σ″/σ) x)/(1 − σ″/σ);   L = E λ(σ) ‖D_student(x; σ) − x̂‖²

(Salimans & Ho 2022, arXiv:2202.00512, algorithm 2; x̂ is the prediction with which one Euler step meets x″.) The model
before is the teacher in the first stage, and then the student as the last stage left it. λ = 1/c_out², which is
1/σ² + 1/σ_data², the paper's "SNR + 1" over σ_data². On a Gaussian mode the student's step has the product of the gains
of all the teacher's steps that it replaces, at every stage: what is lost is lost in the teacher's grid, so start with
many steps.
"""

import copy
import math

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, DenoiserLike, DenoiserModule, expand, loss_weight
from scigen.core.methods.base import Batch, Distiller
from scigen.core.methods.consistency import teacher_step
from scigen.core.noise import karras_sigmas
from scigen.errors import UserError


def two_steps(
    denoiser: DenoiserLike, x: Tensor, now: Tensor, mid: Tensor, then: Tensor, condition: Condition | None, heun: bool
) -> Tensor:
    """x̂ of the Euler step now → then that lands where two steps now → mid → then do.

    Args:
        denoiser: the model before.
        x: states at `now`, (B, C, *S).
        now: σ (B,).
        mid: σ′, 0 < σ′ < σ (B,).
        then: σ″, 0 ≤ σ″ < σ′ (B,).
        condition: batch first.
        heun: whether the steps are Heun's (else Euler's).
    """
    half = teacher_step(denoiser, x, now, mid, condition, heun)
    end = teacher_step(denoiser, half, mid, then, condition, heun)
    left = expand(then / now, x)
    return (end - left * x) / (1 - left)


def progressive_loss(
    student: DenoiserLike, x: Tensor, target: Tensor, sigma: Tensor, condition: Condition | None, sigma_data: float
) -> Tensor:
    """The loss of every sample, (B,): states x and targets x̂ (B, C, *S) at levels σ (B,)."""
    error = (student(x, sigma, condition) - target).square().flatten(1).mean(1)
    return loss_weight(sigma, sigma_data) * error


class Progressive(Distiller):
    """Halves the number of steps in stages, down to one or a few."""

    sampler = "euler"
    stage: Tensor

    def __init__(
        self,
        student: DenoiserModule,
        teacher: nn.Module,
        sigma_min: float,
        sigma_max: float,
        steps: int = 1,
        start: int = 32,
        rho: float = 7.0,
        heun: bool = True,
    ) -> None:
        """Set student, teacher and grids.

        Args:
            student: initialised from the teacher.
            teacher: frozen.
            sigma_min: last level above 0 of the teacher's grid.
            sigma_max: first level of every grid.
            steps: the student's calls; its levels are every (start/steps)-th of the teacher's.
            start: the teacher's steps, `steps` times a power of two.
            rho: ρ of the grid.
            heun: whether the teacher's steps are Heun's (else Euler's); those of students are Euler's.

        Raises:
            UserError: unless start is steps times 2, 4, 8, ….
        """
        stages = round(math.log2(start / steps)) if steps > 0 and start > 0 else 0
        if stages < 1 or start != steps * 2**stages:
            raise UserError(
                f"method.start={start}, method.steps={steps}: halving leads from steps times 2, 4, 8, … to steps."
            )
        grid = karras_sigmas(start, sigma_min, sigma_max, rho)
        super().__init__(student, teacher, grid[:: start // steps].tolist())
        self.grid = torch.cat([grid, torch.zeros(1, dtype=grid.dtype)])
        self.stages, self.heun = stages, heun
        self.previous = copy.deepcopy(student).requires_grad_(False).eval()
        self.register_buffer("stage", torch.zeros((), dtype=torch.long))

    def train(self, mode: bool = True) -> "Progressive":
        """Switch the mode of the student."""
        super().train(mode)
        self.previous.eval()
        return self

    def at(self, progress: float) -> None:
        """Go on to the next stage when its time has come: the student becomes the model before.

        The last two stages are twice as long as each other, as in the paper: theirs are the longest jumps. The stage is
        kept with the weights, so that a resumed run does not copy again.
        """
        lengths = [2 if i >= self.stages - 2 else 1 for i in range(self.stages)]
        ends = torch.tensor(lengths).cumsum(0) / sum(lengths)
        due = min(int((progress >= ends).sum()), self.stages - 1)
        if due > int(self.stage):
            self.previous.load_state_dict(self.student.state_dict())
            self.stage.fill_(due)

    def levels(self) -> tuple[Tensor, Tensor, Tensor]:
        """σ, σ′, σ″ of every step of this stage's student, from the first to the last: each (steps,) float64."""
        stride = 2 ** int(self.stage)
        nodes = self.grid[:: 2 * stride]
        return nodes[:-1], self.grid[stride :: 2 * stride], nodes[1:]

    @torch.no_grad()
    def target(self, x: Tensor, now: Tensor, mid: Tensor, then: Tensor, condition: Condition | None) -> Tensor:
        """x̂ of the model before this stage."""
        if int(self.stage) == 0:
            return two_steps(self.teacher, x, now, mid, then, condition, self.heun)
        return two_steps(self.previous, x, now, mid, then, condition, heun=False)

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Mean loss; the level of each sample is drawn uniformly (stratified) from this stage's grid."""
        x, n = batch.x, len(batch.x)
        grids = [level.to(x) for level in self.levels()]
        u = (torch.randperm(n, device=x.device) + torch.rand(n, device=x.device)) / n
        i = (u * len(grids[0])).long().clamp_max(len(grids[0]) - 1)
        now, mid, then = (level[i] for level in grids)
        x = x + expand(now, x) * torch.randn_like(x)
        target = self.target(x, now, mid, then, batch.condition)
        each = progressive_loss(self.student, x, target, now, batch.condition, self.student.sigma_data)
        return {"loss": each.mean(), "steps": torch.tensor(float(len(grids[0])))}
