"""A coarse archive and a fine one brought to the times and cells that both cover."""

import logging

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.weather.coarsen import check_factor, trim
from scigen.weather.containment import Fit, fit
from scigen.weather.grid import TOLERANCE, Grid, near, spacing
from scigen.weather.regrid import regrid
from scigen.weather.sphere import cell_size

log = logging.getLogger(__name__)


def common_times(fine: xr.Dataset, coarse: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Both at the times that both have."""
    mine, theirs = fine.indexes["time"], coarse.indexes["time"]
    kinds = [str(getattr(i, "calendar", "standard")) for i in (mine, theirs)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"The fine archive has the {kinds[0]} calendar, the coarse one {kinds[1]}: use ds.convert_calendar."
        )
    common = mine.intersection(theirs)
    if len(common) < 2:
        raise UserError(
            f"The fine and the coarse archive share {len(common)} times, and at least 2 are needed: "
            f"fine {mine[0]} to {mine[-1]}, coarse {theirs[0]} to {theirs[-1]}."
        )
    for what, index in (("fine", mine), ("coarse", theirs)):
        if len(common) < len(index):
            log.info("%d of %d times of the %s archive are also in the other.", len(common), len(index), what)
    units = {k: v for k, v in fine["time"].encoding.items() if k in ("units", "calendar")}
    fine, coarse = fine.sel(time=common), coarse.sel(time=common)
    fine["time"].encoding = units
    return fine, coarse


def common_cells(
    fine: xr.Dataset, coarse: xr.Dataset, factor: int | None, method: str | None = None
) -> tuple[xr.Dataset, xr.Dataset, int]:
    """The fine cells that fill coarse cells and these, in the order and convention of the fine archive; the factor.

    Args:
        fine: variables (time, Y, X).
        coarse: the same variables on the coarse grid.
        factor: fine cells per coarse cell along each axis; None takes it from the grids.
        method: of `regrid`, for coarse cells that are no blocks of fine ones; None refuses them.

    Raises:
        UserError: if coarse cells are no blocks and there is no method, or `regrid` refuses.
    """
    mine, theirs = Grid.of(fine), Grid.of(coarse)
    try:
        return _blocks(fine, coarse, mine, theirs, factor)
    except _NoBlocksError as error:
        remedy = "Or set data.regrid=linear (or conservative), and the coarse archive is regridded to data.factor."
        if method is None:
            raise UserError(f"The fine grid has {mine}, the coarse one {theirs}: {error}. {remedy}") from None
    if factor is None:
        raise UserError(
            f"data.regrid={method} needs data.factor=, the fine cells along a block that coarse fields get."
        )
    fine = trim(fine, factor)
    blocks = Grid.of(fine).coarse(factor)
    log.info(
        "The coarse archive (%s) is regridded (%s) to blocks of %d fine cells (%s).", theirs, method, factor, blocks
    )
    return fine, regrid(coarse, blocks, method), factor


class _NoBlocksError(Exception):
    """Coarse cells are no blocks of fine ones; the text says why."""


def _blocks(
    fine: xr.Dataset, coarse: xr.Dataset, mine: Grid, theirs: Grid, factor: int | None
) -> tuple[xr.Dataset, xr.Dataset, int]:
    """What `common_cells` returns where coarse cells are blocks of fine ones."""
    if mine.counted or theirs.counted:
        return _curvilinear_blocks(fine, coarse, theirs, factor)
    ratios = [spacing(b) / spacing(a) if len(b) > 1 else None for a, b in ((mine.y, theirs.y), (mine.x, theirs.x))]
    known = [r for r in ratios if r is not None] or ([factor] if factor else [])
    deduced = round(known[0]) if known else 0
    if deduced < 1 or any(abs(r - deduced) > 0.01 * deduced for r in known):
        raise _NoBlocksError("their spacings are in no whole ratio, the same along both axes. Regrid one of the two")
    if factor is not None and factor != deduced:
        raise _NoBlocksError(f"that is a factor of {deduced}, not factor={factor}. Set data.factor={deduced}")
    check_factor(deduced, mine)
    if mine.closes and theirs.closes:
        fine, mine = _turned(fine, mine, theirs, deduced)
    periods = (None, mine.period[1] if theirs.period[1] else None)
    picks = [
        _blocks_of(a, b, deduced, period)
        for a, b, period in ((mine.y, theirs.y, periods[0]), (mine.x, theirs.x, periods[1]))
    ]
    if any(len(cells) == 0 for _, cells in picks):
        raise _NoBlocksError(
            f"no coarse cell is the mean of {deduced} × {deduced} fine cells; the centres of coarse cells must be the "
            "means of the coordinates of the fine cells in them. Regrid one of the two"
        )
    for (_, cells), n, dim in zip(picks, theirs.shape, mine.dims, strict=True):
        if len(cells) < n:
            log.info("%d of %d coarse cells along %s lie in the fine grid; the rest is left out.", len(cells), n, dim)
    rows, columns = (np.concatenate([np.arange(s, s + deduced) for s in starts]) for starts, _ in picks)
    left = (mine.shape[0] - len(rows), mine.shape[1] - len(columns))
    if any(left):
        log.info("%d rows and %d columns of the fine grid lie in no coarse cell and are left out.", *left)
    fine = fine.isel({mine.dims[0]: rows, mine.dims[1]: columns})
    blocks, own = Grid.of(fine).coarse(deduced), theirs.take(picks[0][1], picks[1][1])
    points = [g.points() for g in (blocks, own)]
    apart = points[0] is not None and points[1] is not None and not near(points[0], points[1], cell_size(points[0]))
    if apart or not mine.projected_as(theirs):
        raise _NoBlocksError("they are two projections. Regrid one of the two")
    return fine, Fit(picks[0][1], picks[1][1]).take(coarse, blocks), deduced


def _curvilinear_blocks(
    fine: xr.Dataset, coarse: xr.Dataset, theirs: Grid, factor: int | None
) -> tuple[xr.Dataset, xr.Dataset, int]:
    """The same on grids that only 2-D coordinates tell: coarse cells are blocks counted from the south-west."""
    sizes = [cell_size(p) if (p := g.points()) is not None else 0.0 for g in (Grid.of(fine), theirs)]
    deduced = factor or (round(sizes[1] / sizes[0]) if all(sizes) else 0)
    if deduced < 1:
        raise _NoBlocksError(
            "one has 1-D and the other 2-D coordinates, or the coarse one a single cell. Give both the same"
        )
    fine = trim(fine, deduced)
    blocks = Grid.of(fine).coarse(deduced)
    found = fit(theirs, blocks, (1.0, 1.0))
    if found is None:
        raise _NoBlocksError(
            f"the coarse cells are not the blocks of {deduced} × {deduced} fine cells, {blocks}. Regrid one of the two"
        )
    return fine, found.take(coarse, blocks), deduced


def _turned(fine: xr.Dataset, mine: Grid, theirs: Grid, factor: int) -> tuple[xr.Dataset, Grid]:
    """A global fine archive cut where coarse cells begin, so that none is lost at the ends; as it is if it is so."""
    columns = np.arange(len(mine.x))
    for first in range(factor):
        order = np.roll(columns, -first)
        lon = np.concatenate([mine.x[first:], mine.x[:first] + np.sign(mine.x[-1] - mine.x[0]) * 360])
        if len(_blocks_of(lon, theirs.x, factor, 360.0)[0]) * factor == len(lon):
            if first == 0:
                break
            log.info("The fine archive is cut at longitude %g, where coarse cells begin.", lon[0])
            dim = mine.dims[1]
            fine = fine.isel({dim: order}).assign_coords({dim: (dim, lon, fine[dim].attrs)})
            return fine, Grid.of(fine)
    return fine, mine


def _blocks_of(
    fine: np.ndarray, coarse: np.ndarray, factor: int, period: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """(first fine cell, coarse cell) of the blocks that lie side by side along one axis, as the fine cells run."""
    means = np.convolve(fine, np.full(factor, 1 / factor), mode="valid")
    apart = coarse[None, :] - means[:, None]
    if period:
        apart -= period * np.round(apart / period)
    starts, cells = np.nonzero(np.abs(apart) <= TOLERANCE * spacing(fine))
    if len(starts) and not np.all(np.diff(starts) == factor):
        starts, cells = starts[:0], cells[:0]
    return starts, cells
