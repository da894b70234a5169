"""Specific surface of a phase by Crofton's formula, and lines where three phases meet.

A surface of density S meets a test line S / 2 times a length, averaged over directions of the line. Thirteen directions
lead from a voxel to its neighbours and back, and each stands for its Voronoi cell on the sphere of directions (Lang,
Ohser & Hilfer 2001, J. Microsc. 203, 303; Ohser & Mücklich 2000, Statistical Analysis of Microstructures in Materials
Science, section 4.2). Isotropic smooth surfaces come out right, where counting faces of voxels gives 3/2 of them; a
plane along the axes comes out 0.927 of itself. `periodic` is one truth or three, for z, y, x; along open axes only
pairs of voxels within the volume count.
"""

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import SphericalVoronoi

from scigen.errors import UserError
from scigen.materials.indicator import checked, neighbours, spacing, wraps

Array = NDArray[np.float64]
SPACE = (-3, -2, -1)
DIRECTIONS = tuple(d for d in itertools.product((-1, 0, 1), repeat=3) if d > (0, 0, 0))


def surface(
    indicator: ArrayLike, voxel_size: float | Sequence[float] = 1.0, periodic: bool | Sequence[bool] = False
) -> Array:
    """Area of the border of a phase a volume [1 / length].

    Args:
        indicator: (…, Z, Y, X).
        voxel_size: edges of a voxel along z, y, x [length].
        periodic: along every axis or each.

    Returns:
        (…), from directions in which there are pairs of voxels; NaN of a single voxel.
    """
    phase, edges, flags = checked(indicator), spacing(voxel_size), wraps(periodic)
    total, weight = np.zeros(phase.shape[:-3]), 0.0
    for direction, share in zip(DIRECTIONS, weights(edges), strict=True):
        one, other = _pair(phase, direction, flags)
        pairs = int(np.prod(one.shape[-3:]))
        if pairs:
            step = float(np.linalg.norm(np.multiply(direction, edges)))
            total += share * np.count_nonzero(one != other, axis=SPACE) / (pairs * step)
            weight += share
    return 2 * total / weight if weight else np.full(phase.shape[:-3], np.nan)


@cache
def weights(edges: tuple[float, float, float]) -> tuple[float, ...]:
    """Shares of the sphere that are nearest to each of the `DIRECTIONS` or its opposite, for voxels of these edges."""
    one = np.array(DIRECTIONS) * np.array(edges)
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    areas = SphericalVoronoi(np.concatenate([one, -one])).calculate_areas()
    half = areas[: len(one)] + areas[len(one) :]
    return tuple(float(a) for a in half / half.sum())


def triple_line(
    labels: ArrayLike, voxel_size: float | Sequence[float] = 1.0, periodic: bool | Sequence[bool] = False
) -> Array:
    """Length of the lines where at least three phases meet a volume [1 / length²].

    Edges of voxels are counted around which the four voxels have three labels or more. Stairs are longer than the
    smooth curve that they follow: 3/2 times for curves in all directions alike, not at all along an axis. Edges across
    which two voxels of one phase face each other, between two other phases, add about 5 % in isotropic structures.

    Args:
        labels: whole numbers (…, Z, Y, X).
        voxel_size: edges of a voxel along z, y, x [length].
        periodic: along every axis or each.

    Returns:
        (…); an axis along which no edge lies within the volume adds nothing.

    Raises:
        UserError: if the labels are no whole numbers.
    """
    values = np.asarray(labels)
    if values.ndim < 3 or values.dtype.kind not in "iub":
        raise UserError(f"Labels are whole numbers (…, Z, Y, X), got {values.dtype} of shape {values.shape}.")
    edges, flags = spacing(voxel_size), wraps(periodic)
    total = np.zeros(values.shape[:-3])
    for axis in range(3):
        one, other = (a for a in range(3) if a != axis)
        corners = [
            corner
            for side in neighbours(values, one, flags[one])
            for corner in neighbours(side, other, flags[other])
        ]  # fmt: skip
        around = np.sort(np.stack(corners), axis=0)
        count = int(np.prod(around.shape[-3:]))
        if count:
            kinds = 1 + (around[1:] != around[:-1]).sum(0)
            total += np.count_nonzero(kinds >= 3, axis=SPACE) / (count * edges[one] * edges[other])
    return total


def _pair(values: NDArray, direction: tuple[int, ...], flags: Sequence[bool]) -> tuple[NDArray, NDArray]:
    """Values at both ends of every pair of voxels that is one step of a direction apart."""
    one = other = values
    for axis, (step, wrap) in enumerate(zip(direction, flags, strict=True)):
        if step:
            ends = [neighbours(v, axis, wrap) for v in (one, other)]
            one, other = (ends[0][0], ends[1][1]) if step > 0 else (ends[0][1], ends[1][0])
    return one, other
