"""Ensembles that are generated where they are looked at: variables of a dataset whose values come from a bundle."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from scigen.core.codec import Layout


class Source:
    """Fields of all variables at positions of samples and members; what was made last is kept, for other variables.

    Attributes:
        shape: (samples, members, *space).
    """

    def __init__(
        self,
        blocks: Callable[[xr.Dataset, Sequence[int]], Iterator[tuple[int, np.ndarray]]],
        inputs: xr.Dataset,
        layout: Layout,
        members: Sequence[int],
    ) -> None:
        """Set what fields are a function of.

        Args:
            blocks: from prepared inputs and member numbers to blocks of samples, see `Bundle.blocks`.
            inputs: prepared.
            layout: of the output.
            members: M member numbers.
        """
        self.blocks, self.inputs, self.layout, self.members = blocks, inputs, layout, members
        first, *space = layout.dims
        sizes = layout.coords.sizes
        self.shape = (sizes[first], len(members), *(sizes[d] for d in space))
        self._lock, self._key, self._made = threading.Lock(), b"", np.empty(0)

    def fields(self, samples: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Physical fields (samples, members, C, *S) at these positions."""
        key = samples.tobytes() + b"|" + members.tobytes()
        with self._lock:
            if key != self._key or not self._made.size:
                part = self.inputs.isel({self.layout.dims[0]: samples})
                numbers = [self.members[m] for m in members]
                self._made = np.concatenate([block for _, block in self.blocks(part, numbers)])
                self._key = key
            return self._made


class GeneratedArray(BackendArray):
    """One variable (sample, member, *space): indexing it generates the samples and members that are asked for."""

    def __init__(self, source: Source, channel: int, dtype: str) -> None:
        """Set the channel of the source's fields."""
        self.source, self.channel = source, channel
        self.shape, self.dtype = source.shape, np.dtype(dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Values at an index, by xarray."""
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._generate)

    def _generate(self, key: tuple[Any, ...]) -> np.ndarray:
        samples, members = (np.arange(n)[k] for n, k in zip(self.shape[:2], key[:2], strict=True))
        one = [np.ndim(v) == 0 for v in (samples, members)]
        samples, members = np.atleast_1d(samples), np.atleast_1d(members)
        if not samples.size or not members.size:
            values = np.empty((samples.size, members.size, *self.shape[2:]), self.dtype)
        else:
            fields = self.source.fields(samples, members)[:, :, self.channel]
            values = self.source.layout.arrange(fields).astype(self.dtype, copy=False)
        for axis, k in enumerate(key[2:], 2):
            if np.ndim(k) != 0 or isinstance(k, slice):
                values = values[(slice(None),) * axis + (k,)]
        scalars = tuple(0 if single else slice(None) for single in one)
        rest = tuple(slice(None) if isinstance(k, slice) or np.ndim(k) else int(k) for k in key[2:])
        return values[scalars + rest]


def variable(source: Source, channel: int, dtype: str, attrs: dict[str, Any]) -> xr.Variable:
    """A variable of a dataset that is generated where it is indexed, and kept once it is loaded as a whole."""
    array: Any = indexing.LazilyIndexedArray(GeneratedArray(source, channel, dtype))
    first, *space = source.layout.dims
    cached = indexing.MemoryCachedArray(indexing.CopyOnWriteArray(array))
    return xr.Variable((first, "member", *space), cached, attrs, fastpath=True)
