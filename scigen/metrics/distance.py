"""Distances between laws: Wasserstein-1 of one-dimensional marginals, and the energy score of vectors."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scigen.errors import UserError

Array = NDArray[np.float64]


def wasserstein(samples: ArrayLike, quantiles: ArrayLike) -> Array:
    """Wasserstein-1 distance ∫ |F⁻¹(p) − G⁻¹(p)| dp of one-dimensional laws, along axis 0.

    Args:
        samples: (N, …) draws [units], in any order.
        quantiles: (N, …) the other law: its quantiles at (i + ½)/N, or as many draws of it [units].

    Returns:
        (…) distances [units].

    Raises:
        UserError: if the two have different shapes.
    """
    samples, quantiles = np.asarray(samples, np.float64), np.asarray(quantiles, np.float64)
    if samples.shape != quantiles.shape or not samples.shape[:1] or not len(samples):
        raise UserError(f"A Wasserstein distance needs as many draws of both laws: {samples.shape}, {quantiles.shape}.")
    return np.abs(np.sort(samples, 0) - np.sort(quantiles, 0)).mean(0)


def energy_score(members: ArrayLike, truth: ArrayLike) -> Array:
    """Energy score of vectors, fair to ensembles of any size; in one dimension it is the fair CRPS.

    mean_i ‖x_i − y‖ − 1/(2 M (M−1)) Σ_ij ‖x_i − x_j‖. Unlike the CRPS of every coefficient it sees the joint law.

    Args:
        members: (M, …, n) [units], M at least 2.
        truth: (…, n) [units].

    Returns:
        The score at each point (…) [units], smaller is better; a single point can come out negative.

    Raises:
        UserError: for fewer than two members.

    References:
        Gneiting & Raftery (2007), Strictly proper scoring rules, prediction, and estimation, J. Am. Stat. Assoc. 102,
        eq. 22.
    """
    members, truth = np.asarray(members, np.float64), np.asarray(truth, np.float64)
    count = len(members)
    if count < 2:
        raise UserError(f"The energy score needs at least two members, got {count}.")
    error = np.linalg.norm(members - truth, axis=-1).mean(0)
    apart = sum(np.linalg.norm(members - np.roll(members, shift, 0), axis=-1).sum(0) for shift in range(1, count))
    return error - apart / (2 * count * (count - 1))
