"""Weather variables, found in an archive: by which name, on which level, in which units."""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from scigen.errors import UserError
from scigen.io.blocks import lazy
from scigen.io.coordinates import conventional, horizontal_dims, straighten
from scigen.io.geolocation import geolocated
from scigen.io.units import parse_units, require_units
from scigen.weather import levels
from scigen.weather.known import ON_LEVELS, VARIABLES, Variable, known, on_level
from scigen.weather.rates import as_rate, not_below_zero

__all__ = ["VARIABLES", "Variable", "Wanted", "find_variables", "recognise"]

log = logging.getLogger(__name__)


Wanted = Sequence[str] | Mapping[str, str] | Mapping[str, Mapping[str, Any]]


def find_variables(ds: xr.Dataset, variables: Wanted) -> xr.Dataset:
    """The wanted variables of an archive: canonical names, units, order and attributes, dims (time, Y, X), lazily.

    A variable is looked up by exact name, by the names that files are known to give it, and by its `standard_name`.
    Names such as t850 mean a level of pressure, and `temperature@850` takes that level [hPa] of a variable that has
    several. The name it had is kept in its attribute `original_name`. Longitudes are put in order; of coordinates,
    those of the dimensions, a 2-D latitude and longitude and the grid mapping are kept (`geolocation`). Sums over time
    of what is known as a rate become one (`rates`).

    Args:
        ds: an archive.
        variables: canonical names; or canonical name → name in the file, with @level or without; or canonical name → CF
            attributes, as a bundle keeps them, whose `units` are required and whose `original_name` is looked up as
            well.

    Raises:
        UserError: if one is missing, ambiguous, has other dimensions, or units that do not convert.
    """
    if isinstance(variables, str) or not variables:
        raise UserError(
            f"variables={variables!r}: expected a list such as [t2m] or a map such as {{t2m: name in the file}}."
        )
    ds = straighten(lazy(conventional(ds)))
    asked = dict(variables) if isinstance(variables, Mapping) else dict.fromkeys(variables)
    if len(asked) < len(variables):
        raise UserError(f"variables={list(variables)} names one more than once.")
    found: dict[str, xr.DataArray] = {}
    for name, about in asked.items():
        attrs: Mapping[str, Any] = about if isinstance(about, Mapping) else {}
        source = about if isinstance(about, str) else _locate(ds, name, attrs)
        base, level = (source, None) if source in ds.data_vars else levels.split_level(source)
        if base not in ds.data_vars:
            raise UserError(f"The archive has no variable '{base}' for '{name}'. {_contents(ds)}")
        array = ds[base] if level is None else levels.at_level(ds[base], level)
        found[name] = _checked(array, name, source, attrs, ds)
    dims = {name: array.dims for name, array in found.items()}
    if len(set(dims.values())) > 1:
        raise UserError(f"The variables lie on different dimensions: {dims}. Bring them to one grid first.")
    out = xr.Dataset(found, attrs=ds.attrs)
    out = out.drop_vars([c for c in out.coords if c not in out.dims])
    return geolocated(out, ds)


def _locate(ds: xr.Dataset, name: str, attrs: Mapping[str, Any], level: int = logging.INFO) -> str:
    """What the archive calls a variable, with @level if it must be taken out of several; logged at a level."""
    about = known(name)
    own = {str(v).lower(): str(v) for v in ds.data_vars}
    if name in ds.data_vars:
        return name
    for synonym in (attrs.get("original_name"), name, *(about.synonyms if about else ())):
        base, mark, pressure = str(synonym).lower().partition(levels.MARK)
        if synonym is not None and base in own:
            source = f"{own[base]}{mark}{pressure}"
            log.log(level, "%s: the archive calls it '%s'.", name, source)
            return source
    if on_level(name) is not None:
        return _locate_level(ds, name, own)
    standard = attrs.get("standard_name") or (about.standard_name if about else None)
    same = [
        str(v)
        for v, array in ds.data_vars.items()
        if standard and array.attrs.get("standard_name") == standard and set(array.dims) <= {"time", *_space(ds)}
    ]
    if len(same) == 1:
        log.log(level, "%s: '%s' is taken for it, by its standard_name %s.", name, same[0], standard)
        return same[0]
    if same:
        raise UserError(
            f"More than one variable may be '{name}': {same}. Choose with a map, variables={{{name}: {same[0]}}}."
        )
    raise UserError(f"The archive has no variable '{name}'. {_contents(ds)}")


def _locate_level(ds: xr.Dataset, name: str, own: Mapping[str, str]) -> str:
    """The variable that has the level of pressure that a name such as t850 means, with @level."""
    base, level = on_level(name) or (name, 0.0)
    about = ON_LEVELS[base]
    for synonym in (base, *about.synonyms):
        source = own.get(synonym)
        if source is not None and levels.pressure_dim(ds[source]) is not None:
            log.info("%s: it is taken of '%s' at %g hPa.", name, source, level)
            return f"{source}{levels.MARK}{level:g}"
    raise UserError(
        f"The archive has no variable '{name}', {about.long_name} at {level:g} hPa. {_contents(ds)} Add {levels.MARK} "
        f"and a level for one that has several, variables={{{name}: name in the file{levels.MARK}{level:g}}}."
    )


def recognise(ds: xr.Dataset) -> dict[str, str]:
    """Known variables that `find_variables` finds in an archive by name or standard name: canonical name → its own."""
    found = {}
    for name in VARIABLES:
        with contextlib.suppress(UserError):
            found[name] = _locate(ds, name, {}, logging.DEBUG)
    return found


def _checked(array: xr.DataArray, name: str, source: str, attrs: Mapping[str, Any], ds: xr.Dataset) -> xr.DataArray:
    """One variable of the archive under its canonical name, with the right dimensions, units and attributes."""
    about = known(name)
    dims = ("time", *horizontal_dims(array))
    extra = [str(d) for d in array.dims if d not in dims]
    long = [d for d in extra if array.sizes[d] > 1]
    if long or "time" not in array.dims:
        remedy = f"select along {long} (ds.isel)" if long else "add the time with ds.expand_dims('time')"
        pressure = levels.pressure_dim(array)
        if pressure is not None and long == [pressure]:
            few = levels.say_levels(array, pressure)
            remedy = f"choose a level, such as variables={{{name}: {source}{levels.MARK}{few.split(',')[0]}}}, of {few}"
        raise UserError(f"'{source}' has the dimensions {tuple(map(str, array.dims))}, expected {dims}: {remedy}.")
    if array.dtype.kind not in "fiu":
        raise UserError(f"'{source}' holds {array.dtype}, expected numbers.")
    units = attrs.get("units") or (about.units if about else array.attrs.get("units"))
    if units is None:
        raise UserError(f"'{source}' has no units: set ds['{source}'].attrs['units'] to what it is in.")
    array = array.isel(dict.fromkeys(extra, 0), drop=True).transpose(*dims)
    if about and about.rate and parse_units(str(units)) == parse_units(about.units):
        array = as_rate(array, about, ds)
    array = require_units(array, str(units))
    if about and about.least is not None and units == about.units:
        array = not_below_zero(array, about.least)
    kept = attrs or (about.attrs if about else array.attrs)
    array.attrs = {k: kept[k] for k in ("units", "standard_name", "long_name") if k in kept}
    if source != name:
        array.attrs["original_name"] = source
    array.encoding = {}
    return array.rename(name)


def _space(ds: xr.Dataset) -> tuple[str, ...]:
    try:
        return horizontal_dims(ds)
    except UserError:
        return tuple(str(d) for d in ds.dims if d != "time")


def _contents(ds: xr.Dataset) -> str:
    """What an archive offers, and how to choose from it."""
    has = ", ".join(f"{k} [{v.attrs.get('units', 'no units')}]" for k, v in ds.data_vars.items())
    return f"It has: {has or 'none'}. Name it by a map, variables={{name: name in the file}}."
