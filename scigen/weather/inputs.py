"""What `scigen sample` takes: an archive on the bundle's fine grid, which is coarsened, or on its coarse grid."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.coordinates import check_times
from scigen.io.missing import fill_gaps, policy
from scigen.weather.coarsen import coarsen
from scigen.weather.containment import Fit, fit
from scigen.weather.grid import Grid, spacing
from scigen.weather.regrid import regrid
from scigen.weather.variables import Wanted, find_variables

log = logging.getLogger(__name__)


def to_coarse(
    ds: xr.Dataset, grid: Grid, factor: int, variables: Wanted, method: str | None = None
) -> tuple[xr.Dataset, bool]:
    """The coarse fields that a bundle takes, out of an archive on its fine or its coarse grid, lazily.

    The archive may cover more than the bundle's region. Its fine cells are coarsened, which is announced; its coarse
    cells are used as they are. On any other grid it is regridded, if the bundle was fitted to a regridded archive.
    Missing cells of the region are filled first, if the archive's encoding says "fill" of them (`scigen.io.missing`).

    Args:
        ds: an archive; nothing of it is read but coordinates.
        grid: the bundle's fine grid.
        factor: fine cells per coarse cell along each axis.
        variables: see `find_variables`; a bundle's own attributes by name tell units and original names.
        method: of `regrid`, for an archive on neither grid of the bundle; None refuses it.

    Returns:
        (coarse fields (time, Y, X), on the bundle's coarse grid, in its order and names; whether they were coarsened).

    Raises:
        UserError: if the archive has another grid, lacks a variable or has it in other units, or has bad times.
    """
    complete = fill_gaps if policy(ds) == "fill" else lambda taken: taken
    ds = find_variables(ds, variables)
    check_times(ds, least=1)
    own, found, fine = _locate(ds, grid, factor, method)
    if found is None:
        assert method is not None
        log.info("The input (%s) is regridded (%s) to the bundle's coarse grid.", own, method)
        return regrid(ds, grid.coarse(factor), method), False
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


def orientation(ds: xr.Dataset, grid: Grid, factor: int, method: str | None = None) -> Orientation:
    """How to write outputs on the bundle's fine grid in the input's own order of rows and longitude convention.

    2-D coordinates are the input's own if it is on the fine grid. An input that is regridded tells nothing: outputs are
    then written as the bundle has them.

    Args:
        ds: the input, of which only the coordinates matter.
        grid: the bundle's fine grid.
        factor: fine cells per coarse cell along each axis.
        method: of `regrid`, for an input on neither grid of the bundle; None refuses it.

    Raises:
        UserError: if the input is on neither grid of the bundle, and there is no method.
    """
    own, found, fine = _locate(ds, grid, factor, method)
    if found is None:
        return Orientation(np.arange(grid.shape[0]), np.arange(grid.shape[1]), grid)
    block = 1 if fine else factor
    orders, values, sequences = [], [], []
    for axis, (have, places, mine) in enumerate(
        zip((own.y, own.x), (found.rows, found.columns), (grid.y, grid.x), strict=True)
    ):
        cells = np.arange(len(mine)).reshape(-1, block)
        there = have[places]
        shift = 360.0 * np.round((there - mine.reshape(-1, block).mean(1)) / 360.0)
        if _turned(own, grid, places, axis):
            cells = cells[:, ::-1]
        sequence = np.argsort(places, kind="stable")
        order = cells[sequence].ravel()
        orders.append(order)
        sequences.append(places[sequence])
        values.append(there[sequence] if fine else mine[order] + np.repeat(shift[sequence], block))
    out = grid.take(*orders)
    if not grid.counted:
        out = replace(out, y=values[0], x=values[1])
    if fine and own.latitude is not None and grid.latitude is not None:
        theirs = own.take(*sequences)
        out = replace(out, latitude=theirs.latitude, longitude=theirs.longitude)
    return Orientation(orders[0], orders[1], out)


def _turned(own: Grid, grid: Grid, places: np.ndarray, axis: int) -> bool:
    """Whether the input runs the other way than the bundle along an axis."""
    if own.counted or grid.counted:
        return len(places) > 1 and bool(places[0] > places[-1])
    have, mine = ((g.y, g.x)[axis] for g in (own, grid))
    return (len(have) > 1 and (np.diff(have) < 0).mean() > 0.5) != (len(mine) > 1 and mine[0] > mine[-1])


def _locate(ds: xr.Dataset, grid: Grid, factor: int, method: str | None) -> tuple[Grid, Fit | None, bool]:
    """The archive's grid, where the bundle's cells lie in it (None if it must be regridded), whether the fine ones."""
    own = Grid.of(ds, monotonic=False)
    coarse = grid.coarse(factor)
    cell = (spacing(grid.y), spacing(grid.x))
    for wanted, scale in ((grid, 1), (coarse, factor)):
        found = fit(own, wanted, (cell[0] * scale, cell[1] * scale))
        if found is not None:
            return own, found, wanted is grid
    if method is not None:
        return own, None, False
    raise UserError(
        f"The input's grid is neither of the bundle's: it has {own}; the bundle takes its fine grid, {grid}, or its "
        f"coarse grid, {coarse}, or a larger region on one of them. Regrid the input to one of these, or fit a bundle "
        "to it; with data.coarse= and data.regrid= bundles regrid their inputs themselves."
    )
