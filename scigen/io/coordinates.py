"""Coordinates: which dimension is time, member, Y or X, and whether times and values can be worked with."""

import logging
from typing import Any

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.blocks import blocks, values
from scigen.io.geolocation import geographic

log = logging.getLogger(__name__)

NAMES = {
    "T": ("time", "valid_time", "times", "date", "xtime"),
    "Y": (
        "latitude",
        "lat",
        "y",
        "south_north",
        "projection_y_coordinate",
        "rlat",
        "nav_lat",
        "yc",
        "hrrr_y",
        "nj",
        "j",
    ),
    "X": (
        "longitude",
        "lon",
        "x",
        "west_east",
        "projection_x_coordinate",
        "rlon",
        "nav_lon",
        "xc",
        "hrrr_x",
        "ni",
        "i",
    ),
}
"""What dimensions are called, in lower case, by CF axis."""

STANDARD_NAMES = {
    "time": "T",
    **dict.fromkeys(("latitude", "projection_y_coordinate", "grid_latitude"), "Y"),
    **dict.fromkeys(("longitude", "projection_x_coordinate", "grid_longitude"), "X"),
}

MEMBERS = ("member", "ensemble", "ensemble_member", "number", "realization", "sample")
"""What the dimension of ensemble members is called."""


def axis_of(ds: xr.Dataset | xr.DataArray, dim: str) -> str | None:
    """CF axis of a dimension, "T", "Y" or "X", by `axis`, `standard_name`, units, kind of values or name; else None."""
    coordinate = ds.coords.get(dim)
    if coordinate is not None:
        if str(coordinate.attrs.get("axis", "")).upper() in ("T", "Y", "X", "Z"):
            return str(coordinate.attrs["axis"]).upper()
        if coordinate.attrs.get("standard_name") in STANDARD_NAMES:
            return STANDARD_NAMES[coordinate.attrs["standard_name"]]
        units = str(coordinate.attrs.get("units", "")).lower().replace("_", "")
        for axis, spellings in (("Y", ("degreen", "degreesn")), ("X", ("degreee", "degreese"))):
            if units.startswith(spellings):
                return axis
        if has_dates(coordinate):
            return "T"
    return next((axis for axis, names in NAMES.items() if dim.lower() in names), None)


def has_dates(coordinate: xr.DataArray) -> bool:
    """Whether a coordinate holds dates: datetime64, or cftime of any calendar."""
    if coordinate.dtype.kind == "M":
        return True
    return coordinate.dtype.kind == "O" and coordinate.size > 0 and hasattr(coordinate.values.flat[0], "calendar")


def conventional(ds: xr.Dataset) -> xr.Dataset:
    """Call the time dimension `time` and the member dimension `member`, whatever they are called.

    A `number` and an `expver` that tell nothing, as the Climate Data Store adds them, are dropped. Y and X keep their
    names.

    Raises:
        UserError: if two kinds of `expver` are mixed, or there are two time dimensions.
    """
    for name in ("number", "expver"):
        if ds.sizes.get(name, 1) > 1 and name == "expver":
            raise UserError(
                "The archive mixes final and preliminary data (dimension 'expver'): merge them first, "
                "ds.sel(expver=1).combine_first(ds.sel(expver=5))."
            )
        if ds.sizes.get(name) == 1:
            ds = ds.isel({name: 0}, drop=True)
        elif name in ds.variables and name not in ds.dims:
            ds = ds.drop_vars(name)
    dims = [str(d) for d in ds.dims]
    times = [d for d in dims if axis_of(ds, d) == "T"]
    if "time" in times:
        times = ["time"]
    if len(times) > 1:
        raise UserError(f"The archive has more than one time dimension, {times}: select along all but one (ds.isel).")
    for name in times:
        ds = _rename(ds, name, "time")
    members = [d for d in MEMBERS if d in dims]
    members += [d for d in dims if d in ds.coords and ds[d].attrs.get("standard_name") == "realization"]
    if members:
        ds = _rename(ds, members[0], "member")
    return ds


def _rename(ds: xr.Dataset, old: str, new: str) -> xr.Dataset:
    """Rename a dimension and its coordinate; something else of the new name, such as a reference time, gives way."""
    if old == new:
        return ds
    return ds.drop_vars(new, errors="ignore").rename({old: new})


def horizontal_dims(ds: xr.Dataset | xr.DataArray) -> tuple[str, str]:
    """Names of the (Y, X) dimensions: those known as such, else those of a 2-D latitude in this order.

    Raises:
        UserError: if either is not to be found, or there are several.
    """
    found = {axis: [str(d) for d in ds.dims if axis_of(ds, str(d)) == axis] for axis in ("Y", "X")}
    if not any(found.values()) and (names := geographic(ds)):
        place = ds[names[0]].dims if isinstance(ds, xr.Dataset) else ds.coords[names[0]].dims
        rows, columns = (str(d) for d in place if d != "time")
        found = {"Y": [rows], "X": [columns]}
    for axis, dims in found.items():
        if len(dims) != 1:
            raise UserError(
                f"{'More than one' if dims else 'No'} dimension is known as {axis} among {list(ds.dims)}: "
                "name one 'latitude' or 'y' and one 'longitude' or 'x' (ds.rename), or set the attribute axis='Y' or "
                "'X' of its coordinate, or give both a 2-D latitude and longitude."
            )
    return found["Y"][0], found["X"][0]


def with_cf_attributes(ds: xr.Dataset) -> xr.Dataset:
    """The dataset with `axis`, `standard_name` and units on the coordinates of time, member, Y and X, where these lack.

    What is there already is kept.
    """
    attributes: dict[str, dict[str, Any]] = {}
    for dim in map(str, ds.dims):
        if dim not in ds.coords:
            continue
        axis = axis_of(ds, dim)
        attributes[dim] = {"axis": axis} if axis in ("T", "Y", "X") else {}
        if dim == "member":
            attributes[dim] = {"standard_name": "realization", "long_name": "ensemble member", "units": "1"}
        elif axis == "T":
            attributes[dim]["standard_name"] = "time"
        elif is_degrees(ds[dim], "latitude"):
            attributes[dim] |= {"standard_name": "latitude", "units": "degrees_north"}
        elif is_degrees(ds[dim], "longitude"):
            attributes[dim] |= {"standard_name": "longitude", "units": "degrees_east"}
        elif dim.lower() in ("rlat", "rlon"):
            attributes[dim] |= {"standard_name": f"grid_{'latitude' if axis == 'Y' else 'longitude'}"}
    return ds.assign_coords({d: ds[d].assign_attrs({**new, **ds[d].attrs}) for d, new in attributes.items()})


def straighten(ds: xr.Dataset) -> xr.Dataset:
    """Columns in the order of their places: a region across the meridian where longitudes are cut becomes one piece.

    0 … 10, 350 … 359 becomes −10 … 10, and 178 … 180, −179 … becomes 178 … 181. Anything else is left as it is.
    """
    ds = with_cf_attributes(ds)
    x = next((str(d) for d in ds.dims if d in ds.coords and ds[d].attrs.get("standard_name") == "longitude"), None)
    if x is None or ds.sizes[x] < 2 or ds.indexes[x].is_monotonic_decreasing:
        return ds
    stored = ds[x].values.astype(np.float64)
    order = np.argsort(stored % 360, kind="stable")
    lon = stored[order] % 360
    gaps = np.diff(lon, append=lon[0] + 360)
    around = gaps.max() < 1.5 * np.median(gaps)  # the whole globe has no largest gap to begin after
    start = 0 if around else int(gaps.argmax() + 1) % len(lon)
    order, lon = np.roll(order, -start), np.concatenate([lon[start:], lon[:start] + 360])
    rises = bool((np.diff(stored) > 0).all())
    if gaps.min() <= 0 or (rises and (around or order[0] == 0)):
        return ds
    lon -= 360.0 if lon[-1] >= 360 else 0.0
    log.info("Longitudes are put in order: %g to %g.", lon[0], lon[-1])
    return ds.isel({x: order}).assign_coords({x: (x, lon, ds[x].attrs)})


def is_degrees(coordinate: xr.DataArray, standard_name: str) -> bool:
    """Whether a coordinate is a true `latitude` or `longitude`, by `standard_name`, units or name."""
    if "standard_name" in coordinate.attrs:
        return coordinate.attrs["standard_name"] == standard_name
    units = str(coordinate.attrs.get("units", "")).lower().replace("_", "").replace("degrees", "degree")
    if units:
        return units.startswith("degree" + {"latitude": "n", "longitude": "e"}[standard_name])
    return str(coordinate.name).lower() in (standard_name, standard_name[:3])


def check_times(ds: xr.Dataset, what: str = "The archive", least: int = 2) -> None:
    """See that there are dates, at least `least`, each once and in order.

    Args:
        ds: its time dimension is called `time` (see `conventional`).
        what: is being checked, for messages.
        least: number of times that are needed.

    Raises:
        UserError: if not; it names the times and the remedy.
    """
    if "time" not in ds.dims:
        raise UserError(
            f"{what} has no time dimension, only {sorted(map(str, ds.dims))}: add it with ds.expand_dims('time')."
        )
    if "time" not in ds.indexes or not has_dates(ds["time"]):
        raise UserError(f"The times of {_low(what)} are no dates: give 'time' units such as 'hours since 1970-01-01'.")
    index = ds.indexes["time"]
    if len(index) < least:
        only = f" ({index[0]})" if len(index) else ""
        raise UserError(f"{what} has {len(index)} time{only}, and at least {least} are needed: give a longer archive.")
    if index.isna().any():
        raise UserError(f"{what} has an undefined time at position {int(np.flatnonzero(index.isna())[0])}: drop it.")
    if not index.is_unique:
        twice = index[index.duplicated()].unique()
        raise UserError(
            f"{what} holds {len(twice)} time{'s' * (len(twice) > 1)} more than once, first {twice[0]}: "
            "drop the copies with ds.drop_duplicates('time')."
        )
    if not index.is_monotonic_increasing:
        at = int(np.flatnonzero(np.asarray(index[1:] < index[:-1]))[0])
        raise UserError(
            f"The times of {_low(what)} are not in order: {index[at]} is followed by {index[at + 1]}. "
            "Sort them with ds.sortby('time')."
        )


GAPS = (
    "Leave such times out (missing=skip), fill cells from the nearest ones where at most a third of a field is missing "
    "(missing=fill), or select a region without any."
)
"""What can be done about missing values in time."""


def check_finite(ds: xr.Dataset, what: str = "The archive", remedy: str = GAPS) -> None:
    """Read every value once, block by block of time, and see that it is a number.

    Args:
        ds: may be lazy and larger than memory.
        what: is being checked, for messages.
        remedy: closes the message.

    Raises:
        UserError: if a value is NaN, infinite or masked, or cannot be read; it names variable, first time and count.
    """
    for name, array in ds.data_vars.items():
        bad, cells, first = 0, 0, None
        if array.dtype.kind not in "fc":
            continue
        for part in blocks(array):
            block = array.isel(time=part) if "time" in array.dims else array
            missing = ~np.isfinite(values(block, f"'{name}'{_when(block)} of {_low(what)}"))
            count = int(missing.sum())
            if count and first is None:
                rest = tuple(i for i, d in enumerate(block.dims) if d != "time")
                at = int(np.flatnonzero(missing.any(axis=rest))[0]) if "time" in block.dims else 0
                first = _when(block.isel(time=[at])) if "time" in block.dims else ""
            bad, cells = bad + count, cells + missing.size
        if bad:
            raise UserError(
                f"{what} holds missing values (NaN, infinite or masked), which are refused: '{name}' has {bad} in "
                f"{cells} cells, first{first}. {remedy}"
            )


def _when(block: xr.DataArray) -> str:
    """Words for the first time of a block, none without time."""
    if "time" not in block.dims or "time" not in block.coords:
        return ""
    return f" at {str(block['time'].values[0])[:19]}"


def _low(what: str) -> str:
    """What is checked, as it stands inside a sentence."""
    return what[0].lower() + what[1:] if what.startswith("The ") else what
