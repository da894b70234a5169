"""What is measured of a volume: known voxels, and the mean that known fractions leave for the others.

A x has x itself at known voxels and, where the volume fractions are told, the mean of x over the others everywhere
else, 0 where they are not: an orthogonal projection, A = Aᵀ = A², so it is its own adjoint and right inverse. Phases
are corners of a simplex, so that the mean of x is a linear function of the volume fractions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from scigen.core.operator import Operator
from scigen.errors import UserError

SHARPNESS = 8.0
"""Of the smooth maximum that counts phases: a voxel of two phases counts as half of each within about a tenth."""

UNKNOWN = 255
"""Label of a voxel that is not known."""


class Known(Operator):
    """A: known voxels, and the mean of the others where fractions are told."""

    def __init__(
        self,
        mask: Tensor | None = None,
        told: Tensor | None = None,
        corners: Tensor | None = None,
        fraction: Tensor | None = None,
    ) -> None:
        """Set what is known.

        Args:
            mask: (B, 1, *S), 1 at known voxels; None knows none.
            told: (B,), whether the mean is known; None: of every sample.
            corners: of the phases, (P, C); None: samples have no phases.
            fraction: of each phase, whose mean samples lack, (B, P), NaN where it is not told.
        """
        super().__init__()
        self.mask, self.told, self.corners, self.fraction = mask, told, corners, fraction

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) to the same shape."""
        axes = tuple(range(2, x.ndim))
        told = 1.0 if self.told is None else self.told.to(x).reshape(-1, *[1] * (x.ndim - 1))
        if self.mask is None:
            return (x.mean(axes, keepdim=True) * told).expand_as(x)
        mask = self.mask.to(x)
        free = 1 - mask
        mean = (x * free).sum(axes, keepdim=True) / free.sum(axes, keepdim=True).clamp_min(1)
        return x * mask + mean * told * free

    def adjoint(self, y: Tensor) -> Tensor:
        """The same: A is symmetric."""
        return self(y)

    def inverse(self, y: Tensor) -> Tensor:
        """The same: A A = A, and y is in its range."""
        return self(y)

    def bind(self, condition: Mapping[str, Tensor]) -> "Known":
        """With condition["known"] (B, 1, *S) and ["fraction"] (B, P), if there are, and condition["told"] (B,)."""
        return Known(condition.get("known"), condition["told"], self.corners, condition.get("fraction"))

    def statistics(self, x: Tensor) -> Tensor | None:
        """Volume fractions (B, P) of the phases that win, smoothed where voxels are nearly undecided; 0 if not told."""
        if self.corners is None or self.fraction is None or self.told is None:
            return None
        corners, told = self.corners.to(x), self.told.to(x)[:, None]
        full = x.movedim(1, -1).flatten(1, -2) + (self.fraction.nan_to_num(0).to(x) @ corners)[:, None]
        return (SHARPNESS * full @ corners.mT).softmax(-1).mean(1) * told


def checked_part(values: np.ndarray, shape: Sequence[int], phases: Sequence[str]) -> np.ndarray:
    """Labels of known voxels (specimens, Z, Y, X) uint8, `UNKNOWN` elsewhere.

    Raises:
        UserError: for another shape, or a label that is none.
    """
    if values.shape != tuple(shape):
        raise UserError(f"known has the shape {values.shape}, expected {tuple(shape)}; {UNKNOWN} where unknown.")
    labels = np.where(np.isfinite(values), values, UNKNOWN)
    bad = np.setdiff1d(np.unique(labels), [*range(len(phases)), UNKNOWN])
    if bad.size:
        raise UserError(
            f"known has the label {bad[0]:g}: expected 0 to {len(phases) - 1} ({', '.join(phases)}), or {UNKNOWN} where"
            " unknown."
        )
    return labels.astype(np.uint8)


def random_part(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A volume of which only a part is known: some planes across one axis, or a box.

    Args:
        labels: (Z, Y, X) uint8.
        rng: draws the part.

    Returns:
        Labels, `UNKNOWN` elsewhere.
    """
    keep = np.zeros(labels.shape, bool)
    axis = int(rng.integers(3))
    n = labels.shape[axis]
    if rng.random() < 0.5:
        planes = rng.choice(n, size=int(rng.integers(1, max(2, n // 8) + 1)), replace=False)
        keep[tuple(planes if a == axis else slice(None) for a in range(3))] = True
    else:
        sides = [int(rng.integers(m // 4, m // 2 + 1)) for m in labels.shape]
        lows = [int(rng.integers(0, m - s + 1)) for m, s in zip(labels.shape, sides, strict=True)]
        keep[tuple(slice(low, low + s) for low, s in zip(lows, sides, strict=True))] = True
    return np.where(keep, labels, UNKNOWN).astype(np.uint8)
