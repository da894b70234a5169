"""How sure a score, or a ratio of two, is: paired resampling of blocks of samples."""

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


def memory(series: ArrayLike) -> tuple[int, float]:
    """How long a series remembers: the block that a bootstrap of its mean wants, and how much memory inflates variance.

    The automatic choice for circular blocks of Politis & White (2004, Econometric Reviews 23, corrected by Patton et
    al. 2009): autocorrelations up to twice the lag behind which they are all small, under a flat-topped window.

    Args:
        series: (N,) in the order of time; what is not finite is passed over.

    Returns:
        (samples a block, at most a quarter of them; variance of the mean over that of independent samples, at least 1).
    """
    values = np.asarray(series, np.float64)
    values = values[np.isfinite(values)] - (values[np.isfinite(values)].mean() if np.isfinite(values).any() else 0.0)
    count = values.size
    variance = float(values @ values) / count if count else 0.0
    if count < 8 or variance <= 0:
        return 1, 1.0
    most = min(int(np.ceil(np.sqrt(count))) + max(5, int(np.log10(count))), count - 1)
    spectrum = np.abs(np.fft.rfft(values, 2 * count)) ** 2
    correlation = np.fft.irfft(spectrum)[: most + 1] / count / variance
    small = np.abs(correlation[1:]) < 2 * np.sqrt(np.log10(count) / count)
    run = max(5, int(np.sqrt(np.log10(count))))
    first = next((k for k in range(len(small)) if small[k : k + run].all()), len(small))
    reach = min(2 * max(first, 1), most) if first else 1
    lag = np.arange(1, reach + 1)
    window = np.clip(2 * (1 - lag / reach), 0, 1) * correlation[lag]
    inflation = 1 + 2 * float(window.sum())
    if first == 0 or inflation <= 1:
        return 1, 1.0
    slope = 2 * float((lag * window).sum())
    wanted = (1.5 * slope**2 / inflation**2 * count) ** (1 / 3)
    return int(np.clip(np.ceil(wanted), 1, max(count // 4, 1))), inflation


def resampled(series: ArrayLike, *, draws: int = 1000, block: int = 1, seed: int = 0) -> np.ndarray:
    """Means of resampled series, all series in the same draws: (draws, K).

    Args:
        series: (N, K), a row a sample.
        draws: resamples, each of circular blocks.
        block: samples a block.
        seed: of the resampling.
    """
    series = np.asarray(series, np.float64)
    count = len(series)
    blocks = -(-count // block)
    rng = np.random.default_rng(seed)
    out = np.empty((draws, series.shape[1]))
    step = max(1, BATCH // max(count, 1))
    for lo in range(0, draws, step):
        many = min(step, draws - lo)
        start = rng.integers(0, count, (many, blocks)) + count * np.arange(many)[:, None]
        begun = np.bincount(start.ravel(), minlength=many * count).reshape(many, count)
        around = np.cumsum(np.concatenate([begun[:, count - block + 1 :], begun], 1), 1)
        times = around[:, block - 1 :].copy()
        times[:, 1:] -= around[:, : count - 1]
        out[lo : lo + many] = times @ series / (blocks * block)
    return out


def _block_sums(values: np.ndarray, block: int) -> np.ndarray:
    """Sum of the `block` values from each start on, going round at the end: (N,)."""
    # plain sums, not differences of cumulative ones: those lose digits and would not be exactly equal for equal series
    return np.sum([np.roll(values, -i) for i in range(block)], axis=0)
