"""Codec: the field's translation between archives in physical units and the network's normalised tensors.

It travels inside the bundle (JSON settings and arrays), so it needs neither Lightning nor Hydra nor training data.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from scigen.core.operator import Operator
from scigen.core.traced import Traced
from scigen.errors import UserError
from scigen.io.archive import open_archive

Index = slice | Sequence[int] | np.ndarray
"""Positions of samples."""


class Codec(ABC):
    """What turns an archive sample into a condition, and a network sample into physical fields."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape (C, *S) of one network sample."""

    @property
    @abstractmethod
    def fields(self) -> int:
        """Number K of condition fields."""

    @property
    @abstractmethod
    def scalars(self) -> int:
        """Number of condition scalars."""

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Whether the data wrap around along each space axis: a network that knows it leaves no seam there."""
        return (False,) * (len(self.shape) - 1)

    @property
    def origin(self) -> tuple[int, ...]:
        """Place of the first cell of network samples in a larger field that they are a part of: addresses noise."""
        return (0,) * (len(self.shape) - 1)

    @property
    def scale(self) -> int:
        """Cells of the decoded fields, along each axis, that one cell of a network sample spans."""
        return 1

    @property
    def measured(self) -> Operator | None:
        """A, if samples are held to condition["measurement"] = A x, or weighed against it (`noisy`); else None."""
        return None

    @property
    def noisy(self) -> bool:
        """Whether what is measured has noise: samples are then weighed against it (`Operator.correct`)."""
        return False

    def perturbed(
        self, condition: dict[str, Tensor], samples: Sequence[str], members: Sequence[int], seed: int
    ) -> dict[str, Tensor]:
        """The condition that a member of a student is made from, which jumps from noise to sample.

        Where measurements have noise each member gets its own, so that it does not take that of the one measurement
        for signal: perturb and project (Orieux, Féron and Giovannelli 2012, IEEE Signal Processing Letters 19).
        """
        return condition

    def settled(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Network samples (B, C, *S) after the last thing that happens to them; as they are by default."""
        return x

    def open(self, path: str) -> xr.Dataset:
        """An input archive at a path, lazily: netCDF, zarr, or what else the field's scanners write.

        Raises:
            UserError: if there is none.
        """
        return open_archive(path)

    @abstractmethod
    def prepare(self, archive: xr.Dataset) -> xr.Dataset:
        """Check an input archive and bring it to what `condition` takes, lazily: right grid, variables and units.

        Raises:
            UserError: if the archive does not fit the bundle; the message says how.
        """

    @abstractmethod
    def samples(self, inputs: xr.Dataset) -> Sequence[str]:
        """One key per sample of prepared inputs (a time, a specimen, a slice): what addresses its members' noise."""

    @abstractmethod
    def condition(self, inputs: xr.Dataset, index: Index) -> dict[str, Tensor]:
        """The condition of the samples at `index` of prepared inputs: tensors, batch first.

        What networks see is float32; what only `decode` needs may have more digits.
        """

    @abstractmethod
    def encode(self, truth: xr.Dataset, inputs: xr.Dataset, index: Index) -> Tensor:
        """Normalised network samples (B, C, *S) of the true fields at `index`."""

    @abstractmethod
    def decode(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Physical fields (B, C, *S) of network samples x (B, C, *S) drawn under `condition`."""

    @property
    def regression(self) -> nn.Module | None:
        """A network for the mean that samples are residuals of; None without."""
        return None

    def traced(self) -> Traced:
        """Its tensor part, for export: without archives, from tensors in physical units on.

        Raises:
            UserError: if there is none, with the reason.
        """
        raise UserError(f"export: models of {type(self).__name__} cannot leave scigen; sample them with scigen sample.")

    @abstractmethod
    def layout(self, inputs: xr.Dataset, archive: xr.Dataset | None = None) -> "Layout":
        """How the samples of prepared inputs are written: on the bundle's own grid, or oriented as `archive` is."""

    @property
    @abstractmethod
    def variables(self) -> dict[str, dict[str, Any]]:
        """CF attributes of the C output variables, by name, in channel order."""

    @property
    def dtypes(self) -> dict[str, str]:
        """Types that output variables are stored in, by name; float32 where there is none."""
        return {}

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes that samples archives carry for those who use and judge them."""
        return {}

    @property
    def purpose(self) -> dict[str, Any]:
        """What models of the field are for (`use`), what not (`not`), and their limits (`limits`), for model cards."""
        return {}

    def scored(self, fields: np.ndarray) -> np.ndarray:
        """What the choice of weights compares of decoded fields (…, C, *S): numbers that can be averaged."""
        return fields

    def calibrated(self, x: Tensor, condition: Mapping[str, Tensor], truth: xr.Dataset, steps: int) -> "Codec":
        """The codec whose `decode` makes a model's samples right on average; itself where there is nothing to set.

        Args:
            x: network samples (B, C, *S) of held-out conditions.
            condition: theirs.
            truth: true fields of these held-out samples.
            steps: levels that they were sampled with; what is found for other numbers is kept beside.
        """
        return self

    def after(self, steps: int) -> "Codec":
        """The codec that decodes samples of so many levels."""
        return self

    @property
    def uncalibrated(self) -> "Codec | None":
        """The codec before `calibrated`; None where there is nothing to set."""
        return None

    def typical(self, truth: xr.Dataset, inputs: xr.Dataset, index: Index) -> Tensor:
        """Network samples (B, C, *S) whose spread says which range of σ is needed."""
        return self.encode(truth, inputs, index)

    def request(self, words: Mapping[str, Any], count: int) -> xr.Dataset:
        """An input archive of `count` samples from words of a command line.

        Raises:
            UserError: if the field conditions on more than a few numbers.
        """
        raise UserError(f"condition=: {type(self).__name__} conditions on fields: give an archive as input=.")

    def adapt(self, options: Mapping[str, Any]) -> "Codec":
        """The codec of what is asked for beside the condition; None asks for nothing.

        Raises:
            UserError: for an option that the field does not have.
        """
        for name, value in options.items():
            if value is not None:
                raise UserError(f"{name}={value}: bundles of {type(self).__name__} have no such choice; leave it out.")
        return self

    @property
    def formats(self) -> tuple[str, ...]:
        """What `export` can write."""
        return ()

    def export(self, archive: xr.Dataset, stem: Path, formats: Sequence[str]) -> list[Path]:
        """Write a samples archive once more, in some of the field's other formats; returns the files."""
        return []

    @property
    def grain(self) -> int:
        """Cells that windows begin and end at multiples of."""
        return 1

    def window(self, low: tuple[int, ...], size: tuple[int, ...]) -> "Window":
        """A part of every sample, to train on.

        Args:
            low: first cell along each space axis.
            size: number of cells along each.

        Raises:
            UserError: if the field has no such thing.
        """
        raise UserError(f"crop=: {type(self).__name__} has no windows; leave crop out.")

    def relocate(self, static: xr.Dataset) -> "Codec":
        """The codec of another region, given by the static fields there.

        Raises:
            UserError: if the field has no such thing, or these do not fit.
        """
        raise UserError(f"static=: bundles of {type(self).__name__} are not bound to a place.")

    def within(self, region: Mapping[str, Any]) -> "Codec":
        """The codec of a part of its region.

        Args:
            region: (first, last) by dimension.

        Raises:
            UserError: if the field has no such thing, or the part is none.
        """
        raise UserError(f"region={dict(region)}: bundles of {type(self).__name__} are not bound to a place.")

    def to(self, device: torch.device) -> None:  # noqa: B027
        """Move what it computes with to a device, if it has networks of its own."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(settings as JSON types, arrays) that `restore` rebuilds the codec from."""

    @classmethod
    @abstractmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Inverse of `state`."""


class Window(Protocol):
    """A part of the samples of a codec, with two of its methods; the archives are those of the whole."""

    def condition(self, inputs: xr.Dataset, index: Index) -> dict[str, Tensor]:
        """See `Codec.condition`; what the measurement of a part needs beside it is there as well."""
        ...

    def encode(self, truth: xr.Dataset, inputs: xr.Dataset, index: Index) -> Tensor:
        """See `Codec.encode`."""
        ...


@dataclass(frozen=True)
class Layout:
    """How samples are written.

    Attributes:
        coords: coordinates of the samples and of their space, no data and no member dimension; dims in the order
            (sample, *space).
        dims: names of these dimensions.
        arrange: from fields (…, *S) as the codec decodes them to the order of `coords`.
    """

    coords: xr.Dataset
    dims: tuple[str, ...]
    arrange: Callable[[np.ndarray], np.ndarray] = lambda fields: fields


def tensor(values: np.ndarray) -> Tensor:
    """float32 tensor of an array's values, owning its memory."""
    return torch.from_numpy(np.array(values, dtype=np.float32, copy=True))
