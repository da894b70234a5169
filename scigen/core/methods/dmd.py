"""Distribution matching: the student's noised samples shall have the teacher's scores.

∇_θ = E w h(r) (D_fake − D_real)(x_σ; σ) ∂x/∂θ,   x_σ = x + σ ε,   w = 1 / mean|x − D_real|

x are samples of the student, D_real is the teacher and D_fake, the fake score, a denoiser trained on the student's
samples beside it: D_fake − D_real = σ² (s_q − s_p), so that the expectation is σ² times the gradient of
KL(q_σ ‖ p_σ) where w = h = 1 (DMD2, Yin et al. 2024, arXiv:2405.14867; Yin et al. 2023, arXiv:2311.18828, equations 7
and 8). h weighs samples for other divergences (`divergence.py`).

Spread. Reverse KL is mode-seeking, the more so the less noise there is: a student that cannot follow a correlation of
0.9 ends with 0.26 of the variance where it is matched at σ = 0.3, 0.60 at σ = 1 and 0.97 at σ = 5 (in units of the
data). So the law of σ is a calibration knob: raise `match_min` where ensembles come out too narrow. The default also
keeps an anchor, a regression on the teacher's own trajectories, which ties each noise to its end point.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, DenoiserLike, DenoiserModule, expand
from scigen.core.methods.adversarial import generator_loss, judge
from scigen.core.methods.base import Batch
from scigen.core.methods.denoising import denoising_loss
from scigen.core.methods.discriminator import Discriminator
from scigen.core.methods.divergence import DIVERGENCES, check_divergence, ratio
from scigen.core.methods.generating import Generating
from scigen.errors import UserError

SMALLEST_BATCH = 4
"""Samples below which density ratios cannot be scaled to their mean."""


def dmd_direction(x: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """(D_fake − D_real) / mean|x − D_real| of each sample, (B, C, *S): of order one at every noise level.

    The mean is over a sample's own pixels. The direction falls as σ where σ is small against a mode and as 1/σ where it
    is large, so that each level teaches mostly the modes of its own size.
    """
    scale = (x - real).abs().flatten(1).mean(1)
    return (fake - real) / expand(scale.clamp_min(1e-6), x)


def surrogate_loss(x: Tensor, direction: Tensor) -> Tensor:
    """½ mean (x − sg[x − direction])² of every sample, (B,): its gradient in x is direction / (values a sample)."""
    return 0.5 * (x - (x - direction).detach()).square().flatten(1).mean(1)


def matching_loss(
    x: Tensor,
    x_sigma: Tensor,
    sigma: Tensor,
    teacher: DenoiserLike,
    fake: DenoiserLike,
    condition: Condition | None,
    weight: Callable[[Tensor, Tensor], Tensor] | None = None,
    normalise: bool = True,
) -> Tensor:
    """The surrogate of every sample, (B,); its value says little, its gradient is the method's.

    Args:
        x: what the student gave, with gradient, (B, C, *S).
        x_sigma: the sample noised, (B, C, *S).
        sigma: to these levels, (B,).
        teacher: D_real.
        fake: D_fake.
        condition: batch first.
        weight: h(r) (B,) from (x_sigma, sigma); one if None.
        normalise: whether the direction is divided by mean|x − D_real|.
    """
    with torch.no_grad():
        real, false = teacher(x_sigma, sigma, condition), fake(x_sigma, sigma, condition)
        direction = dmd_direction(x, real, false) if normalise else false - real
        if weight is not None:
            direction = expand(weight(x_sigma, sigma), x) * direction
    return surrogate_loss(x, direction)


def fake_score(student: DenoiserModule, teacher: nn.Module) -> DenoiserModule:
    """A denoiser to learn the student's samples: the teacher's copy, or the student's if the teacher is an oracle."""
    trainable = isinstance(teacher, DenoiserModule) and any(True for _ in teacher.parameters())
    return copy.deepcopy(teacher if trainable else student).requires_grad_(True)  # type: ignore[return-value]


class DMD(Generating):
    """Student, fake score and, for a GAN term or a divergence that needs density ratios, a discriminator."""

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
        fake_steps: int = 5,
        divergence: str = "reverse_kl",
        gan: float = 0.0,
        r1: float = 0.0,
        r1_step: float = 0.1,
        discriminator_steps: int = 1,
        source: str = "fake",
        taps: Sequence[str] | None = None,
    ) -> None:
        """Set student, teacher and matching.

        Args:
            student: initialised from the teacher.
            teacher: frozen.
            sigmas: the student's levels; inputs of the second and later calls are the student's own samples, noised.
            match_min: least noise level of the matching, and of the fake score's training.
            match_max: largest; ln σ is uniform between them.
            members: samples of the student a condition.
            anchor: weight of the regression on pairs.
            pairs: number of cached pairs; 0 for data.
            warmup: share of the training in which the anchor trains the student by itself.
            fake_steps: the fake score's steps after each of the student's.
            divergence: one of `divergence.DIVERGENCES`.
            gan: weight of the student's adversarial loss.
            r1: weight of the discriminator's gradient penalty.
            r1_step: α of the penalty, as a share of √(σ² + σ_data²).
            discriminator_steps: the discriminator's steps in each cycle, if there is one.
            source: "fake" or "teacher", whose features the discriminator reads.
            taps: the features, see `discriminator.features`; the bottleneck if None.

        Raises:
            UserError: for an unknown divergence or source, or learners without steps.
        """
        super().__init__(student, teacher, sigmas, match_min, match_max, members, anchor, pairs, warmup)
        if fake_steps < 1 or discriminator_steps < 1:
            raise UserError(
                f"method.fake_steps={fake_steps}, method.discriminator_steps={discriminator_steps} must be at least 1."
            )
        if source not in ("fake", "teacher"):
            raise UserError(f"method.source={source!r}: the discriminator reads features of the fake or the teacher.")
        self.divergence, self.gan, self.r1, self.r1_step = check_divergence(divergence), gan, r1, r1_step
        self.fake = fake_score(student, teacher)
        self.source, self.taps = source, taps
        self.clock = ["student"] + ["fake"] * fake_steps
        if self.judged:
            self.clock += ["discriminator"] * discriminator_steps

    @property
    def judged(self) -> bool:
        """Whether there is a discriminator."""
        return self.gan > 0 or self.divergence != "reverse_kl"

    @property
    def reader(self) -> nn.Module:
        """The denoiser whose features the discriminator reads."""
        return self.fake if self.source == "fake" else self.teacher

    def train(self, mode: bool = True) -> "DMD":
        """Switch the mode of everything but teacher and fake score: a score without dropout."""
        super().train(mode)
        self.fake.eval()
        return self

    def prepare(self, batch: Batch) -> None:
        """Build the discriminator, if there is one."""
        if self.judged:
            x, sigma = self.noised(batch.x)
            self.discriminator = Discriminator(self.reader, self.taps, x, sigma, batch.condition)

    def learners(self) -> dict[str, nn.Module]:
        """Student, fake score, perhaps the discriminator."""
        both = {"student": self.student, "fake": self.fake}
        return both | ({"discriminator": self.discriminator} if self.judged else {})

    def turn(self, step: int) -> str:
        """The student's at the start of every cycle, then the fake score's, then the discriminator's."""
        return "student" if self.alone else self.clock[step % len(self.clock)]

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """The learner's loss on fresh samples of the student.

        Raises:
            UserError: for a batch too small for density ratios, if the divergence needs them.
        """
        if self.alone:
            return {"loss": self.drawn_to(batch, self.level())}
        if turn == "fake":
            with torch.no_grad():
                x = self.generate(batch, self.level())
            sigma = self.law.draw(len(x), device=x.device)
            args = (x, torch.randn_like(x), sigma, self.condition(batch), self.student.sigma_data)
            return {"loss": denoising_loss(self.fake, *args).mean()}
        if turn == "discriminator":
            return judge(self, self.discriminator, self.reader, batch, self.r1, self.r1_step)
        count = len(batch.x) * self.members
        if self.divergence != "reverse_kl" and count < SMALLEST_BATCH:
            raise UserError(
                f"method.divergence={self.divergence} weighs samples by density ratios relative to their mean: a batch"
                f" of {count} samples is too small. Raise method.training.batch or method.members to make it at least"
                f" {SMALLEST_BATCH}."
            )
        level = self.level()
        x = self.generate(batch, level)
        x_sigma, sigma = self.noised(x)
        condition = self.condition(batch)
        weight = None if self.divergence == "reverse_kl" else lambda y, s: self.weight(y, s, condition)
        match = matching_loss(x, x_sigma, sigma, self.teacher, self.fake, condition, weight).mean()
        parts, total = {"match": match}, match
        if self.gan:
            parts["gan"] = generator_loss(self.discriminator(self.reader, x_sigma, sigma, condition))
            total = total + self.gan * parts["gan"]
        return self.anchored(total, batch, level, parts)

    def weight(self, x: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        """h(r) of noised samples, (B,), with the discriminator's r."""
        return DIVERGENCES[self.divergence](ratio(self.discriminator(self.reader, x, sigma, condition)))
