"""Random crops of large fields: a training batch fits into memory, and samples are still made of whole fields."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from scigen.core.codec import Codec, Index
from scigen.core.methods.base import Batch
from scigen.errors import UserError

PLACES = 4
"""Places a batch; each serves a part of its rows."""


class Crops:
    """Cuts batches out of the samples of an archive, at places that are a function of (seed, samples of the batch)."""

    def __init__(self, codec: Codec, size: int | Sequence[int], seed: int = 0) -> None:
        """Set codec and size.

        Args:
            codec: with windows.
            size: cells along each space axis, or along all.
            seed: of the places.

        Raises:
            UserError: if the size does not fit: it is a multiple of the codec's grain, at most the field, and all of an
                axis that wraps around.
        """
        whole, grain = codec.shape[1:], codec.grain
        cells = (size,) * len(whole) if isinstance(size, int) else tuple(size)
        if len(cells) != len(whole) or any(n < grain or n % grain or n > m for n, m in zip(cells, whole, strict=True)):
            raise UserError(f"crop={size}: fields have {whole} cells; crops are multiples of {grain} of at most that.")
        kept = [m if wraps else n for n, m, wraps in zip(cells, whole, codec.periodic, strict=True)]
        if kept != list(cells):
            raise UserError(
                f"crop={size}: an axis wraps around, and a network that knows it would join the ends of a crop: keep it"
                f" whole, crop={kept}."
            )
        self.codec, self.size, self.seed = codec, cells, seed
        self.room = [(m - n) // grain + 1 for n, m in zip(cells, whole, strict=True)]

    def places(self, indices: np.ndarray) -> list[tuple[int, ...]]:
        """First cells of the windows of a batch of these samples: PLACES of them, or one a row."""
        key = hashlib.blake2b(np.ascontiguousarray(indices, np.int64).tobytes(), digest_size=8).digest()
        rng = np.random.default_rng([self.seed, int.from_bytes(key)])
        return [
            tuple(int(self.codec.grain * rng.integers(n)) for n in self.room) for _ in range(min(PLACES, len(indices)))
        ]

    def batch(
        self, truth: xr.Dataset, inputs: xr.Dataset, index: Index, indices: np.ndarray, samples: tuple[str, ...]
    ) -> Batch:
        """A batch of crops.

        Args:
            truth: true fields.
            inputs: prepared inputs, the same samples.
            index: of the rows in these.
            indices: of the rows in the archive, which say where they are cut.
            samples: what they are called.
        """
        rows = np.arange(len(indices)) if isinstance(index, slice) else np.asarray(index)
        places = self.places(indices)
        found = []
        for low, part in zip(places, np.array_split(rows, len(places)), strict=True):
            window = self.codec.window(low, self.size)
            found.append((window.encode(truth, inputs, part), window.condition(inputs, part)))
        condition = {k: torch.cat([c[k] for _, c in found]) for k in found[0][1]}
        return Batch(torch.cat([x for x, _ in found]), condition, samples=samples)
