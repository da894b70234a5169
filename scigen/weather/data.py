"""Weather data: an archive, or a pair of them, as fine, coarse and static fields, and its splits in time."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from scigen.errors import UserError
from scigen.io.archive import open_archive
from scigen.io.blocks import values
from scigen.io.coordinates import check_finite, check_times, horizontal_dims, straighten
from scigen.io.geolocation import geographic, geolocated
from scigen.io.groups import MARK
from scigen.io.missing import check_policy, fill_gaps, skip_times
from scigen.io.opening import FILES
from scigen.weather.alignment import common_cells, common_times
from scigen.weather.coarsen import coarsen, trim
from scigen.weather.containment import fit
from scigen.weather.grid import Grid, spacing
from scigen.weather.inputs import Orientation, orientation, to_coarse
from scigen.weather.regrid import check_method
from scigen.weather.variables import VARIABLES, Variable, Wanted, find_variables

__all__ = [
    "VARIABLES",
    "Grid",
    "Orientation",
    "Pair",
    "Variable",
    "coarsen",
    "find_variables",
    "open_pair",
    "orientation",
    "sample_times",
    "split_times",
    "to_coarse",
    "trim",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """Fine fields and their coarse fields at the same times, lazily.

    Attributes:
        fine: (time, Y, X), canonical names and units, the archive's attributes.
        coarse: (time, Y / factor, X / factor), the variables that condition.
        static: time-independent fields (Y, X), in memory; perhaps none.
        factor: fine cells per coarse cell along each axis.
    """

    fine: xr.Dataset
    coarse: xr.Dataset
    static: xr.Dataset
    factor: int


def open_pair(
    path: str | Path,
    *,
    coarse: str | Path | None = None,
    variables: Wanted,
    factor: int | None,
    inputs: Wanted | None = None,
    static: str | Sequence[str] | None = None,
    missing: str = "refuse",
    regrid: str | None = None,
) -> Pair:
    """Open an archive of fine fields, with its block means or with a second archive as the coarse fields.

    Coordinates and static fields are read and checked. That the fields hold no missing value is for `check_finite`,
    also after cells were filled.

    Args:
        path: archive of the fine fields.
        coarse: archive of the coarse fields, whose cells are blocks of fine ones, in either order of latitudes and
            either longitude convention; None for block means, area-weighted, of the fine ones. Times and cells that
            only one of the two has are left out, which is logged. On another grid it is regridded, if `regrid` says so.
        variables: see `find_variables`; a map names those of the fine archive, and of the coarse one if it has them.
        factor: fine cells per coarse cell along each axis; None with `coarse` takes it from the two grids.
        inputs: variables of the coarse fields that condition; None for the same as the fine ones. What is no input is
            synthesised.
        static: names of time-independent variables of the fine archive, or paths of archives of such on its grid; None
            takes `orography` if the archive has it.
        missing: "fill" gives cells without a value that of the nearest, before anything is averaged; "skip" reads
            everything once and leaves out times with such cells, in either archive; "refuse" does nothing here.
        regrid: how coarse cells that are no blocks of fine ones are brought to these, `linear` or `conservative` (see
            `regrid`); None refuses them.

    Raises:
        UserError: if archives, variables, units, times, grids or the factor are not what they must be.
    """
    check_policy(missing)
    archive = open_archive(path)
    fine = find_variables(archive, variables)
    check_times(fine, f"The archive {path}")
    if coarse is not None:
        second, own = open_archive(coarse), variables if inputs is None else inputs
        if inputs is None and isinstance(variables, Mapping) and not all(v in second for v in variables.values()):
            own = list(variables)
        means = find_variables(second, own)
        check_times(means, f"The archive {coarse}")
        fine, means = common_times(fine, means)
        fine, means, factor = common_cells(fine, means, factor, check_method(regrid))
        fine, means = _without_gaps(missing, fine, means)
    elif regrid is not None:
        raise UserError(f"data.regrid={regrid} is for an archive of coarse fields, data.coarse=: leave it out.")
    elif factor is None:
        raise UserError(
            "factor=None: give the number of fine cells along a coarse one, or an archive of coarse fields."
        )
    else:
        fine = trim(fine, factor)
        seen = fine if inputs is None else trim(find_variables(archive, inputs), factor)
        fine, seen = _without_gaps(missing, fine, seen)
        means = coarsen(seen, factor)
    return Pair(fine, means, _static_fields(archive, Grid.of(fine), static), factor)


def _without_gaps(missing: str, *datasets: xr.Dataset) -> tuple[xr.Dataset, ...]:
    """Datasets of the same times, their gaps filled or the times with gaps left out."""
    if missing == "fill":
        return tuple(map(fill_gaps, datasets))
    return skip_times(*datasets) if missing == "skip" else datasets


def split_times(
    times: int | pd.Index, fractions: Sequence[float] = (0.7, 0.05, 0.25), gap: int | str = 0
) -> dict[str, slice]:
    """Split times into contiguous blocks for training, validation and test.

    Args:
        times: the index of times, sorted; or only their number, with a gap in steps.
        fractions: shares of the times that remain for each use; they add up to one. A use with share 0 gets none.
        gap: left out between two blocks: number of steps, or a time such as "1D", all times within which after the
            last one of a block are left out.

    Returns:
        Slices of positions: train, validation, test.

    Raises:
        UserError: if the shares or the gap make no sense, or a block would be empty.
    """
    names = ("train", "validation", "test")
    n = times if isinstance(times, int) else len(times)
    shares = np.asarray(fractions, dtype=float)
    if len(shares) != 3 or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6 or shares[0] == 0:
        raise UserError(
            f"split={list(fractions)}: expected three shares of training, validation and test that add up to 1."
        )
    used = [i for i, share in enumerate(shares) if share > 0]
    steps = _gap_steps(times, gap)
    room = n - steps * (len(used) - 1)
    bounds = np.round(np.cumsum(shares[used]) * room).astype(int)
    sizes = np.diff(np.concatenate([[0], bounds]))
    if room < len(used) or (sizes < 1).any():
        raise UserError(
            f"{n} times are too few for split={list(fractions)} with a gap of {gap} ({steps} steps) between blocks: "
            "give a longer archive, a smaller gap or other shares."
        )
    out = {name: slice(n, n) for name in names}
    start = 0
    for i, size in zip(used, sizes, strict=True):
        out[names[i]] = slice(start, start + int(size))
        start += int(size) + steps
    return out


def sample_times(ds: xr.Dataset) -> list[str]:
    """Times of a dataset in ISO format to the second, which address samples, in any calendar."""
    time = ds["time"].values
    if time.dtype.kind == "M":
        return [str(t) for t in np.datetime_as_string(time, unit="s")]
    return [t.isoformat()[:19] for t in time]


def _gap_steps(times: int | pd.Index, gap: int | str) -> int:
    """The gap as a number of steps that leaves out enough wherever it lies."""
    if isinstance(gap, int) and not isinstance(gap, bool):
        if gap < 0:
            raise UserError(f"gap={gap} must be at least 0.")
        return gap
    try:
        wide = pd.Timedelta(gap)
    except (ValueError, TypeError) as error:
        raise UserError(f"gap={gap!r}: expected a number of steps or a time such as '1D' or '12h'.") from error
    if wide < pd.Timedelta(0) or pd.isna(wide):
        raise UserError(f"gap={gap!r} must not be negative.")
    if isinstance(times, int):
        raise UserError(f"gap={gap!r} is a time, and needs the index of times; give a number of steps.")
    last = times + (wide if isinstance(times, pd.DatetimeIndex) else wide.to_pytimedelta())
    return int((times.searchsorted(last, side="right") - 1 - np.arange(len(times))).max(initial=0))


def _static_fields(archive: xr.Dataset, grid: Grid, static: str | Sequence[str] | None) -> xr.Dataset:
    """Time-independent fields on the fine grid, (Y, X)."""
    if static is None:
        static = ["orography"] if "orography" in archive.data_vars else []
    out = xr.Dataset(coords=grid.coordinates())
    for name in [static] if isinstance(static, str) else static:
        if name in archive.data_vars:
            source, own = archive, [name]
        elif Path(name).suffix.lower() in (*FILES, ".zarr") or "/" in name or MARK in name:
            source = open_archive(name)
            place = geographic(source) or ()
            own = [str(k) for k, v in source.data_vars.items() if v.ndim >= 2 and k not in place]
        else:
            has = ", ".join(map(str, archive.data_vars))
            raise UserError(
                f"static={name}: no variable of the archive, which has {has}, and no path of another archive."
            )
        for key in own:
            out[key] = _static_field(straighten(geolocated(source[[key]], source)), grid, f"static={name}")
    check_finite(out, "The static data", "Fill them, or select a region without any.")
    return out


def _static_field(ds: xr.Dataset, grid: Grid, what: str) -> xr.DataArray:
    """The one variable of a dataset as a static field (Y, X), float32, in memory, on the grid."""
    name, array = next(iter(ds.data_vars.items()))
    dims = horizontal_dims(array)
    for dim in [str(d) for d in array.dims if d not in dims]:
        if dim == "time" and array.sizes[dim] > 1:
            places = np.linspace(0, array.sizes[dim] - 1, 3).astype(int)
            few = values(array.isel(time=places), f"'{name}'")
            if not all(np.array_equal(few[0], other, equal_nan=True) for other in few[1:]):
                raise UserError(f"{what}: '{name}' varies in time, so it is no static field.")
        elif array.sizes[dim] > 1:
            raise UserError(f"{what}: '{name}' has the dimensions {array.dims}, expected {dims}: select along {dim}.")
        array = array.isel({dim: 0}, drop=True)
    own = Grid.of(array.to_dataset())
    place = fit(own, grid, (spacing(grid.y), spacing(grid.x)))
    if place is None:
        raise UserError(
            f"{what}: '{name}' lies on another grid, {own}; the fine grid is {grid}. Bring it to that grid."
        )
    field = place.take(array.to_dataset(), grid)[name].transpose(*grid.dims)
    numbers = values(field, f"'{name}'").astype(np.float32)
    return xr.DataArray(numbers, dims=grid.dims, coords=grid.coordinates(), attrs=array.attrs, name=name)
