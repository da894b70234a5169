"""Where a phase is: volumes of yes and no, (…, Z, Y, X), and what surrounds them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scigen.errors import UserError

Mask = NDArray[np.bool_]
AXES = ("z", "y", "x")


def checked(indicator: ArrayLike) -> Mask:
    """A phase's indicator as booleans (…, Z, Y, X).

    Raises:
        UserError: if it has no three axes, is empty, or has values other than 0 and 1, such as labels or grey levels.
    """
    values = np.asarray(indicator)
    if values.ndim < 3 or 0 in values.shape[-3:]:
        raise UserError(f"A volume has axes z, y, x of at least one voxel each, got the shape {values.shape}.")
    if values.dtype == np.bool_:
        return values
    if values.dtype.kind not in "iuf" or not np.isin(values, (0, 1)).all():
        raise UserError(
            f"An indicator holds 0 and 1, got {values.dtype} with {_examples(values)}: compare labels with a phase "
            "first, `labels == phase`."
        )
    return values.astype(np.bool_)


def wraps(periodic: bool | Sequence[bool]) -> tuple[bool, bool, bool]:
    """One truth an axis z, y, x.

    Raises:
        UserError: if they are not three.
    """
    if isinstance(periodic, bool | np.bool_):
        return (bool(periodic),) * 3
    flags = tuple(bool(p) for p in periodic)
    if len(flags) != 3:
        raise UserError(f"`periodic` is one truth or three, for z, y, x; got {periodic!r}.")
    return flags[0], flags[1], flags[2]


def spacing(voxel_size: float | Sequence[float]) -> tuple[float, float, float]:
    """Edges of a voxel along z, y, x [length].

    Raises:
        UserError: if they are not three or not positive.
    """
    edges = np.broadcast_to(np.asarray(voxel_size, np.float64), (3,)) if np.size(voxel_size) in (1, 3) else np.zeros(3)
    if not (np.isfinite(edges) & (edges > 0)).all():
        raise UserError(f"A voxel size is one positive length or three, for z, y, x; got {voxel_size!r}.")
    return float(edges[0]), float(edges[1]), float(edges[2])


def neighbours(values: NDArray, axis: int, wrap: bool) -> tuple[NDArray, NDArray]:
    """The two ends (…, Z, Y, X) of every pair of neighbours along an axis, one pair fewer than voxels if it is open."""
    if wrap:
        return values, np.roll(values, -1, axis - 3)
    lines = np.moveaxis(values, axis - 3, -1)
    return np.moveaxis(lines[..., :-1], -1, axis - 3), np.moveaxis(lines[..., 1:], -1, axis - 3)


def place(axis: int) -> int:
    """An axis as 0 (z), 1 (y) or 2 (x).

    Raises:
        UserError: if there is no such axis.
    """
    if axis not in range(-3, 3):
        raise UserError(f"An axis is 0 (z), 1 (y) or 2 (x), got {axis!r}.")
    return axis % 3


def _examples(values: NDArray) -> str:
    """A few of the values that are there."""
    if values.dtype.kind not in "iuf":
        return "no numbers"
    found = np.unique(values[~np.isin(values, (0, 1))])[:3]
    return "values such as " + ", ".join(f"{v:g}" for v in found)
