"""Trajectory distribution matching: each step of a student's own ODE path lands where the teacher's marginals are.

x_{i+1} = G(x_i; σ_i) + (σ_{i+1}/σ_i) (x_i − G),   x_τ = x_{i+1} + √(τ² − σ_{i+1}²) ε,   τ ∈ [σ_{i+1}, σ_i]
∇_θ = E w (D_fake − D_real)(x_τ; τ) ∂G(x_i; σ_i)/∂θ

(TDM, Luo et al. 2025, arXiv:2503.06674, in the variance-exploding process.) The student walks its K levels with Euler's
steps, without fresh noise; states are matched in distribution, so K = 1 is DMD. The intervals of τ do not overlap: one
fake score can learn all steps' marginals. It is given the score of x_τ, not the mean of a clean sample, since x_{i+1}
still has the noise of σ_{i+1}. Without the anchor it needs no data,
only conditions.

Like DMD it is mode-seeking, chiefly in the last step, whose τ reach down to `match_min`: see `dmd.py` for the knob. So
the default is anchored too: by regression, each step leads from a state of the teacher's trajectory to its next.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, DenoiserLike, DenoiserModule, expand, loss_weight
from scigen.core.methods.base import Batch
from scigen.core.methods.dmd import fake_score, matching_loss
from scigen.core.methods.generating import Generating
from scigen.core.noise import LogUniform
from scigen.errors import UserError


def euler_step(x: Tensor, denoised: Tensor, now: float, then: float) -> Tensor:
    """The state at level `then` from x at level `now`."""
    return denoised + (then / now) * (x - denoised)


@torch.no_grad()
def walk(
    student: DenoiserLike, start: Tensor, sigmas: Sequence[float], step: int, condition: Condition | None
) -> Tensor:
    """The student's state before its call number `step`, from unit-variance noise (B, C, *S): those of `euler`."""
    x = sigmas[0] * start
    for now, then in pairwise(sigmas[: step + 1]):
        level = torch.full((len(x),), now, dtype=torch.float64, device=x.device)
        x = euler_step(x, student(x, level, condition), now, then)
    return x


def diffuse(x: Tensor, start: float, tau: Tensor, noise: Tensor) -> Tensor:
    """x_τ from a state at level `start` ≤ τ (B,): the variance of its noise grows from start² to τ²."""
    return x + expand((tau**2 - start**2).clamp_min(0).sqrt(), x) * noise


def trajectory_score_loss(
    fake: DenoiserLike,
    x: Tensor,
    start: float,
    tau: Tensor,
    noise: Tensor,
    condition: Condition | None,
    sigma_data: float,
) -> Tensor:
    """The fake score's loss of every sample, (B,), on states x (B, C, *S) of the student at level `start`.

    The score of x_τ given x is −ε/√(τ² − start²), so D = x_τ + τ² score has the target x_τ − τ² ε/√(τ² − start²), whose
    variance grows without bound as τ → start. Weighted by 1 − start²/τ² it does not:

        λ(τ) ‖√(1 − start²/τ²) (D − x_τ) + τ ε‖²,   which is denoising at start = 0
    """
    x_tau = diffuse(x, start, tau, noise)
    share = expand((1 - (start / tau) ** 2).clamp_min(0).sqrt(), x)
    error = share * (fake(x_tau, tau, condition) - x_tau) + expand(tau, x) * noise
    return loss_weight(tau, sigma_data) * error.square().flatten(1).mean(1)


class TDM(Generating):
    """Student and fake score on the student's own trajectory; a step drawn anew each time."""

    sampler, walks = "euler", True

    def __init__(
        self,
        student: DenoiserModule,
        teacher: nn.Module,
        sigmas: Sequence[float],
        match_min: float,
        members: int = 1,
        anchor: float = 0.0,
        pairs: int = 0,
        warmup: float = 0.0,
        fake_steps: int = 5,
    ) -> None:
        """Set student, teacher and matching.

        Args:
            student: initialised from the teacher.
            teacher: frozen.
            sigmas: the student's levels; with the implied 0 they bound the intervals of τ.
            match_min: least τ of the last step.
            members: samples of the student a condition.
            anchor: weight of the regression on pairs: each step from the teacher's state to its next.
            pairs: number of cached pairs; 0 for conditions alone.
            warmup: share of the training in which the anchor trains the student by itself.
            fake_steps: the fake score's steps after each of the student's.

        Raises:
            UserError: for a fake score without steps, members below one, or match_min not below the last level.
        """
        if not 0 < match_min < sigmas[-1]:
            raise UserError(
                f"method.match_min={match_min} must lie between 0 and the student's last level, {sigmas[-1]}."
            )
        super().__init__(student, teacher, sigmas, match_min, sigmas[0], members, anchor, pairs, warmup)
        if fake_steps < 1:
            raise UserError(f"method.fake_steps={fake_steps} must be at least 1.")
        self.fake, self.fake_steps = fake_score(student, teacher), fake_steps
        bounds = [*self.sigmas, match_min]
        self.laws = [LogUniform(low, high) for high, low in pairwise(bounds)]

    def train(self, mode: bool = True) -> "TDM":
        """Switch the mode of everything but teacher and fake score: a score without dropout."""
        super().train(mode)
        self.fake.eval()
        return self

    def learners(self) -> dict[str, nn.Module]:
        """Student and fake score."""
        return {"student": self.student, "fake": self.fake}

    def turn(self, step: int) -> str:
        """The student's at the start of every cycle."""
        return "fake" if not self.alone and step % (1 + self.fake_steps) else "student"

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """The learner's loss at one step of the student's trajectories."""
        step = self.level()
        if self.alone:
            return {"loss": self.drawn_to(batch, step)}
        condition = self.condition(batch)
        shape = (len(batch.x) * self.members, *batch.x.shape[1:])
        start = torch.randn(shape, dtype=batch.x.dtype, device=batch.x.device)
        now, then = (*self.sigmas, 0.0)[step : step + 2]
        x = walk(self.student, start, self.sigmas, step, condition)
        level = torch.full((len(x),), now, dtype=torch.float64, device=x.device)
        tau, noise = self.laws[step].draw(len(x), device=x.device), torch.randn_like(x)
        if turn == "fake":
            with torch.no_grad():
                x = euler_step(x, self.student(x, level, condition), now, then)
            sigma_data = self.student.sigma_data
            return {"loss": trajectory_score_loss(self.fake, x, then, tau, noise, condition, sigma_data).mean()}
        denoised = self.student(x, level, condition)
        x_tau = diffuse(euler_step(x, denoised, now, then), then, tau, noise)
        match = matching_loss(denoised, x_tau, tau, self.teacher, self.fake, condition).mean()
        return self.anchored(match, batch, step, {"match": match})
