"""Weather variables: what they are called, what units they have, and how they are found in an archive."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from scigen.errors import UserError
from scigen.io.blocks import lazy
from scigen.io.coordinates import conventional, horizontal_dims, straighten
from scigen.io.units import require_units

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variable:
    """A variable that scigen knows by name.

    Attributes:
        units: that it has everywhere in scigen.
        standard_name: of the CF conventions.
        long_name: what a person calls it.
        synonyms: what files call it, in lower case.
    """

    units: str
    standard_name: str
    long_name: str
    synonyms: tuple[str, ...] = ()

    @property
    def attrs(self) -> dict[str, str]:
        """CF attributes."""
        return dict(units=self.units, standard_name=self.standard_name, long_name=self.long_name)


VARIABLES = {
    "t2m": Variable(
        "K", "air_temperature", "2 metre temperature", ("2t", "var_2t", "2m_temperature", "tas", "t2", "tmp_2m")
    ),
    "u10": Variable(
        "m s-1", "eastward_wind", "10 metre eastward wind",
        ("10u", "u10m", "var_10u", "10m_u_component_of_wind", "uas", "u_10m", "ugrd_10m"),
    ),
    "v10": Variable(
        "m s-1", "northward_wind", "10 metre northward wind",
        ("10v", "v10m", "var_10v", "10m_v_component_of_wind", "vas", "v_10m", "vgrd_10m"),
    ),
    "tp": Variable(
        "mm h-1", "lwe_precipitation_rate", "total precipitation rate",
        ("total_precipitation", "precipitation", "pr", "precip", "rain_rate", "prate", "apcp"),
    ),
}  # fmt: skip
"""Known variables by canonical name. Others are taken by their exact name, in the units that the archive gives."""

Wanted = Sequence[str] | Mapping[str, str] | Mapping[str, Mapping[str, Any]]


def find_variables(ds: xr.Dataset, variables: Wanted) -> xr.Dataset:
    """The wanted variables of an archive: canonical names, units, order and attributes, dims (time, Y, X), lazily.

    A variable is looked up by exact name, by the names that files are known to give it, and by its `standard_name`.
    The name it had is kept in its attribute `original_name`. Longitudes are put in order; coordinates other than those
    of the dimensions are left out.

    Args:
        ds: an archive.
        variables: canonical names; or canonical name → name in the file; or canonical name → CF attributes, as a bundle
            keeps them, whose `units` are required and whose `original_name` is looked up as well.

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
        if source not in ds.data_vars:
            raise UserError(f"The archive has no variable '{source}' for '{name}'. {_contents(ds)}")
        found[name] = _checked(ds[source], name, attrs)
    dims = {name: array.dims for name, array in found.items()}
    if len(set(dims.values())) > 1:
        raise UserError(f"The variables lie on different dimensions: {dims}. Bring them to one grid first.")
    out = xr.Dataset(found, attrs=ds.attrs)
    return out.drop_vars([c for c in out.coords if c not in out.dims])


def _locate(ds: xr.Dataset, name: str, attrs: Mapping[str, Any]) -> str:
    """What the archive calls a variable."""
    known = VARIABLES.get(name)
    own = {str(v).lower(): str(v) for v in ds.data_vars}
    if name in ds.data_vars:
        return name
    for synonym in (attrs.get("original_name"), name, *(known.synonyms if known else ())):
        if synonym is not None and str(synonym).lower() in own:
            source = own[str(synonym).lower()]
            log.info("%s: the archive calls it '%s'.", name, source)
            return source
    standard = attrs.get("standard_name") or (known.standard_name if known else None)
    same = [
        str(v)
        for v, array in ds.data_vars.items()
        if standard and array.attrs.get("standard_name") == standard and set(array.dims) <= {"time", *_space(ds)}
    ]
    if len(same) == 1:
        log.info("%s: '%s' is taken for it, by its standard_name %s.", name, same[0], standard)
        return same[0]
    if same:
        raise UserError(
            f"More than one variable may be '{name}': {same}. Choose with a map, variables={{{name}: {same[0]}}}."
        )
    raise UserError(f"The archive has no variable '{name}'. {_contents(ds)}")


def _checked(array: xr.DataArray, name: str, attrs: Mapping[str, Any]) -> xr.DataArray:
    """One variable of the archive under its canonical name, with the right dimensions, units and attributes."""
    source, known = str(array.name), VARIABLES.get(name)
    dims = ("time", *horizontal_dims(array))
    extra = [str(d) for d in array.dims if d not in dims]
    long = [d for d in extra if array.sizes[d] > 1]
    if long or "time" not in array.dims:
        remedy = f"select along {long} (ds.isel)" if long else "add the time with ds.expand_dims('time')"
        raise UserError(f"'{source}' has the dimensions {tuple(map(str, array.dims))}, expected {dims}: {remedy}.")
    if array.dtype.kind not in "fiu":
        raise UserError(f"'{source}' holds {array.dtype}, expected numbers.")
    units = attrs.get("units") or (known.units if known else array.attrs.get("units"))
    if units is None:
        raise UserError(f"'{source}' has no units: set ds['{source}'].attrs['units'] to what it is in.")
    array = require_units(array.isel(dict.fromkeys(extra, 0), drop=True).transpose(*dims), str(units))
    kept = attrs or (known.attrs if known else array.attrs)
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
