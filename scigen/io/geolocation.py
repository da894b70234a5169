"""Geolocation of grids that are not rectilinear: 2-D latitudes and longitudes of the cells, and the grid mapping."""

from typing import Any

import numpy as np
import xarray as xr

from scigen.errors import UserError

NAMES = {
    "latitude": ("latitude", "lat", "xlat", "nav_lat", "clat", "gridlat_0", "lat2d"),
    "longitude": ("longitude", "lon", "xlong", "nav_lon", "clon", "gridlon_0", "lon2d"),
}
"""What 2-D coordinates are called, in lower case, the likeliest first."""

UNITS = {"latitude": "degrees_north", "longitude": "degrees_east"}


def geolocation(ds: xr.Dataset | xr.DataArray) -> dict[str, xr.Variable]:
    """The 2-D latitude and longitude and the grid mapping of a dataset, as its own coordinates, in memory.

    They are called `latitude` and `longitude` (`lat` and `lon` where dimensions have these names), with CF attributes,
    without time; the grid mapping keeps its name and is a scalar. What there is not is left out.

    Raises:
        UserError: if they change in time, as those of a moving nest do.
    """
    out: dict[str, xr.Variable] = {}
    names = geographic(ds)
    for kind, name in zip(UNITS, names or (), strict=False):
        variable = _variables(ds)[name]
        if "time" in variable.dims:
            first, last = variable.isel(time=[0, -1]).transpose("time", ...).values
            if not np.allclose(first, last, rtol=0, atol=1e-4, equal_nan=True):
                raise UserError(f"'{name}' changes in time: a grid that moves is not supported, select times it rests.")
            variable = variable.isel(time=0)
        values = np.asarray(variable.values, np.float64)
        if np.isnan(values).all():
            return mapping_of(ds)
        key = kind if kind not in variable.dims else kind[:3]
        out[key] = xr.Variable(variable.dims, values, {"standard_name": kind, "units": UNITS[kind]})
    return out | mapping_of(ds)


def geolocated(ds: xr.Dataset, source: xr.Dataset) -> xr.Dataset:
    """A dataset with the `geolocation` of another one, as far as it has its dimensions."""
    place = {k: v for k, v in geolocation(source).items() if set(v.dims) <= set(ds.dims)}
    return ds.drop_vars(geographic(ds) or ()).assign_coords(place)


def geographic(ds: xr.Dataset | xr.DataArray) -> tuple[str, str] | None:
    """Names of the 2-D latitude and longitude, which may repeat along time; None where there are none of one shape."""
    every = _variables(ds)
    latitudes, longitudes = (_known(every, kind) for kind in UNITS)
    pairs = [(a, b) for a in latitudes for b in longitudes if every[a].dims == every[b].dims]
    return pairs[0] if pairs else None


def mapping_of(ds: xr.Dataset | xr.DataArray) -> dict[str, xr.Variable]:
    """The grid mapping, a scalar, by its name: the one that variables refer to, else the first; or nothing."""
    every = _variables(ds)
    arrays = list(ds.data_vars.values()) if isinstance(ds, xr.Dataset) else [ds]
    referred = [str(v.attrs.get("grid_mapping") or v.encoding.get("grid_mapping", "")).split(":")[0] for v in arrays]
    described = [str(n) for n, v in every.items() if {"grid_mapping_name", "crs_wkt"} & set(v.attrs)]
    found = [n for n in (*referred, *described) if n in every]
    return {found[0]: xr.Variable((), np.int32(0), every[found[0]].attrs)} if found else {}


def mapping_attribute(ds: xr.Dataset) -> dict[str, Any]:
    """What a variable on these coordinates has as CF attributes because of where it lies: its grid mapping."""
    return dict(zip(("grid_mapping",), mapping_of(ds), strict=False))


def _known(variables: dict[str, xr.Variable], kind: str) -> list[str]:
    """Names of the 2-D variables that are latitudes (or longitudes), those with a known name first."""
    flat = {k: v for k, v in variables.items() if v.dtype.kind == "f" and len([d for d in v.dims if d != "time"]) == 2}
    named = [k for n in NAMES[kind] for k in flat if k.lower() == n]
    told = [
        k
        for k, v in flat.items()
        if v.attrs.get("standard_name") == kind
        or str(v.attrs.get("units", "")).replace("degrees", "degree") == UNITS[kind].replace("degrees", "degree")
    ]
    return list(dict.fromkeys([*named, *told]))


def _variables(ds: xr.Dataset | xr.DataArray) -> dict[str, xr.Variable]:
    """Every variable and coordinate by name."""
    if isinstance(ds, xr.Dataset):
        return {str(k): v for k, v in ds.variables.items()}
    return {str(k): v.variable for k, v in ds.coords.items()}
