"""A labelled volume, and how grey values become the labels of phases."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scigen.errors import UserError

log = logging.getLogger(__name__)

MOST = 8
"""Distinct grey values up to which an image passes for segmented where no phases are named."""

SLAB = 2**22
"""Voxels that are looked at together, so that a large volume needs little more memory than its own."""

Phases = Mapping[str, int | Sequence[int]]
"""Grey value or values by the name of the phase; the order gives the labels."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A segmented volume.

    Attributes:
        name: where it comes from.
        labels: (Z, Y, X) uint8, 0 … P − 1.
        voxel_size: along z, y, x [unit].
        unit: of lengths; "voxel" where no voxel size is known.
        periodic: along z, y, x: whether the last plane continues in the first.
        group: volumes of one group are made of, or cut from, the same thing and belong to one split; "" for none.
    """

    name: str
    labels: np.ndarray
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    unit: str = "voxel"
    periodic: tuple[bool, bool, bool] = (False, False, False)
    group: str = ""

    def __post_init__(self) -> None:
        """See that it is one.

        Raises:
            ValueError: if labels or voxel size are not as described.
        """
        if self.labels.ndim != 3 or self.labels.dtype != np.uint8:
            raise ValueError(f"labels {self.labels.shape} {self.labels.dtype}: expected (Z, Y, X) uint8")
        if len(self.voxel_size) != 3 or not all(math.isfinite(s) and s > 0 for s in self.voxel_size):
            raise ValueError(f"voxel_size={self.voxel_size}: expected three positive numbers")


def relabel(grey: np.ndarray, phases: Phases | None, name: str, *, absent: bool = False) -> np.ndarray:
    """The labels of a segmented image.

    Args:
        grey: (Z, Y, X), any real type; whole numbers.
        phases: grey values by phase. None takes the distinct values in their order, which is logged.
        name: of the image, for messages.
        absent: whether a phase may be missing, as in one of many volumes.

    Returns:
        (Z, Y, X) uint8: the position of each voxel's phase in `phases`.

    Raises:
        UserError: if the image is no volume, or not segmented (NaN, fractions, more than 8 values and none named), has
            values of no phase, or lacks a phase.
    """
    require_volume(grey, name)
    values, counts = distinct(grey, name)
    table = named(values, name) if phases is None else checked(phases)
    label = {value: i for i, greys in enumerate(table.values()) for value in greys}
    unknown = [(int(n), int(v)) for v, n in zip(values, counts, strict=True) if int(v) not in label]
    if unknown:
        most = ", ".join(f"{v} ({n / grey.size:.2%})" for n, v in sorted(unknown, reverse=True)[:5])
        raise UserError(
            f"{name} holds {len(unknown)} grey value{'s' * (len(unknown) > 1)} of no phase: {most}"
            f"{', …' if len(unknown) > 5 else ''} of the voxels; phases={say(table)}. Add them to a phase, such as "
            "solid: [85, 170], or segment the image first."
        )
    found = set(values.tolist())
    missing = [phase for phase, greys in table.items() if not found & set(greys)]
    if missing and not absent:
        raise UserError(
            f"{name} has no voxel of {', '.join(missing)}: it holds the grey values {', '.join(map(str, values))}, "
            f"phases={say(table)}. Correct the grey values, or leave that phase out."
        )
    positions = np.array([label[int(v)] for v in values], np.uint8)
    out = np.empty(grey.shape, np.uint8)
    for planes in slabs(grey):
        out[planes] = positions[np.searchsorted(values, grey[planes])]
    return out


def require_volume(grey: np.ndarray, name: str) -> None:
    """See that an array can be a grey image with three axes.

    Raises:
        UserError: if it cannot; it says what the array looks like.
    """
    shape = "×".join(map(str, grey.shape)) or "a single number"
    if grey.dtype.kind not in "buif":
        raise UserError(f"{name} holds {grey.dtype}, expected the grey values of a segmented image: whole numbers.")
    if grey.ndim > 2 and grey.shape[-1] in (3, 4):
        raise UserError(
            f"{name} is {shape}: its last axis looks like the colours of an RGB(A) image. Expected (z, y, x) grey "
            "values: save the labels as a greyscale image."
        )
    if grey.ndim < 3:
        raise UserError(
            f"{name} is {shape}, a single page: expected a volume (z, y, x). Give the whole stack, or the folder of "
            "its pages with stack=true."
        )
    if grey.ndim > 3:
        raise UserError(
            f"{name} is {shape}, {grey.ndim} axes: expected one volume (z, y, x). Take one channel and time of it; "
            "several volumes go into one file each, or into zarr or netCDF with the dimensions specimen, z, y, x."
        )
    if grey.size == 0:
        raise UserError(f"{name} is {shape}: it has no voxels.")


def require_labels(grey: np.ndarray, name: str, count: int) -> np.ndarray:
    """Whole numbers 0 … count − 1 of any type as uint8.

    Raises:
        UserError: if there are others, or NaN.
    """
    require_volume(grey, name)
    values, _ = distinct(grey, name)
    if values[0] < 0 or values[-1] >= count:
        raise UserError(f"{name} holds the labels {values[0]} to {values[-1]}, expected 0 to {count - 1}.")
    return grey.astype(np.uint8)


def distinct(grey: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The grey values that occur, in order, and how often.

    Raises:
        UserError: if there are NaN or fractions.
    """
    total: dict[int, int] = {}
    for planes in slabs(grey):
        part = grey[planes]
        if part.dtype.kind == "f":
            _require_whole(grey, part, name)
        if part.dtype.kind in "bu" and part.dtype.itemsize <= 2:
            counts = np.bincount(part.ravel(), minlength=1)
            values = np.flatnonzero(counts)
            counts = counts[values]
        else:
            values, counts = np.unique(part, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            total[int(value)] = total.get(int(value), 0) + count
    ordered = sorted(total)
    fits = all(-(2**63) <= v < 2**63 for v in (ordered[0], ordered[-1]))
    return np.array(ordered, np.int64 if fits else object), np.array([total[v] for v in ordered])


def named(values: np.ndarray, name: str) -> dict[str, tuple[int, ...]]:
    """A phase for each distinct grey value: phase_0, phase_1, … in their order; it is logged.

    Raises:
        UserError: if there are too many values for a segmented image, or one only.
    """
    if len(values) > MOST:
        raise UserError(
            f"{name} has {len(values)} distinct grey values, {values[0]} to {values[-1]}, expected 2 to {MOST}: "
            "it seems to be a greyscale image. Segment it first, or say which values are which phase, "
            "phases={pore: 0, solid: [1, 2]}."
        )
    if len(values) < 2:
        raise UserError(f"{name} is {values[0]} everywhere: expected an image of at least two phases.")
    table: dict[str, tuple[int, ...]] = {f"phase_{i}": (int(v),) for i, v in enumerate(values)}
    log.info("%s: the phases are %s; phases={name: value, …} names them.", name, say(table))
    return table


def checked(phases: Phases) -> dict[str, tuple[int, ...]]:
    """Phases as whole grey values by name.

    Raises:
        UserError: if there are fewer than two, or more than 256, or a grey value is no whole number or given twice.
    """
    table: dict[str, tuple[int, ...]] = {}
    owner: dict[int, str] = {}
    if not 2 <= len(phases) <= 256:
        raise UserError(f"phases={dict(phases)}: expected two or more phases, such as {{pore: 0, solid: 255}}.")
    for phase, given in phases.items():
        greys = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        if not greys or not all(isinstance(g, int | float | np.number) and float(g).is_integer() for g in greys):
            raise UserError(f"phases: {phase}={given} is no grey value: expected a whole number, or a list of them.")
        table[str(phase)] = tuple(int(g) for g in greys)
        for value in table[str(phase)]:
            if value in owner:
                raise UserError(f"phases: the grey value {value} is given to {owner[value]} and to {phase}.")
            owner[value] = str(phase)
    return table


def slabs(grey: np.ndarray) -> Iterator[slice]:
    """Slices along the first axis of at most `SLAB` voxels, or one plane."""
    step = max(SLAB // max(math.prod(grey.shape[1:]), 1), 1)
    for start in range(0, len(grey), step):
        yield slice(start, start + step)


def say(table: Mapping[str, Sequence[int]]) -> str:
    """Phases in words: "{pore: 0, solid: [85, 170]}"."""
    inside = (f"{phase}: {greys[0] if len(greys) == 1 else list(greys)}" for phase, greys in table.items())
    return "{" + ", ".join(inside) + "}"


def _require_whole(grey: np.ndarray, part: np.ndarray, name: str) -> None:
    """Refuse NaN, infinite values and fractions."""
    bad = ~np.isfinite(part)
    if bad.any():
        count = sum(int((~np.isfinite(grey[planes])).sum()) for planes in slabs(grey))
        raise UserError(
            f"{name} is not finite (NaN or infinite) at {count} of {grey.size} voxels: every voxel needs a phase. Fill "
            "them, or cut the volume to where it is known."
        )
    fractions = part[part != np.rint(part)]
    if fractions.size:
        many = len(np.unique(grey))
        raise UserError(
            f"{name} holds fractions such as {fractions[0]:g} ({many} distinct values), expected whole grey values of "
            "a segmented image: segment it first, e.g. by Otsu's threshold, and save the labels as integers."
        )
