"""A coarse archive and a fine one brought to the times and cells that both cover."""

import logging

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.weather.coarsen import check_factor
from scigen.weather.grid import TOLERANCE, Fit, Grid, spacing

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


def common_cells(fine: xr.Dataset, coarse: xr.Dataset, factor: int | None) -> tuple[xr.Dataset, xr.Dataset, int]:
    """The fine cells that fill coarse cells and these, in the order and convention of the fine archive; the factor."""
    mine, theirs = Grid.of(fine), Grid.of(coarse)
    ratios = [spacing(b) / spacing(a) if len(b) > 1 else None for a, b in ((mine.y, theirs.y), (mine.x, theirs.x))]
    known = [r for r in ratios if r is not None] or ([factor] if factor else [])
    deduced = round(known[0]) if known else 0
    told = f"The fine grid has {mine}, the coarse one {theirs}"
    if deduced < 1 or any(abs(r - deduced) > 0.01 * deduced for r in known):
        raise UserError(f"{told}: their spacings are in no whole ratio, the same along both axes. Regrid one of them.")
    if factor is not None and factor != deduced:
        raise UserError(f"{told}: that is a factor of {deduced}, not factor={factor}. Set data.factor={deduced}.")
    check_factor(deduced, mine)
    periods = (None, mine.period[1] if theirs.period[1] else None)
    picks = [
        _blocks_of(a, b, deduced, period)
        for a, b, period in ((mine.y, theirs.y, periods[0]), (mine.x, theirs.x, periods[1]))
    ]
    if any(len(cells) == 0 for _, cells in picks):
        raise UserError(
            f"{told}: no coarse cell is the mean of {deduced} × {deduced} fine cells. The centres of coarse cells "
            "must be the means of the coordinates of the fine cells in them: regrid one of the two."
        )
    for (_, cells), n, dim in zip(picks, theirs.shape, mine.dims, strict=True):
        if len(cells) < n:
            log.info("%d of %d coarse cells along %s lie in the fine grid; the rest is left out.", len(cells), n, dim)
    rows, columns = (np.concatenate([np.arange(s, s + deduced) for s in starts]) for starts, _ in picks)
    left = (mine.shape[0] - len(rows), mine.shape[1] - len(columns))
    if any(left):
        log.info("%d rows and %d columns of the fine grid lie in no coarse cell and are left out.", *left)
    fine = fine.isel({mine.dims[0]: rows, mine.dims[1]: columns})
    blocks = Grid.of(fine).coarse(deduced)
    return fine, Fit(picks[0][1], picks[1][1]).take(coarse, blocks), deduced


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
