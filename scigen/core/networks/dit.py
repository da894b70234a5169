"""PhysicsNeMo's diffusion transformer (DiT, Peebles & Xie 2023, arXiv:2212.09748) on 2-D fields of one size.

Attention is by the kernels of torch, through timm. The fused ones have no forward mode; `methods/tangent.py` asks for
the plain ones where it differentiates.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from scigen.core.networks.physicsnemo import PhysicsNeMo, build, pair
from scigen.errors import UserError


class Tokens(nn.Module):
    """Tokens as a field, for whoever taps it: (B, Y' X', W) to (B, W, Y', X')."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.size = (rows, columns)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, Y' X', W) to (B, W, Y', X')."""
        return tokens.transpose(1, 2).unflatten(2, self.size)


class DiT(PhysicsNeMo):
    """A transformer on patches of the field, each a token with a learned position.

    Every token sees all others, at a cost that grows with the square of their number. The positions belong to the grid
    that it was built for, so that a field of another size or a crop has none.

    Attributes:
        fields: what a block returned, as a field of W channels, one module a block: features for a discriminator.
    """

    def __init__(
        self,
        channels: int,
        condition_fields: int = 0,
        condition_scalars: int = 0,
        *,
        space: int = 2,
        resolution: int | Sequence[int] = 64,
        patch_size: int | Sequence[int] = 4,
        hidden_size: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        periodic: bool | Sequence[bool] = False,
    ) -> None:
        """Build the network; its last layer starts at zero.

        Args:
            channels: C of the fields that it takes and returns.
            condition_fields: K of condition["fields"] (B, K, Y, X), concatenated to the input.
            condition_scalars: K of condition["scalars"] (B, K), added to the embedding of the noise level.
            space: must be 2.
            resolution: of the fields, one number or (Y, X); the only ones that it takes.
            patch_size: cells of a token, one number or (Y, X); fields are padded to a multiple of it.
            hidden_size: W, width of a token.
            depth: number of blocks.
            num_heads: attention heads; they divide the width.
            mlp_ratio: hidden width of each block's MLP over the token's.
            periodic: must be false.

        Raises:
            UserError: for other than two space dimensions, periodic axes, sizes that do not fit each other, or where
                PhysicsNeMo is not installed.
        """
        super().__init__("dit", channels, condition_fields, condition_scalars, space, periodic)
        self.fixed_size, self.multiple = pair(resolution), pair(patch_size)
        sizes = (*self.fixed_size, *self.multiple, depth, num_heads, int(mlp_ratio * hidden_size))
        if min(sizes) < 1 or hidden_size % 2 or hidden_size % num_heads:
            raise UserError(
                f"network=dit: resolution={list(self.fixed_size)}, patch_size={list(self.multiple)}, depth={depth},"
                f" num_heads={num_heads}, mlp_ratio={mlp_ratio:g} must be positive, and hidden_size={hidden_size} even"
                " and a multiple of num_heads."
            )
        tokens = [-(-n // m) for n, m in zip(self.fixed_size, self.multiple, strict=True)]
        self.inner = build(
            self.option, "DiT", "Set network.hidden_size, num_heads and patch_size otherwise.",
            input_size=tuple(n * m for n, m in zip(tokens, self.multiple, strict=True)), patch_size=self.multiple,
            in_channels=channels + condition_fields, out_channels=channels, condition_dim=condition_scalars or None,
            hidden_size=hidden_size, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio, attention_backend="timm",
        )  # fmt: skip
        self.fields = nn.ModuleList(Tokens(*tokens) for _ in range(depth))

    def call(self, h: Tensor, c_noise: Tensor, scalars: Tensor | None) -> Tensor:
        """What its forward does, block by block, so that each can be tapped."""
        tokens = self.inner.tokenizer(h)
        embedding = self.inner.conditioning_embedder(c_noise, condition=scalars)
        for block, field in zip(self.inner.blocks, self.fields, strict=True):
            tokens = block(tokens, embedding)
            field(tokens)
        return self.inner.detokenizer(tokens, embedding)
