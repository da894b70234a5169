"""A part of a region as the codec of the whole would see it: what training on random crops reads and learns from."""

from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scigen.core.codec import Index

if TYPE_CHECKING:
    from scigen.weather.physics import DownscalingCodec


class Window:
    """Rows and columns of a region, whole blocks.

    A rim of one coarse cell is read around it and cut off again, so that what is interpolated is as in the region;
    only what a regression network adds, if it has not been made before, is of the window alone.
    """

    def __init__(self, codec: "DownscalingCodec", low: tuple[int, int], size: tuple[int, int]) -> None:
        """Set the window.

        Args:
            codec: of the whole region.
            low: first row and column, multiples of the factor.
            size: number of rows and columns, multiples of the factor.
        """
        f, outer, inner = codec.factor, [], []
        for first, count, total, wraps in zip(low, size, codec.shape[1:], codec.periodic, strict=True):
            before = f if wraps else min(f, first)
            after = f if wraps else min(f, total - first - count)
            outer.append(np.arange(first - before, first + count + after) % total)
            inner.append(slice(before, before + count))
        self.outer, self.inner = outer, tuple(inner)
        self.coarse = [cells[::f] // f for cells in outer]
        rows, columns = outer
        static = {n: v[rows][:, columns] for n, v in codec.static.items()}
        self.codec = codec.like(grid=codec.grid.take(rows, columns), static=static)

    def encode(self, truth: xr.Dataset, inputs: xr.Dataset, index: Index) -> Tensor:
        """As the codec's: (B, C, *size)."""
        return self._cut(self.codec.encode(self._fine(truth), self._inputs(inputs), index))

    def condition(self, inputs: xr.Dataset, index: Index) -> dict[str, Tensor]:
        """As the codec's, and "share" (B, 1, *size): the cells' shares of their blocks, which the measurement needs."""
        whole = self.codec.condition(self._inputs(inputs), index)
        f = self.codec.factor
        blocks = tuple(slice(s.start // f, s.stop // f) for s in self.inner)
        out = dict(whole)
        for name in ("fields", "base"):
            out[name] = self._cut(whole[name])
        for name in ("measurement", "coarse"):
            if name in whole:
                out[name] = whole[name][..., blocks[0], blocks[1]]
        share = self.codec.mean_operator.share[self.inner].float()
        out["share"] = share.expand(len(whole["fields"]), 1, *share.shape)
        return out

    def _cut(self, fields: Tensor) -> Tensor:
        return fields[..., self.inner[0], self.inner[1]].contiguous(memory_format=torch.contiguous_format)

    def _fine(self, truth: xr.Dataset) -> xr.Dataset:
        return truth.isel(dict(zip(self.codec.grid.dims, self.outer, strict=True)))

    def _inputs(self, inputs: xr.Dataset) -> xr.Dataset:
        """Coarse fields of the blocks, and what is there on the fine grid."""
        places = dict(zip(self.codec.grid.dims, self.coarse, strict=True))
        places |= {d: p for d, p in zip(("fine_y", "fine_x"), self.outer, strict=True) if d in inputs.dims}
        return inputs.isel(places)
