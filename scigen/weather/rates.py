"""Sums over time as rates: metres of rain since the last time become mm h-1, joules become watts."""

import logging
import re
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from scigen.errors import UserError
from scigen.io.blocks import values
from scigen.io.grib import ACCUMULATION, SINCE_START
from scigen.io.times import is_even, say_step, usual_step
from scigen.io.units import parse_units, require_units
from scigen.weather.known import Variable

log = logging.getLogger(__name__)

DENSITY = "1000 kg m-3"
"""Of water: a flux of 1 kg m-2 s-1 is one of 1 mm s-1."""

LEADS = ("step", "lead_time", "forecast_period", "prediction_timedelta", "leadtime")
"""Coordinates that tell the time since the start of a forecast."""


def as_rate(array: xr.DataArray, about: Variable, source: xr.Dataset) -> xr.DataArray:
    """A variable in the units of a rate, lazily, whether it is a rate, a flux of mass, or a sum over time.

    The time of a sum is told by the attribute `accumulation` or `cell_methods` ("time: sum (interval: 6 hours)"), by
    bounds of the times, by the name (total_precipitation_6hr), or else is the step of the times, which a warning says.

    Args:
        array: (time, …), has a name and the attribute `units`.
        about: what it is known as.
        source: the archive it is of.

    Raises:
        UserError: if it runs since the start of a forecast, its time cannot be told, or its units are others.
    """
    own, wanted = parse_units(str(array.attrs.get("units", ""))), parse_units(about.units)
    if own is None or own.dimensionality == wanted.dimensionality:
        return require_units(array, about.units)
    registry = wanted._REGISTRY
    second, water = registry.Unit("s"), registry(DENSITY)
    ways: list[tuple[Any, bool]] = [(1 * own, False), (1 * own / second, True)]
    ways += [(1 * own / water, False), (1 * own / water / second, True)] if about.water else []
    way = next(((rate, summed) for rate, summed in ways if rate.dimensionality == wanted.dimensionality), None)
    if way is None:
        return require_units(array, about.units)  # says what is wrong
    factor, summed = float(way[0].to(wanted).magnitude), way[1]
    if summed:
        factor /= _interval(array, source).total_seconds()
    log.info("'%s' is converted from %s to %s.", array.name, array.attrs["units"], about.units)
    with xr.set_options(keep_attrs=True):
        return (array * factor).assign_attrs(units=about.units)


def not_below_zero(array: xr.DataArray, least: float) -> xr.DataArray:
    """A variable whose values below zero are set to 0, lazily; the first time that is done, it is logged.

    Args:
        array: has a name and the attribute `units`.
        least: the lowest value that can be rounding, such as of packed integers.

    Raises:
        UserError: when values are read, if one is lower than `least`.
    """
    name, units, told = array.name, array.attrs["units"], [False]

    def clip(block: np.ndarray) -> np.ndarray:
        negative = block < 0
        if not negative.any():
            return block
        lowest = float(block[negative].min())
        if lowest < least:
            raise UserError(
                f"'{name}' falls to {lowest:.4g} {units}, which cannot be and is more than rounding ({least:g}): "
                "correct it, or see whether a sum since the start of a forecast was taken for another."
            )
        if not told[0]:
            told[0] = True
            log.info("'%s': negative values, down to %.2g %s, are rounding and become 0.", name, lowest, units)
        return np.where(negative, block.dtype.type(0), block)

    out: xr.DataArray = xr.apply_ufunc(clip, array, dask="parallelized", output_dtypes=[array.dtype], keep_attrs=True)
    return out


def _interval(array: xr.DataArray, source: xr.Dataset) -> pd.Timedelta:
    """The time that every value is a sum over."""
    name, attrs = str(array.name), array.attrs
    said = str(attrs.get(ACCUMULATION, ""))
    remedy = (
        f"Give the sum over each step (differences along the lead time), with ds['{name}'].attrs['{ACCUMULATION}'] = "
        "'6 hours' if that is its length."
    )
    if said == SINCE_START:
        raise UserError(f"'{name}' is a sum since the start of a forecast. {remedy}")
    for text in (
        said,
        *re.findall(r"time: sum.*?interval: ([^)]*?)(?: comment|\))", str(attrs.get("cell_methods", ""))),
    ):
        if text and (length := _length(text)) is not None:
            return length
    bounds = _bounds(array, source)
    if bounds is not None:
        return bounds
    by_name = re.search(r"_(\d+)h(?:r|rs|ours?)?$", name.lower())
    if by_name:
        return pd.Timedelta(hours=int(by_name[1]))
    lead = next((c for c in LEADS if c in array.coords and array[c].size > 1), None)
    if lead is not None:
        raise UserError(f"'{name}' seems a sum since the start of a forecast, as it has '{lead}'. {remedy}")
    index = array.indexes.get("time", pd.Index([]))
    step = usual_step(index)
    if step is None or not is_even(index):
        what = "there is one time only" if step is None else "the times are not evenly spaced"
        raise UserError(
            f"'{name}' [{attrs['units']}] is a sum, and over which time is not told ({what}): set "
            f"ds['{name}'].attrs['{ACCUMULATION}'] = '1 hour', or whatever it is."
        )
    log.warning(
        "'%s' [%s] is taken for a sum over %s each, the step of its times. If it is one over another time (hourly "
        "sums, kept every 6 hours) or since a start (ERA5-Land), correct that first or set its attribute %s.",
        name, attrs["units"], say_step(step), ACCUMULATION,
    )  # fmt: skip
    return step


def _length(text: str) -> pd.Timedelta | None:
    """A time such as "6 hours" or "1 hr"."""
    try:
        length = pd.Timedelta(text)
    except ValueError:
        return None
    return length if length > pd.Timedelta(0) else None


def _bounds(array: xr.DataArray, source: xr.Dataset) -> pd.Timedelta | None:
    """The length between bounds of the times, if all are as long."""
    name = array["time"].attrs.get("bounds", array["time"].encoding.get("bounds")) if "time" in array.coords else None
    if name not in source.variables or source[name].dims[:1] != ("time",) or source[name].ndim != 2:
        return None
    both = values(source[name], f"'{name}'")
    if both.dtype.kind not in "MO":
        return None
    lengths = {pd.Timedelta(d) for d in both[:, 1] - both[:, 0]}
    return lengths.pop() if len(lengths) == 1 and min(lengths) > pd.Timedelta(0) else None
