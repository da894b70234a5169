"""Scores of ensembles against the truth: fair CRPS, ranks, coverage and spread–skill, members on axis 0.

The functions take plain arrays and give one number a point, so that any average (over area, over time) can follow.
CRPS alone cannot see a collapsed spread: a Gaussian ensemble with 0.9 of the right spread loses 0.26 % of CRPS. Hence
the others.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from scigen.errors import UserError

Array = NDArray[np.float64]


def fair_crps(members: ArrayLike, truth: ArrayLike) -> Array:
    """Continuous ranked probability score, fair to ensembles of any size: its expectation does not depend on M.

    mean_i |x_i − y| − 1/(2 M (M−1)) Σ_ij |x_i − x_j|, the double sum taken by sorting. One member gives |x − y|.

    Args:
        members: (M, …) [units].
        truth: (…) [units].

    Returns:
        The score at each point (…) [units], smaller is better; a single point can come out negative.

    Raises:
        UserError: if there is no member.

    References:
        Ferro (2014), Fair scores for ensemble forecasts, Q. J. R. Meteorol. Soc. 140, eq. 6 ff.
    """
    truth = np.asarray(truth, np.float64)
    members = np.asarray(members, np.float64)
    count = len(members)
    if count < 1:
        raise UserError("The CRPS needs at least one member, got none: sample with members=2 or more.")
    deviation = np.sort(members - truth, axis=0)  # sorted deviations keep the digits that 280 K would cost
    error = np.abs(deviation).mean(0)
    if count == 1:
        return error
    weight = 2.0 * np.arange(1, count + 1) - count - 1
    return error - np.tensordot(weight, deviation, 1) / (count * (count - 1))


def gaussian_crps(mean: ArrayLike, std: ArrayLike, truth: ArrayLike) -> Array:
    """CRPS of a Gaussian forecast in closed form (Gneiting et al. 2005, eq. 5): the score of infinitely many members.

    Args:
        mean: (…) [units].
        std: (…) [units], zero for a certain forecast.
        truth: (…) [units].

    Returns:
        The score at each point (…) [units].
    """
    mean, std, truth = (np.asarray(v, np.float64) for v in (mean, std, truth))
    error = truth - mean
    z = np.divide(error, std, out=np.zeros(np.broadcast(error, std).shape), where=std > 0)
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    score = std * (z * (2 * special.ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return np.where(std > 0, score, np.abs(error))


def ranks(members: ArrayLike, truth: ArrayLike, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rank of the truth among the members, 0 … M: how many members lie below it, ties broken at random.

    Random ties keep the histogram flat where many values are equal (dry cells), as Hamill (2001) asks.

    Args:
        members: (M, …) [units].
        truth: (…) [units].
        rng: source of the randomness for ties.

    Returns:
        (…) integers in 0 … M.
    """
    members, truth = np.asarray(members), np.asarray(truth)
    below = (members < truth).sum(0)
    equal = (members == truth).sum(0)
    return below + rng.integers(0, equal + 1) if equal.any() else below


def central_interval(members: int, level: float) -> tuple[int, float]:
    """The central interval of order statistics whose coverage comes closest to `level`.

    The truth lies between the k-th smallest and the k-th largest of M exchangeable members with probability
    (M + 1 − 2k)/(M + 1); the widest, k = 1, covers (M − 1)/(M + 1).

    Args:
        members: M, at least 2.
        level: wanted coverage in (0, 1).

    Returns:
        (k, the coverage that it really has). Of two equally close ones the wider.

    Raises:
        UserError: if there are fewer than two members or the level is not within (0, 1).
    """
    if members < 2:
        raise UserError(f"An interval needs at least two members, got {members}: sample with members=19 for 90 %.")
    if not 0 < level < 1:
        raise UserError(f"level={level} must lie between 0 and 1, as in 0.9 for 90 %.")
    k = np.arange(1, members // 2 + 1)
    nominal = (members + 1 - 2 * k) / (members + 1)
    best = int(np.argmin(np.round(np.abs(nominal - level), 12)))
    return int(k[best]), float(nominal[best])


def coverage(histogram: ArrayLike, level: float) -> tuple[Array, float]:
    """Share of truths inside the central interval, read from the rank histogram.

    The truth lies between the k-th smallest and the k-th largest member exactly where its rank is k … M − k; by ranks,
    ties count as the histogram counts them.

    Args:
        histogram: (…, M + 1) counts or shares.
        level: wanted coverage; the interval is that of `central_interval`.

    Returns:
        (share of hits (…), the nominal coverage that a reliable ensemble has).
    """
    histogram = np.asarray(histogram, np.float64)
    members = histogram.shape[-1] - 1
    k, nominal = central_interval(members, level)
    return histogram[..., k : members + 1 - k].sum(-1) / histogram.sum(-1), nominal


def spread_skill(variance: ArrayLike, squared_error: ArrayLike, members: int) -> Array:
    """Spread over error, 1 for a reliable ensemble of any size: √(variance/squared_error · (M+1)/M).

    Below 1 the ensemble is over-confident. Average both inputs first, take the ratio last.

    Args:
        variance: mean variance between members, with ddof = 1 [units²].
        squared_error: mean squared error of the ensemble mean [units²].
        members: M, at least 2; fewer give NaN.

    Returns:
        The ratio.

    References:
        Fortin et al. (2014), Why should ensemble spread match the RMSE of the ensemble mean?, J. Hydrometeor. 15.
    """
    variance, squared_error = np.asarray(variance, np.float64), np.asarray(squared_error, np.float64)
    if members < 2:
        return np.full(np.broadcast(variance, squared_error).shape, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(variance / squared_error * (members + 1) / members)


def rank_deviation(histogram: ArrayLike) -> Array:
    """How far a rank histogram is from flat: Σ_k |p_k − 1/(M+1)|, 0 for flat, near 2 if all truths share one rank.

    Args:
        histogram: (…, M + 1) counts or shares.

    Returns:
        (…) deviations.
    """
    histogram = np.asarray(histogram, np.float64)
    share = histogram / histogram.sum(-1, keepdims=True)
    return np.abs(share - 1 / histogram.shape[-1]).sum(-1)


def rank_chi_square(counts: ArrayLike) -> tuple[float, float]:
    """Pearson's test that a rank histogram is flat; only for independent points (neighbouring cells are not).

    Args:
        counts: (M + 1,) numbers of truths at each rank.

    Returns:
        (χ² with M degrees of freedom, probability of so large a value if the ensemble is reliable).
    """
    result = stats.chisquare(np.asarray(counts, np.float64))
    return float(result.statistic), float(result.pvalue)
