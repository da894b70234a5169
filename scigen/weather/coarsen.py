"""Coarse fields: area-weighted means over blocks of fine cells, lazily."""

import logging

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.weather.area import block_means
from scigen.weather.grid import Grid

log = logging.getLogger(__name__)


def check_factor(factor: object, grid: Grid) -> int:
    """The factor as a whole number.

    Raises:
        UserError: if it is none from 1 up, or leaves no coarse cell.
    """
    if isinstance(factor, bool) or not isinstance(factor, int | np.integer) or factor < 1:
        raise UserError(
            f"factor={factor!r}: expected a whole number from 1 up, fine cells per coarse cell along each axis."
        )
    if factor > min(grid.shape):
        raise UserError(
            f"factor={factor} leaves no coarse cell of a grid of {grid.shape[0]} × {grid.shape[1]} cells: "
            f"choose at most {min(grid.shape)}."
        )
    return int(factor)


def trim(ds: xr.Dataset, factor: int) -> xr.Dataset:
    """Leave out the rows and columns that fill no block, which is logged.

    Blocks are counted from the smallest coordinates (south and west), so that the order of the rows does not matter.

    Raises:
        UserError: if the factor is no whole number from 1 up, or leaves no block.
    """
    grid = Grid.of(ds)
    keep = {}
    for dim, values, falls in zip(grid.dims, (grid.y, grid.x), grid.falls, strict=True):
        rest = len(values) % check_factor(factor, grid)
        keep[dim] = slice(rest, None) if falls else slice(None, len(values) - rest)
        if rest:
            left = values[:rest] if falls else values[len(values) - rest :]
            told = (rest, len(values), dim, factor)
            log.info("%d of %d %s fill no block of %d and are left out: %g to %g.", *told, left[0], left[-1])
    return ds.isel(keep)


def coarsen(ds: xr.Dataset, factor: int) -> xr.Dataset:
    """Area-weighted means over blocks of factor × factor cells, lazily; coordinates are the plain means.

    Args:
        ds: variables (…, Y, X); both a multiple of the factor (see `trim`).
        factor: fine cells per coarse cell along each axis.

    Returns:
        The variables in float64, attributes kept.

    Raises:
        UserError: if the factor does not fit.
    """
    grid = Grid.of(ds)
    if any(n % check_factor(factor, grid) for n in grid.shape):
        raise UserError(
            f"A grid of {grid.shape} cells is no multiple of factor={factor}: leave the rest out with trim."
        )
    weights, coarse = grid.weights, grid.coarse(factor)
    sizes = dict(zip(grid.dims, coarse.shape, strict=True))

    def means(array: xr.DataArray) -> xr.DataArray:
        out: xr.DataArray = xr.apply_ufunc(
            lambda block: block_means(block.astype(np.float64), weights, factor)[0],
            array.chunk(dict.fromkeys(grid.dims, -1)) if array.chunks else array,
            input_core_dims=[grid.dims], output_core_dims=[grid.dims], exclude_dims=set(grid.dims),
            dask="parallelized", dask_gufunc_kwargs={"output_sizes": sizes}, output_dtypes=[np.float64],
            keep_attrs=True,
        )  # fmt: skip
        return out

    out = xr.Dataset({name: means(array) for name, array in ds.data_vars.items()}, attrs=ds.attrs)
    return out.assign_coords(coarse.coordinates())
