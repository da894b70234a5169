"""A convolutional autoencoder in any number of space dimensions: fields to a coarse latent, and back to scores.

Blocks of cells are folded into channels before the first convolution and unfolded after the last, so that no feature
map has the full resolution and a large volume is decoded in little time and memory. Normalisation is per pixel and
there is no attention: any size that is a multiple of `factor` works with one set of weights, and where all axes wrap
around, encoding and decoding commute with shifts by multiples of it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scigen.core.networks.unet import CONV, UP, PaddedConv, PixelNorm, fold, unfold
from scigen.errors import UserError

LOG_VARIANCE = (-12.0, 4.0)
"""Range of the latent's log variance: it keeps the loss finite."""


class Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, channels: int, periodic: Sequence[bool]) -> None:
        super().__init__()
        self.norm1, self.norm2 = PixelNorm(channels), PixelNorm(channels)
        self.conv1 = PaddedConv(channels, channels, periodic)
        self.conv2 = PaddedConv(channels, channels, periodic, gain=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) to the same shape."""
        h = self.conv1(functional.silu(self.norm1(x)))
        return x + self.conv2(functional.silu(self.norm2(h)))


class Autoencoder(nn.Module):
    """q(latent | fields) = N(mean, variance) by `moments`, and scores of the fields by `decode`.

    Attributes:
        args: what it was built with, JSON types.
        factor: cells along each axis that one cell of the latent spans.
        latent: channels of the latent.
    """

    def __init__(
        self,
        channels: int,
        *,
        space: int = 3,
        latent: int = 8,
        widths: Sequence[int] = (24, 48),
        blocks: int = 1,
        patch: int = 2,
        periodic: bool | Sequence[bool] = False,
    ) -> None:
        """Build the network.

        Args:
            channels: P of the fields that it takes, and of the scores that it returns.
            space: number of space dimensions.
            latent: channels of the latent.
            widths: feature channels of each level; each level but the first halves the resolution.
            blocks: residual blocks per level, down and up.
            patch: cells a side of the blocks that are folded into channels.
            periodic: whether each space axis (or all) wraps around.

        Raises:
            UserError: for arguments that make no network.
        """
        super().__init__()
        axes = [periodic] * space if isinstance(periodic, bool) else [bool(p) for p in periodic]
        if space not in CONV or len(axes) != space or not widths or blocks < 1 or patch < 1 or latent < 1:
            raise UserError(
                f"Autoencoder: space={space}, periodic={periodic}, widths={list(widths)}, blocks={blocks},"
                f" patch={patch}, latent={latent} do not fit."
            )
        self.args: dict[str, Any] = dict(
            channels=channels, space=space, latent=latent, widths=list(widths), blocks=blocks, patch=patch,
            periodic=axes,
        )  # fmt: skip
        self.latent, self.patch, self.factor = latent, patch, patch * 2 ** (len(widths) - 1)
        down: list[nn.Module] = [PaddedConv(channels * patch**space, widths[0], axes)]
        up: list[nn.Module] = [PaddedConv(latent, widths[-1], axes)]
        for i, width in enumerate(widths):
            if i:
                down.append(CONV[space](widths[i - 1], width, 2, stride=2))
            down += [Residual(width, axes) for _ in range(blocks)]
        for i in reversed(range(len(widths))):
            up += [Residual(widths[i], axes) for _ in range(blocks)]
            if i:
                up.append(UP[space](widths[i], widths[i - 1], 2, stride=2))
        self.encoder = nn.Sequential(*down, PixelNorm(widths[-1]), nn.SiLU(), CONV[space](widths[-1], 2 * latent, 1))
        self.decoder = nn.Sequential(
            *up, PixelNorm(widths[0]), nn.SiLU(), PaddedConv(widths[0], channels * patch**space, axes)
        )

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latent, (B, latent, *S / factor) each, of fields (B, P, *S).

        Raises:
            UserError: for a size that is no multiple of `factor`.
        """
        self.check(x.shape[2:])
        mean, log_variance = self.encoder(fold(x, self.patch)).chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def encode(self, x: Tensor) -> Tensor:
        """The latent's mean, (B, latent, *S / factor), of fields (B, P, *S)."""
        return self.moments(x)[0]

    def decode(self, latent: Tensor) -> Tensor:
        """Scores (logits) of the fields, (B, P, *S), of a latent (B, latent, *S / factor)."""
        return unfold(self.decoder(latent), self.patch)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, P, *S) of fields (B, P, *S) that went through the latent's mean."""
        return self.decode(self.encode(x))

    def check(self, size: Sequence[int] | torch.Size) -> None:
        """Refuse a size [cells] that is no multiple of `factor`.

        Raises:
            UserError: for such a size.
        """
        if any(n % self.factor for n in size):
            raise UserError(
                f"{list(size)} voxels do not fit a latent space whose cells span {self.factor} voxels a side: choose"
                f" multiples of {self.factor}, or for another factor autoencoder.patch and autoencoder.widths."
            )
