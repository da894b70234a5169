"""Groups that scores are given for beside all: lead times and levels, seasons, months, bins of a scalar, regions."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from scigen.errors import UserError
from scigen.io.archive import open_archive
from scigen.io.coordinates import axis_of, is_degrees
from scigen.metrics.matching import Match, aligned

KINDS = ("season", "month", "hour", "year")
SEASONS = {12: "DJF", 1: "DJF", 2: "DJF", 3: "MAM", 4: "MAM", 5: "MAM", 6: "JJA", 7: "JJA", 8: "JJA", 9: "SON"}
MOST = 64
"""Classes of a kind at most."""


@dataclass(frozen=True)
class Group:
    """Some cases, in a region.

    Attributes:
        name: "all", "season=DJF", "lead_time=6 h", "region=land".
        cases: (N, E) whether a field belongs to it.
        region: number of the region; 0 is everywhere.
    """

    name: str
    cases: NDArray[np.bool_]
    region: int = 0


def groups(match: Match, kinds: Sequence[str], bins: Mapping[str, Sequence[float]], truth: xr.Dataset) -> list[Group]:
    """All, and a group for each class of each kind.

    Args:
        match: of the variable.
        kinds: season, month, hour, year.
        bins: edges of classes by the name of a scalar of the truth, one number a sample.
        truth: its dataset, for `bins`.

    Raises:
        UserError: for a kind that is not known, or a scalar that is not there.
    """
    whole = np.ones((len(match.labels), match.cases), bool)
    found = [Group("all", whole)]
    array = next(iter(match.samples.values()))
    sizes = [array.sizes[d] for d in match.layout.cases]
    for axis, dim in enumerate(match.layout.cases):
        place = np.unravel_index(np.arange(match.cases), sizes)[axis] if sizes else np.zeros(1, int)
        if 1 < sizes[axis] <= MOST:
            found += [
                Group(f"{dim}={_label(array, dim, i)}", whole & (place == i)[None, :]) for i in range(sizes[axis])
            ]
    for kind in kinds:
        found += [Group(f"{kind}={k}", whole & (v == k)[:, None]) for v in [_dates(match, kind)] for k in _ordered(v)]
    for name, edges in bins.items():
        scalar = _scalar(match, truth, name)
        for low, high in itertools.pairwise(edges):
            inside = (scalar >= low) & ((scalar < high) | (high == edges[-1]) & (scalar == high))
            found.append(Group(f"{name}={low:g} to {high:g}", whole & inside[:, None]))
    return [g for g in found if g.cases.any()]


def _dates(match: Match, kind: str) -> NDArray:
    """The class of every sample by its date."""
    if kind not in KINDS:
        raise UserError(
            f"groups={kind}: expected some of {', '.join(KINDS)}; lead times and levels come by themselves."
        )
    index: Any = match.labels
    if not isinstance(index, pd.DatetimeIndex) and not hasattr(index, "calendar"):
        raise UserError(f"groups={kind} needs samples with dates, and those of '{match.name}' have none.")
    if kind == "season":
        return np.array([SEASONS.get(m, "SON") for m in np.asarray(index.month)])
    return np.asarray(getattr(index, kind))


def _ordered(classes: NDArray) -> list[Any]:
    """The classes there are; seasons as the year runs."""
    found = np.unique(classes).tolist()
    order = ["DJF", "MAM", "JJA", "SON"]
    if len(found) > MOST:
        raise UserError(f"groups= would make {len(found)} classes, {MOST} at most are told.")
    return sorted(found, key=lambda k: order.index(k) if k in order else k)


def _label(array: xr.DataArray, dim: str, place: int) -> str:
    """What a lead time or level is called."""
    if dim not in array.coords:
        return str(place)
    value = array[dim].values[place]
    if isinstance(value, np.timedelta64):
        return f"{value / np.timedelta64(1, 'h'):g} h"
    units = str(array[dim].attrs.get("units", ""))
    return f"{value:g} {units}".strip() if array[dim].dtype.kind in "iuf" else str(value)


def _scalar(match: Match, truth: xr.Dataset, name: str) -> NDArray[np.float64]:
    """A number of each sample."""
    dim = match.layout.sample
    if name not in truth.variables or truth[name].dims != (dim,) or match.rows.ndim != 1:
        fit = sorted(str(n) for n, v in truth.variables.items() if v.dims == (dim,) and v.dtype.kind in "fiu")
        raise UserError(f"bins.{name}: the truth needs a variable of that name, one number a '{dim}'; it has {fit}.")
    return np.asarray(truth[name].values, np.float64)[match.rows]


def regions(match: Match, masks: Mapping[str, Any], truth: xr.Dataset) -> dict[str, NDArray[np.float64]]:
    """Weights (cells,), 0 to 1, of each region by its name.

    Args:
        match: of the variable.
        masks: by name, each the name of a variable of the truth (its share of every cell, or true and false), a box
            {latitude: [low, high], longitude: [low, high]} of any coordinates, or {path: archive, variable: name}.
        truth: its dataset.

    Raises:
        UserError: if a mask cannot be had, does not fit the cells, or has none of them.
    """
    found = {}
    for name, spec in masks.items():
        weight = _box(match, name, spec) if isinstance(spec, Mapping) and "path" not in spec else None
        weight = _variable(match, name, spec, truth) if weight is None else weight
        if not weight.any():
            raise UserError(f"mask.{name} holds no cell of '{match.name}': widen it.")
        found[name] = weight
    return found


def _box(match: Match, name: str, spec: Mapping[str, Sequence[float]]) -> NDArray[np.float64]:
    array = next(iter(match.samples.values())).isel({match.layout.sample: 0})
    inside = xr.ones_like(array.isel({d: 0 for d in ("member", *match.layout.cases)}, drop=True), bool)
    for key, limits in spec.items():
        axis = {"latitude": "Y", "longitude": "X"}.get(key)
        own = [d for d in match.layout.space if axis and axis_of(array, d) == axis and d in array.coords]
        coordinate = array.coords.get(key, array.coords[own[0]] if own else None)
        if coordinate is None or len(limits) != 2:
            raise UserError(f"mask.{name}: expected {{coordinate: [low, high]}}; '{key}: {limits}' is none of these.")
        low, high = map(float, limits)
        place = coordinate
        if is_degrees(coordinate, "longitude"):
            place, high = (coordinate - low) % 360, (high - low) % 360 or 360.0
            low = 0.0
        inside = inside & (place >= low) & (place <= high)
    return inside.transpose(*match.layout.space).values.ravel().astype(np.float64)


def _variable(match: Match, name: str, spec: Any, truth: xr.Dataset) -> NDArray[np.float64]:
    ds = open_archive(spec["path"]) if isinstance(spec, Mapping) else truth
    variable = str(spec.get("variable", name)) if isinstance(spec, Mapping) else str(spec)
    if variable not in ds.variables:
        raise UserError(f"mask.{name}: there is no variable '{variable}', but {sorted(map(str, ds.data_vars))}.")
    mask = ds[variable]
    mask = mask.isel({d: 0 for d in mask.dims if d not in match.layout.space}, drop=True)
    cells = next(iter(match.samples.values()))
    if set(mask.dims) == set(match.layout.space):
        for dim in match.layout.space:
            mask = aligned(mask, cells, dim, f"mask.{name}", "the samples", subset=True)
    if set(mask.dims) != set(match.layout.space) or mask.shape != tuple(cells.sizes[d] for d in mask.dims):
        raise UserError(f"mask.{name}: '{variable}' has {dict(mask.sizes)}, the cells are {match.shape}.")
    weight = np.nan_to_num(mask.transpose(*match.layout.space).values.astype(np.float64)).ravel()
    if weight.min() < 0 or weight.max() > 1:
        raise UserError(f"mask.{name}: '{variable}' must be true and false, or shares from 0 to 1.")
    return weight
