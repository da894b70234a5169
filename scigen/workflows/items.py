"""Work items, made one after another: while one is generated the next is read and the last one is written."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from scigen.core.bundle import Bundle
from scigen.core.codec import Layout
from scigen.errors import UserError
from scigen.io.blocks import reading
from scigen.io.formats import LIBRARY
from scigen.io.plan import Item
from scigen.io.store import EnsembleStore

log = logging.getLogger(__name__)

BATCH = "batch"
"""Name under which a store keeps the compute batch that fitted into memory."""

Report = Callable[[int], None]
"""Told the number of fields made since it was last called."""


@dataclass
class Work:
    """All that a process needs to make any item of a job.

    Attributes:
        bundle: on its device.
        inputs: prepared, lazy; samples first.
        layout: of the output.
        names: the output variables that are written, of those that the bundle makes.
        numbers: member numbers.
        seed: of the ensemble.
        steps: number of levels; the default if None.
        batch: rows of a compute batch.
        store: where items go.
    """

    bundle: Bundle
    inputs: xr.Dataset
    layout: Layout
    names: Sequence[str]
    numbers: Sequence[int]
    seed: int
    steps: int | None
    batch: int
    store: EnsembleStore
    _window: tuple[int, int, xr.Dataset] | None = None

    def read(self, item: Item) -> xr.Dataset:
        """The inputs of an item, in memory; the blocks that they were read in are kept for the items that follow.

        Raises:
            UserError: if they cannot be read.
        """
        dim = self.layout.dims[0]
        low, high = self._blocks(item)
        window = self._window
        if window is None or window[:2] != (low, high):
            window = self._window = None  # memory for one at a time
            with (
                LIBRARY,
                reading(f"the samples {self._span(item)} of {self.inputs.encoding.get('source', 'the input')}"),
            ):
                whole = self.inputs.isel({dim: slice(low, high)}).compute(scheduler="synchronous")
            window = self._window = low, high, whole
        return window[2].isel({dim: slice(item.start - low, item.stop - low)})

    def _blocks(self, item: Item) -> tuple[int, int]:
        """The span of samples that the blocks of an item cover: computing a part of a block reads all of it."""
        dim, low, high = self.layout.dims[0], item.start, item.stop
        for array in self.inputs.data_vars.values():
            edges = np.cumsum([0, *array.chunksizes.get(dim, ())])
            if len(edges) > 1:
                low = min(low, int(edges[np.searchsorted(edges, item.start, side="right") - 1]))
                high = max(high, int(edges[np.searchsorted(edges, item.stop, side="left")]))
        return low, high

    def generate(self, inputs: xr.Dataset, item: Item, report: Report | None = None) -> dict[str, np.ndarray]:
        """The fields of an item by variable, (T, M, *space) as they are written.

        A compute batch that does not fit into memory is halved, and the store remembers that.

        Raises:
            UserError: if a field is not finite, or not one row fits into memory.
        """
        numbers = self.numbers[item.low : item.high]
        while True:
            try:
                blocks = [
                    block
                    for _, block in self.bundle.blocks(
                        inputs, numbers, seed=self.seed, steps=self.steps, batch=self.batch, progress=report
                    )
                ]
                break
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if self.batch == 1:
                    raise UserError(
                        "Not even one field fits into memory: sample large domains by tiles (tile=256), or on a device"
                        " with more memory."
                    ) from error
                self.batch = (self.batch + 1) // 2
                log.warning("Out of memory: the compute batch is halved to %d, and that is recorded.", self.batch)
                self.store.note(BATCH, self.batch)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
        fields = np.concatenate(blocks)
        out = {}
        for c, name in enumerate(self.bundle.codec.variables):
            if name not in self.names:
                continue
            out[name] = self.layout.arrange(fields[:, :, c])
            bad = int((~np.isfinite(out[name])).sum())
            if bad:
                raise UserError(
                    f"The model made {bad} values of '{name}' that are no numbers, for the samples {self._span(item)}:"
                    " is the input within what it was trained on, and in the right units?"
                )
        return out

    def _span(self, item: Item) -> str:
        first = self.layout.coords[self.layout.dims[0]].values
        return f"{first[item.start]} to {first[item.stop - 1]}"


def make(work: Work, items: Sequence[Item], *, retries: int = 2, report: Report | None = None) -> int:
    """Make items; one that fails is tried again, then recorded, and the others go on.

    Args:
        work: the job.
        items: which of them.
        retries: further attempts at an item.
        report: called with the number of fields made since the last call.

    Raises:
        UserError: if the output cannot be written.

    Returns:
        The number of items that failed.
    """
    failed = 0
    with ThreadPoolExecutor(1, "scigen-read") as reader, ThreadPoolExecutor(1, "scigen-write") as writer:
        ahead: Future[xr.Dataset] | None = None
        behind: Future[None] | None = None
        try:
            for position, item in enumerate(items):
                began, current, ahead = time.perf_counter(), ahead or reader.submit(work.read, item), None
                if position + 1 < len(items):
                    ahead = reader.submit(work.read, items[position + 1])
                fields = _attempt(work, item, current, retries, report)
                if behind is not None:
                    behind.result()
                    behind = None
                if fields is None:
                    failed += 1
                    continue
                facts = {"seconds": round(time.perf_counter() - began, 3), BATCH: work.batch, **machine()}
                behind = writer.submit(work.store.write, item, fields, facts)
            if behind is not None:
                behind.result()
        finally:
            if ahead is not None:
                ahead.cancel()
    return failed


def _attempt(
    work: Work, item: Item, current: Future[xr.Dataset], retries: int, report: Report | None
) -> dict[str, np.ndarray] | None:
    """The fields of an item, or None after it has failed once more than it may."""
    for left in range(retries, -1, -1):
        told = 0

        def count(n: int) -> None:
            nonlocal told
            told += n
            if report:
                report(n)

        read = False
        try:
            inputs = current.result() if left == retries else work.read(item)
            read = True
            return work.generate(inputs, item, count)
        except Exception as error:
            if report and told:
                report(-told)
            if left and not (read and isinstance(error, UserError)):  # a wrong input stays wrong
                log.warning("Item %s failed (%s); it is tried again.", item.name, error)
                continue
            log.error("Item %s failed: %s", item.name, error)
            work.store.failed(item, error)
            return None
    return None


def machine() -> dict[str, Any]:
    """What the bits of a field may depend on beside the model and its compute batch."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
    return {"threads": torch.get_num_threads(), "processor": device, "torch": str(torch.__version__)}


def out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch has run out of memory, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
