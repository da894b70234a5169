"""Coarse fields brought from a latitude–longitude grid of any spacing to the blocks of a fine grid, lazily."""

import logging

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from scigen.errors import UserError
from scigen.io.coordinates import with_cf_attributes
from scigen.weather.area import borders
from scigen.weather.grid import Grid, spacing

log = logging.getLogger(__name__)

METHODS = ("linear", "conservative")
MISS = 1e-3
"""Share of a cell that may lie outside what the archive covers: digits of its coordinates."""

Array = NDArray[np.float64]


def check_method(method: object) -> str | None:
    """The method, or None.

    Raises:
        UserError: if it is neither null nor known.
    """
    if method is not None and method not in METHODS:
        raise UserError(f"data.regrid={method}: expected null, {' or '.join(METHODS)}.")
    return str(method) if method else None


def regrid(ds: xr.Dataset, target: Grid, method: str) -> xr.Dataset:
    """Fields on another grid.

    Args:
        ds: variables (time, latitude, longitude) with 1-D coordinates, longitudes in order (`straighten`).
        target: where its latitudes and longitudes are known.
        method: `linear`, bilinear in degrees, which wraps around the globe and holds the zonal mean of the outer row at
            a pole beyond it; or `conservative`, means over the cells of a regular target, weighted by the area on the
            sphere that they share with the archive's cells, so that area means over a region are kept exactly.

    Returns:
        The variables in float64 on the target's coordinates, attributes kept.

    Raises:
        UserError: if the archive is not regular, the target's place is unknown, `conservative` is asked for a target
            that is not regular, or the archive does not cover the target.
    """
    ds = with_cf_attributes(ds)
    own = Grid.of(ds)
    if [own.attrs[k].get("standard_name") for k in "yx"] != ["latitude", "longitude"]:
        raise UserError(f"Only archives with 1-D latitude and longitude are regridded; this one has {own}.")
    place = target.latlon()
    if place is None:
        raise UserError(
            f"The fine grid, {target}, has no latitude and longitude, which regridding needs: give it both, 2-D."
        )
    if min(*own.shape, *target.shape) < 2:
        raise UserError(f"Regridding needs two rows and columns at least: the archive has {own}, its target {target}.")
    ds = ds.sortby(list(own.dims))
    source = Grid.of(ds)
    middle = (source.x[0] + source.x[-1]) / 2
    turns = 360 * np.round((place[1] - middle) / 360)
    ds = ds.chunk(dict.fromkeys(own.dims, -1)) if ds.chunks else ds
    if method == "linear":
        out = _linear(ds, source, place[0], place[1] - turns, target)
    elif target.latitude is None:
        out = _conservative(ds, source, target)
    else:
        raise UserError(
            "data.regrid=conservative needs a fine grid with 1-D latitudes and longitudes: set it to linear."
        )
    names = [c for c in out.coords if c != "time" and c not in target.coordinates()]
    return out.drop_vars(names).transpose("time", *target.dims).assign_coords(target.coordinates())


def _linear(ds: xr.Dataset, source: Grid, lat: Array, lon: Array, target: Grid) -> xr.Dataset:
    """Bilinear interpolation to the places (Y, X)."""
    y, x = source.dims
    if source.closes:
        n = len(source.x)
        around = np.concatenate([[source.x[-1] - 360], source.x, [source.x[0] + 360]])
        ds = ds.isel({x: np.concatenate([[n - 1], np.arange(n), [0]])}).assign_coords({x: around})
        for end, pole in ((0, -90.0), (-1, 90.0)):
            if 0 < abs(pole - source.y[end]) < 1.01 * spacing(source.y) and source.y.size > 1:
                row = ds.isel({y: [end]})
                inner = row.isel({x: slice(1, -1)}).mean(x, keep_attrs=True)
                row = inner.broadcast_like(row.drop_vars(y)).assign_coords({y: [pole]}).transpose(*ds.dims)
                ds = xr.concat([row, ds] if end == 0 else [ds, row], y)
        ds = ds.chunk(dict.fromkeys(source.dims, -1)) if ds.chunks else ds
    clipped = []
    for values, dim in ((lat, y), (lon, x)):
        ends, room = ds[dim].values[[0, -1]], MISS * spacing(ds[dim].values)
        if values.min() < ends[0] - room or values.max() > ends[1] + room:
            raise _uncovered(
                source, target, f"the {dim} of block centres goes from {values.min():g} to {values.max():g}"
            )
        clipped.append(values.clip(*ends))
    if target.latitude is None:
        to = {
            d: xr.DataArray(v, dims=t)
            for d, v, t in zip(source.dims, (clipped[0][:, 0], clipped[1][0]), target.dims, strict=True)
        }
    else:
        to = {d: xr.DataArray(v, dims=target.dims) for d, v in zip(source.dims, clipped, strict=True)}
    return ds.astype(np.float64).interp(to, method="linear", assume_sorted=True)


def _conservative(ds: xr.Dataset, source: Grid, target: Grid) -> xr.Dataset:
    """Means over shared areas; shares of bands (in the sine of latitude) and of sectors multiply."""
    bands = [np.sin(np.deg2rad(borders(g.y).clip(-90, 90))) for g in (target, source)]
    shares = [_overlap(*bands)]
    west = [borders(g.x) for g in (target, source)]
    west[0] = west[0] + 360 * np.round((west[1].mean() - west[0].mean()) / 360)
    turns = (-360, 0, 360) if source.closes else (0,)
    shares.append(np.sum([_overlap(west[0], west[1] + turn) for turn in turns], axis=0))
    whole = [np.abs(np.diff(b)) for b in (bands[0], west[0])]
    for share, size in zip(shares, whole, strict=True):
        if (share.sum(1) < (1 - MISS) * size).any():
            raise _uncovered(source, target, "some blocks lie outside of its cells, or partly")
    rows, columns = (share / share.sum(1, keepdims=True) for share in shares)

    def means(array: xr.DataArray) -> xr.DataArray:
        out: xr.DataArray = xr.apply_ufunc(
            lambda block: rows @ block.astype(np.float64) @ columns.T, array,
            input_core_dims=[source.dims], output_core_dims=[target.dims], exclude_dims=set(source.dims),
            dask="parallelized", dask_gufunc_kwargs={"output_sizes": dict(zip(target.dims, target.shape, strict=True))},
            output_dtypes=[np.float64], keep_attrs=True,
        )  # fmt: skip
        return out

    return xr.Dataset({name: means(array) for name, array in ds.data_vars.items()}, attrs=ds.attrs)


def _overlap(one: Array, other: Array) -> Array:
    """Lengths that intervals between borders (N + 1,) share with those between (M + 1,), either order: (N, M)."""
    low, high = ([f(b[:-1], b[1:]) for b in (one, other)] for f in (np.minimum, np.maximum))
    return (np.minimum(high[0][:, None], high[1]) - np.maximum(low[0][:, None], low[1])).clip(0)


def _uncovered(source: Grid, target: Grid, how: str) -> UserError:
    """What to say where the archive ends too early."""
    place = target.latlon()
    assert place is not None
    lat, lon = ((v.min(), v.max()) for v in place)
    return UserError(
        f"The coarse archive does not cover the fine region: it has {source}; the blocks of fine cells lie between "
        f"latitudes {lat[0]:g} and {lat[1]:g}, longitudes {lon[0]:g} and {lon[1]:g}, and {how}. Give a larger coarse "
        "archive, at least a cell wider on every side, or cut the fine one."
    )
