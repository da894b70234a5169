"""Where the cells of one grid lie in another one."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from scigen.io.coordinates import horizontal_dims
from scigen.weather.grid import TOLERANCE, Grid, near, spacing
from scigen.weather.sphere import cell_size, distances


@dataclass(frozen=True, eq=False)
class Fit:
    """How a grid fits into another one.

    Attributes:
        rows: position in the larger grid of each row of the smaller one, consecutive either way.
        columns: the same of the columns; they may run across the end where longitudes close.
    """

    rows: np.ndarray
    columns: np.ndarray

    def take(self, ds: xr.Dataset, grid: Grid) -> xr.Dataset:
        """The cells of `grid` out of a dataset, in its order and with its coordinates and names."""
        own = horizontal_dims(ds)
        ds = ds.isel({d: _slice(p) for d, p in zip(own, (self.rows, self.columns), strict=True)})
        ds = ds.drop_vars([c for c, v in ds.coords.items() if not v.dims or set(v.dims) & set(own)])
        ds = ds.rename({a: b for a, b in zip(own, grid.dims, strict=True) if a != b})
        return ds.assign_coords(grid.coordinates())


def fit(have: Grid, want: Grid, cell: tuple[float, float]) -> Fit | None:
    """Where the cells of `want` lie in `have`, either order of rows, either longitude convention.

    1-D coordinates are compared where both have them, 2-D ones too where both have these.

    Args:
        have: the larger grid, or the same.
        want: the smaller grid.
        cell: spacing of the cells, which tolerances refer to, along (Y, X).

    Returns:
        None unless all cells are there as neighbours of each other.
    """
    mine, theirs = have.points(), want.points()
    if have.counted or want.counted:
        found = None if mine is None or theirs is None else _on_sphere(mine, theirs)
    else:
        period = want.period if have.period == want.period else (None, None)
        rows = _match(have.y, want.y, cell[0], period[0])
        columns = _match(have.x, want.x, cell[1], period[1])
        found = None if rows is None or columns is None or not have.projected_as(want) else Fit(rows, columns)
    if found is None or mine is None or theirs is None:
        return found
    there = mine[found.rows][:, found.columns]
    return found if near(there, theirs, cell_size(theirs) or cell_size(mine)) else None


def _match(have: np.ndarray, want: np.ndarray, cell: float, period: float | None) -> np.ndarray | None:
    """Positions in `have` of the values of `want`, None unless each is there and they are neighbours."""
    if len(have) < len(want) or (len(want) == 1 < len(have) and abs(spacing(have) - cell) > 0.01 * cell):
        return None
    apart = want[:, None] - have[None, :]
    if period:
        apart -= period * np.round(apart / period)
    places = np.abs(apart).argmin(1)
    close = np.abs(apart[np.arange(len(want)), places]).max() <= TOLERANCE * cell
    steps = np.diff(places)
    if period:
        steps = (steps + 1) % len(have) - 1  # −1 stays, the way across the end becomes 1
    neighbours = np.all(steps == 1) or np.all(steps == -1)
    return places if close and neighbours else None


def _on_sphere(have: np.ndarray, want: np.ndarray) -> Fit | None:
    """Where the corners of `want` (Y, X, 3) lie in `have`, as rows and columns; what is between is not looked at.

    A single row or column is found only in a grid that has no more of them: their spacing cannot be told.
    """
    corners = [_nearest(have, want[i, j]) for i, j in ((0, 0), (-1, 0), (0, -1))]
    places = []
    for axis, other in ((0, corners[1]), (1, corners[2])):
        first, last, count = corners[0][axis], other[axis], want.shape[axis]
        if abs(last - first) + 1 != count or (count == 1 < have.shape[axis]):
            return None
        places.append(np.arange(first, last + 1) if last >= first else np.arange(first, last - 1, -1))
    return Fit(places[0], places[1])


def _nearest(points: np.ndarray, one: np.ndarray) -> tuple[int, int]:
    """Row and column of the cell (Y, X, 3) that is nearest to a unit vector."""
    row, column = np.unravel_index(distances(points, one).argmin(), points.shape[:2])
    return int(row), int(column)


def _slice(places: np.ndarray) -> slice | np.ndarray:
    """Consecutive positions as a slice, which reads no more than it must; positions across the end as they are."""
    steps = np.diff(places)
    if len(places) == 1 or np.all(steps == 1):
        return slice(int(places[0]), int(places[-1]) + 1)
    if np.all(steps == -1):
        return slice(int(places[0]), int(places[-1]) - 1 if places[-1] > 0 else None, -1)
    return places
