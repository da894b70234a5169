"""Sorting the members of ensembles: a network of comparisons, point beside point."""

import functools

import numpy as np
from numpy.typing import NDArray

MOST = 64
"""Members up to which a network is faster than sorting each point on its own."""


@functools.cache
def comparators(count: int) -> tuple[tuple[int, int], ...]:
    """Pairs (i, j) whose exchange, where out of order, sorts `count` values: Batcher's merge exchange.

    References:
        Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M.
    """
    pairs: list[tuple[int, int]] = []
    top = 1 << ((count - 1).bit_length() - 1) if count > 1 else 0
    step = top
    while step:
        reach, offset, apart = top, 0, step
        while True:
            pairs += [(i, i + apart) for i in range(count - apart) if i & step == offset]
            if reach == step:
                break
            apart, reach, offset = reach - step, reach >> 1, step
        step >>= 1
    return tuple(pairs)


def sorted_members(values: NDArray) -> list[NDArray]:
    """The order statistics of members, the smallest first; `values` is used up.

    Args:
        values: (M, points); of a size that fits a cache, for speed.

    Returns:
        M arrays (points,).
    """
    if len(values) > MOST:
        return list(np.ascontiguousarray(np.sort(np.ascontiguousarray(values.T), axis=1).T))
    rows, spare = list(values), np.empty_like(values[0])
    for i, j in comparators(len(values)):
        np.minimum(rows[i], rows[j], out=spare)
        np.maximum(rows[i], rows[j], out=rows[j])
        rows[i], spare = spare, rows[i]
    return rows
