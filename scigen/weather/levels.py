"""One level of pressure out of a variable that has many: `temperature@850`."""

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.blocks import values
from scigen.io.units import parse_units

MARK = "@"
"""Between the name of a variable and the level [hPa] that is taken of it."""

NAMES = ("level", "pressure_level", "isobaricinhpa", "isobaricinpa", "plev", "lev", "pressure", "isobaric", "isobaric1")
"""What dimensions of pressure are called, in lower case."""

TOLERANCE = 1e-3
"""Levels are the same if they differ by less than this share."""


def split_level(name: str) -> tuple[str, float | None]:
    """Name of a variable and level [hPa]: "t@850" is ("t", 850.0); None without a level.

    Raises:
        UserError: if the level is no number.
    """
    base, mark, level = name.partition(MARK)
    if not mark:
        return name, None
    try:
        return base, float(level.lower().removesuffix("hpa"))
    except ValueError as error:
        raise UserError(f"'{name}': expected a level of pressure in hPa, such as {base}{MARK}850.") from error


def pressure_dim(array: xr.DataArray) -> str | None:
    """The dimension that is levels of pressure, by its coordinate's standard name, its units or its own name."""
    for dim in map(str, array.dims):
        if dim in array.coords and array[dim].dtype.kind in "fiu":
            about = array[dim].attrs
            unit = parse_units(str(about.get("units", "")))
            named = dim.lower().rstrip("_0123456789") in NAMES or dim.lower() in NAMES
            told = about.get("standard_name") == "air_pressure"
            in_pressure = unit is not None and unit.is_compatible_with("Pa")
            if told or in_pressure or (named and unit in (None, parse_units("1"))):
                return dim
    return None


def pressures(array: xr.DataArray, dim: str) -> np.ndarray:
    """Levels [hPa] of a dimension; without units they are Pa if one is above 2000, else hPa."""
    found = values(array[dim], f"'{dim}'").astype(np.float64)
    unit = parse_units(str(array[dim].attrs.get("units", "")))
    if unit is not None and unit.is_compatible_with("Pa"):
        return found * float((1 * unit).to("hPa").magnitude)
    return found / 100 if found.max(initial=0) > 2000 else found


def at_level(array: xr.DataArray, level: float) -> xr.DataArray:
    """One level of a variable, lazily, without that dimension.

    Args:
        array: has a dimension of pressure.
        level: [hPa].

    Raises:
        UserError: if it has no such dimension or level; it names those that there are.
    """
    dim = pressure_dim(array)
    if dim is None:
        raise UserError(
            f"'{array.name}{MARK}{level:g}': '{array.name}' has no dimension of pressure, only "
            f"{tuple(map(str, array.dims))}: leave out {MARK}{level:g}."
        )
    found = pressures(array, dim)
    near = np.flatnonzero(np.abs(found - level) <= TOLERANCE * level)
    if not len(near):
        raise UserError(f"'{array.name}' has no level {level:g} hPa: it has {say_levels(array, dim)}.")
    return array.isel({dim: int(near[0])}, drop=True)


def say_levels(array: xr.DataArray, dim: str) -> str:
    """Levels in words: "1000, 850, 500 hPa"."""
    return ", ".join(f"{p:g}" for p in pressures(array, dim)) + " hPa"
