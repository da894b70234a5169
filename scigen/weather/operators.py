"""The operators of downscaling: block means, y = A x, and the interpolation that brings y back to the fine cells."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from scigen.core.operator import Operator


class BlockMean(Operator):
    """A: area-weighted means over blocks of factor × factor cells, exact (no noise)."""

    share: Tensor

    def __init__(self, weights: np.ndarray, factor: int) -> None:
        """Set the operator.

        Args:
            weights: cell areas up to a constant, (Y, X), multiples of `factor` in both directions.
            factor: cells a block spans along each axis.
        """
        super().__init__()
        self.factor = factor
        share = torch.from_numpy(np.asarray(weights, dtype=np.float64))
        total = self._spread(self._sum(share[None, None]))[0, 0]
        self.register_buffer("share", share / total)

    def _sum(self, x: Tensor) -> Tensor:
        y, z = x.shape[-2] // self.factor, x.shape[-1] // self.factor
        return x.reshape(*x.shape[:-2], y, self.factor, z, self.factor).sum((-3, -1))

    def _spread(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)

    def forward(self, x: Tensor) -> Tensor:
        """Block means (B, C, Y/f, X/f) of fields (B, C, Y, X)."""
        return self._sum(x * self.share.to(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y: each block's value times its cells' shares, (B, C, Y, X)."""
        return self._spread(y) * self.share.to(y)

    def bind(self, condition: Mapping[str, Tensor]) -> Operator:
        """Of windows of the region, whose cells' shares of their blocks the condition has."""
        if "share" not in condition:
            return self
        bound = BlockMean(np.ones((self.factor, self.factor)), self.factor)
        bound.share = condition["share"]
        return bound

    def inverse(self, y: Tensor) -> Tensor:
        """Block-constant fields (B, C, Y, X) whose block means are y: A inverse(y) = y."""
        return self._spread(y)


class Interpolation(Operator):
    """Bilinear interpolation from block centres to cells.

    Beyond the outer centres the nearest value is kept, or the columns wrap around.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, coarse: tuple[int, int], factor: int, periodic: bool = False) -> None:
        """Set the operator.

        Args:
            coarse: shape of the coarse grid.
            factor: cells a block spans along each axis.
            periodic: whether the last column is a neighbour of the first, as around the globe.
        """
        super().__init__()
        for name, n, wraps in zip(("rows", "columns"), coarse, (False, periodic), strict=True):
            cells = np.arange(n * factor)
            place = (cells + 0.5) / factor - 0.5
            place = place if wraps else place.clip(0, n - 1)
            low = np.floor(place).astype(int)
            matrix = np.zeros((n * factor, n))
            for block, share in ((low, 1 - (place - low)), (low + 1, place - low)):
                matrix[cells, block % n if wraps else block.clip(0, n - 1)] += share
            self.register_buffer(name, torch.from_numpy(matrix))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y/f, X/f) to (B, C, Y, X)."""
        return self.rows.to(x) @ x @ self.columns.to(x).mT

    def adjoint(self, y: Tensor) -> Tensor:
        """(B, C, Y, X) to (B, C, Y/f, X/f)."""
        return self.rows.to(y).mT @ y @ self.columns.to(y)
