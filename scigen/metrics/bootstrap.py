"""How sure a ratio of two scores is: paired resampling of blocks of samples."""

import numpy as np
from numpy.typing import ArrayLike

from scigen.errors import UserError

BATCH = 2**22
"""Random block starts drawn at once, which bounds the memory."""


def ratio_interval(
    a: ArrayLike,
    b: ArrayLike,
    *,
    level: float = 0.95,
    draws: int = 2000,
    block: int = 1,
    seed: int = 0,
    root: bool = False,
) -> tuple[float, float, float]:
    """Ratio of the means of two statistics of the same samples, with a percentile bootstrap interval.

    Both are resampled together (paired), so what makes a sample hard for both contenders cancels. Samples that follow
    each other in time are not independent: draw them in circular blocks (Politis & Romano 1992) longer than their
    memory.

    Args:
        a: (N,) one number a sample, in the order of time.
        b: (N,) likewise, of the reference.
        level: of the interval.
        draws: resamples.
        block: samples a block.
        seed: of the resampling; equal seeds give equal intervals.
        root: the square root of the ratio (spread–skill from variance and squared error).

    Returns:
        (estimate, low, high). Low and high are NaN with fewer than two blocks of samples, when nothing can be said.

    Raises:
        UserError: if the two do not pair up, or an option is out of range.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise UserError(f"Paired resampling needs two equally long series of statistics, got {a.shape} and {b.shape}.")
    if not 0 < level < 1 or draws < 1 or block < 1:
        raise UserError(
            f"Expected 0 < level < 1, draws >= 1, block >= 1: got level={level}, draws={draws}, block={block}."
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = a.mean() / b.mean()
        blocks = -(-a.size // block)
        if blocks < 2:
            ratios = np.full(1, np.nan)
        else:
            sums_a, sums_b = _block_sums(a, block), _block_sums(b, block)
            rng = np.random.default_rng(seed)
            ratios = np.empty(draws)
            step = max(1, BATCH // blocks)
            for lo in range(0, draws, step):
                start = rng.integers(0, a.size, (min(step, draws - lo), blocks))
                ratios[lo : lo + step] = sums_a[start].sum(1) / sums_b[start].sum(1)
        low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
        result = np.array([estimate, low, high])
        estimate, low, high = np.sqrt(result) if root else result
    return float(estimate), float(low), float(high)


def _block_sums(values: np.ndarray, block: int) -> np.ndarray:
    """Sum of the `block` values from each start on, going round at the end: (N,)."""
    # plain sums, not differences of cumulative ones: those lose digits and would not be exactly equal for equal series
    return np.sum([np.roll(values, -i) for i in range(block)], axis=0)
