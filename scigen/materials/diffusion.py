"""Effective diffusivity of one phase of a labelled volume: the steady Laplace equation on its voxels.

The plates are half a voxel beyond the centres of the first and the last voxels, at the faces of the volume (as in
taufactor, Kench et al. 2023, JOSS 8, 5358). The equation is solved in `conduction.py`.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scigen.errors import UserError
from scigen.materials.conduction import conductance
from scigen.materials.indicator import checked, place, spacing, wraps
from scigen.materials.topology import spanning

Array = NDArray[np.float64]


def effective_diffusivity(
    indicator: ArrayLike,
    axis: int,
    *,
    periodic: bool | Sequence[bool] = False,
    voxel_size: float | Sequence[float] = 1.0,
    tolerance: float = 1e-3,
) -> float:
    """D_eff / D0 of a phase along an axis, the rest not conducting.

    Args:
        indicator: (Z, Y, X), where the phase is.
        axis: 0 (z), 1 (y) or 2 (x), from plate to plate, whether or not it is periodic.
        periodic: whether the sides wrap, along every axis or each; those that do not let nothing through.
        voxel_size: edges of a voxel along z, y, x [any length].
        tolerance: relative error of D_eff, approached from above.

    Returns:
        In [0, 1]: 0 if no cluster touches both plates, 1 of a full block.

    Raises:
        UserError: if the volume is not one of 0 and 1 with three axes, or the tolerance is not in (0, 1).
    """
    phase = checked(indicator)
    if phase.ndim != 3:
        raise UserError(f"One volume (Z, Y, X) at a time, got the shape {phase.shape}.")
    if not 1e-12 <= tolerance < 1:
        raise UserError(f"A tolerance is a relative error in [1e-12, 1), got {tolerance!r}.")
    order = [place(axis), *(a for a in range(3) if a != place(axis))]
    phase = np.ascontiguousarray(phase.transpose(order))
    edges, flags = spacing(voxel_size), wraps(periodic)
    flags = (False, flags[order[1]], flags[order[2]])
    if phase.all():
        return 1.0
    phase = spanning(phase, 0, flags)
    if not phase.any():
        return 0.0
    bonds = [(edges[order[0]] / edges[a]) ** 2 for a in order]
    return conductance(phase, flags, bonds, tolerance) * phase.shape[0] / phase[0].size


def effective_diffusivities(
    volumes: ArrayLike,
    phases: Sequence[int],
    *,
    periodic: bool | Sequence[bool] = False,
    voxel_size: float | Sequence[float] = 1.0,
    tolerance: float = 1e-3,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Array:
    """D_eff / D0 of several phases of many volumes along all axes.

    Args:
        volumes: labels (N, Z, Y, X).
        phases: which labels conduct, one at a time.
        periodic: whether the sides wrap, along every axis or each.
        voxel_size: edges of a voxel along z, y, x [any length].
        tolerance: relative error of D_eff.
        workers: processes, on which the result does not depend. More than one are started anew (`spawn`), so a script
            that asks for them does so under `if __name__ == "__main__":`.
        progress: is told how many volumes are done.

    Returns:
        (N, P, 3), the last axis z, y, x.
    """
    labels = np.asarray(volumes)
    if labels.ndim != 4:
        raise UserError(f"Labels have axes (N, Z, Y, X), got the shape {labels.shape}.")
    solve = partial(_all_axes, phases=tuple(phases), periodic=periodic, voxel_size=voxel_size, tolerance=tolerance)
    out = np.empty((len(labels), len(phases), 3))
    with ExitStack() as stack:
        each: Callable = map
        if workers > 1:
            each = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn"))).map
        for i, row in enumerate(each(solve, labels)):
            out[i] = row
            if progress is not None:
                progress(i + 1)
    return out


def _all_axes(labels: NDArray, *, phases: Sequence[int], **given: Any) -> Array:
    """D_eff / D0 (P, 3) of one volume."""
    rows = [[effective_diffusivity(labels == phase, axis, **given) for axis in range(3)] for phase in phases]
    return np.array(rows, np.float64).reshape(len(phases), 3)


def tortuosity_factor(volume_fraction: ArrayLike, diffusivity: ArrayLike) -> Array:
    """τ = φ / (D_eff / D0), infinite where blocked, NaN where the phase is missing."""
    phi, d = np.broadcast_arrays(np.asarray(volume_fraction, np.float64), np.asarray(diffusivity, np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(phi / d)


def parallel(volume_fraction: ArrayLike) -> Array:
    """Upper bound φ of D_eff / D0 of any structure: straight channels."""
    return np.asarray(volume_fraction, np.float64)


def hashin_shtrikman(volume_fraction: ArrayLike) -> Array:
    """Upper bound 2φ / (3 − φ) of D_eff / D0 of isotropic structures whose rest does not conduct.

    Hashin & Shtrikman 1962, J. Appl. Phys. 33, 3125.
    """
    phi = np.asarray(volume_fraction, np.float64)
    return 2 * phi / (3 - phi)
