"""A first look at the truth alone: its range, its climate at every cell, quantiles, missing values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scigen.errors import UserError
from scigen.metrics.histogram import bin_edges
from scigen.metrics.matching import Match
from scigen.metrics.reading import BLOCK_BYTES, read_truth

Array = NDArray[np.float64]

THIN = 2**20
"""Values, evenly spread, that quantiles of the truth are taken from."""


@dataclass(frozen=True)
class Survey:
    """What is known of the truth.

    Attributes:
        edges: of the bins of its histogram, (B + 1,) [units].
        scale: a power of two near its standard deviation; 1 for a constant.
        std: over samples, at each cell, root mean square over cells [units]: the climate's.
        values: a thin, sorted selection of its values [units].
        missing: share of its values that are missing.
        never: share of its cells that have no value in any sample.
    """

    edges: Array
    scale: float
    std: float
    values: Array
    missing: float
    never: float

    def quantiles(self, levels: Sequence[float]) -> Array:
        """Climatological quantiles."""
        return np.quantile(self.values, levels)


def survey(match: Match, budget: int = BLOCK_BYTES) -> Survey:
    """Read the truth once.

    Raises:
        UserError: if it has no value at all.
    """
    samples, cells = len(match.labels), int(np.prod(match.shape, dtype=int))
    step = max(budget // (8 * match.cases * cells), 1)
    low, high = np.inf, -np.inf
    count, total, square = (np.zeros((match.cases, cells)) for _ in range(3))
    thin, base = [], None
    stride = max(samples * match.cases * cells // THIN, 1)
    for lo in range(0, samples, step):
        y = read_truth(match, slice(lo, lo + step)).astype(np.float64)
        good = np.isfinite(y)
        flat = y.ravel()[(-lo * match.cases * cells) % stride :: stride]
        thin.append(flat[np.isfinite(flat)])
        if not good.any():
            continue
        low, high = min(low, float(y[good].min())), max(high, float(y[good].max()))
        base = float(y[good].mean()) if base is None else base  # keeps the digits that 280 K would cost
        d = np.where(good, y - base, 0.0)
        count, total, square = count + good.sum(0), total + d.sum(0), square + (d**2).sum(0)
    if base is None:
        raise UserError(f"'{match.name}' of the truth has no value in any sample that the ensembles have.")
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (square - total**2 / count) / (count - 1)
    climate = float(np.sqrt(max(float(np.nanmean(variance)), 0.0))) if (count > 1).any() else float("nan")
    overall = square.sum() / count.sum() - (total.sum() / count.sum()) ** 2
    scale = float(2.0 ** round(float(np.log2(overall)) / 2)) if overall > 0 else 1.0
    values = np.sort(np.concatenate(thin)) if sum(map(len, thin)) else np.array([low, high])
    missing = 1 - float(count.sum() / (samples * match.cases * cells))
    return Survey(bin_edges(low, high), scale, climate, values, missing, float((count == 0).mean()))
