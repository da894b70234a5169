"""Mean and standard deviation of fields larger than memory, in one pass."""

import logging
import time
from collections.abc import Iterator

import dask.base
import numpy as np
import xarray as xr

from scigen.io.blocks import reading

log = logging.getLogger(__name__)
EVERY = 15.0  # seconds between lines that say how far it is


class Moments:
    """Running moments of every channel, all of its cells alike.

    Blocks are merged by their means and squared deviations (Chan et al. 1983, doi:10.1080/00031305.1983.10483115), so
    that nothing cancels where the mean is large, as in kelvin.

    Attributes:
        mean: plain mean, (C,).
        largest: largest absolute value, (C,), on which the rounding of what archives hold depends.
    """

    def __init__(self, channels: int) -> None:
        """Begin with nothing."""
        self.cells, self.square = 0, np.zeros(channels)
        self.mean, self.largest = np.zeros(channels), np.zeros(channels)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation about the mean (ddof = 0), (C,)."""
        return np.sqrt(self.square / self.cells)

    @property
    def both(self) -> np.ndarray:
        """Mean and standard deviation, (2, C)."""
        return np.stack([self.mean, self.std])

    def add(self, values: np.ndarray) -> None:
        """Take a block (B, C, *S) in."""
        rows = np.moveaxis(np.asarray(values, np.float64), 1, 0).reshape(len(self.mean), -1)
        own, count = rows.mean(1), rows.shape[1]
        step, share = own - self.mean, count / (self.cells + count)
        self.square += np.square(rows - own[:, None]).sum(1) + step**2 * self.cells * share
        self.mean += step * share
        self.largest = np.maximum(self.largest, np.abs(rows).max(1))
        self.cells += count


def blocks(truth: xr.Dataset, inputs: xr.Dataset, dim: str, size: int) -> Iterator[tuple[xr.Dataset, xr.Dataset]]:
    """Both datasets in memory, a block of samples at a time; how far it is, is logged where it takes long.

    Args:
        truth: may be lazy.
        inputs: the same samples; what they are computed from in common with `truth` is read once.
        dim: of the samples.
        size: of a block of `truth` [bytes]; at least a chunk, and whole ones.

    Raises:
        UserError: if the archive cannot be read.
    """
    count = truth.sizes[dim]
    length = int(size * count / max(truth.nbytes, 1))
    chunk = next(iter(truth.data_vars.values())).chunksizes.get(dim, (1,))[0]
    length = max(length // chunk * chunk, chunk, 1)
    told = time.monotonic()
    for start in range(0, count, length):
        part = {dim: slice(start, start + length)}
        with reading(f"{', '.join(map(str, truth.data_vars))} at {dim} {start} to {min(start + length, count) - 1}"):
            found = dask.base.compute(truth.isel(part), inputs.isel(part))
        yield found[0].load(), found[1].load()
        if time.monotonic() - told > EVERY:
            told = time.monotonic()
            log.info("statistics: %d of %d", min(start + length, count), count)
