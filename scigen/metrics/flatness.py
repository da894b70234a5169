"""Whether a rank histogram is flat, where the points of one sample depend on each other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True)
class Flatness:
    """Pearson's test with the design effect of clustered points.

    Attributes:
        chi_square: close to χ² with M degrees of freedom for a reliable ensemble.
        degrees: M.
        p: probability of so large a value then; NaN where it cannot be said.
    """

    chi_square: float
    degrees: int
    p: float


def flatness(
    rank: ArrayLike, square: ArrayLike, cross: ArrayLike, weight_square: float, samples: int, inflation: float = 1.0
) -> Flatness:
    """Test flatness from sums over samples.

    Pearson's χ² over its mean under flatness, which the scatter of the histograms of single samples tells: M Σ_k (p_k −
    1/(M+1))² / Σ_k Var(p_k) (Rao & Scott 1981, J. Am. Stat. Assoc. 76, first order). For independent points it is
    Pearson's own; the number of cells in a sample does not matter, if they depend on each other.

    Args:
        rank: (M + 1,) Σ h, h the weights of the truths of a sample at each rank.
        square: (M + 1,) Σ h².
        cross: (M + 1,) Σ h w, w the weight of a sample.
        weight_square: Σ w².
        samples: their number.
        inflation: of the variance of a mean over samples by their memory (`scigen.metrics.bootstrap.memory`).
    """
    rank, square, cross = (np.asarray(v, np.float64) for v in (rank, square, cross))
    members = len(rank) - 1
    total = rank.sum()
    if members < 1 or samples < 8 or total <= 0:
        return Flatness(float("nan"), members, float("nan"))
    share = rank / total
    scatter = (square - 2 * share * cross + share**2 * weight_square) / total**2 * samples / (samples - 1)
    variance = float(scatter.sum()) * inflation
    if variance <= 0:
        return Flatness(float("inf"), members, 0.0)
    value = float(members * ((share - 1 / (members + 1)) ** 2).sum() / variance)
    return Flatness(value, members, float(stats.chi2.sf(value, members)))
