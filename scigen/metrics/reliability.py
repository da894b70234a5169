"""Probability forecasts of events: Brier score, its decomposition and reliability, from counts that add up."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def brier(counts: ArrayLike) -> dict[str, Array]:
    """Brier score of exceedance with Murphy's decomposition: score = reliability − resolution + uncertainty.

    Args:
        counts: (…, M + 1, 2) weights of points at which k of M members were above, without and with the event.

    Returns:
        (…) each: `score`, `fair` (Ferro 2014: as of infinitely many members; NaN for one), `reliability`,
        `resolution`, `uncertainty` and `skill`, 1 − fair/uncertainty, NaN where the event never or always happens.

    References:
        Murphy (1973), A new vector partition of the probability score, J. Appl. Meteor. 12.
    """
    counts = np.asarray(counts, np.float64)
    members = counts.shape[-2] - 1
    p = np.arange(members + 1) / members
    weight, events = counts.sum(-1), counts[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        total = weight.sum(-1)
        rate = events.sum(-1) / total
        seen = np.where(weight > 0, events / weight, 0.0)
        score = (counts[..., 0] * p**2 + counts[..., 1] * (1 - p) ** 2).sum(-1) / total
        out = {
            "score": score,
            "reliability": (weight * (p - seen) ** 2).sum(-1) / total,
            "resolution": (weight * (seen - rate[..., None]) ** 2).sum(-1) / total,
            "uncertainty": rate * (1 - rate),
        }
        spread = (weight * p * (1 - p)).sum(-1) / total
        out["fair"] = score - spread / (members - 1) if members > 1 else np.full_like(score, np.nan)
        out["skill"] = 1 - (out["fair"] if members > 1 else score) / out["uncertainty"]
    out["skill"] = np.where(out["uncertainty"] > 0, out["skill"], np.nan)
    return out


BINS = 11
"""Of forecast probability, in a reliability diagram."""


def reliability(counts: ArrayLike, bins: int = BINS) -> tuple[Array, Array, Array]:
    """Points of a reliability diagram: at most `bins` bins of forecast probability.

    Args:
        counts: (M + 1, 2) as of `brier`.
        bins: of equal width in probability.

    Returns:
        (mean forecast probability, observed frequency, share of the points), each (bins,); NaN in an empty bin.
    """
    counts = np.asarray(counts, np.float64)
    members = len(counts) - 1
    p = np.arange(members + 1) / members
    place = np.minimum((p * bins).astype(int), bins - 1)
    weight, events, mass = (
        np.bincount(place, v, bins) for v in (counts.sum(-1), counts[:, 1], counts.sum(-1) * p)
    )  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        return mass / weight, events / weight, weight / weight.sum()
