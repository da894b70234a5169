"""Phases from continuous scores: the largest score wins, and biases can make the volume fractions exact."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scigen.errors import UserError

SWEEPS = 200
"""Sweeps over the phases at most; some tens do."""


def counts(fractions: Sequence[float] | np.ndarray, voxels: int) -> NDArray[np.int64]:
    """Whole numbers of voxels nearest to volume fractions, that add up to all of them (largest remainders).

    Args:
        fractions: (P,), at least 0, that add up to 1.
        voxels: of the volume.

    Raises:
        UserError: if they are no fractions, or do not add up to 1 within 1e-4.
    """
    share = np.asarray(fractions, np.float64)
    if not np.isfinite(share).all() or (share < 0).any() or abs(share.sum() - 1) > 1e-4:
        raise UserError(
            f"volume_fraction={[round(float(v), 6) for v in share]} adds up to {share.sum():.6g}: expected numbers from"
            " 0 to 1, one a phase, that add up to 1."
        )
    exact = share / share.sum() * voxels
    whole = np.floor(exact).astype(np.int64)
    short = voxels - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:short]] += 1
    return whole


def largest(scores: np.ndarray) -> NDArray[np.uint8]:
    """The phase with the largest score of each voxel; the first of equals: (P, *S) → (*S) uint8."""
    return np.asarray(scores).argmax(0).astype(np.uint8)


def largest_with(scores: np.ndarray, voxels: Sequence[int] | np.ndarray) -> NDArray[np.uint8]:
    """Phases by the largest biased score, with biases that give every phase exactly its number of voxels.

    One phase after the other gets the bias at which it wins just so many voxels against the others as they are; at a
    fixed point all do. What ties leave open at the end goes to the voxels that lose least.

    Args:
        scores: (P, *S).
        voxels: (P,) numbers of voxels that add up to all.

    Returns:
        Labels (*S) uint8.
    """
    values = np.asarray(scores, np.float64).reshape(len(scores), -1)
    wanted = np.asarray(voxels, np.int64)
    n = values.shape[1]
    if wanted.sum() != n or (wanted < 0).any():
        raise ValueError(f"{wanted} voxels do not add up to {n}")
    shape = np.shape(scores)[1:]
    bias = np.where(wanted > 0, 0.0, -np.inf)
    live = np.flatnonzero(wanted)
    if len(live) == 1:
        return np.full(shape, live[0], np.uint8)
    for _ in range(SWEEPS if len(live) > 2 else 1):
        for p in live[1:] if len(live) == 2 else live:
            rest = np.max([values[q] + bias[q] for q in live if q != p], axis=0)
            margin = values[p] - rest
            k = int(wanted[p])
            cut = np.partition(margin, (n - k - 1, n - k))[n - k - 1 : n - k + 1]
            bias[p] = -0.5 * (cut[0] + cut[1])
        labels = (values + bias[:, None]).argmax(0)
        if np.array_equal(np.bincount(labels, minlength=len(values)), wanted):
            return labels.reshape(shape).astype(np.uint8)
    return _settle(values + bias[:, None], (values + bias[:, None]).argmax(0), wanted).reshape(shape).astype(np.uint8)


def label(
    scores: np.ndarray, fractions: np.ndarray | None, phases: Sequence[str], fixed: np.ndarray | None = None
) -> NDArray[np.uint8]:
    """Labels of one volume.

    Args:
        scores: (P, Z, Y, X).
        fractions: (P,) that are to be met exactly; phases with NaN share what the others leave as they would without.
            None takes the largest scores.
        phases: names, for messages.
        fixed: (Z, Y, X), voxels whose labels stay.

    Raises:
        UserError: if the fixed voxels hold more of a phase than its fraction allows.
    """
    raw = largest(scores)
    if fractions is None or np.isnan(fractions).all():
        return raw
    rest = np.bincount(raw.ravel(), minlength=len(phases)) * np.isnan(fractions)
    left = max(1 - float(np.nansum(fractions)), 0.0)
    share = np.where(np.isnan(fractions), left * rest / max(rest.sum(), 1), fractions)
    wanted = counts(share, raw.size)
    if fixed is None:
        return largest_with(scores, wanted)
    kept = np.bincount(raw[fixed], minlength=len(phases))
    if (kept > wanted).any():
        p = int(np.argmax(kept - wanted))
        raise UserError(
            f"The known voxels hold {kept[p]} of {phases[p]}, more than the {wanted[p]} that its volume fraction"
            f" {share[p]:g} allows: raise it, or leave exact out."
        )
    out = raw.copy()
    out[~fixed] = largest_with(scores[:, ~fixed], wanted - kept)
    return out


def _settle(values: np.ndarray, labels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Move voxels from phases that have too many to those that have too few, the least loss first."""
    while True:
        excess = np.bincount(labels, minlength=len(values)) - wanted
        if not excess.any():
            return labels
        over, under = int(excess.argmax()), int(excess.argmin())
        own = np.flatnonzero(labels == over)
        move = min(excess[over], -excess[under])
        loss = values[over, own] - values[under, own]
        labels[own[np.argsort(loss, kind="stable")[:move]]] = under
