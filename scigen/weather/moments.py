"""Mean and standard deviation of fields larger than memory, in one pass."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import dask.base
import numpy as np
import xarray as xr

from scigen.io.blocks import reading

log = logging.getLogger(__name__)
EVERY = 15.0  # seconds between lines that say how far it is


@dataclass(frozen=True)
class Moments:
    """Of each variable, over all its cells: (variables,) float64.

    Attributes:
        mean: plain mean.
        std: standard deviation about it (ddof = 0).
        largest: largest absolute value, on which the rounding of what archives hold depends.
    """

    mean: np.ndarray
    std: np.ndarray
    largest: np.ndarray


def stream_moments(dataset: xr.Dataset, names: Sequence[str], block: int) -> Moments:
    """Moments of variables, in one pass of bounded memory; how far it is, is logged where it takes long.

    Blocks are merged by their means and squared deviations (Chan et al. 1983, doi:10.1080/00031305.1983.10483115), so
    that nothing cancels where the mean is large, as in kelvin.

    Args:
        dataset: variables that share their first dimension; may be lazy. All are read together, block by block.
        names: of the variables.
        block: positions along the first dimension that are in memory at once, or the chunks' length if that is more.

    Raises:
        UserError: if the archive cannot be read.
    """
    dim = str(dataset[names[0]].dims[0])
    size = dataset.sizes[dim]
    chunks = dataset[names[0]].chunksizes.get(dim, (1,))
    block = max(block // chunks[0] * chunks[0], chunks[0], 1)
    cells, mean, square, largest = 0, *(np.zeros(len(names)) for _ in range(3))
    told = time.monotonic()
    for start in range(0, size, block):
        part = dataset[list(names)].isel({dim: slice(start, start + block)})
        with reading(f"{', '.join(names)} at {dim} {start} to {min(start + block, size) - 1}"):
            (found,) = dask.base.compute(part)
        values = [np.asarray(found[n].values, dtype=np.float64) for n in names]
        own = np.array([v.mean() for v in values])
        count = values[0].size
        step, share = own - mean, count / (cells + count)
        square += [float(np.square(v - m).sum()) for v, m in zip(values, own, strict=True)]
        square += step**2 * cells * share
        mean += step * share
        largest = np.maximum(largest, [np.abs(v).max() for v in values])
        cells += count
        if time.monotonic() - told > EVERY:
            told = time.monotonic()
            log.info("statistics: %d of %d", min(start + block, size), size)
    return Moments(mean, np.sqrt(square / cells), largest)
