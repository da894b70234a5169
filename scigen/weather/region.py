"""A part of a region, by latitudes and longitudes or by the grid's own coordinates."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scigen.errors import UserError
from scigen.weather.grid import Grid

ALIKE = {"lat": "latitude", "lon": "longitude"}


def cells_within(grid: Grid, factor: int, region: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the smallest part of whole blocks that holds every cell centre within bounds.

    Args:
        grid: the fine grid.
        factor: fine cells per coarse cell along each axis.
        region: (first, last) by dimension of the grid, or by latitude and longitude; a bound that is left out is none.

    Raises:
        UserError: for an unknown name, bounds that are no two numbers, or a part without a cell.
    """
    inside = np.ones(grid.shape, bool)
    places = {grid.dims[0]: grid.y[:, None], grid.dims[1]: grid.x[None, :]}
    found = grid.latlon()
    if found is not None:
        places |= {"latitude": found[0], "longitude": found[1]}
    for name, bounds in region.items():
        key = ALIKE.get(name, name)
        if key not in places:
            raise UserError(f"region={dict(region)}: expected bounds of {', '.join(places)}, not of {name}.")
        try:
            low, high = (float(b) for b in bounds)
        except (TypeError, ValueError) as error:
            raise UserError(f"region: {name}={bounds} must be two numbers, such as [45, 48].") from error
        where = places[key]
        if key == "longitude":  # from west to east, in either convention
            inside &= (where - low) % 360 <= (high - low) % 360 if (high - low) % 360 else where == where
        else:
            inside &= (where >= min(low, high)) & (where <= max(low, high))
    if not inside.any():
        extent = ", ".join(f"{n} {np.min(v):g} to {np.max(v):g}" for n, v in places.items())
        raise UserError(f"region={dict(region)} holds no cell of the bundle's grid: {extent}.")
    out = []
    for axis in (1, 0):
        use = np.flatnonzero(inside.any(axis))
        out.append(np.arange(use[0] // factor * factor, -(-(use[-1] + 1) // factor) * factor))
    return out[0], out[1]
