"""What methods that judge a student's own samples share: making them as a sampler would, and a trajectory anchor."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, DenoiserLike, DenoiserModule, expand
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


def anchor_loss(student: DenoiserModule, batch: Batch, sigmas: Sequence[float], level: int) -> Tensor:
    """Regression on the teacher's trajectory, (B,): from its state at the student's level to its end, on pairs.

    Where pairs have no states below the first level (`Batch.path`), every level's turn trains the first.
    """
    assert batch.noise is not None
    x = sigmas[0] * batch.noise
    if level and batch.path is not None:
        x = batch.path[:, level - 1]
    else:
        level = 0
    levels = torch.tensor(sigmas, dtype=torch.float64, device=x.device)
    weight = level_weights(levels, student.sigma_data)[level].to(x)
    return regression_loss(student, x, batch.x, levels[level].expand(len(x)), batch.condition, weight.expand(len(x)))


class Generating(Distiller):
    """A distiller that trains on fresh samples of its student."""

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

        Raises:
            UserError: for members below one or a negative anchor.
        """
        super().__init__(student, teacher, sigmas)
        if members < 1 or anchor < 0:
            raise UserError(f"method.members={members} must be at least 1 and method.anchor={anchor} not negative.")
        self.law = LogUniform(match_min, match_max)
        self.members, self.anchor, self.pairs = members, anchor, pairs

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
        condition = self.condition(batch)
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
            parts["anchor"] = anchor_loss(self.student, batch, self.sigmas, level).mean()
            total = total + self.anchor * parts["anchor"]
        return {"loss": total, **parts}
