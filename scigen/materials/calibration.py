"""How scores become phases: a little smoothing and a bias for each phase, so that volumes are right on average.

A network decides every voxel of an interface by itself, and errs there by a voxel now and then: too much surface, too
long lines where three phases meet. And an error of the mean by half a point moves the two-point function, at every
distance, by several percent of φ(1 − φ). Both are seen in ensembles of held-out specimens, and mended there by a few
numbers that sampling then uses blindly: the width of a Gaussian that smooths the scores, and what is added to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from scigen.materials.surface import surface

WIDTHS = (0.0, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8)
"""Of the Gaussian, voxels, that are tried; below a third it changes nothing."""


@dataclass(frozen=True)
class Calibration:
    """What is done to scores before the largest wins.

    Attributes:
        width: of the Gaussian that smooths them, voxels; 0 for none.
        bias: added to each phase's, (P,); they add up to 0.
    """

    width: float = 0.0
    bias: tuple[float, ...] = ()

    def apply(self, scores: np.ndarray, periodic: Sequence[bool]) -> np.ndarray:
        """Scores (B, P, Z, Y, X) as they are compared."""
        out = smooth(scores, self.width, periodic)
        return out + np.array(self.bias)[:, None, None, None] if self.bias else out


def smooth(scores: np.ndarray, width: float, periodic: Sequence[bool]) -> np.ndarray:
    """Scores (B, P, Z, Y, X), smoothed along their last three axes."""
    if not width:
        return scores
    modes = ["nearest", "nearest", *("wrap" if p else "nearest" for p in periodic)]
    return gaussian_filter(scores, (0, 0, width, width, width), mode=modes)


def calibrate(scores: np.ndarray, truth: np.ndarray, share: np.ndarray, periodic: Sequence[bool]) -> Calibration:
    """The width whose phases have the surface of the truth, then biases that bring the mean fractions to the targets.

    Args:
        scores: of an ensemble, (N, P, Z, Y, X), as the network gives them.
        truth: labels of held-out specimens, (M, Z, Y, X).
        share: volume fractions that were asked for, (N, P); rows with NaN do not count for the biases.
        periodic: whether volumes wrap around along z, y, x.
    """
    phases = scores.shape[1]
    want = _surfaces(truth, phases, periodic)
    tried = []
    for width in WIDTHS:
        labels = smooth(scores, width, periodic).argmax(1)
        tried.append(float(np.abs(np.log(_surfaces(labels, phases, periodic) / want)).mean()))
    width = WIDTHS[int(np.argmin(tried))]
    rows = np.isfinite(share).all(1)
    bias = np.zeros(phases)
    if rows.any():
        smoothed, goal = smooth(scores[rows], width, periodic), share[rows].mean(0)
        for rate in (0.5, 0.5, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1):
            labels = (smoothed + bias[:, None, None, None]).argmax(1)
            gap = goal - np.array([(labels == p).mean() for p in range(phases)])
            near = _slope(smoothed + bias[:, None, None, None])
            bias += rate * gap / max(near, 1e-6)
            bias -= bias.mean()
    return Calibration(width, tuple(float(round(b, 6)) for b in bias))


def _surfaces(labels: np.ndarray, phases: int, periodic: Sequence[bool]) -> np.ndarray:
    """Mean specific surface of every phase, (P,), not quite 0."""
    return np.array([surface(labels == p, 1.0, periodic).mean() for p in range(phases)]) + 1e-9


def _slope(scores: np.ndarray, step: float = 0.02) -> float:
    """Share of voxels whose two best scores are nearer than `step`, over it: how fast biases move fractions."""
    two = np.partition(scores, -2, axis=1)[:, -2:]
    return float((two[:, 1] - two[:, 0] < step).mean() / step)
