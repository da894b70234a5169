"""The one door to PhysicsNeMo's networks, behind the interface of scigen's own: network(x, c_noise, condition).

PhysicsNeMo is imported when a network is built, since that takes seconds.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from scigen.core.networks import Condition
from scigen.errors import UserError


class SongUNet(nn.Module):
    """PhysicsNeMo's SongUNet (Song et al. 2021, DDPM++/NCSN++) on 2-D fields of any size.

    Its GroupNorm computes another variance in evaluation than in training (by up to some per cent on small fields), so
    the inner network is kept in training mode and built without dropout: one function in both.
    """

    def __init__(
        self,
        channels: int,
        condition_fields: int = 0,
        condition_scalars: int = 0,
        *,
        space: int = 2,
        resolution: int = 64,
        model_channels: int = 32,
        channel_mult: Sequence[int] = (1, 2, 2),
        num_blocks: int = 1,
        attn_resolutions: Sequence[int] = (),
        bottleneck_attention: bool = False,
    ) -> None:
        """Build the network.

        Args:
            channels: C of the fields that it takes and returns.
            condition_fields: K of condition["fields"] (B, K, Y, X), concatenated to the input.
            condition_scalars: K of condition["scalars"] (B, K), given as class labels.
            space: must be 2.
            resolution: img_resolution; it names the weights and places the attention, and does not restrict the size
                of fields.
            model_channels: width of the first level.
            channel_mult: width of each level over the first's.
            num_blocks: residual blocks per level.
            attn_resolutions: resolutions with self-attention (then the receptive field is global).
            bottleneck_attention: whether the coarsest level attends.

        Raises:
            UserError: for other than two space dimensions, or where PhysicsNeMo is not installed.
        """
        super().__init__()
        if space != 2:
            raise UserError(f"network=songunet works on 2-D fields, not on {space}-D ones: use network=unet.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from physicsnemo.models.diffusion_unets import SongUNet as Inner
        except ImportError as error:
            raise UserError(f"network=songunet needs PhysicsNeMo (pip install nvidia-physicsnemo): {error}.") from error
        self.condition_fields, self.condition_scalars = condition_fields, condition_scalars
        self.multiple = 2 ** (len(channel_mult) - 1)
        try:
            self.inner = Inner(
                img_resolution=resolution, in_channels=channels + condition_fields, out_channels=channels,
                label_dim=condition_scalars, model_channels=model_channels, channel_mult=list(channel_mult),
                num_blocks=num_blocks, attn_resolutions=list(attn_resolutions),
                bottleneck_attention=bottleneck_attention, dropout=0.0,
                amp_mode=True,  # lets autocast choose the precision, and changes nothing without it
            )  # fmt: skip
        except (ValueError, ZeroDivisionError) as error:
            raise UserError(
                f"PhysicsNeMo refuses this SongUNet: {str(error).splitlines()[0]}. Widths that are powers of two"
                f" (network.model_channels={model_channels}, channel_mult={list(channel_mult)}) work."
            ) from error

    def train(self, mode: bool = True) -> "SongUNet":
        """Keep the inner network in training mode, see above."""
        super().train(mode)
        self.inner.train(True)
        return self

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition | None = None) -> Tensor:
        """F: x (B, C, Y, X) scaled, c_noise (B,), condition → (B, C, Y, X)."""
        condition = condition or {}
        h = torch.cat([x, condition["fields"].to(x)], dim=1) if self.condition_fields else x
        labels = condition["scalars"].to(x) if self.condition_scalars else None
        rows, columns = h.shape[2:]
        h = functional.pad(h, (0, -columns % self.multiple, 0, -rows % self.multiple))
        return self.inner(h, c_noise, labels)[..., :rows, :columns]
