"""The two layouts that data for CorrDiff come in, as ordinary datasets: a variable a channel, proper names and units.

The CWA store stacks channels: `cwb` (time, cwb_channel, south_north, west_east), the fine fields, and `era5`, the
coarse ones on the same cells, with `XLAT`, `XLONG`, names, pressures and flags of validity beside them. The HRRR-Mini
file has groups `input` and `output` of crops of one large grid, whose places in it are `coord` (time, 2) of the root.

Source: the loaders of PhysicsNeMo, examples/weather/corrdiff/datasets/cwb.py and hrrrmini.py.
"""

import logging
import re
from collections.abc import Sequence

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.blocks import values
from scigen.io.groups import MARK

log = logging.getLogger(__name__)

FINE = {"stacks": "cwb", "crops": "output"}
"""The side that a path without a name of a side stands for."""

CHANNELS = {
    "maximum_radar_reflectivity": ("refc", "dBZ"),
    "temperature_2m": ("t2m", "K"),
    "eastward_wind_10m": ("u10", "m s-1"),
    "northward_wind_10m": ("v10", "m s-1"),
    "mean_sea_level_pressure": ("msl", "Pa"),
    "surface_pressure": ("sp", "Pa"),
    "temperature": ("t", "K"),
    "eastward_wind": ("u", "m s-1"),
    "northward_wind": ("v", "m s-1"),
    "geopotential_height": ("gh", "m"),
    "geopotential": ("z", "m2 s-2"),
    "relative_humidity": ("r", "%"),
    "specific_humidity": ("q", "kg kg-1"),
}
"""Names and units of channels, which the store does not keep."""

UNITS = {
    r"2t|t2m|2d|d2m|t\d*": "K",
    r"10[uv]|[uv]10m?|[uv]\d*|10fg|gust": "m s-1",
    r"mslp?|sp": "Pa",
    r"z\d+": "m2 s-2",
    r"q\d*": "kg kg-1",
    r"tcwv": "kg m-2",
    r"refc": "dBZ",
}
"""Units of what HRRR-Mini holds, by name; they are used where a variable says none."""


def stacks(ds: xr.Dataset) -> list[str]:
    """Names of the variables that stack channels, none if the layout is another."""
    return [
        str(n) for n, v in ds.variables.items() if f"{n}_channel" in v.dims and v.ndim == 4 and f"{n}_variable" in ds
    ]


def unstack(ds: xr.Dataset, side: str | None, what: str) -> xr.Dataset:
    """One side of a CWA store, lazily, at the times that are valid for both.

    Args:
        ds: the store.
        side: "cwb" or "era5"; None for the former, or the only one.
        what: path, for messages.

    Returns:
        Variables (time, y, x) such as t2m, or t850 with a pressure; `latitude` and `longitude` (y, x).

    Raises:
        UserError: if there is no such side, or no valid time.
    """
    sides = stacks(ds)
    side = _choose(side, sides, FINE["stacks"], what)
    field = ds[side]
    channel = f"{side}_channel"
    names = [str(v) for v in _beside(ds, f"{side}_variable")]
    levels = _beside(ds, f"{side}_pressure") if f"{side}_pressure" in ds else np.full(len(names), np.nan)
    means = _beside(ds, f"{side}_center") if f"{side}_center" in ds else np.full(len(names), np.nan)
    valid = _valid(ds, sides, what)
    y, x = (str(d) for d in field.dims[-2:])
    out: dict[str, xr.DataArray] = {}
    for number, (name, level, mean) in enumerate(zip(names, levels, means, strict=True)):
        short, attrs = _channel(name, float(level), float(mean))
        if short in out:
            raise UserError(f"Two channels of {side} in {what} are called {name} at {level}: rename one of them.")
        array = field.isel({channel: number}).reset_coords(drop=True)
        out[short] = (array if valid is None else array.isel(time=valid)).assign_attrs(attrs)
    log.info("%s: %d channels of '%s' are taken as variables.", what, len(out), side)
    places = {k: ds[v].reset_coords(drop=True) for k, v in (("latitude", "XLAT"), ("longitude", "XLONG")) if v in ds}
    return _placed(xr.Dataset(out).rename({y: "y", x: "x"}), {k: v.rename({y: "y", x: "x"}) for k, v in places.items()})


def crops(ds: xr.Dataset, other: xr.Dataset, root: xr.Dataset, side: str, what: str) -> xr.Dataset:
    """One side of an HRRR-Mini file, lazily, in order of time.

    Cells are counted along the crop in units of fine cells, so that coarse cells lie amid theirs. Crops of the same
    time are told apart by seconds that are added to it, the same on both sides.

    Args:
        ds: the group `side`, with the root's times.
        other: the other of `input` and `output`.
        root: the root, with `coord`.
        side: "input" or "output".
        what: path, for messages.

    Returns:
        Variables (time, y, x); coordinates `row` and `column` (time), the crop's corner in the large grid, if these are
        known.

    Raises:
        UserError: if one side's cells are no whole number of the other's, or times cannot be told apart.
    """
    names = [str(n) for n, v in ds.data_vars.items() if v.ndim == 3 and v.dims[0] == "time"]
    if not names:
        raise UserError(f"The group '{side}' of {what} holds no variable (time, y, x): {dict(ds.sizes)}.")
    ds = ds[names]
    y, x = (str(d) for d in ds[names[0]].dims[-2:])
    theirs = next(v for v in other.data_vars.values() if v.ndim == 3).shape[-2:]
    own = ds[names[0]].shape[-2:]
    fine = own if side == "output" else theirs
    factor = fine[0] // own[0]
    if (own[0] * factor, own[1] * factor) != fine:
        raise UserError(f"Crops of {fine} cells are no multiple of {own} cells, the other side of {what}.")
    ds = ds.rename({y: "y", x: "x"}).drop_vars(["y", "x"], errors="ignore")
    cells = {d: (np.arange(n) + 0.5) * factor for d, n in zip("yx", own, strict=True)}
    about = {"axis": "", "long_name": "place in the crop, in fine cells"}
    ds = ds.assign_coords({d: (d, v, about | {"axis": d.upper()}) for d, v in cells.items()})
    if "coord" in root.variables and root["coord"].shape == (ds.sizes["time"], 2):
        corner = values(root["coord"], f"'coord' of {what}")
        ds = ds.assign_coords(row=("time", corner[:, 0]), column=("time", corner[:, 1]))
    for name in names:
        if "units" not in ds[name].attrs:
            units = next((u for pattern, u in UNITS.items() if re.fullmatch(pattern, name)), None)
            ds[name].attrs |= {} if units is None else {"units": units}
    return _in_order(ds, what)


def _in_order(ds: xr.Dataset, what: str) -> xr.Dataset:
    """Crops in order of time, those of one time a second apart."""
    times = ds["time"].values
    if times.dtype.kind != "M":
        raise UserError(f"The times of {what} are no dates of the standard calendar.")
    order = np.argsort(times, kind="stable")
    sorted_times = times[order]
    if (order != np.arange(len(order))).any():
        ds = ds.isel(time=order)
    first = np.searchsorted(sorted_times, sorted_times, side="left")
    rank = np.arange(len(times)) - first
    if rank.any():
        sorted_times = sorted_times + rank.astype("timedelta64[s]")
        if not (np.diff(sorted_times) > np.timedelta64(0)).all():
            raise UserError(f"{what} has more crops of one time than there are seconds to the next: give it in parts.")
        log.info("%s: up to %d crops share a time; they are told apart by seconds.", what, rank.max() + 1)
        ds = ds.assign_coords(time=("time", sorted_times, ds["time"].attrs))
    return ds


def _choose(side: str | None, sides: Sequence[str], usual: str, what: str) -> str:
    """The side that is asked for."""
    if side is None:
        side = usual if usual in sides else sides[0]
        others = ", ".join(f"{what}{MARK}{s}" for s in sides if s != side)
        log.info("%s: '%s' is taken%s.", what, side, f"; the other side is {others}" if others else "")
    if side not in sides:
        raise UserError(f"{what} has no '{side}': it has {', '.join(f'{what}{MARK}{s}' for s in sides)}.")
    return side


def _beside(ds: xr.Dataset, name: str) -> np.ndarray:
    """What is told of each channel; bytes are text."""
    found = values(ds[name], f"'{name}'")
    return np.char.decode(found, "utf-8") if found.dtype.kind == "S" else found


def _valid(ds: xr.Dataset, sides: Sequence[str], what: str) -> np.ndarray | None:
    """Positions of the times that all channels of both sides are valid at; None if these are all."""
    valid = np.ones(ds.sizes["time"], bool)
    for side in sides:
        if f"{side}_valid" in ds:
            flags = values(ds[f"{side}_valid"].transpose("time", ...), f"'{side}_valid' of {what}")
            valid &= (flags.reshape(len(valid), -1) != 0).all(axis=1)
    if not valid.any():
        raise UserError(f"No time of {what} is valid: look at {', '.join(f'{s}_valid' for s in sides)}.")
    if valid.all():
        return None
    log.info("%s: %d of %d times are flagged as invalid and left out.", what, (~valid).sum(), len(valid))
    return np.flatnonzero(valid)


def _channel(name: str, level: float, mean: float) -> tuple[str, dict[str, str]]:
    """Short name and attributes; units that the channel's mean speaks against are left out."""
    short, units = CHANNELS.get(name, (name, None))
    if np.isfinite(mean):
        if units == "K" and not 150 < mean < 350:
            units = None
        elif units == "Pa" and mean < 2e4:
            units = "hPa" if mean > 200 else None
        elif units == "%" and 0 <= mean <= 1.5:
            units = "1"
    attrs = {"long_name": name if np.isnan(level) else f"{name} at {level:g} hPa"}
    return short if np.isnan(level) else f"{short}{level:g}", attrs | ({} if units is None else {"units": units})


def _placed(ds: xr.Dataset, places: dict[str, xr.DataArray]) -> xr.Dataset:
    """The dataset with latitudes and longitudes of its cells, where these are known."""
    units = {"latitude": "degrees_north", "longitude": "degrees_east"}
    known = {
        name: (("y", "x"), values(array, f"'{name}'"), {"standard_name": name, "units": units[name]})
        for name, array in places.items()
        if array.dims == ("y", "x")
    }
    return ds.assign_coords({n: v for n, v in known.items() if np.isfinite(v[1]).all()})
