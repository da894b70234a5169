"""The one door to PhysicsNeMo's networks, behind the interface of scigen's own: network(x, c_noise, condition).

PhysicsNeMo is imported when a network is built, since that takes seconds. SongUNet is here, the others have files of
their own.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scigen.core.networks import Condition
from scigen.errors import UserError


def build(option: str, kind: str, hint: str, **arguments: Any) -> nn.Module:
    """PhysicsNeMo's network of this name.

    Args:
        option: of the network group, for messages.
        kind: name of the class.
        hint: what to do where it refuses the sizes.
        arguments: of its constructor.

    Raises:
        UserError: where PhysicsNeMo is not installed or refuses the arguments.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of its own, whatever is imported
        try:
            from physicsnemo.models.diffusion_unets import DhariwalUNet, SongUNet, SongUNetPosEmbd
            from physicsnemo.models.dit import DiT
        except (ImportError, RuntimeError) as error:  # torchvision raises RuntimeError beside another torch
            raise UserError(
                f"network={option} needs PhysicsNeMo (pip install nvidia-physicsnemo, with torch and torchvision of the"
                f" same origin): {error}."
            ) from error
        kinds = {k.__name__: k for k in (SongUNet, SongUNetPosEmbd, DhariwalUNet, DiT)}
        try:
            return kinds[kind](**arguments)
        except (ValueError, ZeroDivisionError, AssertionError) as error:
            said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            raise UserError(f"PhysicsNeMo refuses this {kind}: {said}. {hint}") from error


def library() -> dict[str, type[nn.Module]]:
    """PhysicsNeMo's classes that a checkpoint may name, by name.

    Raises:
        UserError: where PhysicsNeMo is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of its own, whatever is imported
        try:
            from physicsnemo.diffusion import preconditioners
            from physicsnemo.diffusion.utils import ConcatConditionWrapper
            from physicsnemo.models import diffusion_unets
            from physicsnemo.models.dit import DiT
        except (ImportError, RuntimeError) as error:  # torchvision raises RuntimeError beside another torch
            raise UserError(
                "This teacher needs PhysicsNeMo (pip install nvidia-physicsnemo, with torch and torchvision of the same"
                f" origin): {error}."
            ) from error
    unets = ("SongUNet", "SongUNetPosEmbd", "DhariwalUNet", "CorrDiffRegressionUNet", "UNet")
    new = ("EDMPreconditioner", "VPPreconditioner", "VEPreconditioner", "IDDPMPreconditioner")
    old = ("EDMPrecond", "EDMPrecondSuperResolution", "EDMPrecondSR", "VPPrecond", "VEPrecond", "iDDPMPrecond")
    out = {n: getattr(diffusion_unets, n) for n in unets} | {n: getattr(preconditioners, n) for n in (*new, *old)}
    return out | {"DiT": DiT, "ConcatConditionWrapper": ConcatConditionWrapper}


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """A size, (Y, X), from one number or two.

    Raises:
        UserError: for other than one or two.
    """
    both = [size, size] if isinstance(size, int) else list(size)
    if len(both) != 2:
        raise UserError(f"A size of 2-D fields is one number or [Y,X], not {both}.")
    return both[0], both[1]


class PhysicsNeMo(nn.Module):
    """What its networks share: fields are padded to a size that they take, and cropped.

    Their GroupNorm computes another variance in evaluation than in training (by up to some per cent on small fields),
    so the inner network is kept in training mode and built without dropout: one function in both.

    Attributes:
        inner: PhysicsNeMo's own network.
        multiple: cells of each axis that sizes are padded to a multiple of, with zeros at the far ends.
        fixed_size: (Y, X) of the only fields that it takes, None for any: where weights or inputs belong to places on
            the grid, it works neither on other grids nor on random crops.
        radius: None: a pixel sees the whole field, by attention or by the statistics of GroupNorm.
        root_scaled: names of weights whose K inputs the network multiplies by √K, see `widen`.
    """

    inner: Any  # an nn.Module
    multiple: tuple[int, int]
    fixed_size: tuple[int, int] | None = None
    radius: int | None = None
    root_scaled: tuple[str, ...] = ()

    def __init__(
        self,
        option: str,
        channels: int,
        condition_fields: int,
        condition_scalars: int,
        space: int,
        periodic: bool | Sequence[bool],
    ) -> None:
        """Keep what calls are checked against.

        Args:
            option: of the network group, for messages.
            channels: C of the fields that it takes and returns.
            condition_fields: K of condition["fields"] (B, K, Y, X), concatenated to the input.
            condition_scalars: K of condition["scalars"] (B, K).
            space: must be 2.
            periodic: must be false.

        Raises:
            UserError: for other than two space dimensions, or periodic axes.
        """
        super().__init__()
        self.option = option
        if space != 2:
            raise UserError(f"network={option} works on 2-D fields, not on {space}-D ones: use network=unet.")
        if periodic if isinstance(periodic, bool) else any(periodic):
            raise UserError(
                f"network={option} pads with zeros and cannot wrap around, but network.periodic={periodic}: use"
                " network=unet, whose axes may be periodic."
            )
        self.channels, self.condition_fields, self.condition_scalars = channels, condition_fields, condition_scalars

    def train(self, mode: bool = True) -> "PhysicsNeMo":
        """Keep the inner network in training mode, see above."""
        super().train(mode)
        self.inner.train(True)
        return self

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition | None = None) -> Tensor:
        """Apply F.

        Args:
            x: scaled noisy fields, (B, C, Y, X).
            c_noise: ¼ ln σ, (B,).
            condition: "fields" (B, K, Y, X) and "scalars" (B, K), as many as built for.

        Raises:
            UserError: for sizes, a precision or a condition that do not fit.

        Returns:
            (B, C, Y, X).
        """
        condition = condition or {}
        self._check(x, c_noise, condition)
        h = torch.cat([x, condition["fields"].to(x)], dim=1) if self.condition_fields else x
        scalars = condition["scalars"].to(x) if self.condition_scalars else None
        rows, columns = h.shape[2:]
        h = functional.pad(h, (0, -columns % self.multiple[1], 0, -rows % self.multiple[0]))
        return self.call(h, c_noise, scalars)[..., :rows, :columns]

    def call(self, h: Tensor, c_noise: Tensor, scalars: Tensor | None) -> Tensor:
        """PhysicsNeMo's network on padded fields h (B, C + K, Y', X'): (B, C, Y', X')."""
        return self.inner(h, c_noise, scalars)

    def _check(self, x: Tensor, c_noise: Tensor, condition: Condition) -> None:
        """Raise UserError for a call that does not fit."""
        found = {k: tuple(v.shape) for k, v in condition.items() if k in ("fields", "scalars")}
        wanted = {"fields": self.condition_fields, "scalars": self.condition_scalars}
        if x.ndim != 4 or x.shape[1] != self.channels or c_noise.shape != x.shape[:1]:
            raise UserError(
                f"network={self.option} takes x (B, {self.channels}, Y, X) and c_noise (B,), not {tuple(x.shape)} and"
                f" {tuple(c_noise.shape)}."
            )
        shapes = {"fields": (x.shape[0], wanted["fields"], *x.shape[2:]), "scalars": (x.shape[0], wanted["scalars"])}
        if found != {k: v for k, v in shapes.items() if wanted[k]}:
            raise UserError(
                f"network={self.option} takes {wanted['fields']} condition fields and {wanted['scalars']} scalars for"
                f" x {tuple(x.shape)}, not {found or 'none'}."
            )
        size, weights = tuple(x.shape[2:]), next(self.parameters()).dtype
        if self.fixed_size not in (None, size):
            raise UserError(
                f"network={self.option} is built for fields of {_times(self.fixed_size)}, to whose places its position"
                f" embedding belongs; these are {_times(size)}. Fit with network.resolution=[{size[0]},{size[1]}], or"
                " use network=songunet, dhariwal or unet, which take any size."
            )
        if x.dtype != weights and not torch.is_autocast_enabled(x.device.type):
            raise UserError(f"network={self.option} has weights of {weights} and is given {x.dtype}: convert either.")


def _times(size: tuple[int, ...] | None) -> str:
    return " × ".join(map(str, size or ()))


def levels(
    option: str, size: tuple[int, int], model_channels: int, channel_mult: Sequence[int], num_blocks: int
) -> tuple[int, int]:
    """Cells that one cell of a U-Net's coarsest level spans along (Y, X).

    Raises:
        UserError: for sizes that would build no network.
    """
    if min(model_channels, num_blocks, len(channel_mult), *size, *channel_mult) < 1:
        raise UserError(
            f"network={option}: network.model_channels={model_channels}, num_blocks={num_blocks},"
            f" channel_mult={list(channel_mult)} and resolution={list(size)} must be positive."
        )
    return (2 ** (len(channel_mult) - 1),) * 2


def named(option: str, size: tuple[int, int], multiple: tuple[int, int]) -> None:
    """Check that every level has a resolution of its own: PhysicsNeMo's U-Nets name their weights by it.

    Raises:
        UserError: if names would repeat.
    """
    if min(size) < multiple[0]:
        raise UserError(
            f"network.resolution={list(size)} is too small for the levels of network.channel_mult: it must be"
            f" {multiple[0]} at least. It places attention, and does not restrict the fields of network={option}."
        )


def widths(model_channels: int, channel_mult: Sequence[int]) -> str:
    """What to do where PhysicsNeMo refuses a U-Net's widths, for messages."""
    return (
        f"Widths that are powers of two (network.model_channels={model_channels}, channel_mult={list(channel_mult)})"
        " work."
    )


class SongUNet(PhysicsNeMo):
    """PhysicsNeMo's SongUNet (Song et al. 2021, DDPM++/NCSN++) on 2-D fields of any size."""

    root_scaled = ("inner.map_label.weight",)

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
        bottleneck_attention: bool = False,
        periodic: bool | Sequence[bool] = False,
    ) -> None:
        """Build the network.

        Args:
            channels: C of the fields that it takes and returns.
            condition_fields: K of condition["fields"] (B, K, Y, X), concatenated to the input.
            condition_scalars: K of condition["scalars"] (B, K), given as class labels.
            space: must be 2.
            resolution: img_resolution; it names the weights and places the attention by its rows, and does not restrict
                the size of fields.
            model_channels: width of the first level.
            channel_mult: width of each level over the first's.
            num_blocks: residual blocks per level.
            attn_resolutions: resolutions with self-attention.
            bottleneck_attention: whether the coarsest level attends.
            periodic: must be false.

        Raises:
            UserError: for other than two space dimensions, periodic axes, sizes that PhysicsNeMo refuses, or where it
                is not installed.
        """
        super().__init__("songunet", channels, condition_fields, condition_scalars, space, periodic)
        self.multiple = levels(self.option, pair(resolution), model_channels, channel_mult, num_blocks)
        named(self.option, pair(resolution), self.multiple)
        self.inner = build(
            self.option, "SongUNet", widths(model_channels, channel_mult),
            img_resolution=list(pair(resolution)), in_channels=channels + condition_fields, out_channels=channels,
            label_dim=condition_scalars, model_channels=model_channels, channel_mult=list(channel_mult),
            num_blocks=num_blocks, attn_resolutions=list(attn_resolutions),
            bottleneck_attention=bottleneck_attention, dropout=0.0,
            amp_mode=True,  # lets autocast choose the precision, and changes nothing without it
        )  # fmt: skip
