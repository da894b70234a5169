"""Joint scores of small pieces of a field: fair energy score and fair variogram score."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIDE = {0: 1, 1: 16, 2: 8, 3: 4}
"""Cells a side of a patch, by the number of space dimensions."""
MOST = 16
"""Patches a field, evenly laid."""
PAIRS = 256
"""Pairs of cells a patch that the variogram score looks at."""


def lay(shape: Sequence[int]) -> NDArray[np.int64]:
    """Cells of patches laid evenly over a field: (patches, cells) positions in the flattened field."""
    dims = len(shape)
    sides = [min(SIDE.get(dims, 2), n) for n in shape]
    each = max(round(MOST ** (1 / max(dims, 1))), 1)
    starts = [np.unique(np.linspace(0, n - s, min(each, n // s)).round().astype(int)) for n, s in zip(shape, sides)]  # noqa: B905
    cells = np.arange(int(np.prod(shape, dtype=int))).reshape(tuple(shape))
    corners = itertools.product(*starts)
    return np.array([cells[tuple(slice(a, a + s) for a, s in zip(c, sides, strict=True))].ravel() for c in corners])


def choose_pairs(sides: Sequence[int]) -> tuple[NDArray[np.int64], Array]:
    """Pairs of cells of a patch, and their weights, one over the distance, adding up to one.

    Args:
        sides: of the patch.

    Returns:
        ((2, Q) positions in the flattened patch, (Q,) weights); all pairs, or `PAIRS` of them chosen once for all.
    """
    places = np.stack(np.unravel_index(np.arange(int(np.prod(sides, dtype=int))), tuple(sides) or (1,)))
    first, second = np.triu_indices(places.shape[1], 1)
    if len(first) > PAIRS:
        chosen = np.sort(np.random.default_rng(0).choice(len(first), PAIRS, replace=False))
        first, second = first[chosen], second[chosen]
    weight = 1 / np.sqrt(((places[:, first] - places[:, second]) ** 2).sum(0))
    return np.stack([first, second]), weight / max(weight.sum(), 1e-300)


def energy_scores(deviation: Array) -> Array:
    """Fair energy scores (…) of deviations from the truth (…, M, n) over √n, so that patches of any size compare.

    mean_i ‖d_i‖ − 1/(2 M (M−1)) Σ_ij ‖d_i − d_j‖; one member gives ‖d‖.
    """
    count, cells = deviation.shape[-2:]
    square = np.einsum("...mn,...mn->...m", deviation, deviation)
    error = np.sqrt(square).mean(-1)
    if count > 1:
        inner = deviation @ np.swapaxes(deviation, -1, -2)
        apart = np.sqrt(np.maximum(square[..., :, None] + square[..., None, :] - 2 * inner, 0))
        apart[..., np.arange(count), np.arange(count)] = 0
        error = error - apart.sum((-1, -2)) / (2 * count * (count - 1))
    return error / np.sqrt(cells)


def variogram_scores(members: Array, truth: Array, pairs: NDArray[np.int64], weights: Array) -> Array:
    """Fair variogram scores of order ½ (…): Σ_q w_q ((√|y_a − y_b| − mean_m √|x_a − x_b|)² − s²/M).

    Without the last term, s² the variance over members (ddof = 1), it is that of Scheuerer & Hamill (2015, Mon. Wea.
    Rev. 143), whose expectation falls with M; one member goes without.

    Args:
        members: (…, M, n).
        truth: (…, n).
        pairs: (2, Q) positions.
        weights: (Q,).
    """
    a, b = pairs
    seen = np.sqrt(np.abs(truth[..., a] - truth[..., b]))
    told = np.sqrt(np.abs(members[..., a] - members[..., b]))
    score = (seen - told.mean(-2)) ** 2
    if members.shape[-2] > 1:
        score = score - told.var(-2, ddof=1) / members.shape[-2]
    return score @ weights
