"""scigen's U-Net in any number of space dimensions, for fields of any size.

One set of weights serves every resolution. Normalisation is per pixel and there is no global attention, so a pixel of
the output depends on a finite neighbourhood (`radius`); axes may be periodic; noise level and scalars enter by FiLM.
It is the same function in training and evaluation (dropout aside) and differentiable in forward mode.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scigen.core.networks import Condition
from scigen.errors import UserError

CONV: dict[int, Callable[..., Any]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
UP: dict[int, Callable[..., Any]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_LAYOUT = {4: torch.channels_last, 5: torch.channels_last_3d}


def fold(x: Tensor, patch: int) -> Tensor:
    """Blocks of cells as channels: (B, C, *S) to (B, C pᴺ, *S/p)."""
    if patch == 1:
        return x
    space = x.ndim - 2
    h = x.reshape(*x.shape[:2], *[n for size in x.shape[2:] for n in (size // patch, patch)])
    h = h.permute(0, 1, *range(3, 3 + 2 * space, 2), *range(2, 2 + 2 * space, 2))
    return h.reshape(x.shape[0], -1, *h.shape[-space:])


def unfold(x: Tensor, patch: int) -> Tensor:
    """Inverse of `fold`."""
    if patch == 1:
        return x
    space = x.ndim - 2
    h = x.reshape(x.shape[0], -1, *[patch] * space, *x.shape[2:])
    h = h.permute(0, 1, *[axis for i in range(space) for axis in (2 + space + i, 2 + i)])
    return h.reshape(*h.shape[:2], *[patch * n for n in x.shape[2:]])


class Linear(nn.Linear):
    """y = W x + b of rows whose results do not depend on their place in the batch.

    Matrix products treat the rows and inputs that are left over after multiples of four apart; here none are left over.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, K) to (B, out)."""
        if torch.compiler.is_compiling():  # a compiler orders products as it likes
            return super().forward(x)
        rows, inputs = -len(x) % 8, -x.shape[1] % 8
        weight = functional.pad(self.weight, (0, inputs)) if inputs else self.weight
        return functional.linear(functional.pad(x, (0, inputs, 0, rows)), weight, self.bias)[: len(x)]


def silu(x: Tensor) -> Tensor:
    """x / (1 + e⁻ˣ) of (B, …), the same bits wherever in the batch a row stands.

    On CPUs what is left over after whole vectors takes another exponential, at the end of each thread's share. Where
    something is left over, rows go one by one, but for compilers and exporters, who have loops of their own.
    """
    if torch.compiler.is_compiling():
        return functional.silu(x)
    shares = min(torch.get_num_threads(), -(-x.numel() // 2**15))  # of torch's elementwise loops
    if x.device.type != "cpu" or x.numel() % (64 * max(shares, 1)) == 0:
        return functional.silu(x)
    return torch.cat([functional.silu(row) for row in x.split(1)])


class SiLU(nn.Module):
    """`silu` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) to the same shape."""
        return silu(x)


class PixelNorm(nn.Module):
    """x / rms over the channels of each pixel, with a learned gain a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) to the same shape."""
        scale = (x.square().mean(1, keepdim=True) + 1e-6).rsqrt()
        return x * scale * self.gain.reshape(-1, *[1] * (x.ndim - 2))


class PaddedConv(nn.Module):
    """A 3-wide convolution that keeps the size: wrapped along periodic axes, zeros beyond the others."""

    def __init__(self, channels_in: int, channels_out: int, periodic: Sequence[bool], gain: float = 1.0) -> None:
        super().__init__()
        space = len(periodic)
        self.wrap = [1 if p else 0 for p in reversed(periodic) for _ in range(2)]
        self.conv = CONV[space](channels_in, channels_out, 3, padding=tuple(0 if p else 1 for p in periodic))
        with torch.no_grad():
            self.conv.weight.mul_(gain)
            self.conv.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, *S) to (B, C_out, *S)."""
        return self.conv(functional.pad(x, self.wrap, mode="circular") if any(self.wrap) else x)


class Block(nn.Module):
    """x + conv(silu(film(norm(conv(silu(norm(x))))))), with a 1-wide skip where the channels change."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int, periodic: Sequence[bool], dropout: float):
        super().__init__()
        self.norm1, self.norm2 = PixelNorm(channels_in), PixelNorm(channels_out)
        self.conv1 = PaddedConv(channels_in, channels_out, periodic)
        self.conv2 = PaddedConv(channels_out, channels_out, periodic, gain=0.1)
        self.film = Linear(embedding, 2 * channels_out)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        self.dropout = nn.Dropout(dropout)
        self.skip = CONV[len(periodic)](channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, C_in, *S), embedding (B, E) to (B, C_out, *S)."""
        scale, shift = self.film(embedding).reshape(x.shape[0], -1, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        h = self.conv1(silu(self.norm1(x)))
        h = silu(self.norm2(h) * (1 + scale) + shift)
        return self.skip(x) + self.conv2(self.dropout(h))


class UNet(nn.Module):
    """U-Net F(x, c_noise, condition) for (B, C, *S) in one, two or three space dimensions.

    Attributes:
        fixed_size: None: it takes fields of any size, and learns from crops.
    """

    frequencies: Tensor
    fixed_size: tuple[int, ...] | None = None

    def __init__(
        self,
        channels: int,
        condition_fields: int = 0,
        condition_scalars: int = 0,
        *,
        space: int = 2,
        widths: Sequence[int] = (48, 96, 96),
        blocks: int = 1,
        embedding: int = 128,
        periodic: bool | Sequence[bool] = False,
        dropout: float = 0.0,
        patch: int = 1,
    ) -> None:
        """Build the network.

        Args:
            channels: C of the fields that it takes and returns.
            condition_fields: K of condition["fields"] (B, K, *S).
            condition_scalars: K of condition["scalars"] (B, K).
            space: number of space dimensions.
            widths: feature channels of each level; each level halves the resolution.
            blocks: residual blocks per level, down and up.
            embedding: width of the embedding of noise level and scalars.
            periodic: whether each space axis (or all) wraps around.
            dropout: probability in the residual blocks.
            patch: cells a side of the blocks that are folded into channels before the first convolution and unfolded
                after the last, which makes volumes affordable; 1 folds nothing.

        Raises:
            UserError: for a number of space dimensions other than 1, 2, 3 or a mismatch with `periodic`.
        """
        super().__init__()
        axes = [periodic] * space if isinstance(periodic, bool) else list(periodic)
        if space not in CONV or len(axes) != space or not widths or blocks < 1 or patch < 1:
            raise UserError(
                f"UNet: space={space}, periodic={periodic}, widths={list(widths)}, blocks={blocks}, patch={patch} do"
                " not fit."
            )
        self.periodic, self.levels, self.blocks, self.patch = axes, len(widths), blocks, patch
        self.condition_fields, self.condition_scalars = condition_fields, condition_scalars
        self.register_buffer(
            "frequencies", torch.exp(torch.linspace(math.log(0.5), math.log(16.0), 16)), persistent=False
        )
        self.embed = nn.Sequential(
            Linear(2 * 16 + condition_scalars, embedding), SiLU(), Linear(embedding, embedding), SiLU()
        )
        self.stem = PaddedConv((channels + condition_fields) * patch**space, widths[0], axes)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            self.down.append(nn.ModuleList(Block(width, width, embedding, axes, dropout) for _ in range(blocks)))
            if i + 1 < len(widths):
                self.shrink.append(CONV[space](width, widths[i + 1], 2, stride=2))
                self.grow.append(UP[space](widths[i + 1], width, 2, stride=2))
                self.up.append(
                    nn.ModuleList(
                        Block(2 * width if b == 0 else width, width, embedding, axes, dropout) for b in range(blocks)
                    )
                )
        self.head = PaddedConv(widths[0], channels * patch**space, axes, gain=0.0)
        self.norm = PixelNorm(widths[0])

    @property
    def multiple(self) -> int:
        """Cells that one cell of the coarsest level spans: sizes are padded to a multiple of it."""
        return self.patch * 2 ** (self.levels - 1)

    @property
    def radius(self) -> int:
        """Cells that a pixel of the output sees at most in each direction (for windows aligned to `multiple`)."""
        convs = sum(2 * self.blocks * 2**i * (2 if i + 1 < self.levels else 1) for i in range(self.levels))
        patches = 2 + convs + sum(2 * (2 ** (i + 1) - 2**i) for i in range(self.levels - 1))
        return self.patch * (patches + 1) - 1

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition | None = None) -> Tensor:
        """Apply F.

        Args:
            x: scaled noisy fields, (B, C, *S).
            c_noise: ¼ ln σ, (B,).
            condition: "fields" (B, K, *S) and "scalars" (B, K), as many as built for.

        Raises:
            UserError: for a condition that does not fit, or a periodic axis whose size is no multiple of `multiple`.

        Returns:
            (B, C, *S).
        """
        condition = condition or {}
        found = [condition[k].shape[1] if k in condition else 0 for k in ("fields", "scalars")]
        if found != [self.condition_fields, self.condition_scalars]:
            raise UserError(
                f"The network takes {self.condition_fields} condition fields and {self.condition_scalars} scalars, not"
                f" {found[0]} and {found[1]}."
            )
        angles = c_noise[:, None] * self.frequencies.to(c_noise)
        features = [angles.sin(), angles.cos()] + ([condition["scalars"].to(x)] if self.condition_scalars else [])
        embedding = self.embed(torch.cat(features, dim=1))
        h = torch.cat([x, condition["fields"].to(x)], dim=1) if self.condition_fields else x
        if h.ndim in _LAYOUT:
            h = h.contiguous(memory_format=_LAYOUT[h.ndim])  # a tenth to a third faster
        size = h.shape[2:]
        h = self.stem(fold(self._pad(h), self.patch))
        skips = []
        for i in range(self.levels):
            for block in self.down[i].children():
                h = block(h, embedding)
            if i + 1 < self.levels:
                skips.append(h)
                h = self.shrink[i](h)
        for i in reversed(range(self.levels - 1)):
            h = torch.cat([self.grow[i](h), skips[i]], dim=1)
            for block in self.up[i].children():
                h = block(h, embedding)
        out = unfold(self.head(silu(self.norm(h))), self.patch)
        return out[(slice(None), slice(None), *[slice(n) for n in size])]

    def _pad(self, x: Tensor) -> Tensor:
        """Pad at the far ends with zeros to multiples of `multiple`."""
        missing = [-n % self.multiple for n in x.shape[2:]]
        for axis, (m, wraps) in enumerate(zip(missing, self.periodic, strict=True)):
            if m and wraps:
                raise UserError(
                    f"Axis {axis} of {x.shape[2 + axis]} cells wraps around, so it must be a multiple of"
                    f" {self.multiple}, the cells that one cell of the coarsest level spans: choose fewer levels"
                    " (network.widths), smaller patches (network.patch), or network.periodic=false and accept a seam."
                )
        return functional.pad(x, [v for m in reversed(missing) for v in (0, m)]) if any(missing) else x
