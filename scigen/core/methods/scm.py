"""sCM: consistency in continuous time, without the bias of a grid.

L = E ‖F − sg(F − R̂)‖²,   R = dD/dlnσ along the flow,   R̂ = R / (‖R‖ + c) in units of F

(Lu & Song 2024, arXiv:2410.11081, section 4; distillation sCD and tuning sCT). Their TrigFlow is this with
σ = σ_d tan t: x_trig = cos t x, F_trig = −F, and g = cos t df/dt = σ_d R / c_out.

On a Gaussian mode R = 0 makes the gain K (λ + σ²)^{−1/2} for any K: that K = √λ must come from the lowest level, where
the student meets the denoiser, which is also how a solver ends. An error made at one σ goes unchanged to all above it
(R is transport in ln σ), so every octave counts the same and σ is log-uniform.

Their learned weight e^{−w(σ)} is an option. It makes every level's loss 1, so where R is nearly 0 it grows without
bound, and what is not yet right above starves: 1000 steps of a linear student, 600 between σ_min and σ_max, leave an
error of 1 % at σ_max without and of 27 % with it. R̂ has much the same size at all levels without it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scigen.core.denoise import DenoiserModule, expand
from scigen.core.methods.base import Batch, Distiller
from scigen.core.methods.tangent import (
    Derivative,
    Points,
    check_continuous,
    counts,
    destination,
    eulerian,
    residual_loss,
    to_denoised,
)
from scigen.core.noise import LogUniform


class LogVariance(nn.Module):
    """w(σ): the logarithm of the mean loss at σ, learned as the minimiser of E e^{−w} L + w (arXiv:2312.02696)."""

    frequencies: Tensor

    def __init__(self, features: int = 16, width: int = 64) -> None:
        """Set the number of Fourier features of ¼ ln σ and the width of the one hidden layer; w = 0 at first."""
        super().__init__()
        waves = torch.exp(torch.linspace(math.log(0.5), math.log(8.0), features))
        self.register_buffer("frequencies", waves, persistent=False)
        last = nn.Linear(width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(2 * features, width), nn.SiLU(), last)

    def forward(self, sigma: Tensor) -> Tensor:
        """w: (B,) to (B,)."""
        angles = 0.25 * sigma.log().to(self.frequencies)[:, None] * self.frequencies
        with torch.autocast(sigma.device.type, enabled=False):
            return self.layers(torch.cat([angles.sin(), angles.cos()], dim=1))[:, 0]


class SCM(Distiller):
    """Continuous-time consistency distillation, or tuning on data."""

    def __init__(
        self,
        student: DenoiserModule,
        teacher: nn.Module,
        sigmas: Sequence[float],
        sigma_min: float,
        warmup_tangent: float = 0.2,
        anchor: float = 0.1,
        mixing: float = 0.0,
        softening: float = 0.1,
        log_variance: bool = False,
        jvp: Derivative = "forward",
    ) -> None:
        """Set student and teacher.

        Args:
            student: initialised from the teacher.
            teacher: frozen; not called where mixing = 1.
            sigmas: the student's sampling levels; the first is σ_max.
            sigma_min: the lowest level, where the student is to equal the denoiser.
            warmup_tangent: share of the training over which R grows from denoising to the whole.
            anchor: share of the samples at the lowest level.
            mixing: share of the samples whose path comes from the data: 0 distils, 1 tunes.
            softening: c.
            log_variance: whether a learned w(σ) weights the levels: e^{−w} L + w for L.
            jvp: how derivatives are made, "forward" or "finite".

        Raises:
            UserError: for shares outside [0, 1] or an unknown jvp.
        """
        super().__init__(student, teacher, sigmas)
        check_continuous("scm", warmup_tangent, mixing, softening, jvp, anchor)
        self.law = LogUniform(sigma_min, sigmas[0])
        self.warmup_tangent, self.anchor, self.mixing = warmup_tangent, anchor, mixing
        self.softening, self.jvp = softening, jvp
        self.weight = LogVariance() if log_variance else None
        self.at(0.0)

    def learners(self) -> dict[str, nn.Module]:
        """The student, and w with it."""
        return {"student": self.student if self.weight is None else nn.ModuleList([self.student, self.weight])}

    def at(self, progress: float) -> None:
        """Warm the tangent up."""
        self.warm = min(1.0, progress / self.warmup_tangent) if self.warmup_tangent else 1.0

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Mean loss; `residual` is the mean of ‖R‖ before normalisation, in units of the network's output."""
        lowest, others = counts(len(batch.x), self.anchor)
        device, sigma_data = batch.x.device, self.student.sigma_data
        low = torch.full((lowest,), self.law.sigma_min, dtype=torch.float64, device=device)
        sigma = torch.cat([low, self.law.draw(others, device=device).double()])
        x = batch.x + expand(sigma, batch.x) * torch.randn_like(batch.x)
        toward = destination(self.teacher, x, batch.x, sigma, batch.condition, self.mixing)
        points = Points(x, sigma, batch.condition, toward=toward)

        def residual(output: Tensor, points: Points) -> Tensor:
            return eulerian(self.student, output, points, sigma_data, self.warm, self.jvp)

        parts = [(points[:lowest], to_denoised), (points[lowest:], residual)]
        each, size = residual_loss(self.student, parts, sigma_data, self.softening, self.mixing > 0)
        if self.weight is not None:
            w = self.weight(sigma)
            each = (-w).exp() * each + w
        return {"loss": each.mean(), "residual": size.mean(), "warm": torch.tensor(self.warm)}
