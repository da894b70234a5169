"""Denoising score matching: how a teacher is trained, and just another method.

L = E λ(σ) ‖D(x₀ + σ ε; σ, c) − x₀‖²,  λ = 1/c_out²        Karras et al. 2022, arXiv:2206.00364, equation 2 and table 1

A smaller network is first fitted to a teacher's scores: then the target is the teacher's D(x_σ) in place of x₀, which
has the same minimiser among all functions of x_σ and none of the data's noise (Song et al. 2024, arXiv:2410.23274,
section 4.3).
"""

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition, DenoiserLike, DenoiserModule, expand, loss_weight, squared_error
from scigen.core.draws import normal_like
from scigen.core.methods.base import Batch, Method
from scigen.core.noise import NoiseLaw


def denoising_loss(
    denoiser: DenoiserLike,
    x: Tensor,
    noise: Tensor,
    sigma: Tensor,
    condition: Condition | None,
    sigma_data: float,
    teacher: DenoiserLike | None = None,
) -> Tensor:
    """The loss of every sample, (B,), averaged over the field: x, noise (B, C, *S), sigma (B,); to a teacher if any."""
    noisy = x + expand(sigma, x) * noise
    if teacher is not None:
        with torch.no_grad():
            x = teacher(noisy, sigma, condition)
    return loss_weight(sigma, sigma_data) * squared_error(denoiser, noisy, sigma, condition, x)


class Denoising(Method):
    """Trains a denoiser on data, with σ from a law that covers the sampler's whole range."""

    student: DenoiserModule
    by_row = True

    def __init__(self, student: DenoiserModule, noise: NoiseLaw, teacher: nn.Module | None = None) -> None:
        """Set what is trained, the law of σ, and the teacher whose scores are fitted (None: the data's)."""
        super().__init__()
        self.student, self.noise = student, noise
        self.teacher = None if teacher is None else teacher.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Denoising":
        """Switch the mode of everything but the teacher."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Mean denoising loss."""
        sigma = self.noise.draw(len(batch.x), device=batch.x.device)
        noise = normal_like(batch.x)
        sigma_data = self.student.sigma_data
        each = denoising_loss(self.student, batch.x, noise, sigma, batch.condition, sigma_data, self.teacher)
        return {"loss": each.mean()}
