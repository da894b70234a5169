"""Denoising score matching: how a teacher is trained, and just another method.

L = E λ(σ) ‖D(x₀ + σ ε; σ, c) − x₀‖²,  λ = 1/c_out²        Karras et al. 2022, arXiv:2206.00364, equation 2 and table 1
"""

import torch
from torch import Tensor

from scigen.core.denoise import Condition, DenoiserLike, DenoiserModule, expand, loss_weight
from scigen.core.methods.base import Batch, Method
from scigen.core.noise import NoiseLaw


def denoising_loss(
    denoiser: DenoiserLike, x: Tensor, noise: Tensor, sigma: Tensor, condition: Condition | None, sigma_data: float
) -> Tensor:
    """The loss of every sample, (B,), averaged over the field: x, noise (B, C, *S), sigma (B,)."""
    denoised = denoiser(x + expand(sigma, x) * noise, sigma, condition)
    return loss_weight(sigma, sigma_data) * (denoised - x).square().flatten(1).mean(1)


class Denoising(Method):
    """Trains a denoiser on data, with σ from a law that covers the sampler's whole range."""

    def __init__(self, student: DenoiserModule, noise: NoiseLaw) -> None:
        """Set what is trained and the law of σ."""
        super().__init__()
        self.student, self.noise = student, noise

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Mean denoising loss."""
        sigma = self.noise.draw(len(batch.x), device=batch.x.device)
        noise = torch.randn_like(batch.x)
        each = denoising_loss(self.student, batch.x, noise, sigma, batch.condition, self.student.sigma_data)
        return {"loss": each.mean()}
