"""Units: the same unit in any spelling passes, a convertible one is converted, anything else is refused."""

import functools
import logging
import re
from typing import Any

import xarray as xr

from scigen.errors import UserError

log = logging.getLogger(__name__)


@functools.cache
def _registry() -> Any:
    """The registry of units with the spellings of UDUNITS; imported on use, it takes most of a second."""
    logger = logging.getLogger("pint.util")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it would warn of every unit that UDUNITS spells otherwise
    try:
        import cf_xarray.units
    finally:
        logger.setLevel(level)
    registry = cf_xarray.units.units
    registry.define("@alias decibel = dBZ")
    return registry


WORDS = {"(0 - 1)": "1", "0-1": "1", "fraction": "1", "m of water equivalent": "m", "mm of water equivalent": "mm"}
"""Units that are written in words of an institution's own."""


@functools.cache
def parse_units(text: str) -> Any:
    """The unit that a text such as K, kelvin, m/s, m s**-1, m.s-1 or deg C stands for, None if for none."""
    text = WORDS.get(text.strip(), text)
    text = re.sub(r"^deg(?:rees?)?[ _]?([CFK])$", r"deg\1", text.strip())
    words = (text, text.lower()) if re.fullmatch("[A-Za-z]{4,}", text) else (text,)  # Kelvin, but MPa is not mPa
    for spelling in words:
        try:
            return _registry().Unit(spelling)
        except Exception:  # the parser raises many kinds, assertions among them
            continue
    return None


def require_units(array: xr.DataArray, units: str) -> xr.DataArray:
    """A variable in the units that are expected, converted lazily if need be, which is announced.

    Args:
        array: has a name and the attribute `units`.
        units: expected units, such as "K" or "m s-1".

    Returns:
        The variable, its attribute `units` as given here.

    Raises:
        UserError: if it has no units, or ones that cannot be converted.
    """
    name, found = array.name, str(array.attrs.get("units", "")).strip()
    wanted = parse_units(units)
    if not found and not (wanted is not None and wanted.dimensionless and "units" in array.attrs):
        raise UserError(f"'{name}' has no units, expected {units}: set ds['{name}'].attrs['units'] to what it is in.")
    own = parse_units(found)
    if found != units and (own is None or own != wanted):
        law = _affine(own, wanted)
        if law is None:
            raise UserError(
                f"'{name}' is in {found}, expected {units} or what converts to it: choose another variable, or correct "
                f"ds['{name}'].attrs['units'] if it is mislabelled."
            )
        slope, shift = law
        if abs(slope - 1) > 1e-12 or shift:
            log.info("'%s' is converted from %s to %s.", name, found, units)
            with xr.set_options(keep_attrs=True):
                array = (array if abs(slope - 1) < 1e-12 else array * slope) + shift
    return array.assign_attrs(units=units)


def _affine(own: Any, wanted: Any) -> tuple[float, float] | None:
    """(slope, shift) of the conversion between two units; None if there is none of that kind."""
    if own is None or wanted is None or own.dimensionality != wanted.dimensionality:
        return None
    quantity = _registry().Quantity
    try:
        low, mid, high = (float(quantity(v, own).to(wanted).magnitude) for v in (0.0, 1.0, 2.0))
    except Exception:  # logarithmic units have errors of their own
        return None
    slope = (high - low) / 2
    return (slope, low) if abs(mid - low - slope) <= 1e-9 * abs(slope) else None
