"""Known voxels: the measurement y = A x of the parts of a volume that are given, and random parts to train on."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from scigen.core.operator import Operator

UNKNOWN = 255
"""Label of a voxel that is not known."""


class Known(Operator):
    """A: the values of known voxels, 0 elsewhere; a diagonal projection, its own adjoint and right inverse."""

    def __init__(self, mask: Tensor | None = None) -> None:
        """Set the mask (B, 1, *S), 1 where known; None knows every voxel, until it is bound to a condition."""
        super().__init__()
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) to the same shape."""
        return x if self.mask is None else x * self.mask.to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """The same: A is symmetric."""
        return self(y)

    def inverse(self, y: Tensor) -> Tensor:
        """The same: A A = A, and y is in its range."""
        return self(y)

    def bind(self, condition: Mapping[str, Tensor]) -> "Known":
        """With condition["known"] (B, 1, *S)."""
        return Known(condition["known"])


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
