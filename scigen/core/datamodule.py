"""Archive to normalised batches, each addressed by its number, so that a resumed run sees the same ones."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from scigen.core import addressed
from scigen.core.codec import Codec
from scigen.core.crops import Crops
from scigen.core.methods.base import Batch
from scigen.errors import UserError


class SampleStream(IterableDataset):
    """Micro-batches 0, 1, …: every epoch is a fresh permutation of the samples, a function of (seed, epoch).

    Attributes:
        start: number of the first micro-batch that iterating gives; set it to resume.
        crops: cuts fields of data; None for whole ones.
        share: (rank, ranks): which part of every micro-batch is given, where several processes share it.
    """

    def __init__(self, count: int, batch: int, total: int, seed: int = 0) -> None:
        """Set the stream.

        Args:
            count: number of samples.
            batch: samples per micro-batch.
            total: number of micro-batches.
            seed: of the order.

        Raises:
            UserError: if there is no sample, or the seed is negative.
        """
        if count < 1:
            raise UserError("There are no training samples.")
        if seed < 0:
            raise UserError(f"seed={seed} must be at least 0.")
        self._orders: dict[int, np.ndarray] = {}
        self.count, self.batch, self.total, self.seed, self.start = count, batch, total, seed, 0
        self.share = (0, 1)
        self.crops: Crops | None = None

    def __len__(self) -> int:
        """Number of micro-batches from the first, whatever `start` is."""
        return self.total

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of an epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.count)

    def places(self, number: int) -> np.ndarray:
        """Positions in the run, all epochs counted, of this process's rows of a micro-batch."""
        rank, ranks = self.share
        rows = self.batch // ranks
        return number * self.batch + rank * rows + np.arange(rows)

    def indices(self, number: int) -> np.ndarray:
        """Positions of the samples of a micro-batch; batches run on across the ends of epochs."""
        return self.at(self.places(number))

    def at(self, places: np.ndarray) -> np.ndarray:
        """The samples at positions in the run."""
        epochs = places // self.count
        orders = {int(e): self._cached(int(e)) for e in np.unique(epochs)}
        return np.array([orders[int(e)][p % self.count] for e, p in zip(epochs, places, strict=True)])

    def _cached(self, epoch: int) -> np.ndarray:
        """The permutation of an epoch; the last two are kept, since a batch may run on from one into the next."""
        if epoch not in self._orders:
            while len(self._orders) > 1:
                self._orders.pop(next(iter(self._orders)))
            self._orders[epoch] = self.order(epoch)
        return self._orders[epoch]

    def get(self, indices: np.ndarray) -> Batch:
        """The samples at these positions."""
        raise TypeError("SampleStream is abstract: use ArchiveStream or PairStream.")

    def __iter__(self) -> Iterator[Batch]:
        """Micro-batches from `start` on."""
        return (self.get(self.indices(i)) for i in range(self.start, self.total))

    def close(self) -> None:
        """Let go of what was begun for batches to come."""

    def loader(self) -> DataLoader:
        """A loader that passes the batches through."""
        return DataLoader(self, batch_size=None)


class ArchiveStream(SampleStream):
    """Batches of data: x and condition of archive samples."""

    def __init__(
        self, codec: Codec, truth: xr.Dataset, inputs: xr.Dataset, batch: int, total: int, seed: int = 0
    ) -> None:
        """Set codec, true fields and prepared inputs (same samples)."""
        self.keys = codec.samples(inputs)
        super().__init__(len(self.keys), batch, total, seed)
        self.codec, self.truth, self.inputs = codec, truth, inputs

    def get(self, indices: np.ndarray) -> Batch:
        """x and condition at these positions."""
        samples = tuple(self.keys[i] for i in indices)
        if self.crops is not None:
            return self.crops.batch(self.truth, self.inputs, indices, indices, samples)
        x, condition = self.codec.encode(self.truth, self.inputs, indices), self.codec.condition(self.inputs, indices)
        return Batch(x, condition, samples=samples)


class Rows(Protocol):
    """Rows by their positions: a numpy array, or one in an archive, of which only what is asked for is read."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, indices: Any, /) -> Any:
        """The rows at these positions."""
        ...


class PairStream(SampleStream):
    """Batches of a teacher's pairs: end point, condition, the noise that leads there, and the states on the way.

    Noise is not stored but remade from its address.
    """

    def __init__(
        self,
        codec: Codec,
        inputs: xr.Dataset,
        states: Rows,
        samples: np.ndarray,
        members: np.ndarray,
        batch: int,
        total: int,
        seed: int = 0,
    ) -> None:
        """Set the pairs.

        Args:
            codec: of the teacher.
            inputs: prepared inputs.
            states: (pairs, K, C, *S), normalised: K − 1 states on the way, then the end point.
            samples: position in `inputs` of each pair.
            members: member number of each pair's noise.
            batch: pairs per micro-batch.
            total: number of micro-batches.
            seed: of order and noise.
        """
        super().__init__(len(samples), batch, total, seed)
        self.codec, self.inputs, self.states, self.samples, self.members = codec, inputs, states, samples, members
        self.keys = codec.samples(inputs)

    def get(self, indices: np.ndarray) -> Batch:
        """End points, conditions, noise and states of these pairs."""
        where = self.samples[indices]
        keys = [self.keys[i] for i in where]
        states = torch.from_numpy(np.ascontiguousarray(self.states[indices], dtype=np.float32))
        noise = pair_noise(self.codec, keys, self.members[indices], self.seed)
        path = states[:, :-1] if states.shape[1] > 1 else None
        return Batch(states[:, -1], self.codec.condition(self.inputs, where), noise, path, tuple(keys))


def pair_noise(codec: Codec, samples: list[str], members: np.ndarray, seed: int) -> Tensor:
    """Noise of pairs, addressed apart from that of ensembles: (B, C, *S)."""
    rows = [addressed.normal(seed, f"pair|{s}", int(m), codec.shape) for s, m in zip(samples, members, strict=True)]
    return torch.from_numpy(np.stack(rows))
