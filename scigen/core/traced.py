"""The tensor part of a codec: what lies between tensors in physical units and those of the network.

A codec begins at archives, with names, clocks and grids; what is exported begins at plain tensors. Each field splits
its codec here, so that everything behind the split can be traced: normalisation, interpolation, measurement, and the
way back to physical units.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn

from scigen.errors import UserError

BATCH = "batch"
"""Name of the first dimension of every input and output."""


@dataclass(frozen=True)
class Port:
    """An input or output of what is exported.

    Attributes:
        name: of the tensor.
        shape: behind the batch.
        units: physical, "1" for plain numbers; one for all, or one a channel.
        meaning: in words.
        channels: names along the second dimension, none where it is no channel.
        dtype: of the tensor.
    """

    name: str
    shape: tuple[int, ...]
    units: str | tuple[str, ...]
    meaning: str
    channels: tuple[str, ...] = ()
    dtype: str = "float32"

    def describe(self) -> dict[str, Any]:
        """As JSON types, the batch in its shape."""
        own = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return own | {"shape": [BATCH, *self.shape]}


class Traced(nn.Module, ABC):
    """A codec from tensors on; what it computes with are buffers.

    Attributes:
        inputs: what `condition` takes.
        output: what `decode` gives.
        extra: further noise of unit variance that `perturbed` takes, None if it takes none.
        complexes: whether it computes with complex numbers, which some formats lack.
        notes: what those who fill the inputs must know beside them.
    """

    inputs: tuple[Port, ...]
    output: Port
    extra: Port | None = None
    notes: str = ""
    complexes: bool = False

    @abstractmethod
    def condition(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `Codec.condition` gives, of inputs by name."""

    def perturbed(self, condition: dict[str, Tensor], noise: Tensor) -> dict[str, Tensor]:
        """What `Codec.perturbed` gives, with the noise of `extra`."""
        return condition

    def settled(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """What `Codec.settled` gives."""
        return x

    @abstractmethod
    def decode(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """What `Codec.decode` gives."""

    @abstractmethod
    def example(self, batch: int, seed: int) -> xr.Dataset:
        """An archive of so many samples with made-up values that are possible ones, as `Codec.prepare` takes it."""

    @abstractmethod
    def feed(self, archive: xr.Dataset) -> dict[str, Tensor]:
        """The inputs by name, of an archive that `Codec.prepare` accepts as it is, for all its samples."""

    def noise(self, samples: Sequence[str], members: Sequence[int], seed: int) -> Tensor:
        """The noise of `extra`, as the bundle draws it for these rows."""
        raise TypeError(f"{type(self).__name__} takes no further noise.")

    def package(self) -> dict[str, Any]:
        """What a CorrDiff package of Earth2Studio says: "metadata" and "stats" as JSON types, "grids" by file name.

        Raises:
            UserError: for a field that is no downscaling.
        """
        raise UserError("format=earth2studio is the layout of downscaling models: use format=pt2 or onnx.")

    def distance(self, found: Tensor, wanted: Tensor) -> float:
        """How far fields are from others, (B, C, *S) both: the worst channel's ‖Δ‖ over ‖what varies‖.

        The mean of a channel does not count, so that kelvins do not hide behind 273 of them.
        """
        axes = (0, *range(2, wanted.ndim))
        a, b = found.double(), wanted.double()
        varies = (b - b.mean(axes, keepdim=True)).square().mean(axes).sqrt()
        gap = (a - b).square().mean(axes).sqrt() / varies.clamp_min(torch.finfo(torch.float64).tiny)
        return float(torch.where(torch.isfinite(gap), gap, torch.inf).max())
