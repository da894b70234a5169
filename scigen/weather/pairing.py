"""Truth and contenders brought to the same times, cells and variables before anything is compared."""

import logging
from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from scigen.errors import UserError
from scigen.io.coordinates import is_degrees
from scigen.io.geolocation import geographic, geolocated
from scigen.io.units import parse_units
from scigen.metrics.positions import find_positions
from scigen.weather.area import centres_of, measured
from scigen.weather.containment import fit
from scigen.weather.grid import Grid

log = logging.getLogger(__name__)


def space_dims(ds: xr.Dataset) -> tuple[str, str]:
    """Names of the two space dimensions (Y, X) of the variables that have a time.

    Raises:
        UserError: if there is none, or they do not agree.
    """
    found = {
        tuple(str(d) for d in v.dims if d not in ("time", "member")) for v in ds.data_vars.values() if "time" in v.dims
    }
    pairs = [f for f in found if len(f) == 2]
    if len(found) != 1 or len(pairs) != 1:
        what = "; ".join(f"{k} {tuple(map(str, v.dims))}" for k, v in ds.data_vars.items()) or "no variable at all"
        raise UserError(
            f"Expected variables with the dimensions (time, member, Y, X), or without member, got: {what}. "
            "Rename the dimensions (ds.rename), add a missing time with ds.expand_dims('time'), "
            "or choose one level with ds.sel."
        )
    return pairs[0][0], pairs[0][1]


def pair(truth: xr.Dataset, samples: Mapping[str, xr.Dataset]) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
    """Bring truth and contenders to common times and cells, lazily, so that they can be compared cell by cell.

    The truth may hold more of everything: variables, times, cells (a border that filled no coarse block), and its rows
    may run the other way. The contenders must agree with each other in variables and cells; of their times those that
    all have in common are kept, and a log message tells how many that leaves out.

    Args:
        truth: dims (time, Y, X).
        samples: by the contender's name, dims (time, member, Y, X), or (time, Y, X) for a deterministic one.

    Returns:
        (truth, samples), dimensions ordered (time, member, Y, X), the same times and cells in the same order. A
        contender without `member` has got one of length one.

    Raises:
        UserError: if variables, units, grids or times do not fit; it names the difference and the remedy.
    """
    if not samples:
        raise UserError("There is nothing to judge: give samples={name: path, …} with at least one archive.")
    first = next(iter(samples))
    dims = space_dims(samples[first])
    names = [str(k) for k, v in samples[first].data_vars.items() if "time" in v.dims]
    for model, ds in samples.items():
        _check_dims(ds, dims, model)
        own = [str(k) for k, v in ds.data_vars.items() if "time" in v.dims]
        if set(own) != set(names):
            raise UserError(
                f"samples '{model}' has the variables {sorted(own)}, '{first}' has {sorted(names)}: "
                "compare archives with the same variables, or select the common ones with ds[[...]]."
            )
    missing = [n for n in names if n not in truth.data_vars]
    if missing:
        raise UserError(
            f"The truth has no variable {missing} that the samples have; it has {sorted(map(str, truth.data_vars))}. "
            "Rename its variables, or sample and compare only those that it has."
        )
    truth = geolocated(truth[names], truth)
    _check_dims(truth, dims, "truth")
    if "member" in truth.dims:
        raise UserError("The truth must have no member dimension: select one with truth.isel(member=0).")
    for model, ds in samples.items():
        _check_units(truth, ds, model)

    grid = samples[first]
    truth = _on_grid(truth, grid, dims, "the truth", f"samples '{first}'", subset=True)
    same = {m: _on_grid(ds[names], grid, dims, f"samples '{m}'", f"samples '{first}'") for m, ds in samples.items()}
    times = _common_times(truth, same)
    truth = truth.sel(time=times).transpose("time", *dims)
    paired = {}
    for model, ds in same.items():
        ds = ds if "member" in ds.dims else ds.expand_dims(member=[0])
        paired[model] = ds.sel(time=times).transpose("time", "member", *dims)
    return truth, paired


def _check_dims(ds: xr.Dataset, dims: tuple[str, str], model: str) -> None:
    """The dataset has the wanted space dimensions, a time, and no cell or member list of length zero."""
    own = space_dims(ds)
    if set(own) != set(dims):
        raise UserError(f"'{model}' has the space dimensions {own}, the samples have {dims}: rename them (ds.rename).")
    empty = [str(d) for d, n in ds.sizes.items() if not n]
    if empty:
        raise UserError(f"'{model}' is empty along {empty}: check the selection it was made with.")


def _check_units(truth: xr.Dataset, ds: xr.Dataset, model: str) -> None:
    """Both carry the same units, spelling aside."""
    for name in truth.data_vars:
        mine, theirs = (d[name].attrs.get("units") for d in (ds, truth))
        if not _same_units(mine, theirs):
            raise UserError(
                f"'{name}' is in {mine or 'no units'} in samples '{model}' and in {theirs or 'no units'} in the truth: "
                "convert one of them, and set its attrs['units'] to what it is in."
            )


def _same_units(one: str | None, other: str | None) -> bool:
    """Both are the same unit, however spelled: m s**-1 and m/s are; or neither is given."""
    if one is None or other is None or one == other:
        return one == other
    unit = parse_units(str(one))
    return unit is not None and unit == parse_units(str(other))


def _on_grid(
    ds: xr.Dataset, grid: xr.Dataset, dims: tuple[str, str], what: str, like: str, subset: bool = False
) -> xr.Dataset:
    """The cells of `ds` at the coordinates of `grid`, in its order; `subset` allows `ds` to have more of them.

    1-D coordinates are compared where both have them, else 2-D latitudes and longitudes; the latter, where both have
    them, must agree in any case.
    """
    told = all(centres_of(d, dims) for d in (ds, grid))
    if told and any(not measured(d, dims) for d in (ds, grid)):
        own, other = Grid.of(ds), Grid.of(grid)
        found = fit(own, other, (1.0, 1.0))
        if found is None or not (subset or own.shape == other.shape):
            raise UserError(f"{what} has {own}, {like} has {other}: bring both to the same cells before comparing.")
        ds = ds.isel({dims[0]: found.rows, dims[1]: found.columns}).drop_vars(dims, errors="ignore")
        return _located(ds, grid, dims)
    for dim in dims:
        if dim in ds.indexes and dim in grid.indexes and ds[dim].dtype.kind in "iuf" and grid[dim].dtype.kind in "iuf":
            have, want = (np.asarray(d[dim].values, np.float64) for d in (ds, grid))
            period = 360.0 if is_degrees(ds[dim], "longitude") else None
            nearest = find_positions(have, want, period=period, subset=subset)
            if nearest is None:
                raise UserError(
                    f"{what} has {_extent(dim, have)}, {like} has {_extent(dim, want)}: "
                    "bring both to the same cells (ds.sel, ds.interp) before comparing."
                )
            if not np.array_equal(nearest, np.arange(len(have))):
                ds = ds.isel({dim: nearest})
        elif ds.sizes[dim] != grid.sizes[dim]:
            raise UserError(
                f"{what} has {ds.sizes[dim]} cells along {dim}, {like} has {grid.sizes[dim]}, and without coordinates "
                "they cannot be matched: cut one of them with ds.isel, or give both their coordinates."
            )
    if told and not (own := Grid.of(ds)).same(other := Grid.of(grid)):
        raise UserError(
            f"{what} has {own}, {like} has {other}: their latitudes and longitudes differ by more than a hundredth of "
            "a cell. Bring both to the same cells before comparing."
        )
    return _located(ds, grid, dims)


def _located(ds: xr.Dataset, grid: xr.Dataset, dims: tuple[str, str]) -> xr.Dataset:
    """A dataset with the space coordinates of another one: small differences of digits must not split cells again."""
    theirs = {c: v for c, v in grid.coords.items() if v.dims and set(v.dims) <= set(dims)}
    twice = geographic(ds) if geographic(grid) else None
    return ds.drop_vars(twice or ()).assign_coords(theirs)


def _extent(dim: str, values: np.ndarray) -> str:
    """Short description of a coordinate."""
    return f"{len(values)} cells of {dim} from {values[0]:g} to {values[-1]:g}"


def _common_times(truth: xr.Dataset, samples: Mapping[str, xr.Dataset]) -> pd.Index:
    """Times that all hold, sorted."""
    everyone = {"truth": truth, **{f"samples '{m}'": ds for m, ds in samples.items()}}
    for who, ds in everyone.items():
        if "time" not in ds.indexes:
            raise UserError(
                f"The {who} has no time coordinate, so its times cannot be matched: set it with assign_coords."
            )
        index = ds.indexes["time"]
        if not index.is_unique:
            twice = index[index.duplicated()][0]
            raise UserError(f"The {who} holds time {twice} more than once: drop it with ds.drop_duplicates('time').")
        if type(index) is not type(truth.indexes["time"]) or _calendar(index) != _calendar(truth.indexes["time"]):
            raise UserError(
                f"The times of {who} are in the {_calendar(index)} calendar, those of the truth in the "
                f"{_calendar(truth.indexes['time'])} one: convert one with ds.convert_calendar."
            )
    common = truth.indexes["time"]
    for ds in samples.values():
        common = common.intersection(ds.indexes["time"])
    common = common.sort_values()
    if not len(common):
        spans = "; ".join(f"{w}: {d.indexes['time'].min()} … {d.indexes['time'].max()}" for w, d in everyone.items())
        raise UserError(f"No time is held by all of them ({spans}): sample the times that the truth covers.")
    for who, ds in samples.items():
        left = ds.sizes["time"] - len(common)
        if left:
            log.warning("%s: %d of %d times are not held by all and are left out.", who, left, ds.sizes["time"])
    return common


def _calendar(index: pd.Index) -> str:
    """Name of an index's calendar."""
    return str(getattr(index, "calendar", "standard" if isinstance(index, pd.DatetimeIndex) else index.dtype))
