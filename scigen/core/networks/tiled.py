"""A network that runs on tiles of large fields, so that memory holds the features of one tile and not of the field.

Where a pixel of the output sees a finite neighbourhood, each tile is run with that much around it and the result is the
whole field's to rounding. Networks that see all of it (attention, statistics of the field) are run on tiles that
overlap, whose results are blended; the distance from the whole field can be measured.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scigen.core.networks import Condition
from scigen.errors import UserError


@dataclass(frozen=True)
class Span:
    """One tile along one axis.

    Attributes:
        low: first cell that the network is given; negative where the axis wraps around.
        high: cell behind the last; beyond the field where the axis wraps around.
        start: first cell whose result is used.
        stop: cell behind the last.
        weights: of these results, (stop − start,); those of all tiles sum to 1 in every cell.
    """

    low: int
    high: int
    start: int
    stop: int
    weights: Tensor

    def cut(self, x: Tensor, axis: int) -> Tensor:
        """What the network is given of x along this axis."""
        n = x.shape[axis]
        if 0 <= self.low and self.high <= n:
            return x.narrow(axis, self.low, self.high - self.low)
        return x.index_select(axis, torch.arange(self.low, self.high, device=x.device) % n)


class Tiled(nn.Module):
    """A network with the interface, the weights and the state dict of the one inside, run tile by tile.

    Attributes:
        network: the network inside.
        exact: whether tiles with their halo give what the whole field gives, to rounding.
        fixed_size: None: fields may have any size, also around a network that takes one size only.
        multiple: of the network inside.
        periodic: whether it wraps around along each axis.
        radius: of the network inside, None if it sees the whole field.
    """

    fixed_size: tuple[int, ...] | None = None

    def __init__(
        self, network: nn.Module, size: int | Sequence[int], *, halo: int | None = None, overlap: int | None = None
    ) -> None:
        """Wrap a network.

        Args:
            network: F(x, c_noise, condition). It is exact if it states a finite `radius` and its `multiple`.
            size: cells of a tile along each axis, or along all. Exact tiles take the next smaller multiple of
                `multiple`, and their halo comes on top.
            halo: cells around an exact tile, a multiple of `multiple`; None for the least that is exact.
            overlap: cells that neighbouring tiles share, at least, and are blended over; None for none where the
                network is exact, else for a quarter of a tile.

        Raises:
            UserError: for sizes that do not fit the network.
        """
        super().__init__()
        inner = network.network if isinstance(network, Tiled) else network
        self.network: nn.Module = inner
        self.size = size if isinstance(size, int) else tuple(size)
        self.multiple: Any = getattr(inner, "multiple", 1)
        self.periodic: tuple[bool, ...] = tuple(getattr(inner, "periodic", ()))
        self.radius: int | None = getattr(inner, "radius", None)
        self.exact, self.overlap = self.radius is not None and overlap is None, overlap
        sides = [self.size] if isinstance(self.size, int) else list(self.size)
        steps = [self.multiple] if isinstance(self.multiple, int) else list(self.multiple)
        if min(sides) < max(steps):
            raise UserError(f"Tiles of {size} cells are too small: this network needs {max(steps)} at least.")
        if overlap is not None and not 0 <= overlap < min(sides):
            raise UserError(f"overlap={overlap} must be from 0 to less than a tile, {min(sides)} cells.")
        if overlap is not None and any(self.periodic):
            raise UserError(
                f"overlap={overlap}: this network wraps around, and would join the ends of a tile: leave it out."
            )
        if halo is not None and (not self.exact or halo < 0 or halo % self.multiple):
            raise UserError(
                f"halo={halo}: tiles have one where the network sees a finite neighbourhood and there is no overlap="
                f" and it is a multiple of {self.multiple}. Leave it out for the right one."
            )
        fixed = getattr(inner, "fixed_size", None)
        if fixed is not None and tuple(fixed) != self.sides(len(fixed)):
            raise UserError(
                f"Tiles of {size} cells: this network was built for fields of {' × '.join(map(str, fixed))} and takes"
                f" no others. Use tiles of that size, or network=unet, whose tiles may have any."
            )
        self.whole_tiles = fixed is not None
        self.halo = -(-(self.radius or 0) // max(steps)) * max(steps) if halo is None else halo

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the network inside: tiles are a way to run it."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Into the network inside."""
        return self.network.load_state_dict(*args, **kwargs)

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition | None = None) -> Tensor:
        """Apply F tile by tile.

        Args:
            x: scaled noisy fields, (B, C, *S).
            c_noise: ¼ ln σ, (B,).
            condition: "fields" (B, K, *S) are cut as x is; all else goes to every tile.

        Raises:
            UserError: if the field does not fit the tiles, or the condition the network.

        Returns:
            (B, C, *S).
        """
        condition = condition or {}
        axes = self.spans(x.shape[2:])
        if all(len(spans) == 1 for spans in axes):
            return self.network(x, c_noise, condition)
        out = None
        for tile in itertools.product(*axes):
            own, part = dict(condition), x
            for axis, span in enumerate(tile, start=2):
                part = span.cut(part, axis)
                if "fields" in own:
                    own["fields"] = span.cut(own["fields"], axis)
            found = self.network(part, c_noise, own)
            for axis, span in enumerate(tile, start=2):
                found = found.narrow(axis, span.start - span.low, span.stop - span.start)
                if not self.exact:
                    found = found * span.weights.to(found).reshape(-1, *[1] * (x.ndim - 1 - axis))
            if out is None:
                out = found.new_zeros(*found.shape[:2], *x.shape[2:])
            out[(..., *[slice(span.start, span.stop) for span in tile])] += found
        assert out is not None
        return out

    def distance(self, x: Tensor, c_noise: Tensor, condition: Condition | None = None) -> float:
        """‖tiled − whole‖ / ‖whole‖ of the network's output: arguments as of the call; the whole field is run once."""
        with torch.no_grad():
            whole = self.network(x, c_noise, condition)
            return float((self(x, c_noise, condition) - whole).norm() / whole.norm())

    def spans(self, shape: Sequence[int]) -> list[list[Span]]:
        """The tiles of fields of this shape (*S), along each axis.

        Raises:
            UserError: if the field is smaller than the only tiles that the network takes, or a periodic axis is no
                multiple of `multiple`.
        """
        sides, steps = self.sides(len(shape)), self._each(self.multiple, len(shape))
        wraps = self.periodic or (False,) * len(shape)
        out = []
        for axis, (n, side, step, wrap) in enumerate(zip(shape, sides, steps, wraps, strict=True)):
            if wrap and n % step:
                raise UserError(f"Axis {axis} of {n} cells wraps around, so it must be a multiple of {step}.")
            if n < side and self.whole_tiles:
                raise UserError(
                    f"Axis {axis} has {n} cells, fewer than the {side} of the tiles that this network takes."
                )
            out.append(self._exact(n, side, step, wrap) if self.exact else self._blended(n, side, step))
        return out

    def _exact(self, n: int, side: int, step: int, wrap: bool) -> list[Span]:
        """Tiles beside each other, each with its halo: cut where the field ends, from the other end where it wraps."""
        side -= side % step
        if side >= n or (wrap and side + 2 * self.halo >= n):
            return [Span(0, n, 0, n, torch.ones(n))]
        out = []
        for start in range(0, n, side):
            stop, low, high = min(start + side, n), start - self.halo, start + side + self.halo
            if wrap:
                high = stop + self.halo
            else:
                low, high = max(low, 0), min(high, n)
            out.append(Span(low, high, start, stop, torch.ones(stop - start)))
        return out

    def _blended(self, n: int, side: int, step: int) -> list[Span]:
        """Tiles of one size that share cells, with weights that rise as sin² over them."""
        if side >= n:
            return [Span(0, n, 0, n, torch.ones(n))]
        overlap = side // 4 if self.overlap is None else self.overlap
        count = math.ceil((n - side) / (side - overlap)) + 1
        starts = [(i * (n - side)) // (count - 1) // step * step for i in range(count - 1)] + [n - side]
        weights = torch.zeros(count, n, dtype=torch.float64)
        for i, start in enumerate(starts):
            ramp = torch.ones(side, dtype=torch.float64)
            for shared, turn in (
                (starts[i - 1] + side - start if i else 0, False),
                (start + side - starts[i + 1] if i + 1 < count else 0, True),
            ):
                rise = torch.sin(math.pi / 2 * (torch.arange(shared, dtype=torch.float64) + 0.5) / max(shared, 1)) ** 2
                edge = torch.cat([rise, rise.new_ones(side - shared)])
                ramp = ramp * (edge.flip(0) if turn else edge)
            weights[i, start : start + side] = ramp
        weights = weights / weights.sum(0)
        return [Span(s, s + side, s, s + side, w[s : s + side]) for s, w in zip(starts, weights, strict=True)]

    def sides(self, space: int) -> tuple[int, ...]:
        """Cells of a tile along each of so many axes."""
        return self._each(self.size, space)

    @staticmethod
    def _each(value: int | Sequence[int], space: int) -> tuple[int, ...]:
        """One number for each axis.

        Raises:
            UserError: for as many as there are no axes.
        """
        out = (value,) * space if isinstance(value, int) else tuple(value)
        if len(out) != space:
            raise UserError(f"{list(out)}: fields have {space} space axes; give one number or as many.")
        return out
