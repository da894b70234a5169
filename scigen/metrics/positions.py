"""Where the cells of one axis lie among those of another one."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

TOLERANCE = 1e-3
"""Two cells are the same if their coordinates differ by less than this share of a cell."""


def find_positions(
    have: ArrayLike, want: ArrayLike, *, period: float | None = None, subset: bool = False
) -> NDArray[np.int64] | None:
    """Positions in `have` of the coordinates `want`, in their order; None if one is missing.

    Args:
        have: (N,) coordinates, in any order.
        want: (K,) likewise.
        period: of the axis, such as 360 for longitudes.
        subset: whether `have` may hold more.
    """
    have, want = np.asarray(have, np.float64), np.asarray(want, np.float64)
    if len(have) < len(want) or (len(have) > len(want) and not subset):
        return None
    step = np.min(np.abs(np.diff(want))) if want.size > 1 else 1.0
    apart = have[None, :] - want[:, None]
    if period:
        apart -= period * np.round(apart / period)
    nearest = np.abs(apart).argmin(1)
    fits = np.abs(apart).min(1).max() <= TOLERANCE * step and len(set(nearest)) == len(want)
    return nearest.astype(np.int64) if fits else None
