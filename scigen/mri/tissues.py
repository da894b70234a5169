"""Maps of tissue fractions, as segmentations of real anatomy are: which belong together, and whether they fit."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scigen.errors import UserError
from scigen.mri.contrast import TISSUES
from scigen.mri.finding import find
from scigen.mri.nifti import is_nifti, read_nifti, stem_of

log = logging.getLogger(__name__)

Paths = str | Path | Sequence[str | Path]

ALIASES = {"gm": "grey", "gray": "grey", "wm": "white"}
"""Other names of tissues."""

BRAIN = "brain"
"""Name of the map, or brain-extracted image, whose voxels above zero are the tissues' and the fluid's together."""

BYTES = (100, 255)
"""Whole numbers whose maximum lies above the first, up to the second, are fractions of the second."""

OVERSHOOT = 0.05
"""How far interpolated fractions, or their sum, may leave 0 … 1: they are brought back."""

PLACED = 1e-3
"""Difference of affines [mm] below which grids are one."""

FLUID = 0.5
"""Share of the brain that is left for fluid above which it is doubtful that the skull was taken away."""


@dataclass(frozen=True)
class Anatomy:
    """Tissue fractions of one subject.

    Attributes:
        subject: its name.
        fractions: (z, y, x) float32 by tissue, one of `scigen.mri.contrast.TISSUES`; they sum to 1 at most.
        affine: (4, 4) from voxels x, y, z to mm.
        voxel_size: along z, y, x [mm].
    """

    subject: str
    fractions: Mapping[str, np.ndarray]
    affine: np.ndarray
    voxel_size: tuple[float, float, float]


def subjects(tissues: Mapping[str, Paths]) -> dict[str, dict[str, Path]]:
    """Which files belong together: of each tissue the n-th file by its path, named by what their names share.

    Args:
        tissues: files by tissue: a NIfTI file, a folder, a glob or a list, of one subject each.

    Returns:
        Files by tissue, by subject.

    Raises:
        UserError: for unknown tissues, none that gives signal, files that are no NIfTI, or as many as cannot be paired.
    """
    known = [t for t in TISSUES if t != "background"]
    found: dict[str, list[Path]] = {}
    for told, path in tissues.items():
        name = ALIASES.get(str(told).lower(), str(told).lower())
        if name not in (*known, BRAIN):
            raise UserError(
                f"data.tissues: {told!r} is no tissue: expected gm, wm, {', '.join(known)}, or {BRAIN} for what they"
                " lie in."
            )
        if name in found:
            raise UserError(f"data.tissues: {told!r} is there twice, under two names: give each tissue once.")
        found[name] = find(path)
        for file in found[name]:
            if not is_nifti(file):
                raise UserError(f"data.tissues.{told}: {file} is no NIfTI file: expected .nii or .nii.gz.")
    if not set(found) - {BRAIN}:
        raise UserError("data.tissues has no tissue: give maps, such as {gm: gm.nii.gz, wm: wm.nii.gz}.")
    counts = {name: len(files) for name, files in found.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{n} of {name}" for name, n in counts.items())
        raise UserError(f"data.tissues: there are {told}: give one map of each tissue for each subject.")
    out: dict[str, dict[str, Path]] = {}
    for i in range(next(iter(counts.values()))):
        own = {name: files[i] for name, files in found.items()}
        shared = _shared([stem_of(f) for f in own.values()])
        if shared in out:
            raise UserError(
                f"data.tissues: {', '.join(f.name for f in own.values())} share the name {shared!r} with other files:"
                " begin the names of all maps of a subject alike, and of no other, such as sub-01_gm and sub-01_wm."
            )
        out[shared] = own
    return out


def _shared(names: Sequence[str]) -> str:
    """What all names begin with, up to the last _, - or .; the first one where that is nothing."""
    if len(set(names)) == 1:
        return names[0]
    same = 0
    while all(len(n) > same and n[same] == names[0][same] for n in names):
        same += 1
    return re.sub(r"[_.-]*[^_.-]*$", "", names[0][:same]) or names[0]


def read_anatomy(subject: str, files: Mapping[str, Path]) -> Anatomy:
    """The maps of one subject. With `brain` and without `csf` the fluid is what the other maps leave of the brain.

    Maps of whole numbers up to 255 are divided by that.

    Raises:
        UserError: if maps lie on different grids, or hold what are no fractions.
    """
    fractions: dict[str, np.ndarray] = {}
    first, brain = next(iter(files.values())), None
    shape, affine, size = None, np.eye(4), (1.0, 1.0, 1.0)
    for name, path in files.items():
        values, own, zooms = read_nifti(path)
        if shape is None:
            shape, affine, size = values.shape, own, zooms
        if values.shape != shape:
            told = ["×".join(map(str, s[::-1])) for s in (values.shape, shape)]
            raise UserError(f"{path} has {told[0]} voxels, {first} {told[1]}: bring the maps to one grid.")
        if np.abs(own - affine).max() > PLACED:
            raise UserError(
                f"{path} lies elsewhere than {first}: their affines differ by {np.abs(own - affine).max():.3g} mm:"
                " bring the maps to one grid."
            )
        if values.dtype.kind == "c":
            raise UserError(f"{path} is complex, expected fractions 0 to 1.")
        if name == BRAIN:
            brain = values > 0
        else:
            fractions[name] = _fractions(values, path)
    total = np.sum(list(fractions.values()), axis=0)
    if total.max() > 1 + OVERSHOOT:
        at = tuple(int(i) for i in np.unravel_index(int(total.argmax()), total.shape)[::-1])
        raise UserError(
            f"data.tissues: the maps of {subject} sum to {total.max():.3g} at voxel {at}, expected 1 at most: is one"
            " of them of another kind, or there twice?"
        )
    over = np.maximum(total, 1)
    fractions = {name: f / over for name, f in fractions.items()}
    if brain is not None:
        fractions = {name: f * brain for name, f in fractions.items()}
        if "csf" not in fractions:
            fractions["csf"] = _left(brain, fractions, subject)
    elif "csf" not in fractions:
        log.warning(
            "%s: neither csf nor brain is given: what the maps leave gives no signal, fluid neither. A brain-extracted"
            " image as data.tissues.brain shows where it is.", subject,
        )  # fmt: skip
    if not any(f.any() for f in fractions.values()):
        raise UserError(f"data.tissues: the maps of {subject} are zero everywhere: give maps that hold tissue.")
    return Anatomy(subject, fractions, affine, size)


def _fractions(values: np.ndarray, path: Path) -> np.ndarray:
    """A map within 0 … 1."""
    low, high = float(values.min()) + 0.0, float(values.max()) + 0.0  # no -0
    if BYTES[0] < high <= BYTES[1] and low >= 0 and not (values % 1).any():
        log.info("%s holds whole numbers up to %d: divided by %d.", path, high, BYTES[1])
        return values / np.float32(BYTES[1])
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise UserError(
            f"{path} holds values from {low:.4g} to {high:.4g}, expected fractions 0 to 1: divide them by what stands"
            " for all of a voxel; labels are no fractions, make a map of each."
        )
    return np.clip(values, 0, 1)


def _left(brain: np.ndarray, fractions: Mapping[str, np.ndarray], subject: str) -> np.ndarray:
    """What other tissues leave of the brain."""
    left = (brain - np.sum(list(fractions.values()), axis=0)).clip(0).astype(np.float32)
    share = float(left.sum() / max(brain.sum(), 1))
    log.info("%s: %.0f %% of the brain is left for csf.", subject, 100 * share)
    if share > FLUID:
        log.warning("%s: that is much: is data.tissues.brain brain-extracted? Scalp becomes fluid.", subject)
    return left
