"""What methods that judge a student's own samples share: making them as a sampler would, and a trajectory anchor."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, DenoiserLike, DenoiserModule, expand, perturbed
from scigen.core.methods.base import Batch, Distiller, repeat
from scigen.core.methods.regression import level_weights, regression_loss
from scigen.core.noise import LogUniform
from scigen.core.sample import few_step
from scigen.errors import UserError


@torch.no_grad()
def simulate(
    student: DenoiserLike, start: Tensor, sigmas: Sequence[float], level: int, condition: Condition | None
) -> Tensor:
    """What the student is given at its call number `level` when it samples: its own earlier output, noised afresh.

    Args:
        student: D(x, sigma, condition).
        start: unit-variance noise, (B, C, *S).
        sigmas: its levels.
        level: 0 for the first call.
        condition: batch first.

    Returns:
        (B, C, *S) at level sigmas[level], without gradient: the states of `few_step`.
    """
    if level == 0:
        return sigmas[0] * start
    fresh = [torch.randn_like(start) for _ in range(level)]
    x = few_step(student, sigmas[0] * start, sigmas[:level], condition, fresh[:-1])
    return x + sigmas[level] * fresh[-1]


def anchor_loss(
    student: DenoiserModule, batch: Batch, sigmas: Sequence[float], level: int, walks: bool = False
) -> Tensor:
    """Regression on the teacher's trajectory, (B,): from its state at the student's level, on pairs.

    Where pairs have no states below the first level (`Batch.path`), every level's turn trains the first.

    Args:
        student: G(x, sigma, condition).
        batch: of pairs.
        sigmas: the student's levels.
        level: which of them.
        walks: False for a student whose every output is a sample: to the end of the trajectory. True for one that takes
            Euler's steps from level to level: to the G whose step leads to the next state,
            (x_{i+1} − r x_i)/(1 − r) with r = σ_{i+1}/σ_i. At the last level both are the end.
    """
    assert batch.noise is not None
    x, end = sigmas[0] * batch.noise, batch.x
    if level and batch.path is not None:
        x = batch.path[:, level - 1]
    elif not walks:
        level = 0
    if walks and level + 1 < len(sigmas):
        assert batch.path is not None
        ratio = sigmas[level + 1] / sigmas[level]
        end = (batch.path[:, level] - ratio * x) / (1 - ratio)
    levels = torch.tensor(sigmas, dtype=torch.float64, device=x.device)
    weight = level_weights(levels, student.sigma_data)[level].to(x)
    return regression_loss(student, x, end, levels[level].expand(len(x)), batch.condition, weight.expand(len(x)))


class Generating(Distiller):
    """A distiller that trains on fresh samples of its student.

    Attributes:
        walks: whether the student is sampled by Euler's steps from level to level; its anchor is then a step of them.
        alone: whether the anchor now trains the student by itself.
    """

    walks: bool = False
    alone: bool = False

    def __init__(
        self,
        student: DenoiserModule,
        teacher: nn.Module,
        sigmas: Sequence[float],
        match_min: float,
        match_max: float,
        members: int,
        anchor: float,
        pairs: int,
        warmup: float,
    ) -> None:
        """Set student, teacher, and what is shared.

        Args:
            student: initialised from the teacher.
            teacher: frozen.
            sigmas: the student's levels.
            match_min: least noise level at which samples are compared.
            match_max: largest; ln σ is uniform between them.
            members: samples of the student a condition.
            anchor: weight of the regression on pairs; none where a batch has no noise.
            pairs: number of cached pairs, which also are the teacher's samples; 0 for data instead.
            warmup: share of the training in which the anchor trains the student by itself, and no other learner has a
                turn; without anchor or pairs there is none. A student of weights that the teacher has denoised with
                gives means at first, whose score a copy of the teacher is far from; after the warm-up it is near.

        Raises:
            UserError: for members below one, a negative anchor, or a warm-up that leaves nothing.
        """
        super().__init__(student, teacher, sigmas)
        if members < 1 or anchor < 0 or not 0 <= warmup < 1:
            raise UserError(
                f"method.members={members} must be at least 1, method.anchor={anchor} not negative, and"
                f" method.warmup={warmup} a share from 0 to below 1."
            )
        self.law = LogUniform(match_min, match_max)
        self.members, self.anchor, self.pairs = members, anchor, pairs
        self.warmup = warmup if anchor and pairs else 0.0

    def at(self, progress: float) -> None:
        """Begin with the anchor alone."""
        self.alone = progress < self.warmup

    def condition(self, batch: Batch) -> dict[str, Tensor]:
        """The condition of the student's samples."""
        return batch.condition if self.members == 1 else repeat(batch.condition, self.members)

    def level(self) -> int:
        """Which of the student's calls this step trains."""
        return int(torch.randint(len(self.sigmas), ()))

    def generate(self, batch: Batch, level: int) -> Tensor:
        """Samples of the student, `members` a condition: gradients reach its call number `level` alone."""
        shape = (len(batch.x) * self.members, *batch.x.shape[1:])
        start = torch.randn(shape, dtype=batch.x.dtype, device=batch.x.device)
        condition = perturbed(self.student, self.condition(batch))
        x = simulate(self.student, start, self.sigmas, level, condition)
        sigma = torch.full((len(x),), self.sigmas[level], dtype=torch.float64, device=x.device)
        return self.student(x, sigma, condition)

    def noised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(x_σ, σ) with σ from the law."""
        sigma = self.law.draw(len(x), device=x.device)
        return x + expand(sigma, x) * torch.randn_like(x), sigma

    def anchored(self, total: Tensor, batch: Batch, level: int, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the anchor, if there is one, and name the sum "loss"."""
        if self.anchor and batch.noise is not None:
            parts["anchor"] = self.drawn_to(batch, level)
            total = total + self.anchor * parts["anchor"]
        return {"loss": total, **parts}

    def drawn_to(self, batch: Batch, level: int) -> Tensor:
        """Mean anchor loss at a level."""
        return anchor_loss(self.student, batch, self.sigmas, level, self.walks).mean()
