"""NIfTI-1: magnitude volumes with their place in the world, and maps of an ensemble."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from scigen.errors import UserError
from scigen.io.archive import PARTIAL
from scigen.io.blocks import reading

log = logging.getLogger(__name__)

SUFFIXES = (".nii", ".nii.gz")

NOTICE = "Research use only, not for diagnosis"
"""What every output says."""


def is_nifti(path: Path) -> bool:
    """Whether a file is NIfTI by its name."""
    return path.name.lower().endswith(SUFFIXES)


def stem_of(path: Path) -> str:
    """The name of a file without its suffix, .nii.gz being one."""
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """A volume, turned so that its axes are closest to those of the world.

    Args:
        path: of a .nii or .nii.gz file with three axes.

    Returns:
        The volume (z, y, x), feet to head, back to front, left to right, float32 or complex64; the affine (4, 4) from
        voxels (x, y, z) to mm; voxel sizes along z, y, x [mm].

    Raises:
        UserError: if it is no NIfTI file, damaged, has other axes, or is not finite.
    """
    try:
        image = nibabel.load(path)
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError) as error:
        raise UserError(f"{path} is no NIfTI file ({error}): fetch or make it again.") from error
    with reading(str(path)):
        volume = nibabel.as_closest_canonical(image)
        shape = volume.shape
        if len(shape) > 3 and max(shape[3:]) == 1:
            shape = shape[:3]
        if len(shape) != 3:
            raise UserError(
                f"{path} is {'×'.join(map(str, shape))}, expected a volume with three axes: take one of it."
            )
        values = np.asarray(volume.dataobj).reshape(shape)
    values = values.astype(np.complex64 if values.dtype.kind == "c" else np.float32)
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise UserError(f"{path} is not finite (NaN or infinite) at {count} of {values.size} voxels: mend them.")
    x, y, z = (float(s) for s in volume.header.get_zooms()[:3])
    return values.transpose(2, 1, 0), np.asarray(volume.affine, np.float64), (z, y, x)


def place(slices: np.ndarray, keys: Sequence[str], depth: int | None = None) -> np.ndarray:
    """Slices at their places in a volume; where there is none it is zero.

    Args:
        slices: (slice, y, x).
        keys: "subject/number" of each, the number being z.
        depth: slices of the whole volume; None takes the highest number + 1.

    Returns:
        (z, y, x) float32.

    Raises:
        UserError: if a key has no number, or one that is there twice or beyond the volume.
    """
    number = [_number(k) for k in keys]
    count = max(number) + 1 if depth is None else depth
    if len(set(number)) < len(number) or max(number) >= count:
        raise UserError(f"The slices {', '.join(keys[:5])} do not fit in a volume of {count}: numbers once, from 0 on.")
    volume = np.zeros((count, *slices.shape[1:]), np.float32)
    volume[number] = slices
    return volume


def write_nifti(path: Path, volume: np.ndarray, affine: np.ndarray | None) -> Path:
    """A float32 volume, all of it or nothing.

    Args:
        path: ends with .nii or .nii.gz.
        volume: (z, y, x).
        affine: (4, 4) from voxels (x, y, z) to mm; None is the identity.

    Returns:
        The path.
    """
    suffix = ".nii.gz" if path.name.lower().endswith(".gz") else ".nii"
    partial = path.with_name(f"{stem_of(path)}{PARTIAL}{suffix}")
    image = nibabel.Nifti1Image(volume.astype(np.float32).transpose(2, 1, 0), np.eye(4) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = NOTICE.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        nibabel.save(image, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def write_maps(
    stem: Path, maps: Mapping[str, np.ndarray], affine: np.ndarray | None, about: Mapping[str, Any]
) -> list[Path]:
    """Volumes `<stem>_<name>.nii.gz`, such as mean and std, and a sidecar `<stem>.json` that tells of them.

    Args:
        stem: folder and beginning of the names.
        maps: volumes (z, y, x) by name.
        affine: (4, 4); None is the identity, which the sidecar says.
        about: what else the sidecar says.

    Returns:
        The files, the sidecar last.
    """
    paths = [write_nifti(stem.with_name(f"{stem.name}_{name}.nii.gz"), v, affine) for name, v in maps.items()]
    if affine is None:
        log.info("%s: no affine is known: the identity is taken.", stem)
    told = {
        "Notice": NOTICE,
        "Affine": (np.eye(4) if affine is None else np.asarray(affine)).tolist(),
        "AffineIsIdentity": affine is None,
        "AffineNote": "not known: the identity is assumed" if affine is None else "of the input",
        **about,
    }
    sidecar = stem.with_name(f"{stem.name}.json")
    partial = sidecar.with_name(f"{sidecar.name}{PARTIAL}")
    try:
        partial.write_text(json.dumps(told, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
        os.replace(partial, sidecar)
    finally:
        partial.unlink(missing_ok=True)
    return [*paths, sidecar]


def _number(key: str) -> int:
    """The number at the end of "subject/number"."""
    last = key.rsplit("/", 1)[-1]
    if not last.isdecimal():
        raise UserError(f"The slice '{key}' has no number: expected 'subject/number', such as knee/12.")
    return int(last)
