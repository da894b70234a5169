"""A residual network for plain vectors, conditioned as the U-Net is: what the exact bench trains.

Noise level and scalars enter every block by FiLM, the scalars the first layer as well (a measurement carries too much
for an embedding alone). The same function in training and evaluation (dropout aside), differentiable in forward mode.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from scigen.core.networks import Condition
from scigen.errors import UserError


class Residual(nn.Module):
    """h + out(silu(film(inner(norm(h))))), norm: h / rms(h)."""

    def __init__(self, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.film = nn.Linear(embedding, 2 * width)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.out.bias.zero_()
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """h (B, W), embedding (B, E) to (B, W)."""
        scale, shift = self.film(embedding).chunk(2, dim=1)
        inner = self.inner(h * (h.square().mean(1, keepdim=True) + 1e-6).rsqrt())
        return h + self.out(self.dropout(functional.silu(inner * (1 + scale) + shift)))


class MLP(nn.Module):
    """F(x, c_noise, condition) for vectors (B, C)."""

    frequencies: Tensor

    def __init__(
        self,
        channels: int,
        condition_fields: int = 0,
        condition_scalars: int = 0,
        *,
        space: int = 0,
        width: int = 256,
        blocks: int = 3,
        embedding: int = 64,
        dropout: float = 0.0,
    ) -> None:
        """Build the network; its last layer starts at zero.

        Args:
            channels: C of the vectors that it takes and returns.
            condition_fields: must be 0.
            condition_scalars: K of condition["scalars"] (B, K).
            space: must be 0: vectors have no space dimension.
            width: of the hidden layers.
            blocks: residual blocks.
            embedding: width of the embedding of noise level and scalars.
            dropout: probability in the residual blocks.

        Raises:
            UserError: for condition fields, space dimensions, or sizes below one.
        """
        super().__init__()
        if condition_fields or space or min(channels, width, blocks, embedding) < 1:
            raise UserError(
                f"MLP: condition_fields={condition_fields}, space={space}, channels={channels}, width={width},"
                f" blocks={blocks}, embedding={embedding} do not fit: it takes vectors (B, C) and scalars, no fields;"
                " use network=unet for those."
            )
        self.condition_scalars = condition_scalars
        self.register_buffer(
            "frequencies", torch.exp(torch.linspace(math.log(0.5), math.log(16.0), 16)), persistent=False
        )
        self.embed = nn.Sequential(
            nn.Linear(2 * 16 + condition_scalars, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.stem = nn.Linear(channels + condition_scalars, width)
        self.blocks = nn.ModuleList(Residual(width, embedding, dropout) for _ in range(blocks))
        self.head = nn.Linear(width, channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition | None = None) -> Tensor:
        """Apply F.

        Args:
            x: scaled noisy vectors, (B, C).
            c_noise: ¼ ln σ, (B,).
            condition: "scalars" (B, K), as many as built for.

        Raises:
            UserError: for a condition that does not fit.

        Returns:
            (B, C).
        """
        condition = condition or {}
        found = condition["scalars"].shape[1] if "scalars" in condition else 0
        if "fields" in condition or found != self.condition_scalars:
            fields = " and fields" if "fields" in condition else ""
            raise UserError(f"The network takes {self.condition_scalars} condition scalars, not {found}{fields}.")
        scalars = [condition["scalars"].to(x)] if self.condition_scalars else []
        angles = c_noise[:, None] * self.frequencies.to(c_noise)
        embedding = self.embed(torch.cat([angles.sin(), angles.cos(), *scalars], dim=1))
        h = self.stem(torch.cat([x, *scalars], dim=1))
        for block in self.blocks:
            h = block(h, embedding)
        return self.head(h)
