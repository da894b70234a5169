"""Batches of an archive that stays on disk: blocks of consecutive samples, each read once an epoch, ahead of its use.

The order of the samples is a function of (seed, epoch), as in memory, so that a resumed run sees the same batches. It
mixes what lies within a window of blocks: the blocks are permuted, and a sample of the k-th block comes at the time
k + window · u, u uniform on [0, 1). So at any time the samples of `window` blocks are drawn from, in mixed order, and
what is older can be let go.
"""

import logging
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, count, pairwise, takewhile

import dask.base
import numpy as np
import xarray as xr

from scigen.core.codec import Codec
from scigen.core.crops import Crops
from scigen.core.datamodule import ArchiveStream, SampleStream
from scigen.core.methods.base import Batch
from scigen.io.blocks import reading

log = logging.getLogger(__name__)

BLOCK_BYTES = 2**25
"""Size [bytes] that a block aims at; a chunk of the archive is never cut."""
WINDOW_BYTES = 2**27
"""Size [bytes] that the blocks of a window aim at together."""
WINDOW = (4, 16)
"""Blocks of a window, at least and at most."""
BLOCKS_AHEAD = 1
"""Blocks that are read before they are needed."""
BATCHES_AHEAD = 1
"""Batches that are made before they are asked for."""

Block = list[dict[Hashable, np.ndarray]]
"""Values of true fields and of inputs by variable, samples first."""


def archive_stream(
    codec: Codec,
    truth: xr.Dataset,
    inputs: xr.Dataset,
    batch: int,
    total: int,
    seed: int = 0,
    crop: int | Sequence[int] | None = None,
) -> SampleStream:
    """Batches of data, from memory or, where an archive is lazy, from disk.

    Args:
        codec: between archives and networks.
        truth: true fields.
        inputs: prepared inputs, the same samples.
        batch: samples per micro-batch.
        total: number of micro-batches.
        seed: of order and crops.
        crop: cells of random crops along each space axis, or along all; None for whole fields.

    Raises:
        UserError: for crops that do not fit.
    """
    lazy = any(v.chunks for ds in (truth, inputs) for v in ds.data_vars.values())
    stream = (BlockStream if lazy else ArchiveStream)(codec, truth, inputs, batch, total, seed)
    stream.crops = None if crop is None else Crops(codec, crop, seed)
    return stream


@dataclass(frozen=True)
class Use:
    """One block in one epoch.

    Attributes:
        block: number of the block.
        first: position in the run, all epochs counted, of the first of its samples that comes.
        last: of the last one.
    """

    block: int
    first: int
    last: int


class BlockStream(SampleStream):
    """Batches of data from an archive on disk: as `ArchiveStream`, in an order that needs few blocks at a time.

    A thread reads blocks, true fields and inputs together, so that what one is computed from the other is read once;
    another makes batches of them. Neither waits for anything but work, so neither can be left hanging: a read that
    fails fails the batch that needs it, and what nobody asks for any more is given up.

    Attributes:
        edges: positions at which blocks begin, and the end.
        window: blocks that samples are mixed within.
    """

    def __init__(
        self, codec: Codec, truth: xr.Dataset, inputs: xr.Dataset, batch: int, total: int, seed: int = 0
    ) -> None:
        """Set codec, true fields and prepared inputs (same samples); see `archive_stream`."""
        self.keys = codec.samples(inputs)
        super().__init__(len(self.keys), batch, total, seed)
        self.codec, self.dim = codec, codec.layout(inputs).dims[0]
        self.parts = [_settled(ds, self.dim) for ds in (truth, inputs)]
        size = sum(v.nbytes for ds in self.parts for v in ds.data_vars.values() if self.dim in v.dims) / self.count
        self.edges = block_edges(self.parts, self.dim, max(1, int(BLOCK_BYTES / max(size, 1))))
        longest = int(np.diff(self.edges).max())
        blocks = len(self.edges) - 1
        self.window = min(max(WINDOW[0], min(int(WINDOW_BYTES / max(longest * size, 1)), WINDOW[1])), blocks)
        self.held: dict[Use, Future[Block]] = {}
        self.pools: tuple[ThreadPoolExecutor, ...] = ()
        held = min(self.window + BLOCKS_AHEAD + 1, blocks) * longest * size
        log.info(
            "streaming %.3g GB from disk: %d blocks of up to %d samples, %.3g GB held at a time",
            self.count * size / 1e9, blocks, longest, held / 1e9,
        )  # fmt: skip

    def order(self, epoch: int) -> np.ndarray:
        """The order of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        place = np.empty(len(self.edges) - 1)
        place[rng.permutation(len(place))] = np.arange(len(place))
        time = np.repeat(place, np.diff(self.edges)) + self.window * rng.random(self.count)
        return np.argsort(time, kind="stable")

    def blocks_of(self, indices: np.ndarray) -> np.ndarray:
        """Number of the block that each sample lies in."""
        return np.searchsorted(self.edges, indices, side="right") - 1

    def uses(self, epoch: int) -> Iterator[Use]:
        """The blocks of an epoch in the order of their first use."""
        blocks = self.blocks_of(self._cached(epoch))
        start = epoch * self.count
        numbers, first = np.unique(blocks, return_index=True)
        _, back = np.unique(blocks[::-1], return_index=True)
        for k in np.argsort(first):
            yield Use(int(numbers[k]), start + int(first[k]), start + self.count - 1 - int(back[k]))

    def read(self, block: int) -> Block:
        """True fields and inputs of a block, in one read.

        Raises:
            UserError: if the archive cannot be read there.
        """
        part = slice(int(self.edges[block]), int(self.edges[block + 1]))
        with reading(f"the samples {self.keys[part.start]} to {self.keys[part.stop - 1]}"):
            found = dask.base.compute(*(ds.isel({self.dim: part}) for ds in self.parts), scheduler="synchronous")
        return [
            {n: np.moveaxis(v.values, v.dims.index(self.dim), 0) for n, v in ds.items() if self.dim in v.dims}
            for ds in found
        ]

    def get(self, indices: np.ndarray) -> Batch:
        """The samples at these positions, read for this alone."""
        blocks = self.blocks_of(indices)
        return self._batch(indices, [(blocks == b, self.read(int(b))) for b in np.unique(blocks)])

    def __iter__(self) -> Iterator[Batch]:
        """Micro-batches from `start` on, made ahead of their use."""
        reader, maker = (ThreadPoolExecutor(1, f"scigen-{name}") for name in ("read", "batch"))
        self.pools = (maker, reader)
        self.held = {}
        if self.start >= self.total:
            return
        low, end = self.places(self.start)[0], self.places(self.total - 1)[-1]
        coming = chain.from_iterable(self.uses(e) for e in count(int(low) // self.count))
        ahead = Ahead(takewhile(lambda use: use.first <= end, (u for u in coming if u.last >= low)))

        def make(number: int) -> Batch:
            places = self.places(number)
            for use in [u for u in self.held if u.last < places[0]]:
                del self.held[use]
            for use in ahead.until(int(places[-1])):
                self.held[use] = reader.submit(self.read, use.block)
            return self._assemble(places)

        try:
            made: deque[Future[Batch]] = deque()
            for number in range(self.start, self.total):
                made.append(maker.submit(make, number))
                if len(made) > BATCHES_AHEAD:
                    yield made.popleft().result()
            while made:
                yield made.popleft().result()
        finally:
            self.close()

    def close(self) -> None:
        """Give up what is being read ahead."""
        for pool in self.pools:
            pool.shutdown(wait=False, cancel_futures=True)
        self.held = {}

    def _assemble(self, places: np.ndarray) -> Batch:
        """The batch at these positions of the run, from blocks that are held, as soon as they have been read."""
        indices = self.at(places)
        blocks, epochs = self.blocks_of(indices), places // self.count
        rows = [(u, (blocks == u.block) & (epochs == u.first // self.count)) for u in self.held]
        return self._batch(indices, [(mask, self.held[u].result()) for u, mask in rows if mask.any()])

    def _batch(self, indices: np.ndarray, blocks: Sequence[tuple[np.ndarray, Block]]) -> Batch:
        """A batch of rows that lie in several blocks: which rows, and the block."""
        own = indices - self.edges[self.blocks_of(indices)]
        parts = []
        for k, whole in enumerate(self.parts):
            part = whole.drop_vars([n for n, v in whole.items() if self.dim in v.dims]).isel({self.dim: indices})
            for name, like in whole.items():
                if self.dim in like.dims:
                    axis = like.dims.index(self.dim)
                    rows = np.empty((len(indices), *np.delete(like.shape, axis)), like.dtype)
                    for mask, block in blocks:
                        rows[mask] = block[k][name][own[mask]]
                    part[name] = (like.dims, np.moveaxis(rows, 0, axis), like.attrs)
            parts.append(part[list(whole)])
        truth, inputs = parts
        everything = slice(None)
        samples = tuple(self.keys[i] for i in indices)
        if self.crops is not None:
            return self.crops.batch(truth, inputs, everything, indices, samples)
        x, condition = self.codec.encode(truth, inputs, everything), self.codec.condition(inputs, everything)
        return Batch(x, condition, samples=samples)


class Ahead:
    """Hands out blocks when they are needed, and a few more."""

    def __init__(self, uses: Iterator[Use]) -> None:
        """Set the blocks, in the order of their first use."""
        self.uses, self.beyond = uses, deque[Use]()

    def until(self, place: int) -> list[Use]:
        """Those that have not been handed out and are needed up to a position of the run, and BLOCKS_AHEAD more."""
        out = []
        while self.beyond and self.beyond[0].first <= place:
            self.beyond.popleft()
        while len(self.beyond) < BLOCKS_AHEAD and (use := next(self.uses, None)):
            out.append(use)
            if use.first > place:
                self.beyond.append(use)
        return out


def block_edges(parts: Sequence[xr.Dataset], dim: str, length: int) -> np.ndarray:
    """Where blocks of about `length` samples begin, and the end: chunks along `dim` stay whole.

    Where the chunks of the variables have few edges in common, those of the first one count.
    """
    size = parts[0].sizes[dim]
    chunks = [v.chunksizes[dim] for ds in parts for v in ds.data_vars.values() if dim in v.chunksizes]
    found = [set(np.cumsum([0, *c]).tolist()) for c in chunks] or [set(range(size + 1))]
    common = set.intersection(*found)
    edges = sorted(common if 2 * len(common) > len(found[0]) else found[0])
    kept = [0]
    for edge, following in pairwise([*edges[1:], 2 * size + length]):
        if following - kept[-1] > length or edge == size:
            kept.append(edge)
    return np.array(kept)


def _settled(ds: xr.Dataset, dim: str) -> xr.Dataset:
    """A dataset whose coordinates, and what does not vary along `dim`, are in memory."""
    fixed = [n for n, v in ds.variables.items() if n in ds.coords or dim not in v.dims]
    return ds.assign({n: ds[n].load() for n in fixed if n not in ds.coords}).assign_coords(
        {n: ds[n].load() for n in fixed if n in ds.coords}
    )
