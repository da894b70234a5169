"""How a phase hangs together: clusters, percolation, Euler number."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from scigen.materials.indicator import Mask, checked, neighbours, place, wraps

Labels = NDArray[np.int32]


def clusters(phase: Mask, periodic: bool | Sequence[bool] = False) -> tuple[Labels, int]:
    """Clusters of voxels that share faces.

    Args:
        phase: (Z, Y, X).
        periodic: whether voxels of opposite faces touch, along every axis or each.

    Returns:
        (labels (Z, Y, X), 0 outside of the phase and from 1 on in it, number of clusters).
    """
    labels, count = ndimage.label(phase)
    pairs = []
    for axis, wrap in enumerate(wraps(periodic)):
        if wrap:
            first, last = np.take(labels, 0, axis), np.take(labels, -1, axis)
            pairs.append(np.stack([first, last])[:, (first > 0) & (last > 0)])
    if not pairs or count < 2:
        return labels, count
    first, last = np.concatenate(pairs, axis=1)
    graph = sparse.coo_array((np.ones(first.size, np.bool_), (first, last)), (count + 1, count + 1))
    number, same = connected_components(graph, directed=False)
    return same.astype(np.int32)[labels], number - 1  # 0 stands alone, and is found first


def spanning(phase: Mask, axis: int, periodic: bool | Sequence[bool] = False) -> Mask:
    """The voxels (Z, Y, X) of those clusters that touch both faces of an axis.

    The axis itself is open, whatever `periodic` says of it: a sample between two plates.
    """
    flags = list(wraps(periodic))
    flags[place(axis)] = False
    labels, count = clusters(phase, flags)
    ends = [np.bincount(np.take(labels, i, axis).ravel(), minlength=count + 1) > 0 for i in (0, -1)]
    both = ends[0] & ends[1]
    both[0] = False
    return both[labels]


def percolates(indicator: ArrayLike, periodic: bool | Sequence[bool] = False) -> Mask:
    """Whether some cluster touches both faces, (3,) for z, y, x; the other axes wrap where they are periodic.

    Args:
        indicator: (Z, Y, X).
        periodic: along every axis or each.
    """
    return percolating_fraction(indicator, periodic) > 0


def percolating_fraction(indicator: ArrayLike, periodic: bool | Sequence[bool] = False) -> NDArray[np.float64]:
    """Share of a phase's voxels in clusters that touch both faces, (3,) for z, y, x; 0 of a missing phase."""
    phase = checked(indicator)
    voxels = max(int(phase.sum()), 1)
    return np.array([spanning(phase, axis, periodic).sum() / voxels for axis in range(3)])


def connected(indicator: ArrayLike, periodic: bool | Sequence[bool] = False) -> float:
    """Share of a phase's voxels in its largest cluster; NaN of a missing phase."""
    labels, count = clusters(checked(indicator), periodic)
    if not count:
        return float("nan")
    sizes = np.bincount(labels.ravel())[1:]
    return float(sizes.max() / sizes.sum())


def euler(indicator: ArrayLike, periodic: bool | Sequence[bool] = False) -> NDArray[np.float64]:
    """Euler number a voxel, parts − tunnels + voids, of the union of closed voxels, which a corner suffices to connect.

    Corners − edges + faces − voxels of the union, shared out to the corners of voxels (Ohser & Mücklich 2000,
    Statistical Analysis of Microstructures in Materials Science, section 4.3). Along open axes only corners within the
    volume count, so that what the border cuts adds no bias.

    Args:
        indicator: (…, Z, Y, X).
        periodic: along every axis or each.

    Returns:
        (…) [1 / voxel], per corner; NaN where no corner is within.
    """
    phase = checked(indicator)
    code = phase.astype(np.int64)  # of the eight voxels around a corner
    for axis, wrap in enumerate(wraps(periodic)):
        before, after = neighbours(code, axis, wrap)
        code = before | after << (1 << axis)
    corners = int(np.prod(code.shape[-3:]))
    if not corners:
        return np.full(phase.shape[:-3], np.nan)
    return np.asarray(_euler_of_corners()[code].sum((-3, -2, -1)) / corners)


def _euler_of_corners() -> NDArray[np.float64]:
    """What a corner with each set of voxels around it adds (256,): bit z + 2 y + 4 x is the voxel at (z, y, x)."""
    voxels = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(bool)
    at = np.array([[i >> axis & 1 for axis in range(3)] for i in range(8)])
    out = np.zeros(256)
    for fixed in itertools.product((None, 0, 1), repeat=3):  # cells at the corner: an axis is a point, or either side
        inside = np.ones(8, bool)
        for axis, side in enumerate(fixed):
            if side is not None:
                inside &= at[:, axis] == side
        dimension = 3 - fixed.count(None)
        out += (-0.5) ** dimension * voxels[:, inside].any(1)  # a cell of d dimensions has 2ᵈ corners
    return out
