"""What every point of an ensemble says by itself: CRPS, error, variance, rank, members above thresholds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scigen.metrics.order import sorted_members

PIECE = 2**18
"""Values worked on at a time, few enough for a processor's cache."""


@dataclass(frozen=True)
class Points:
    """Numbers of points (P,), in units of the scale that `of` was given; zero where a value is missing.

    Attributes:
        valid: whether truth and all members have a value.
        crps: fair, as `scigen.metrics.ensemble.fair_crps`.
        error: of the ensemble mean.
        variance: of the members, ddof = 1; zero for one member.
        below: members below the truth.
        equal: members equal to the truth.
        above: (T, P) members above each threshold.
        hit: (T, P) whether the truth is above it.
    """

    valid: NDArray[np.bool_]
    crps: NDArray
    error: NDArray
    variance: NDArray
    below: NDArray[np.int64]
    equal: NDArray[np.int64]
    above: NDArray[np.int64]
    hit: NDArray[np.bool_]

    @classmethod
    def of(cls, members: NDArray, truth: NDArray, thresholds: NDArray, scale: float = 1.0) -> "Points":
        """Judge points.

        Args:
            members: (M, P) [units].
            truth: (P,) [units].
            thresholds: (T,) [units].
            scale: that numbers are divided by [units]; deviations are then held in float32.
        """
        count, points = members.shape
        floats, kinds = np.zeros((3, points), np.float32), np.zeros((2 + len(thresholds), points), np.int64)
        valid = np.zeros(points, bool)
        weight = 2.0 * np.arange(1, count + 1) - count - 1
        step = max(PIECE // count, 1)
        for lo in range(0, points, step):
            cut = slice(lo, lo + step)
            x, y = members[:, cut], truth[cut]
            with np.errstate(invalid="ignore", over="ignore"):
                d = ((x - y) / scale).astype(np.float32, copy=False)
                mean = d.mean(0)
            good = valid[cut] = np.isfinite(mean)
            if not good.all():
                d[:, ~good], mean[~good] = 0, 0
            kinds[0, cut] = (d < 0).sum(0, dtype=np.int16)
            kinds[1, cut] = (d == 0).sum(0, dtype=np.int16)
            for row, level in zip(kinds[2:], thresholds, strict=True):
                row[cut] = (x > level).sum(0, dtype=np.int16)
            floats[1, cut] = mean
            floats[0, cut] = np.abs(d).mean(0)
            if count > 1:
                floats[2, cut] = ((d - mean) ** 2).sum(0) / np.float32(count - 1)
                for w, row in zip(weight, sorted_members(d), strict=True):
                    floats[0, cut] -= np.float32(w / (count * (count - 1))) * row
        hit = truth > np.asarray(thresholds)[:, None]
        return cls(valid, floats[0], floats[1], floats[2], kinds[0], kinds[1], kinds[2:], hit)
