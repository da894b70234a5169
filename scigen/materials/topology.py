"""How a phase hangs together: clusters, percolation, Euler number."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from scigen.materials.indicator import Mask, checked, place, wraps

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
