"""Who is trained on, chosen by, tested on: no anatomy in two parts, or, where there are too few, slabs with gaps."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from scigen.errors import UserError

log = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")

APART = 8.0
"""Distance [mm] of slabs: fine structure of slices of a brain that are this far apart correlates with about 0.4."""

UNKNOWN = 2
"""Slices between slabs where nobody knows how far apart they are."""


def parts_of(ds: xr.Dataset, shares: Sequence[float], gap: int | None = None) -> tuple[dict[str, np.ndarray], str]:
    """Positions of the slices of each part.

    Volumes of one patient (coordinate `patient`, else `subject`) stay together, whatever their contrast. Fewer
    patients than parts are each cut across z: training has the first slices, the test the last, and between parts
    `gap` slices are left out, in all volumes of a patient alike. z is the number in a slice's name, "volume/number".

    Args:
        ds: with the coordinates `slice`, `subject` and perhaps `patient`; the attribute `voxel_size`.
        shares: of training, validation, test.
        gap: slices between parts that are left out; None: as many as `APART` has, or `UNKNOWN`.

    Returns:
        Positions by part, and in words how they were divided.

    Raises:
        UserError: if a part would have no slice.
    """
    gap = _slices(ds.attrs.get("voxel_size")) if gap is None else gap
    if gap < 0:
        raise UserError(f"data.gap={gap}: expected 0 or more slices.")
    owner = _words(ds["patient" if "patient" in ds.coords else "subject"])
    names = list(dict.fromkeys(owner.tolist()))
    ends = np.cumsum([0, *np.array(shares) / sum(shares)])
    if len(names) >= len(PARTS):
        unit = np.array([names.index(n) for n in owner])
        edges = np.round(ends * len(names)).astype(int)
        found = {p: np.flatnonzero((unit >= edges[i]) & (unit < edges[i + 1])) for i, p in enumerate(PARTS)}
        return _refuse_empty(found, shares, f"{len(names)} subjects"), f"by subject, of {len(names)}"
    z = _numbers(ds)
    marks = {p: np.zeros(len(z), bool) for p in PARTS}
    for name in names:
        levels = np.unique(z[owner == name])
        first, second = np.round(ends[1:3] * len(levels)).astype(int)
        middle, own = levels[first:second], owner == name
        if len(middle):
            marks["train"] |= own & (z < middle[0] - gap)
            marks["validation"] |= own & (z >= middle[0]) & (z <= middle[-1])
            marks["test"] |= own & (z > middle[-1] + gap)
    kept = {part: np.flatnonzero(where) for part, where in marks.items()}
    _refuse_empty(kept, shares, f"{len(z)} slices with gaps of {gap} (data.gap)")
    spans = ", ".join(f"{p} {z[i].min()} to {z[i].max()}" for p, i in kept.items())
    few = "1 subject is" if len(names) == 1 else f"{len(names)} subjects are"
    rule = f"{few} too few to be split: slabs across z ({spans}), {gap} slices left out between them"
    log.warning("%s. One anatomy is on both sides: the test says little of other subjects.", rule)
    return kept, rule


def _slices(size: Any) -> int:
    """How many slices are to be left out, by voxel sizes (z, y, x) [mm], of all volumes or by volume."""
    told = list(size.values()) if isinstance(size, Mapping) else [] if size is None else [size]
    spacing = [float(np.ravel(s)[0]) for s in told]
    return math.ceil(APART / min(spacing)) if spacing and min(spacing) > 0 else UNKNOWN


def _numbers(ds: xr.Dataset) -> np.ndarray:
    """Of each slice the number in its name, or where one has none all places within their volumes."""
    last = [str(k).rsplit("/", 1)[-1] for k in ds["slice"].values]
    if all(n.isdecimal() for n in last):
        return np.array([int(n) for n in last])
    volume = _words(ds["subject"])
    return np.array([int((volume[:i] == v).sum()) for i, v in enumerate(volume)])


def _words(array: xr.DataArray) -> np.ndarray:
    """Its values as words, of whatever type they are."""
    return np.array([str(v) for v in array.values])


def _refuse_empty(parts: dict[str, np.ndarray], shares: Sequence[float], of: str) -> dict[str, np.ndarray]:
    """See that no part is empty; without a validation nothing can be cut."""
    for name in ("validation", "train", "test"):
        if not len(parts[name]):
            raise UserError(f"data.split={list(shares)} leaves nothing for {name} of {of}: enlarge its share.")
    return parts
