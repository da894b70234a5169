"""Volumes in numpy's files, raw files and HDF5."""

import contextlib
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scigen.errors import UserError
from scigen.io.blocks import reading
from scigen.materials.scan import Scan


def read_npy(path: Path, name: str, shape: Sequence[int] | None) -> list[Scan]:
    """The array of a .npy file.

    Raises:
        UserError: if it is damaged, cut short or holds pickled objects, which are never loaded.
    """
    with _loading(path), path.open("rb") as file:
        values = np.load(file, allow_pickle=False)
    if not isinstance(values, np.ndarray):
        raise UserError(f"{path} is a .npz file by its contents: correct its suffix.")
    return [Scan(name, _shaped(values, shape))]


def read_npz(path: Path, name: str, shape: Sequence[int] | None, variable: str | None) -> list[Scan]:
    """One array of a .npz file: `variable`, or the only one that can be a volume; with `voxel_size`, `unit`, `phases`.

    Raises:
        UserError: as `read_npy`, or if `variable` is not there, or several arrays could be meant.
    """
    with _loading(path), path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise UserError(f"{path} is a .npy file by its contents: correct its suffix.")
        loaded = {key: archive[key] for key in archive.files}
    possible = {k: v for k, v in loaded.items() if v.ndim > 2 or (shape is not None and v.size == math.prod(shape))}
    chosen = choose(list(possible or loaded), variable, path)
    about = {k: v for k, v in loaded.items() if k in ("voxel_size", "unit", "voxel_unit", "phases")}
    return [Scan(name, _shaped(loaded[chosen], shape)).about(about)]


def read_raw(path: Path, name: str, shape: Sequence[int] | None, dtype: str) -> list[Scan]:
    """Numbers without a header, z slowest.

    Raises:
        UserError: if the shape is missing, the type unknown, or the file of another size.
    """
    if shape is None:
        raise UserError(f"{path} has no header: give shape=[z, y, x], and dtype if it is not uint8.")
    try:
        kind = np.dtype(dtype)
    except TypeError as error:
        raise UserError(f"dtype={dtype}: expected a type of numbers, such as uint8, <u2 or float32.") from error
    size, needed = path.stat().st_size, math.prod(shape) * kind.itemsize
    if size != needed:
        fits = [t for t in ("uint8", "uint16", "uint32", "float64") if math.prod(shape) * np.dtype(t).itemsize == size]
        hint = f"; it would fit dtype={fits[0]}" if fits else ""
        raise UserError(
            f"{path} has {size:,} bytes, expected {needed:,} for shape={list(shape)} of {kind}: correct shape or "
            f"dtype{hint}."
        )
    return [Scan(name, np.memmap(path, kind, "r", shape=tuple(shape)))]


def read_hdf5(path: Path, name: str, shape: Sequence[int] | None, variable: str | None) -> list[Scan]:
    """Datasets of an HDF5 file: every one with three axes is a volume, or those that `variable` names.

    Args:
        path: of the file.
        name: of the volume, or the beginning of the names of several.
        shape: (Z, Y, X) of datasets that are stored flat.
        variable: a dataset, or a group whose datasets are meant.

    Raises:
        UserError: if it is no HDF5 file, damaged, or nothing in it can be a volume.
    """
    if not h5py.is_hdf5(path):
        raise UserError(f"{path} is no HDF5 file, or damaged at its beginning: fetch or make it again.")
    with reading(str(path)), h5py.File(path, "r") as file:
        found: dict[str, h5py.Dataset] = {}
        file.visititems(lambda key, item: found.update({key: item}) if isinstance(item, h5py.Dataset) else None)
        keys = [k for k in found if variable is None or (k + "/").startswith(variable.strip("/") + "/")]
        if not keys:
            raise UserError(f"{path} holds no variable={variable}: it has {_some(list(found))}.")
        rank = [k for k in keys if _possible(found[k].shape, shape)] or (keys if variable else [])
        if not rank:
            shapes = ", ".join(f"{k} {'×'.join(map(str, found[k].shape))}" for k in keys[:5])
            raise UserError(
                f"{path} has no dataset with three axes (z, y, x), it has {shapes}. Give the shape=[z, y, x] of flat "
                "ones, or another file."
            )
        return [
            Scan(name if len(rank) == 1 else f"{name}-{key.replace('/', '-')}", _shaped(found[key][()], shape)).about(
                dict(found[key].attrs), dict(file.attrs)
            )
            for key in sorted(rank, key=natural)
        ]


def choose(names: Sequence[str], variable: str | None, path: Path) -> str:
    """The variable that is meant.

    Raises:
        UserError: if it is not there, or none is named and there are several.
    """
    if variable is not None and variable not in names:
        raise UserError(f"{path} has no variable={variable}: it has {_some(names)}.")
    if variable is None and len(names) != 1:
        raise UserError(f"{path} has {_some(names)}: say which is meant, variable=NAME.")
    return names[0] if variable is None else variable


def natural(text: str | Path) -> list[Any]:
    """A key by which page 10 comes after page 9."""
    parts, digits = [""], False
    for c in str(text):
        if c.isdecimal() != digits:
            parts, digits = [*parts, ""], not digits
        parts[-1] += c
    return [(p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts]


def _possible(own: Sequence[int], shape: Sequence[int] | None) -> bool:
    """Whether a dataset can be a volume: three axes that are longer than one, or as many voxels as `shape`."""
    if shape is not None and math.prod(own) == math.prod(shape):
        return True
    return len(own) > 2 and sum(n > 1 for n in own) == 3


def _shaped(values: np.ndarray, shape: Sequence[int] | None) -> np.ndarray:
    """Flat arrays in the given shape; axes of length one beyond the third are dropped."""
    if shape is not None and values.ndim != 3 and values.size == math.prod(shape):
        return values.reshape(tuple(shape))
    return squeezed(values)


def squeezed(values: np.ndarray) -> np.ndarray:
    """Without axes of length one, as long as there are more than three."""
    for axis in reversed(range(values.ndim)):
        if values.ndim > 3 and values.shape[axis] == 1:
            values = values.squeeze(axis)
    return values


@contextlib.contextmanager
def _loading(path: Path) -> Iterator[None]:
    """Turn what numpy raises of a bad file into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of zip, zlib, the header's own parser
        raise _unloadable(path, error) from error


def _unloadable(path: Path, error: Exception) -> UserError:
    """What to say when numpy cannot load a file."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if "pickle" in text.lower() or "object arrays" in text.lower():
        with path.open("rb") as file:
            head = file.read(6)
        if head in (b"\x93NUMPY",) or zipfile.is_zipfile(path):
            return UserError(
                f"{path} holds pickled Python objects, which could run anything and are not loaded: save the numbers "
                "alone, np.save(path, array.astype('uint8'))."
            )
        text = "it does not begin as numpy's files do"
    return UserError(f"{path} seems damaged or cut short ({text}): fetch or make it again.")


def _some(names: Sequence[str]) -> str:
    """The first names of a list, in words."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "") if names else "nothing"
