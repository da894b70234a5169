"""Rotations and reflections of voxel grids that leave a material's law as it is."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scigen.errors import UserError
from scigen.materials.quantities import AXES, DIFFUSIVITY

KINDS = ("isotropic", "transverse", "none")
"""All 48 of the cube; the 16 that keep the z axis; only the identity."""


@dataclass(frozen=True)
class Symmetry:
    """Axes permuted, then flipped.

    Attributes:
        axes: new axis i is old axis axes[i].
        flips: whether new axis i runs backwards.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    def volume(self, labels: np.ndarray) -> np.ndarray:
        """(Z, Y, X) turned."""
        out = labels.transpose(self.axes)
        return out[tuple(slice(None, None, -1) if f else slice(None) for f in self.flips)]

    def values(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Quantities of the turned volume: those of an axis move with it."""
        out = dict(row)
        for name in row:
            if name.startswith(DIFFUSIVITY) and name[-2:] in tuple(f"_{a}" for a in AXES):
                out[name] = row[name[:-1] + AXES[self.axes[AXES.index(name[-1])]]]
        return out


def group(kind: str, shape: Sequence[int], voxel_size: Sequence[float] = (1.0, 1.0, 1.0)) -> list[Symmetry]:
    """The symmetries of a kind that map a block onto itself, the identity first.

    Args:
        kind: of `KINDS`.
        shape: of the block; axes of different length are not exchanged.
        voxel_size: axes of different steps are not exchanged.

    Raises:
        UserError: for an unknown kind.
    """
    if kind not in KINDS:
        raise UserError(f"data.symmetry={kind}: expected one of {', '.join(KINDS)}.")
    if kind == "none":
        return [Symmetry()]
    sides = list(zip(shape, voxel_size, strict=True))
    turns = [(a, b, c) for a, b, c in itertools.permutations((0, 1, 2)) if [sides[i] for i in (a, b, c)] == sides]
    if kind == "transverse":
        turns = [t for t in turns if t[0] == 0]
    flips: list[tuple[bool, bool, bool]] = list(itertools.product((False, True), repeat=3))  # type: ignore[arg-type]
    return [Symmetry(p, f) for p in turns for f in flips]
