"""What `scigen sample` takes: an archive on the bundle's fine grid, which is coarsened, or on its coarse grid."""

import logging
from dataclasses import dataclass

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.coordinates import check_times, horizontal_dims, with_cf_attributes
from scigen.io.missing import fill_gaps, policy
from scigen.weather.coarsen import coarsen
from scigen.weather.grid import Fit, Grid, fit, spacing
from scigen.weather.variables import Wanted, find_variables

log = logging.getLogger(__name__)


def to_coarse(ds: xr.Dataset, grid: Grid, factor: int, variables: Wanted) -> tuple[xr.Dataset, bool]:
    """The coarse fields that a bundle takes, out of an archive on its fine or its coarse grid, lazily.

    The archive may cover more than the bundle's region. Its fine cells are coarsened, which is announced; its coarse
    cells are used as they are. Missing cells of the region are filled first, if the archive's encoding says "fill" of
    them (`scigen.io.missing`).

    Args:
        ds: an archive; nothing of it is read but coordinates.
        grid: the bundle's fine grid.
        factor: fine cells per coarse cell along each axis.
        variables: see `find_variables`; a bundle's own attributes by name tell units and original names.

    Returns:
        (coarse fields (time, Y, X), on the bundle's coarse grid, in its order and names; whether they were coarsened).

    Raises:
        UserError: if the archive has another grid, lacks a variable or has it in other units, or has bad times.
    """
    complete = fill_gaps if policy(ds) == "fill" else lambda taken: taken
    ds = find_variables(ds, variables)
    check_times(ds, least=1)
    ds, found, fine = _locate(ds, grid, factor)
    if not fine:
        return complete(found.take(ds, grid.coarse(factor))), False
    log.info("The input is on the fine grid (%s): it is coarsened by %d.", grid, factor)
    return coarsen(complete(found.take(ds, grid)), factor), True


@dataclass(frozen=True, eq=False)
class Orientation:
    """How outputs on a bundle's fine grid are written as the input runs: its order of rows and its longitudes.

    Attributes:
        rows: position on the bundle's grid of each output row.
        columns: the same of the columns.
        grid: the output's grid.
    """

    rows: np.ndarray
    columns: np.ndarray
    grid: Grid

    def apply(self, fields: np.ndarray) -> np.ndarray:
        """Fields (…, Y, X) on the bundle's grid, in the order of the output."""
        return fields[..., self.rows, :][..., self.columns]


def orientation(ds: xr.Dataset, grid: Grid, factor: int) -> Orientation:
    """How to write outputs on the bundle's fine grid in the input's own order of rows and longitude convention.

    Args:
        ds: the input, of which only the coordinates matter.
        grid: the bundle's fine grid.
        factor: fine cells per coarse cell along each axis.

    Raises:
        UserError: if the input is on neither grid of the bundle.
    """
    ds, found, fine = _locate(ds, grid, factor)
    own = [ds[d].values.astype(np.float64) for d in horizontal_dims(ds)]
    block = 1 if fine else factor
    orders, values = [], []
    for have, places, mine in zip(own, (found.rows, found.columns), (grid.y, grid.x), strict=True):
        cells = np.arange(len(mine)).reshape(-1, block)
        there = have[places]
        shift = 360.0 * np.round((there - mine.reshape(-1, block).mean(1)) / 360.0)
        falls = len(have) > 1 and (np.diff(have) < 0).mean() > 0.5
        if falls != (len(mine) > 1 and mine[0] > mine[-1]):
            cells = cells[:, ::-1]
        sequence = np.argsort(places, kind="stable")
        order = cells[sequence].ravel()
        orders.append(order)
        values.append(there[sequence] if fine else mine[order] + np.repeat(shift[sequence], block))
    return Orientation(orders[0], orders[1], Grid(grid.dims, values[0], values[1], grid.attrs))


def _locate(ds: xr.Dataset, grid: Grid, factor: int) -> tuple[xr.Dataset, Fit, bool]:
    """Where the bundle's cells lie in an archive, and whether these are the fine ones."""
    ds = with_cf_attributes(ds)
    dims = horizontal_dims(ds)
    own = _raw(ds, dims)
    coarse = grid.coarse(factor)
    cell = (spacing(grid.y), spacing(grid.x))
    for wanted, scale in ((grid, 1), (coarse, factor)):
        found = fit(own, wanted, (cell[0] * scale, cell[1] * scale))
        if found is not None:
            return ds, found, wanted is grid
    raise UserError(
        f"The input's grid is neither of the bundle's: it has {own}; the bundle takes its fine grid, {grid}, or its "
        f"coarse grid, {coarse}, or a larger region on one of them. Regrid the input to one of "
        "these, or fit a bundle to it."
    )


def _raw(ds: xr.Dataset, dims: tuple[str, str]) -> Grid:
    """The grid of a dataset whose longitudes may be cut anywhere."""
    for dim in dims:
        if dim not in ds.indexes or ds[dim].dtype.kind not in "fiu":
            Grid.of(ds)  # says so
    y, x = (ds[d].values.astype(np.float64) for d in dims)
    return Grid(dims, y, x, {k: dict(ds[d].attrs) for k, d in zip("yx", dims, strict=True)})
