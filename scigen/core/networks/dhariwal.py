"""PhysicsNeMo's U-Net of Dhariwal & Nichol (2021, arXiv:2105.05233; ADM) on 2-D fields of any size."""

from collections.abc import Sequence

from scigen.core.networks.physicsnemo import PhysicsNeMo, build, levels, named, pair, widths
from scigen.errors import UserError

HEAD = 64
"""Channels of an attention head; a level that attends has one at least."""


class DhariwalUNet(PhysicsNeMo):
    """A U-Net whose scalars scale and shift every block, and whose coarsest level attends to the whole field."""

    def __init__(
        self,
        channels: int,
        condition_fields: int = 0,
        condition_scalars: int = 0,
        *,
        space: int = 2,
        resolution: int | Sequence[int] = 64,
        model_channels: int = 32,
        channel_mult: Sequence[int] = (1, 2, 2),
        num_blocks: int = 1,
        attn_resolutions: Sequence[int] = (),
        periodic: bool | Sequence[bool] = False,
    ) -> None:
        """Build the network.

        Args:
            channels: C of the fields that it takes and returns.
            condition_fields: K of condition["fields"] (B, K, Y, X), concatenated to the input.
            condition_scalars: K of condition["scalars"] (B, K), given as class labels.
            space: must be 2.
            resolution: img_resolution; it names the weights and places further attention by its rows, and does not
                restrict the size of fields.
            model_channels: width of the first level.
            channel_mult: width of each level over the first's; the last level has 64 channels at least.
            num_blocks: residual blocks per level.
            attn_resolutions: further resolutions with self-attention, of 64 channels at least as well.
            periodic: must be false.

        Raises:
            UserError: for other than two space dimensions, periodic axes, levels that attend with fewer than 64
                channels, sizes that PhysicsNeMo refuses, or where it is not installed.
        """
        super().__init__("dhariwal", channels, condition_fields, condition_scalars, space, periodic)
        self.multiple = levels(self.option, pair(resolution), model_channels, channel_mult, num_blocks)
        named(self.option, pair(resolution), self.multiple)
        rows, last = pair(resolution)[0], len(channel_mult) - 1
        thin = [
            m * model_channels
            for i, m in enumerate(channel_mult)
            if (i == last or rows >> i in attn_resolutions) and m * model_channels < HEAD
        ]
        if thin:
            raise UserError(
                f"network=dhariwal attends at its coarsest level and at network.attn_resolutions with heads of"
                f" {HEAD} channels, but network.model_channels={model_channels} with"
                f" channel_mult={list(channel_mult)} gives {thin[-1]} there: raise either, or use network=songunet."
            )
        self.inner = build(
            self.option, "DhariwalUNet", widths(model_channels, channel_mult),
            img_resolution=rows, in_channels=channels + condition_fields, out_channels=channels,
            label_dim=condition_scalars, model_channels=model_channels, channel_mult=list(channel_mult),
            num_blocks=num_blocks, attn_resolutions=list(attn_resolutions), dropout=0.0,
        )  # fmt: skip
        self.inner.amp_mode = True  # lets autocast choose the precision; no argument for it
