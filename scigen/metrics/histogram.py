"""Histograms on fixed bins, which add up over blocks of an archive, and the quantiles read from them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scigen.errors import UserError

Array = NDArray[np.float64]


def bin_edges(low: float, high: float, bins: int = 4096, margin: float = 0.5) -> Array:
    """Equidistant bin edges over [low, high] widened on both sides.

    Args:
        low: smallest expected value [units].
        high: largest expected value [units].
        bins: number of bins; quantiles are good to one bin.
        margin: widening on each side, as a share of the range.

    Returns:
        (bins + 1,) edges [units].

    Raises:
        UserError: if the limits are not finite or in the wrong order.
    """
    if not (np.isfinite([low, high]).all() and low <= high):
        raise UserError(f"A histogram needs finite limits, the lower one first; got {low} and {high}.")
    reach = (high - low) or max(abs(low), 1.0)
    return np.linspace(low - margin * reach, high + margin * reach, bins + 1)


def histogram(values: ArrayLike, edges: Array, weights: ArrayLike = 1.0) -> Array:
    """Weighted counts on equidistant bins, with one open bin at either end.

    Args:
        values: (…) [units].
        edges: (N + 1,) equidistant [units].
        weights: broadcast to the shape of `values`.

    Returns:
        (N + 2,): below the first edge, N bins, at or above the last edge.
    """
    values = np.asarray(values)
    values = values if values.dtype == np.float32 else values.astype(np.float64)
    bins = len(edges) - 1
    low, scale = (values.dtype.type(v) for v in (edges[0], bins / (edges[-1] - edges[0])))
    place = np.floor((values - low) * scale)
    index = (np.clip(place, -1, bins) + 1).astype(np.int64)
    if np.ndim(weights) == 0:
        return np.bincount(index.ravel(), minlength=bins + 2).astype(np.float64) * np.asarray(weights, np.float64)
    weight = np.broadcast_to(np.asarray(weights, np.float64), values.shape)
    return np.bincount(index.ravel(), weight.ravel(), bins + 2).astype(np.float64)


def quantiles(counts: ArrayLike, edges: Array, levels: ArrayLike) -> Array:
    """Quantiles of a histogram, linear within a bin.

    Args:
        counts: (N + 2,) of `histogram`.
        edges: its (N + 1,) edges [units].
        levels: (Q,) in (0, 1).

    Returns:
        (Q,) [units]. A quantile in an open end bin is given as that bin's edge.
    """
    counts = np.asarray(counts, np.float64)
    share = np.cumsum(counts)[:-1] / counts.sum()  # share below each edge
    return np.interp(np.asarray(levels, np.float64), share, edges)
