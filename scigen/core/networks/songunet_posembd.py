"""PhysicsNeMo's SongUNet with channels that tell each pixel where it is (as in CorrDiff, arXiv:2309.15214)."""

from collections.abc import Sequence

from scigen.core.networks.physicsnemo import PhysicsNeMo, build, levels, pair, widths
from scigen.errors import UserError

GRIDS = ("learnable", "sinusoidal_octave", "linear", "sinusoidal")
"""Position channels of SongUNetPosEmbd; the last is the formula of older checkpoints, not quite octaves."""


class SongUNetPosEmbd(PhysicsNeMo):
    """SongUNet with position channels, learned or given, on 2-D fields of one size.

    The channels belong to the places of the grid that it was built for, so that a field of another size or a crop has
    none.
    """

    root_scaled = ("inner.map_label.weight",)

    def __init__(
        self,
        channels: int,
        condition_fields: int = 0,
        condition_scalars: int = 0,
        *,
        space: int = 2,
        resolution: int | Sequence[int] = 64,
        gridtype: str = "learnable",
        N_grid_channels: int = 4,
        model_channels: int = 32,
        channel_mult: Sequence[int] = (1, 2, 2),
        num_blocks: int = 1,
        attn_resolutions: Sequence[int] = (),
        bottleneck_attention: bool = False,
        periodic: bool | Sequence[bool] = False,
    ) -> None:
        """Build the network: arguments as of `SongUNet`, but for these.

        Args:
            channels: see `SongUNet`.
            condition_fields: see `SongUNet`.
            condition_scalars: see `SongUNet`.
            space: must be 2.
            resolution: of the fields, one number or (Y, X); the only ones that it takes.
            gridtype: of GRIDS.
            N_grid_channels: position channels: any number of learnable ones, 2 linear ones, else a multiple of 4.
            model_channels: see `SongUNet`.
            channel_mult: see `SongUNet`.
            num_blocks: see `SongUNet`.
            attn_resolutions: see `SongUNet`.
            bottleneck_attention: see `SongUNet`.
            periodic: must be false.

        Raises:
            UserError: as `SongUNet`, and for another kind or number of position channels.
        """
        super().__init__("songunet_posembd", channels, condition_fields, condition_scalars, space, periodic)
        step = 4 if gridtype.startswith("sinusoidal") else 1
        allowed = N_grid_channels == 2 if gridtype == "linear" else N_grid_channels >= 1 and N_grid_channels % step == 0
        if gridtype not in GRIDS or not allowed:
            raise UserError(
                f"network.gridtype={gridtype} with N_grid_channels={N_grid_channels}: position channels are learnable"
                " (any number), sinusoidal_octave (a multiple of 4) or linear (2). Without any, use network=songunet."
            )
        self.fixed_size = pair(resolution)
        self.multiple = levels(self.option, self.fixed_size, model_channels, channel_mult, num_blocks)
        padded = [n + -n % m for n, m in zip(self.fixed_size, self.multiple, strict=True)]
        self.inner = build(
            self.option, "SongUNetPosEmbd", widths(model_channels, channel_mult),
            img_resolution=padded, in_channels=channels + condition_fields + N_grid_channels, out_channels=channels,
            gridtype=gridtype, N_grid_channels=N_grid_channels,
            label_dim=condition_scalars, model_channels=model_channels, channel_mult=list(channel_mult),
            num_blocks=num_blocks, attn_resolutions=list(attn_resolutions),
            bottleneck_attention=bottleneck_attention, dropout=0.0, amp_mode=True,
        )  # fmt: skip
