"""A bundle in another region: the fine grid and the static fields that are given there."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.blocks import values
from scigen.io.coordinates import check_finite, horizontal_dims, straighten
from scigen.io.geolocation import geolocated
from scigen.weather.coarsen import trim
from scigen.weather.grid import Grid, spacing
from scigen.weather.sphere import cell_size

SAME = 0.02
"""Spacings that differ by less than this share are the same."""


def place_static(
    static: xr.Dataset, grid: Grid, factor: int, names: Sequence[str]
) -> tuple[Grid, dict[str, np.ndarray]]:
    """The grid of static fields, of whole blocks, and these fields.

    Args:
        static: at least the named variables, (Y, X), perhaps with a time of length one.
        grid: of the bundle, whose spacing the new one must have.
        factor: fine cells per coarse cell along each axis.
        names: of the bundle's static fields.

    Raises:
        UserError: if a field is missing or has a gap, or the spacing is another.
    """
    missing = [n for n in names if n not in static.data_vars]
    if missing:
        has = ", ".join(map(str, static.data_vars)) or "none"
        raise UserError(f"The bundle needs the static fields {list(names)}; {missing[0]} is not there ({has}).")
    ds = straighten(geolocated(static[list(names) or list(static.data_vars)[:1]], static))
    dims = horizontal_dims(ds)
    ds = ds.isel({d: 0 for d in ds.dims if d not in dims and ds.sizes[d] == 1}, drop=True)
    if left := [str(d) for d in ds.dims if d not in dims]:
        raise UserError(f"The static fields vary along {left}; expected one field each: select it (ds.isel).")
    ds = trim(ds, factor)
    own = replace(Grid.of(ds), dims=grid.dims)
    steps = [(spacing(a), spacing(b)) for a, b in ((own.y, grid.y), (own.x, grid.x))]
    here, there = own.points(), grid.points()
    if own.counted and grid.counted and here is not None and there is not None:
        steps = [(cell_size(here), cell_size(there))] * 2
    if any(abs(a - b) > SAME * b for a, b in steps):
        raise UserError(
            f"The new region has the grid {own}; the bundle was made for a spacing of {steps[0][1]:g} by"
            f" {steps[1][1]:g}: bring what you have to that spacing."
        )
    check_finite(ds, "The static data")
    fields = {n: values(ds[n].transpose(*dims), f"'{n}'").astype(np.float32) for n in names}
    return own, fields
