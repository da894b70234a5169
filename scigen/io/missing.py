"""Cells without a value: refused, filled from their neighbours, or their times left out."""

import logging
from typing import Any

import numpy as np
import scipy.ndimage
import xarray as xr

from scigen.errors import UserError
from scigen.io.blocks import blocks, values
from scigen.io.coordinates import check_finite, horizontal_dims

log = logging.getLogger(__name__)

POLICIES = ("refuse", "fill", "skip")

MOST = 1 / 3
"""Share of a field that may be filled."""

KEY = "missing"
"""Where the encoding of a dataset keeps what is asked for its missing cells, so that it travels with the archive."""


def check_policy(missing: str) -> str:
    """What is to be done with missing cells.

    Raises:
        UserError: if it is none of POLICIES.
    """
    if missing not in POLICIES:
        raise UserError(f"missing={missing}: expected {', '.join(POLICIES[:-1])} or {POLICIES[-1]}.")
    return missing


def fill_gaps(ds: xr.Dataset) -> xr.Dataset:
    """Cells without a finite value get that of the nearest cell that has one, in rows and columns, lazily.

    Fields of which more than MOST is missing stay as they are, for `check_finite` to refuse.

    Args:
        ds: variables (…, Y, X); those without both stay as they are.
    """
    dims = horizontal_dims(ds)
    told = [False]

    def fill(block: np.ndarray) -> np.ndarray:
        missing = ~np.isfinite(block)
        counts = missing.sum(axis=(-2, -1))
        if not counts.any():
            return block
        out, mask, nearest = block.copy(), None, None
        few = (counts > 0) & (counts <= MOST * missing.shape[-2] * missing.shape[-1])
        for place in map(tuple, np.argwhere(few)):
            if mask is None or not np.array_equal(mask, missing[place]):  # coasts are the same at every time
                mask = missing[place]
                nearest = scipy.ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
            assert nearest is not None
            out[place] = block[place][tuple(nearest)]
        if not told[0]:
            told[0] = True
            log.info("Missing cells are filled from the nearest ones, where at most a third of a field is missing.")
        return out

    def filled(array: xr.DataArray) -> xr.DataArray:
        if not set(dims) <= set(array.dims) or array.dtype.kind != "f":
            return array
        whole = array.chunk(dict.fromkeys(dims, -1)) if array.chunks else array
        out: xr.DataArray = xr.apply_ufunc(
            fill, whole, input_core_dims=[dims], output_core_dims=[dims], dask="parallelized",
            output_dtypes=[array.dtype], keep_attrs=True,
        )  # fmt: skip
        return out.transpose(*array.dims)

    return ds.assign({name: filled(array) for name, array in ds.data_vars.items()})


def complete_times(ds: xr.Dataset, what: str = "the archive") -> np.ndarray:
    """Which times have a finite value in every cell of every variable, (time,); everything is read once, by blocks.

    Raises:
        UserError: if values cannot be read.
    """
    whole = np.ones(ds.sizes["time"], bool)
    for name, array in ds.data_vars.items():
        if array.dtype.kind in "fc" and "time" in array.dims:
            for part in blocks(array):
                block = array.isel(time=part).transpose("time", ...)
                finite = np.isfinite(values(block, f"'{name}' of {what}"))
                whole[part] &= finite.reshape(len(finite), -1).all(axis=1)
    return whole


def skip_times(*datasets: xr.Dataset, what: str = "the archive") -> tuple[xr.Dataset, ...]:
    """Datasets of the same times without those at which one of them misses a value; how many is logged.

    Raises:
        UserError: if no time is left, or values cannot be read.
    """
    whole = np.logical_and.reduce([complete_times(ds, what) for ds in datasets])
    if whole.all():
        return datasets
    index = datasets[0].indexes["time"]
    if not whole.any():
        raise UserError(
            f"Every one of the {len(whole)} times of {what} misses a value somewhere, so missing=skip leaves none: use "
            "missing=fill, or select a region without gaps."
        )
    log.info(
        "%d of %d times of %s miss values and are left out, first %s.", (~whole).sum(), len(whole), what,
        index[np.flatnonzero(~whole)[0]],
    )  # fmt: skip
    keep = np.flatnonzero(whole)
    out = tuple(ds.isel(time=keep) for ds in datasets)
    for new, old in zip(out, datasets, strict=True):
        new["time"].encoding = old["time"].encoding
    return out


def settle(ds: xr.Dataset, missing: str, what: str) -> xr.Dataset:
    """The dataset without missing cells, after `fill_gaps` if they were to be filled.

    Args:
        ds: what is about to be used.
        missing: "refuse" leaves the refusal to whoever reads the values, and reads nothing here.
        what: for messages.

    Raises:
        UserError: if cells could not be filled, or no time is left.
    """
    if missing == "skip":
        if "time" not in ds.indexes:
            raise UserError(f"missing=skip leaves times out, and {what} has none: use missing=fill or refuse.")
        return skip_times(ds, what=what)[0]
    if missing == "fill":
        check_finite(ds, what[0].upper() + what[1:])
    return ds


def policy(ds: xr.Dataset) -> Any:
    """What is asked for the missing cells of a dataset, by its encoding."""
    return ds.encoding.get(KEY, "refuse")
