"""An archive in words: its size, times, cells and variables, and how much is missing in a thin sample."""

from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.archive import fingerprint
from scigen.io.blocks import values
from scigen.io.coordinates import has_dates, horizontal_dims
from scigen.io.times import find_gaps, say_gaps, say_step, usual_step

SAMPLE = {"time": 8, "other": 64}
"""Positions along a dimension that are looked at for missing values, evenly spread."""

EVEN = 1e-3
"""Spacings that differ by less than this share are one."""


def describe(ds: xr.Dataset, known: Mapping[str, str] | None = None) -> Iterator[tuple[str, str]]:
    """What there is to say of an archive, as pairs of a short label and words.

    Args:
        ds: an archive.
        known: names that scigen has for variables, by the archive's.

    Raises:
        UserError: if values cannot be read.
    """
    yield "fingerprint", fingerprint(ds)
    yield "size", f"{' × '.join(f'{n} {d}' for d, n in ds.sizes.items())}, {in_words(ds.nbytes)} in memory"
    if "time" in ds.indexes:
        yield from _times(ds)
    yield from _cells(ds)
    for dim in map(str, ds.dims):
        if dim != "time" and dim in ds.coords and dim not in _space(ds):
            few = ", ".join(map(str, ds[dim].values[:12])) + (", …" if ds.sizes[dim] > 12 else "")
            yield dim, f"{few} {ds[dim].attrs.get('units', '')}".strip()
    for name, array in ds.data_vars.items():
        units = array.attrs.get("units")
        words = f"{name} [{'no units' if units is None else units}] ({', '.join(map(str, array.dims))}) {array.dtype}"
        if known and str(name) in known:
            words += f", known as {known[str(name)]}"
        yield "variable", f"{words}, {missing_share(array):.3g} % missing"


def missing_share(array: xr.DataArray) -> float:
    """Share of cells without a finite value in a thin sample of an array [%].

    Raises:
        UserError: if values cannot be read.
    """
    if array.dtype.kind not in "fc" or not array.size:
        return 0.0
    places = {}
    for dim, n in array.sizes.items():
        count = min(n, SAMPLE.get(str(dim), SAMPLE["other"]))
        places[dim] = np.linspace(0, n - 1, count).round().astype(int)
    return 100 * float(1 - np.isfinite(values(array.isel(places), f"'{array.name}'")).mean())


def _times(ds: xr.Dataset) -> Iterator[tuple[str, str]]:
    """First and last time, step, calendar, gaps."""
    index = ds.indexes["time"]
    if not has_dates(ds["time"]):
        yield "time", f"{len(index)} values that are no dates"
        return
    step = usual_step(index.sort_values())
    every = "" if step is None else f", every {say_step(step)}"
    yield "time", f"{str(index[0])[:16]} to {str(index[-1])[:16]}{every}, calendar {ds['time'].dt.calendar}"
    if not index.is_monotonic_increasing or not index.is_unique:
        yield "time", "not in order" if not index.is_monotonic_increasing else "some are there more than once"
    gaps = find_gaps(index) if index.is_monotonic_increasing else []
    if gaps:
        yield "gaps", say_gaps(gaps)


def _space(ds: xr.Dataset) -> tuple[str, ...]:
    """Names of the (Y, X) dimensions, none if they cannot be told."""
    try:
        return horizontal_dims(ds)
    except UserError:
        return ()


def _cells(ds: xr.Dataset) -> Iterator[tuple[str, str]]:
    """Extent and spacing along Y and X; of two-dimensional places their bounds."""
    for dim in _space(ds):
        if dim in ds.indexes and ds[dim].dtype.kind in "fiu":
            yield dim, _axis(ds[dim])
        else:
            yield dim, f"{ds.sizes[dim]} cells without a coordinate of their own"
    for name, array in ds.coords.items():
        if array.ndim == 2 and array.dtype.kind == "f" and set(array.dims) == set(_space(ds)):
            bounds = values(array, f"'{name}'")
            yield str(name), f"{bounds.min():g} to {bounds.max():g} {array.attrs.get('units', '')} on cells".strip()


def _axis(coordinate: xr.DataArray) -> str:
    """Ends, spacing and direction of one axis."""
    places = coordinate.values.astype(np.float64)
    steps = np.diff(places)
    words = f"{places[0]:g} to {places[-1]:g} {coordinate.attrs.get('units', '')}".strip()
    if not len(steps):
        return words
    even = np.abs(steps - np.median(steps)).max() <= EVEN * np.abs(np.median(steps))
    return words + (f" by {abs(np.median(steps)):g}" if even else f", unevenly, by about {abs(np.median(steps)):g}")


def in_words(count: float) -> str:
    """A number of bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
