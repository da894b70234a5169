"""The HDF5 layout of fastMRI: one file a volume; k-space is read from it, reconstructions are written in it.

Zbontar et al. 2018, fastMRI: An Open Dataset and Benchmarks for Accelerated MRI (arXiv:1811.08839).
"""

import contextlib
import json
import logging
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.archive import PARTIAL
from scigen.io.blocks import reading
from scigen.mri.layout import arranged, assemble
from scigen.mri.nifti import NOTICE

log = logging.getLogger(__name__)

SUFFIXES = (".h5", ".hdf5", ".hdf")

TARGETS = ("reconstruction_rss", "reconstruction_esc")

ATTRIBUTES = ("acquisition", "patient_id", "acceleration", "num_low_frequency", "max", "norm")
"""What is kept of the attributes of a file."""


def is_kspace(path: Path) -> bool:
    """Whether an HDF5 file holds a k-space.

    Raises:
        UserError: if it is no HDF5 file, or damaged.
    """
    with _open(path) as file:
        return "kspace" in file


def shape_of(path: Path) -> tuple[int, ...] | None:
    """Shape of the k-space of a file, as it is stored; None if it has none."""
    with _open(path) as file:
        return tuple(file["kspace"].shape) if "kspace" in file else None


def read_fastmri(path: Path, layout: str | None = None, part: slice = slice(None)) -> xr.Dataset:
    """One file as a scan dataset, not checked yet.

    `kspace` (slices, H, W) or (slices, coils, H, W), `mask`, and of `reconstruction_rss` or `reconstruction_esc` the
    `image`, which is a magnitude, are taken. Where the target has fewer rows than k-space, and the mask is of columns,
    the oversampling of the readout is taken away: k-space is cropped to these rows in image space. A target with fewer
    columns is left out, as it is no image of this k-space. Columns that the header says are zero-filled are not
    sampled.

    Args:
        path: of the file.
        layout: axes of `kspace`, where they are others; see `scigen.mri.layout.arranged`.
        part: which slices; others than all only where slices are the first axis.

    Returns:
        Slices "<file stem>/<number>"; the coordinate `patient` (slice,) is the attribute patient_id, else the stem;
        attributes `acquisition` and others as in the file, and `recon_shape`, the rows and columns of the target.

    Raises:
        UserError: if it is damaged, lacks `kspace`, or arrays do not fit.
    """
    with _open(path) as file:
        if "kspace" not in file:
            raise UserError(f"{path} has no dataset 'kspace': it has {', '.join(file) or 'none'}.")
        kspace = arranged(np.asarray(file["kspace"][part]), layout, str(path))
        count = len(file["kspace"])
        mask = np.asarray(file["mask"][()]) if "mask" in file else None
        mask = mask[part] if mask is not None and mask.ndim > 2 and len(mask) == count else mask
        key = next((k for k in TARGETS if k in file), None)
        image = None if key is None else np.asarray(file[key][part])
        header = file["ismrmrd_header"][()] if "ismrmrd_header" in file else None
        attrs = {k: _plain(file.attrs[k]) for k in ATTRIBUTES if k in file.attrs}
    told = {} if header is None else parse_header(header, path)
    width = kspace.shape[-1]
    left, right = told.get("padding", (0, width))
    if 0 <= left < right <= width and right - left < width:
        acquired = (np.arange(width) >= left) & (np.arange(width) < right)
        if mask is None:
            mask = acquired
        elif mask.shape[-1:] == (width,):
            mask = np.where(acquired, mask, np.zeros((), mask.dtype))
        log.info(
            "%s: %d of %d columns are zero-filled by the scanner: not sampled.", path, width - (right - left), width
        )
    shape = image.shape[-2:] if image is not None else told.get("recon", kspace.shape[-2:])
    if shape[0] < kspace.shape[-2] and (mask is None or mask.ndim == 1):
        log.info("%s: the readout is oversampled: cropped from %d rows to %d.", path, kspace.shape[-2], shape[0])
        kspace = without_oversampling(kspace, shape[0])
    if image is not None and image.shape[-2:] != kspace.shape[-2:]:
        log.info("%s: %s is %s, k-space %s: not taken.", path, key, image.shape[-2:], kspace.shape[-2:])
        image = None
    ds = assemble(kspace, str(path), path.stem, mask=mask, image=image)
    ds = ds.assign_coords(
        slice=[f"{path.stem}/{i}" for i in range(part.start or 0, (part.start or 0) + ds.sizes["slice"])]
    )
    patient = str(attrs.get("patient_id", path.stem))
    ds = ds.assign_coords(patient=("slice", np.array([patient] * ds.sizes["slice"], dtype=str)))
    ds.attrs = {**attrs, "recon_shape": [int(min(a, b)) for a, b in zip(shape, kspace.shape[-2:], strict=True)]}
    ds.encoding["source"] = str(path)
    return ds


def parse_header(header: bytes | str, path: Path) -> dict[str, tuple[int, int]]:
    """What the ISMRMRD header says of the matrix; nothing, with a line in the log, if it cannot be understood.

    Args:
        header: XML.
        path: of the file, for messages.

    Returns:
        `recon`: rows and columns of the reconstruction; `padding`: the first acquired column and
        the one after the last.
    """
    space = "{http://www.ismrm.org/ISMRMRD}"

    def number(root: ET.Element, *names: str) -> int:
        found = root.find("/".join([f"{space}encoding", *(space + n for n in names)]))
        if found is None or found.text is None:
            raise ValueError(f"no {'/'.join(names)}")
        return int(found.text)

    try:
        root = ET.fromstring(header)
        step = ("encodingLimits", "kspace_encoding_step_1")
        left = number(root, "encodedSpace", "matrixSize", "y") // 2 - number(root, *step, "center")
        right = left + number(root, *step, "maximum") + 1
        recon = [number(root, "reconSpace", "matrixSize", axis) for axis in "xy"]
    except (ET.ParseError, ValueError, TypeError) as error:
        log.warning("%s: its header cannot be understood (%s): done without.", path, error)
        return {}
    return {"recon": (recon[0], recon[1]), "padding": (left, right)}


def without_oversampling(kspace: np.ndarray, rows: int) -> np.ndarray:
    """k-space whose image is cropped along y to its middle rows; noise and intensities stay as they are.

    Args:
        kspace: (…, ky, kx).
        rows: that remain.
    """
    count = kspace.shape[-2]
    first = count // 2 - rows // 2
    with np.errstate(invalid="ignore"):  # NaN are looked for later: a line with one becomes NaN
        lines = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, -2), axis=-2, norm="ortho"), -2)
        lines = lines[..., first : first + rows, :]
        cut = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(lines, -2), axis=-2, norm="ortho"), -2)
    return cut.astype(np.complex64)


def write_reconstruction(
    path: Path, reconstruction: np.ndarray, attrs: Mapping[str, Any], **extras: np.ndarray
) -> Path:
    """A volume as fastMRI's submissions have it, all of it or nothing.

    Args:
        path: of the file.
        reconstruction: (slices, y, x) magnitude.
        attrs: provenance; what HDF5 cannot keep is written as JSON.
        extras: more datasets: `mean` and `std` (slices, y, x), `ensemble` (slices, member, y, x).

    Returns:
        The path.

    Raises:
        UserError: if it cannot be written.
    """
    partial = path.with_name(f"{path.name}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with h5py.File(partial, "w") as file:
                for name, values in {"reconstruction": reconstruction, **extras}.items():
                    file.create_dataset(name, data=np.asarray(values, np.float32), compression="gzip", shuffle=True)
                for key, value in {**attrs, "notice": NOTICE}.items():
                    kept = isinstance(value, str | int | float | bool | np.number)
                    file.attrs[key] = value if kept else json.dumps(value, default=str)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error}. Make room, or choose a folder that can be written.") from error
    return path


@contextlib.contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, whose damage is a `UserError`."""
    if not h5py.is_hdf5(path):
        raise UserError(f"{path} is no HDF5 file, or damaged at its beginning: fetch or make it again.")
    with reading(str(path)), h5py.File(path, "r") as file:
        yield file


def _plain(value: Any) -> Any:
    """An attribute as a plain number or word."""
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode() if isinstance(value, bytes) else value
