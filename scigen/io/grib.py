"""GRIB through cfgrib: the fields of a file as one dataset, lazily, by the times that they are valid at."""

import functools
import logging
from collections import defaultdict
from collections.abc import ItemsView, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.blocks import lazy

log = logging.getLogger(__name__)

SUFFIXES = (".grib", ".grb", ".grib1", ".grb1", ".grib2", ".grb2")

ACCUMULATION = "accumulation"
"""Attribute that tells over which time a variable is a sum: "6 hours", or SINCE_START."""

SINCE_START = "since the start of the forecast"

PRESSURE_LEVELS = ("isobaricInhPa", "isobaricInPa")

STEP_UNITS = {0: (1, "minutes"), 1: (1, "hours"), 2: (1, "days"), 10: (3, "hours"), 11: (6, "hours"), 12: (12, "hours")}
STEP_UNITS[13] = (1, "seconds")
"""Unit of forecast steps by its number in code table 4 of the WMO."""

UNITS = {"(0 - 1)": "1", "Numeric": "1", "m of water equivalent": "m"}
"""Units that ecCodes writes in words of its own."""

APART = "Give files of one variable each, which grib_copy {} '[shortName].grib' makes."

Message = Mapping[str, Any]


def open_grib(path: Path) -> xr.Dataset:
    """The fields of a GRIB file, lazily; no index is left beside it.

    Times are those that fields are valid at; a variable with one time among others with many has none. Levels other
    than of pressure are told by the name of the variable, and a variable that two kinds of level share gets theirs
    appended. Sums carry the attribute `accumulation`, see ACCUMULATION.

    Raises:
        UserError: if cfgrib is not installed, the file is empty, damaged or cut inside a message, its fields lie on
            more than one grid or a grid without rows and columns, or a field is there twice.
    """
    _require_cfgrib()
    from cfgrib.dataset import open_fileindex
    from cfgrib.messages import FileStream

    with path.open("rb") as file:
        if not file.read(1):
            raise UserError(f"{path} is empty: fetch or make it again.")
    stream = FileStream(str(path), errors="raise")
    keys = [
        "paramId", "shortName", "typeOfLevel", "level:float", "number", "valid_time", "stepType",
        "startStep:int", "endStep:int", "stepUnits:int",
    ]  # fmt: skip
    try:
        index = open_fileindex(stream, indexpath="", index_keys=keys)
    except Exception as error:  # of ecCodes, which has a hundred kinds
        if "No valid message" in str(error):
            raise UserError(f"{path} holds no GRIB message: give a GRIB, netCDF or zarr archive.") from error
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} does not open ({first}): it seems damaged or cut short. Fetch or make it again."
        ) from error
    cubes: dict[tuple[Any, ...], list[tuple[Message, Any]]] = defaultdict(list)
    for header, places in index.iter_index():
        message = dict(zip(index.index_keys, header, strict=True))
        cubes[tuple(message[k] for k in ("paramId", "typeOfLevel", "stepType"))] += [(message, p) for p in places]
    names = _names([cube[0][0] for cube in cubes.values()])
    arrays = {}
    for key, cube in cubes.items():
        array = _open_cube(path, stream, cube)
        name = names[key] or str(array.name)
        arrays[f"{name}_{key[0]}" if name in arrays else name] = array
    _check_grids(arrays, path)
    return lazy(_merge(arrays, path))


def _require_cfgrib() -> None:
    """See that the library is there, which is an extra."""
    try:
        import cfgrib  # noqa: F401
    except (ImportError, RuntimeError) as error:  # the latter: cfgrib is there, the library of ecCodes is not
        raise UserError(f"GRIB needs cfgrib and ecCodes ({error}): pip install 'scigen[grib]'.") from error


@functools.cache
def _selection() -> Any:
    """The class of some messages of a file; made on use, since cfgrib is an extra."""
    from cfgrib import abc

    class Selection(abc.MappingFieldset):
        """Messages of a file by their places, each read when asked for."""

        def __init__(self, stream: Any, places: list[Any]) -> None:
            self.stream, self.places = stream, places

        def __getitem__(self, place: Any) -> Any:
            return self.stream[place]

        def __len__(self) -> int:
            return len(self.places)

        def __iter__(self) -> Iterator[Any]:
            return iter(self.places)

        def items(self) -> ItemsView[Any, Any]:
            return ItemsView(self)

    return Selection


def _check_grids(arrays: Mapping[str, xr.DataArray], path: Path) -> None:
    """Refuse fields on more than one grid, or on one without rows and columns."""
    rows = [name for name, array in arrays.items() if "values" in array.dims]
    if rows:
        raise UserError(
            f"{', '.join(rows)} of {path} lie on a grid without rows and columns (reduced, spectral or unstructured): "
            f"bring them to latitudes and longitudes first, e.g. cdo -f nc4 -setgridtype,regular {path.name} out.nc."
        )
    grids: list[list[str]] = []
    for name, array in arrays.items():
        same = [some for some in grids if _same_grid(arrays[some[0]], array)]
        if same:
            same[0].append(name)
        else:
            grids.append([name])
    if len(grids) > 1:
        told = "; ".join(f"{', '.join(some)} ({_extent(arrays[some[0]])})" for some in grids)
        raise UserError(
            f"The fields of {path} lie on {len(grids)} grids: {told}. Give files of one grid each, which "
            f"grib_copy {path.name} '[shortName].grib' makes."
        )


def _same_grid(a: xr.DataArray, b: xr.DataArray) -> bool:
    """Whether cells lie at the same places, up to the digits of GRIB's first edition."""
    return a.dims[-2:] == b.dims[-2:] and all(
        a[c].shape == b[c].shape and np.allclose(a[c], b[c], rtol=0, atol=1.1e-3) for c in ("latitude", "longitude")
    )


def _extent(array: xr.DataArray) -> str:
    """Size and corners of a grid in words."""
    ends = [f"{float(array[c].min()):g} to {float(array[c].max()):g}" for c in ("latitude", "longitude")]
    return f"{array.shape[-2]} × {array.shape[-1]} cells, {ends[0]} N, {ends[1]} E"


def _names(firsts: list[Message]) -> dict[tuple[Any, ...], str | None]:
    """What cubes are called, where cfgrib's name would be two cubes'; None where it serves, as on pressure levels."""
    out: dict[tuple[Any, ...], str | None] = {}
    for message in firsts:
        key = tuple(message[k] for k in ("paramId", "typeOfLevel", "stepType"))
        same = [m for m in firsts if m["paramId"] == message["paramId"]]
        levels = [m for m in same if m["typeOfLevel"] == message["typeOfLevel"]]
        parts = [message["shortName"]]
        if len({m["typeOfLevel"] for m in same}) > 1 and message["typeOfLevel"] not in PRESSURE_LEVELS:
            parts.append(message["typeOfLevel"])
        parts += [message["stepType"]] if len(levels) > 1 else []
        out[key] = "_".join(map(str, parts)) if len(parts) > 1 else None
    return out


def _open_cube(path: Path, stream: Any, cube: list[tuple[Message, Any]]) -> xr.DataArray:
    """One variable: (number, time, level, Y, X), dimensions of one entry left out unless they are time or pressure."""
    first = cube[0][0]
    seen: set[tuple[Any, ...]] = set()
    for message, _ in cube:
        place = tuple(message[k] for k in ("number", "valid_time", "level:float"))
        if place in seen:
            when = np.datetime64(int(message["valid_time"]), "s")
            raise UserError(
                f"{path} holds '{first['shortName']}' more than once at {when}, as forecasts of several starts or "
                "copies do: keep one of each, e.g. the forecasts of one lead time with "
                f"grib_copy -w step={message['endStep:int']} {path.name} out.grib."
            )
        seen.add(place)
    options = dict(squeeze=False, errors="raise", time_dims=("valid_time",), ignore_keys=("dataType",))
    selection = _selection()(stream, [place for _, place in cube])
    try:
        ds = xr.open_dataset(selection, engine="cfgrib", chunks=None, cache=False, backend_kwargs=options)
    except Exception as error:  # of ecCodes and cfgrib, which have a hundred kinds
        raise UserError(
            f"'{first['shortName']}' of {path} cannot be made out ({str(error).splitlines()[0]}). Leave it out with "
            f"grib_copy -w shortName!={first['shortName']} {path.name} out.grib, or make the file again."
        ) from error
    (name,) = ds.data_vars
    array = ds[name]
    level = str(first["typeOfLevel"])
    for dim in ("number", level):
        if array.sizes.get(dim) == 1 and dim not in PRESSURE_LEVELS:
            array = array.isel({dim: 0}, drop=True)
    keep = {"valid_time", "latitude", "longitude", *map(str, array.dims)}
    array = array.drop_vars([c for c in array.coords if c not in keep])
    attrs = {k: array.attrs[k] for k in ("units", "long_name", "standard_name") if array.attrs.get(k) != "unknown"}
    attrs["units"] = UNITS.get(attrs["units"], attrs["units"])
    if first["stepType"] == "accum":
        attrs[ACCUMULATION] = _interval([m for m, _ in cube])
    array.attrs = attrs
    array.encoding = {"preferred_chunks": {"valid_time": 1}}
    return array


def _interval(messages: list[Message]) -> str:
    """The time that all sums of a variable run over, in words, or SINCE_START."""
    lengths = {(m["endStep:int"] - m["startStep:int"], m["stepUnits:int"]) for m in messages}
    (length, unit), known = next(iter(lengths)), len(lengths) == 1
    if not known or unit not in STEP_UNITS or not length:
        return SINCE_START
    factor, word = STEP_UNITS[unit]
    return f"{factor * length} {word}"


def _merge(arrays: dict[str, xr.DataArray], path: Path) -> xr.Dataset:
    """Variables of one grid as one dataset, at the times that all with more than one have."""
    many = {name: a.indexes["valid_time"] for name, a in arrays.items() if a.sizes["valid_time"] > 1}
    if many:
        arrays = {n: a if n in many else a.isel(valid_time=0, drop=True) for n, a in arrays.items()}
        common = functools.reduce(lambda a, b: a.intersection(b), many.values())
        told = ", ".join(f"{name} {len(index)} ({index[0]} to {index[-1]})" for name, index in many.items())
        if not len(common):
            raise UserError(f"The variables of {path} share no time: {told}. {APART.format(path.name)}")
        if any(len(common) < len(index) for index in many.values()):
            log.info("%s: the %d times that all variables share are taken of %s.", path, len(common), told)
            arrays = {n: a.sel(valid_time=common) if n in many else a for n, a in arrays.items()}
    elif len({a.indexes["valid_time"][0] for a in arrays.values()}) > 1:
        told = ", ".join(f"{name} {a.indexes['valid_time'][0]}" for name, a in arrays.items())
        raise UserError(f"The variables of {path} have one time each, not the same: {told}. {APART.format(path.name)}")
    levels: list[tuple[str, tuple[float, ...]]] = []
    for name, array in arrays.items():
        for dim in [
            str(d) for d in array.dims if d in array.coords and d not in ("valid_time", "latitude", "longitude")
        ]:
            own = (dim, tuple(array[dim].values.tolist()))
            levels += [] if own in levels else [own]
            number = [other for other in levels if other[0] == dim].index(own)
            arrays[name] = array.rename({dim: f"{dim}_{number + 1}"}) if number else array
    place = {c: next(iter(arrays.values()))[c] for c in ("latitude", "longitude")}
    ds = xr.merge(
        [a.assign_coords(place).rename(n) for n, a in arrays.items()],
        join="exact",
        compat="equals",
        combine_attrs="drop_conflicts",
    )
    ds.attrs = {}
    ds["valid_time"].encoding = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
    ds["valid_time"].attrs = {"standard_name": "time", "long_name": "time"}
    return ds
