"""Adversarial distillation: the student's noised samples shall look like the teacher's to the teacher's own features.

L_D = E softplus(−d(x_σ)) + E softplus(d(x̂_σ)) + R1,   L_G = E softplus(−d(x̂_σ)),   x_σ = x + σ ε

(LADD, Sauer et al. 2024, arXiv:2403.12015; non-saturating logistic loss, Goodfellow et al. 2014, arXiv:1406.2661.)

Nothing here ties a noise to its end point: the student may drop part of the teacher's spread and pay little, and what
the heads do not see is not matched at all. On its own it tends to be under-dispersive, so the default keeps `anchor`,
a regression on the teacher's own pairs; check the spread–skill ratio of what comes out.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from scigen.core.denoise import DenoiserModule, expand
from scigen.core.methods.base import Batch
from scigen.core.methods.discriminator import Discriminator
from scigen.core.methods.generating import Generating
from scigen.errors import UserError


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """Logistic loss of logits of the teacher's and the student's samples, any shapes; least at d = ln p/q."""
    return functional.softplus(-real).mean() + functional.softplus(generated).mean()


def generator_loss(generated: Tensor) -> Tensor:
    """What the student minimises, of its samples' logits."""
    return functional.softplus(-generated).mean()


def r1_penalty(discriminate: Callable[[Tensor], Tensor], x: Tensor, logits: Tensor, step: Tensor) -> Tensor:
    """(d(x_σ) − d(x_σ + α n))² with n white: → α² ‖∇d‖² for small α, R1 without second derivatives.

    (Mescheder et al. 2018, arXiv:1801.04406; the approximation of Lin et al. 2025, arXiv:2501.08316.) The noised sample
    is moved, not the clean one, and its level stays.

    Args:
        discriminate: x_σ (B, C, *S) to logits (B, heads).
        x: noised samples of the teacher.
        logits: discriminate(x).
        step: α, (B,).

    Returns:
        (B, heads).
    """
    return (logits - discriminate(x + expand(step, x) * torch.randn_like(x))).square()


def judge(
    method: Generating, discriminator: Discriminator, source: nn.Module, batch: Batch, r1: float, r1_step: float
) -> dict[str, Tensor]:
    """The discriminator's loss: the batch's samples against fresh ones of the student."""
    with torch.no_grad():
        generated, sigma = method.noised(method.generate(batch, method.level()))
    fake = discriminator(source, generated, sigma, method.condition(batch))
    x, sigma = method.noised(batch.x)
    real = discriminator(source, x, sigma, batch.condition)
    total = discriminator_loss(real, fake)
    parts = {"real": real.mean(), "generated": fake.mean()}
    if r1:
        # α in units of x_σ, as the network sees it
        step = r1_step * (sigma**2 + method.student.sigma_data**2).sqrt()
        penalty = r1_penalty(lambda moved: discriminator(source, moved, sigma, batch.condition), x, real, step)
        parts["r1"] = penalty.mean()
        total = total + r1 * parts["r1"]
    return {"loss": total, **parts}


class Adversarial(Generating):
    """A student against a discriminator on the frozen teacher's features; they learn in turns."""

    discriminator: Discriminator

    def __init__(
        self,
        student: DenoiserModule,
        teacher: nn.Module,
        sigmas: Sequence[float],
        match_min: float,
        match_max: float,
        members: int = 1,
        anchor: float = 0.0,
        pairs: int = 0,
        warmup: float = 0.0,
        gan: float = 1.0,
        r1: float = 0.0,
        r1_step: float = 0.1,
        discriminator_steps: int = 1,
        taps: Sequence[str] | None = None,
    ) -> None:
        """Set student, teacher and game; the first nine as in `Generating`.

        Args:
            student: initialised from the teacher.
            teacher: frozen; its features are what the discriminator reads.
            sigmas: the student's levels.
            match_min: least noise level at which samples are compared.
            match_max: largest.
            members: samples of the student a condition.
            anchor: weight of the regression on pairs.
            pairs: number of cached pairs.
            warmup: share of the training in which the anchor trains the student by itself.
            gan: weight of the adversarial loss.
            r1: weight of the discriminator's gradient penalty.
            r1_step: α of the penalty, as a share of √(σ² + σ_data²).
            discriminator_steps: the discriminator's steps after each of the student's.
            taps: features that it reads, see `discriminator.features`; the bottleneck if None.

        Raises:
            UserError: for a discriminator without steps.
        """
        super().__init__(student, teacher, sigmas, match_min, match_max, members, anchor, pairs, warmup)
        if discriminator_steps < 1:
            raise UserError(f"method.discriminator_steps={discriminator_steps}: the discriminator needs at least one.")
        self.gan, self.r1, self.r1_step = gan, r1, r1_step
        self.discriminator_steps, self.taps = discriminator_steps, taps

    def prepare(self, batch: Batch) -> None:
        """Build the heads."""
        x, sigma = self.noised(batch.x)
        self.discriminator = Discriminator(self.teacher, self.taps, x, sigma, batch.condition)

    def learners(self) -> dict[str, nn.Module]:
        """Student and discriminator."""
        return {"student": self.student, "discriminator": self.discriminator}

    def turn(self, step: int) -> str:
        """The student's at the start of every cycle."""
        return "discriminator" if not self.alone and step % (1 + self.discriminator_steps) else "student"

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """The student's or the discriminator's loss."""
        if self.alone:
            return {"loss": self.drawn_to(batch, self.level())}
        if turn == "discriminator":
            return judge(self, self.discriminator, self.teacher, batch, self.r1, self.r1_step)
        level = self.level()
        x, sigma = self.noised(self.generate(batch, level))
        gan = generator_loss(self.discriminator(self.teacher, x, sigma, self.condition(batch)))
        return self.anchored(self.gan * gan, batch, level, {"gan": gan})
