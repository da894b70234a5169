"""Reading a match block by block: a bounded number of bytes at a time, whatever the archive's size and chunks."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from scigen.io.blocks import values
from scigen.metrics.layout import is_lead
from scigen.metrics.matching import Match

BLOCK_BYTES = 2**25
"""Members of one variable that are read at once; at least one sample is."""


def cut(match: Match, model: str, budget: int = BLOCK_BYTES) -> list[slice]:
    """Slices of the samples, each of at most `budget` bytes of members, along the file's chunks where these fit."""
    array, dim = match.samples[model], match.layout.sample
    each = max(array.nbytes // max(array.sizes[dim], 1), 1)
    length = max(budget // each, 1)
    chunks = array.chunksizes.get(dim)
    native = int(array.encoding.get("preferred_chunks", {}).get(dim, chunks[0] if chunks else 1))
    if 1 < native <= length:
        length = length // native * native
    count = len(match.labels)
    return [slice(lo, min(lo + length, count)) for lo in range(0, count, length)]


def read_members(match: Match, model: str, part: slice) -> NDArray:
    """Members of some samples, (n, M, cases, cells), as they are stored."""
    array = _take(match.samples[model], match.layout.sample, match.picks[model][part])
    array = array.transpose(match.layout.sample, "member", *match.layout.cases, *match.layout.space)
    whole = values(array, f"'{match.name}' of samples '{model}'")
    return whole.reshape(*whole.shape[:2], match.cases, -1)


def read_truth(match: Match, part: slice) -> NDArray:
    """The truth of some samples, (n, cases, cells)."""
    rows, layout = match.rows[part], match.layout
    start = layout.sample
    if rows.ndim == 2:
        start = layout.sample if layout.sample in match.truth.dims else "time"
        lead = next(d for d in layout.cases if is_lead(next(iter(match.samples.values())), d))
        unique, places = np.unique(rows, return_inverse=True)
        array = _take(match.truth, start, unique).reset_coords(drop=True).drop_vars(start, errors="ignore").load()
        array = array.isel({start: xr.DataArray(places.reshape(rows.shape), dims=("_sample", lead))})
        array = array.transpose("_sample", *layout.cases, *layout.space)
    else:
        array = _take(match.truth, start, rows).transpose(layout.sample, *layout.cases, *layout.space)
    whole = values(array, f"'{match.name}' of the truth")
    return whole.reshape(len(whole), match.cases, -1)


def _take(array: xr.DataArray, dim: str, places: NDArray[np.int64]) -> xr.DataArray:
    """Positions along a dimension, as a slice where they follow each other."""
    step = np.diff(places)
    if len(places) and (step == 1).all():
        return array.isel({dim: slice(int(places[0]), int(places[-1]) + 1)})
    return array.isel({dim: places})
