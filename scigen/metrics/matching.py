"""Truth and contenders of any field brought to the same samples, cells and units, or refused with the reason."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from scigen.errors import UserError
from scigen.io.coordinates import axis_of, is_degrees
from scigen.io.geolocation import geographic
from scigen.io.units import parse_units, require_units
from scigen.metrics.layout import Layout, is_lead
from scigen.metrics.positions import find_positions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Match:
    """One variable of the truth and of every contender.

    Attributes:
        name: of the variable in the samples.
        units: of the truth.
        layout: dimensions.
        truth: lazily, the contenders' cells in their order.
        samples: lazily, by contender, each with `member`.
        rows: positions of the truth along its samples, (N,), or (N, L) where its times are of N starts and L leads.
        picks: (N,) positions of each contender along its samples.
        labels: (N,) what the samples are called.
    """

    name: str
    units: str
    layout: Layout
    truth: xr.DataArray
    samples: dict[str, xr.DataArray]
    rows: np.ndarray
    picks: dict[str, np.ndarray]
    labels: pd.Index

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along the dimensions of space."""
        first = next(iter(self.samples.values()))
        return tuple(first.sizes[d] for d in self.layout.space)

    @property
    def cases(self) -> int:
        """Fields a sample."""
        first = next(iter(self.samples.values()))
        return int(np.prod([first.sizes[d] for d in self.layout.cases], dtype=int))


def match(
    truth: xr.Dataset,
    samples: Mapping[str, xr.Dataset],
    variables: Sequence[str] | None = None,
    sample: str | None = None,
) -> tuple[list[Match], list[str]]:
    """Bring truth and contenders together, variable by variable.

    Rows and columns may run either way and longitudes be cut anywhere; the truth may hold more cells, samples and
    variables; units that convert are converted to the truth's. Samples that not all have are left out.

    Args:
        truth: without `member`.
        samples: by contender, with `member` or without.
        variables: to judge; None for all that samples and truth have.
        sample: dimension of the samples; None finds it.

    Returns:
        (a match for each variable, sentences on what was left out or converted).

    Raises:
        UserError: if something is missing or differs in a way that cannot be mended; it names the difference.
    """
    if not samples:
        raise UserError("There is nothing to judge: give samples={name: path, …} with at least one archive.")
    truth = _single(truth)
    notes: list[str] = []
    names = _names(truth, samples, variables, notes)
    return [_one(n, truth, samples, sample, notes) for n in names], notes


def _single(truth: xr.Dataset) -> xr.Dataset:
    """The truth without a member dimension."""
    if truth.sizes.get("member", 1) > 1:
        raise UserError(
            f"The truth has {truth.sizes['member']} members: select one with truth.isel(member=0), or rename the "
            "dimension if it holds samples."
        )
    return truth.isel(member=0, drop=True) if "member" in truth.dims else truth


def _names(
    truth: xr.Dataset, samples: Mapping[str, xr.Dataset], wanted: Sequence[str] | None, notes: list[str]
) -> list[str]:
    """Variables to judge, in the order of the first contender."""
    held = {}
    for model, ds in samples.items():
        empty = [str(d) for d, n in ds.sizes.items() if not n]
        if empty:
            raise UserError(f"samples '{model}' is empty along {empty}: check the selection it was made with.")
        numeric = [str(n) for n, v in ds.data_vars.items() if v.dtype.kind in "fiu" and v.ndim]
        with_members = [n for n in numeric if "member" in ds[n].dims]
        held[model] = with_members or numeric
    everywhere = [n for n in next(iter(held.values())) if all(n in h for h in held.values())]
    if wanted is not None:
        for who, have in {"the truth": list(map(str, truth.data_vars)), **held}.items():
            if lost := [n for n in wanted if n not in have]:
                raise UserError(f"variables={list(wanted)}: {who} has no {lost}, but {sorted(have)}.")
        return list(wanted)
    found = [n for n in everywhere if n in truth.data_vars]
    if not found:
        told = "; ".join(f"{m}: {sorted(h)}" for m, h in held.items())
        raise UserError(
            f"Truth and samples share no variable: the truth has {sorted(map(str, truth.data_vars))}, {told}. Rename "
            "them alike (ds.rename)."
        )
    if left := sorted({n for h in held.values() for n in h} - set(found)):
        notes.append(f"Not judged, because not all archives hold them: {', '.join(left)}.")
    return found


def _one(
    name: str, truth: xr.Dataset, samples: Mapping[str, xr.Dataset], sample: str | None, notes: list[str]
) -> Match:
    first = next(iter(samples))
    layout = Layout.of(samples[first][name], sample)
    target = _renamed(truth[name], samples[first][name], layout)
    arrays: dict[str, xr.DataArray] = {}
    for model, ds in samples.items():
        array = ds[name] if model == first else _renamed(ds[name], samples[first][name], layout)
        array = array if "member" in array.dims else array.expand_dims(member=[0])
        own = set(map(str, array.dims)) - {"member"}
        if own != {layout.sample, *layout.cases, *layout.space}:
            raise UserError(
                f"'{name}' has the dimensions {tuple(map(str, array.dims))} in samples '{model}', and "
                f"{tuple(map(str, samples[first][name].dims))} in '{first}': rename or select until they agree."
            )
        arrays[model] = _in_units(array, target, model, notes)
    grid = arrays[first]
    missing = {*layout.space} - set(map(str, target.dims))
    extra = [str(d) for d in target.dims if d not in (layout.sample, *layout.cases, *layout.space)]
    if missing or extra:
        raise UserError(
            f"'{name}' has the dimensions {tuple(map(str, target.dims))} in the truth and {tuple(map(str, grid.dims))} "
            f"in samples '{first}': rename or select until they agree, member aside."
        )
    for dim in (*layout.space, *layout.cases):
        if dim in target.dims:
            target = aligned(target, grid, dim, "the truth", f"samples '{first}'", subset=True)
        for model in list(arrays)[1:]:
            arrays[model] = aligned(arrays[model], grid, dim, f"samples '{model}'", f"samples '{first}'")
    for who, array in {"the truth": target, **{f"samples '{m}'": a for m, a in arrays.items()}}.items():
        _same_places(array, grid, who, f"samples '{first}'")
    rows, picks, labels = _common(target, arrays, layout, notes)
    units = str(target.attrs.get("units", ""))
    return Match(name, units, layout, target, arrays, rows, picks, labels)


def _renamed(array: xr.DataArray, like: xr.DataArray, layout: Layout) -> xr.DataArray:
    """Dimensions of X and Y called as in `like`: lat as latitude."""
    words = {}
    for dim in array.dims:
        axis = axis_of(array, str(dim))
        same = [d for d in layout.space if axis in ("X", "Y") and axis_of(like, d) == axis]
        if same and dim not in like.dims and same[0] not in array.dims:
            words[dim] = same[0]
    return array.rename(words) if words else array


def _in_units(array: xr.DataArray, truth: xr.DataArray, model: str, notes: list[str]) -> xr.DataArray:
    """A contender's variable in the truth's units."""
    mine, theirs = (str(a.attrs.get("units", "")).strip() for a in (array, truth))
    if mine == theirs:
        return array
    if not mine or not theirs:
        who, units = ("samples " + repr(model), theirs) if not mine else ("the truth", mine)
        notes.append(f"'{array.name}' has no units in {who} and is taken to be in {units}.")
        return array
    try:
        converted = require_units(array, theirs)
    except UserError as error:
        raise UserError(f"samples '{model}' against the truth: {error}") from None
    if parse_units(mine) != parse_units(theirs):
        notes.append(f"'{array.name}' of samples '{model}' is converted from {mine} to {theirs}.")
    return converted


def aligned(
    array: xr.DataArray, grid: xr.DataArray, dim: str, what: str, like: str, subset: bool = False
) -> xr.DataArray:
    """The cells of `array` along one dimension at the coordinates of `grid`."""
    if dim not in array.indexes or dim not in grid.indexes:
        if array.sizes[dim] != grid.sizes[dim]:
            raise UserError(
                f"{what} has {array.sizes[dim]} cells along {dim}, {like} has {grid.sizes[dim]}, and without "
                "coordinates they cannot be matched: cut one of them with ds.isel, or give both their coordinates."
            )
        return array
    mine, theirs = array[dim], grid[dim]
    if mine.dtype.kind in "iuf" and theirs.dtype.kind in "iuf":
        period = 360.0 if is_degrees(mine, "longitude") else None
        found = find_positions(mine.values, theirs.values, period=period, subset=subset)
    else:
        places = array.indexes[dim].get_indexer(grid.indexes[dim]) if array.indexes[dim].is_unique else np.array([-1])
        found = None if (places < 0).any() or not (subset or len(mine) == len(places)) else places
    if found is None:
        raise UserError(
            f"{what} has {_extent(mine)}, {like} has {_extent(theirs)}: bring both to the same cells (ds.sel, "
            "ds.interp) before comparing."
        )
    if not np.array_equal(found, np.arange(len(mine))):
        reverse = np.array_equal(found, np.arange(len(mine))[::-1])
        array = array.isel({dim: slice(None, None, -1) if reverse else found})
    return array.assign_coords({dim: theirs})


def _same_places(array: xr.DataArray, grid: xr.DataArray, what: str, like: str) -> None:
    """2-D latitudes and longitudes, where both have them, are the same within a hundredth of a cell."""
    names = [geographic(a) for a in (array, grid)]
    if not all(names):
        return
    for mine, theirs in zip(*names, strict=True):
        a, b = (np.asarray(x.coords[n].values, np.float64) for x, n in ((array, mine), (grid, theirs)))
        if a.ndim < 2 or b.ndim < 2:
            continue
        cell = np.median(np.abs(np.diff(b, axis=-1))) + np.median(np.abs(np.diff(b, axis=-2)))
        if a.shape != b.shape or np.nanmax(np.abs((a - b + 180) % 360 - 180)) > 0.01 * max(cell, 1e-9):
            raise UserError(
                f"{what} and {like} have different {mine}: {np.nanmin(a):g} to {np.nanmax(a):g} and {np.nanmin(b):g} "
                f"to {np.nanmax(b):g} on {a.shape} and {b.shape} cells, or another order. Bring both to the same cells."
            )


def _extent(coordinate: xr.DataArray) -> str:
    """Short description of a coordinate."""
    first, last = coordinate.values[0], coordinate.values[-1]
    told = f"{first:g} to {last:g}" if coordinate.dtype.kind in "iuf" else f"{first} to {last}"
    return f"{coordinate.size} cells of {coordinate.name} from {told}"


def _common(
    truth: xr.DataArray, arrays: Mapping[str, xr.DataArray], layout: Layout, notes: list[str]
) -> tuple[np.ndarray, dict[str, np.ndarray], pd.Index]:
    """Positions of the samples that all have."""
    dim, first = layout.sample, next(iter(arrays))
    leads = [d for d in layout.cases if is_lead(arrays[first], d) and d not in truth.dims]
    lost = [d for d in layout.cases if d not in truth.dims and d not in leads]
    start = dim if dim in truth.dims else "time" if leads and "time" in truth.dims else None
    if lost or start is None or len(leads) > 1:
        raise UserError(
            f"The truth has the dimensions {tuple(map(str, truth.dims))}, without {lost or dim}, which the samples lie "
            "along: give it that dimension, or select one of them."
        )
    everyone = {"the truth": (truth, start), **{f"samples '{m}'": (a, dim) for m, a in arrays.items()}}
    if not all(d in a.indexes for a, d in everyone.values()):
        sizes = {w: a.sizes[d] for w, (a, d) in everyone.items()}
        if len(set(sizes.values())) > 1 or leads:
            raise UserError(
                f"Not all archives have a coordinate along '{dim}', so their samples cannot be matched, and their "
                f"numbers differ: {sizes}. Give them the coordinate, or cut them to the same samples."
            )
        notes.append(f"Without coordinates along '{dim}' samples are matched in their order.")
        order = np.arange(truth.sizes[start])
        return order, {m: order for m in arrays}, pd.RangeIndex(len(order))
    indexes = {w: a.indexes[d] for w, (a, d) in everyone.items()}
    for who, index in indexes.items():
        if not index.is_unique:
            twice = index[index.duplicated()][0]
            raise UserError(f"{who} holds the {dim} {twice} more than once: drop it with drop_duplicates('{dim}').")
        if _kind(index) != _kind(indexes["the truth"]):
            raise UserError(
                f"The {dim} of {who} is of the kind {_kind(index)}, that of the truth {_kind(indexes['the truth'])}: "
                "convert one, calendars with ds.convert_calendar."
            )
    common = indexes[f"samples '{first}'"]
    for who, index in indexes.items():
        if who != "the truth" or not leads:
            common = common.intersection(index, sort=False)
    if leads:
        spans = arrays[first].indexes[leads[0]]
        rows = np.stack([indexes["the truth"].get_indexer(common + s) for s in spans], 1)
        kept = (rows >= 0).all(1)
        rows, common = rows[kept], common[kept]
    else:
        rows = indexes["the truth"].get_indexer(common)
    if not len(common):
        spans_ = "; ".join(f"{w}: {i.min()} to {i.max()}" for w, i in indexes.items())
        raise UserError(f"No {dim} is held by truth and all samples ({spans_}): sample what the truth covers.")
    for model in arrays:
        left = len(indexes[f"samples '{model}'"]) - len(common)
        if left:
            notes.append(f"{left} of {left + len(common)} samples of '{model}' are not in all archives, and left out.")
    return rows, {m: indexes[f"samples '{m}'"].get_indexer(common) for m in arrays}, common


def _kind(index: pd.Index) -> str:
    """What an index holds: a calendar's dates, numbers or words."""
    if isinstance(index, pd.DatetimeIndex):
        return "standard calendar"
    if hasattr(index, "calendar"):
        return f"{index.calendar} calendar"
    return "numbers" if index.dtype.kind in "iuf" else "words"
