"""Autoencoding: a latent space for labelled fields, a stage before the teacher and not a method of its own.

L = E [−Σ_p x_p log softmax(decode(z))_p] + kl · KL(q(z | x) ‖ N(0, 1)) / cells,   z ~ q(z | x) = N(mean, variance)

x are the indicators of the phases, so the first term, averaged over the cells, is the cross-entropy of the phases; with
kl = 1 the loss is the negative evidence bound a cell. As in latent diffusion (Rombach et al. 2022, arXiv:2112.10752,
section 3.1) a small weight of the KL keeps the latent near zero mean and unit size, and the noise that it asks for
makes the decoder smooth: what a diffusion model gets slightly wrong still decodes to nearly the same phases.

Phases are not balanced: weights would bias the scores, and with them the volume fractions.
"""

import torch
from torch import Tensor

from scigen.core.methods.base import Batch, Method
from scigen.core.networks.autoencoder import Autoencoder
from scigen.errors import UserError


def cross_entropy(scores: Tensor, indicators: Tensor) -> Tensor:
    """−Σ_p x_p log softmax(scores)_p a cell, averaged: scores and indicators (B, P, *S) to a scalar [nats]."""
    return -(indicators * scores.log_softmax(1)).sum(1).mean()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(0, 1)) = ½ (mean² + variance − 1 − ln variance), of each component [nats]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


class Autoencoding(Method):
    """Trains an autoencoder on indicators of phases."""

    student: Autoencoder

    def __init__(self, student: Autoencoder, kl: float = 0.01) -> None:
        """Set what is trained.

        Args:
            student: the autoencoder.
            kl: weight of the divergence.

        Raises:
            UserError: for a negative weight.
        """
        super().__init__()
        if kl < 0:
            raise UserError(f"autoencoder.kl={kl}: a weight of at least 0.")
        self.student, self.kl = student, kl

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the phases and the divergence, a cell."""
        mean, log_variance = self.student.moments(batch.x)
        latent = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        wrong = cross_entropy(self.student.decode(latent), batch.x)
        cells = batch.x.numel() / batch.x.shape[1]
        kl = divergence(mean, log_variance).sum() / cells
        return {"loss": wrong + self.kl * kl, "cross_entropy": wrong.detach(), "kl": kl.detach()}
