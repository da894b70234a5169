"""Volumes for other programs: TIFF for ImageJ, VTK image data for ParaView, numpy, and a picture."""

import base64
import logging
import os
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tifffile
import xarray as xr

from scigen.errors import UserError
from scigen.io.archive import PARTIAL
from scigen.io.blocks import values
from scigen.materials.preview import preview
from scigen.materials.scan import Scan, Size, convert
from scigen.materials.volumes import Volume, require_labels

log = logging.getLogger(__name__)

FORMATS = ("tif", "vti", "npz", "png")

SHOWN = 4
"""Volumes on a picture."""

BLOCK = 2**15
"""Bytes that are compressed together in VTK's files, as VTK does."""

DIMS = ("specimen", "member", "z", "y", "x")


def export(ds: xr.Dataset, stem: str | Path, formats: Sequence[str], *, overwrite: bool = False) -> list[Path]:
    """Write volumes in formats of other programs, all files or none.

    `tif` is a stack that ImageJ shows with its voxel size, `vti` VTK's image data with the cell data `phase` (ParaView,
    VisIt), `npz` the arrays `phase`, `voxel_size`, `unit` and `phases`, one file a volume each; `png` is one picture of
    the first 4. Files are `<stem>-<specimen>-<member>.<format>`, or `<stem>.<format>` for a single volume.

    Args:
        ds: variable `phase`, dims (specimen, member, z, y, x) or without the first ones, 0 … P − 1. Attributes
            `voxel_size` along z, y, x, `unit` and `phases`, of the dataset or of the variable, are optional.
        stem: folder and beginning of the names.
        formats: of tif, vti, npz, png.
        overwrite: whether existing files may be replaced.

    Returns:
        The files, format by format.

    Raises:
        UserError: if a format is not known, `ds` has no such variable, its voxels have no phase, or a file exists or
            cannot be written.
    """
    stem = Path(stem).expanduser()
    unknown = [f for f in formats if f not in FORMATS]
    if unknown or isinstance(formats, str):
        raise UserError(f"formats={formats}: expected some of {', '.join(FORMATS)} in a list, such as [tif, vti].")
    array = _labels(ds)
    about = Scan(stem.name, np.empty(0)).about(dict(array.attrs), dict(ds.attrs))
    size, unit = about.voxel_size or (1.0, 1.0, 1.0), about.unit or "voxel"
    places = _places(array)
    names = {place: stem.name if len(places) == 1 else f"{stem.name}-{place}" for place in places}
    paths = {(f, place): stem.with_name(f"{names[place]}.{f}") for f in formats if f != "png" for place in places}
    picture = stem.with_name(f"{stem.name}.png")
    every = [*dict.fromkeys([*paths.values(), *([picture] if "png" in formats else [])])]
    for path in every:
        if path.exists() and not overwrite:
            raise UserError(f"The output {path} exists: choose another name, or set overwrite=true to replace it.")
    phases = list(about.phases or ())
    partial = {path: path.with_name(f"{path.name}{PARTIAL}") for path in every}
    partial[picture] = stem.with_name(f"{stem.name}{PARTIAL}.png")
    shown: list[Volume] = []
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for place, index in places.items():
            grey = values(array.isel(index), f"'phase' of {names[place]}")
            volume = Volume(names[place], require_labels(grey, names[place], len(phases) or 256), size, unit)
            for (f, at), path in paths.items():
                if at == place:
                    WRITERS[f](partial[path], volume, phases)
            if len(shown) < SHOWN and "png" in formats:
                shown.append(volume)
        if shown:
            _draw(partial[picture], shown, phases)
        for path in every:
            os.replace(partial[path], path)
    except OSError as error:
        raise UserError(
            f"Cannot write {stem}: {error.strerror or error}. Make room, or choose a folder that can be written."
        ) from error
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    return every


def write_tif(path: Path, volume: Volume, phases: Sequence[str]) -> None:
    """A stack with ImageJ's calibration, shown from the first phase (black) to the last (white)."""
    size, unit = imagej_size(volume)
    top = float(max(len(phases) - 1, int(volume.labels.max(initial=1))))
    about = {"axes": "ZYX", "spacing": size[0], "unit": "pixel" if unit == "voxel" else unit, "min": 0.0, "max": top}
    if unit == "voxel" and size == (1.0, 1.0, 1.0):
        about.pop("unit")
    tifffile.imwrite(path, volume.labels, imagej=True, resolution=(1 / size[2], 1 / size[1]), metadata=about)


def imagej_size(volume: Volume) -> tuple[Size, str]:
    """Voxel size and unit as ImageJ can keep them, which is as ratios of 32-bit numbers: 2e-6 m become 2 um.

    Raises:
        UserError: if no unit makes the numbers fit.
    """
    for unit in (volume.unit, "um", "nm", "mm", "m"):
        if unit == volume.unit:
            size = volume.voxel_size
        elif volume.unit == "voxel":
            break
        else:
            z, y, x = (convert(s, volume.unit, unit) for s in volume.voxel_size)
            size = z, y, x
        if all(1e-4 <= s <= 1e5 for s in size):
            return size, unit
    raise UserError(
        f"A voxel of {volume.voxel_size} {volume.unit} has no size that TIFF can keep, 0.0001 to 100000 of a unit: "
        "correct voxel_size, or choose another format."
    )


def write_vti(path: Path, volume: Volume, phases: Sequence[str]) -> None:
    """VTK's XML image data: one cell a voxel, x fastest, in blocks compressed by zlib."""
    z, y, x = volume.labels.shape
    extent = f"0 {x} 0 {y} 0 {z}"
    root = ET.Element(
        "VTKFile", type="ImageData", version="1.0", byte_order="LittleEndian", header_type="UInt64",
        compressor="vtkZLibDataCompressor",
    )  # fmt: skip
    spacing = " ".join(f"{s:.12g}" for s in reversed(volume.voxel_size))
    image = ET.SubElement(root, "ImageData", WholeExtent=extent, Origin="0 0 0", Spacing=spacing)
    piece = ET.SubElement(image, "Piece", Extent=extent)
    cells = ET.SubElement(piece, "CellData", Scalars="phase")
    ET.SubElement(cells, "DataArray", type="UInt8", Name="phase", format="binary").text = _blocks(volume.labels)
    if phases:
        root.insert(0, ET.Comment(" " + re.sub("-+", "-", ", ".join(f"{i} {p}" for i, p in enumerate(phases))) + " "))
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def write_npz(path: Path, volume: Volume, phases: Sequence[str]) -> None:
    """numpy's archive: `phase` (Z, Y, X), `voxel_size` (3,), `unit` and `phases`, without pickled objects."""
    named = {"phases": np.array(list(phases), np.str_)} if phases else {}
    size, unit = np.array(volume.voxel_size), np.array(volume.unit, np.str_)
    with path.open("wb") as file:
        np.savez_compressed(file, phase=volume.labels, voxel_size=size, unit=unit, **named)  # type: ignore[arg-type]


WRITERS: dict[str, Callable[[Path, Volume, Sequence[str]], None]] = {
    "tif": write_tif,
    "vti": write_vti,
    "npz": write_npz,
}


def _blocks(labels: np.ndarray) -> str:
    """Labels as VTK's base64: number of blocks, their size, that of the last, compressed sizes; then the blocks."""
    data = labels.tobytes()
    parts = [zlib.compress(data[i : i + BLOCK]) for i in range(0, len(data), BLOCK)]
    head = struct.pack(f"<{3 + len(parts)}Q", len(parts), BLOCK, len(data) % BLOCK, *map(len, parts))
    return (base64.b64encode(head) + base64.b64encode(b"".join(parts))).decode("ascii")


def _labels(ds: xr.Dataset) -> xr.DataArray:
    """The variable `phase`, dims (specimen, member, z, y, x)."""
    if "phase" not in ds.data_vars:
        raise UserError(f"The archive has no variable 'phase': it has {', '.join(map(str, ds.data_vars)) or 'none'}.")
    array = ds["phase"]
    if not {"z", "y", "x"} <= set(array.dims) <= set(DIMS):
        raise UserError(
            f"'phase' has the dimensions {array.dims}, expected {DIMS}, of which the first two may be missing."
        )
    array = array.expand_dims([d for d in DIMS[:2] if d not in array.dims]).transpose(*DIMS)
    if array.size == 0:
        raise UserError(f"'phase' is empty: {dict(array.sizes)}.")
    return array


def _places(array: xr.DataArray) -> dict[str, dict[str, int]]:
    """Where each volume lies, by "<specimen>-<member>"; what cannot be in a file's name becomes an underscore."""
    words: dict[str, list[str]] = {}
    for dim in DIMS[:2]:
        names = array[dim].values if dim in array.coords else np.arange(array.sizes[dim])
        words[dim] = [re.sub(r"[^\w.+=-]+", "_", str(n)) for n in names]
        if len(set(words[dim])) < len(words[dim]):
            words[dim] = list(map(str, range(len(words[dim]))))
    return {
        f"{s}-{m}": {"specimen": i, "member": j}
        for i, s in enumerate(words["specimen"])
        for j, m in enumerate(words["member"])
    }


def _draw(path: Path, volumes: Sequence[Volume], phases: Sequence[str]) -> None:
    """A picture of the first volumes."""
    first = volumes[0]
    count = 1 + max(int(v.labels.max()) for v in volumes)
    names = list(phases) or [f"phase_{i}" for i in range(count)]
    preview([v.labels for v in volumes], path, names, first.voxel_size, first.unit, [v.name for v in volumes])
