"""Reading volumes: one file, many files, a folder, a glob, in whichever format they are kept."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from scigen.errors import UserError
from scigen.materials.arrays import read_hdf5, read_npy, read_npz, read_raw
from scigen.materials.finding import SUFFIXES, TIFF, Paths, find, more, names_of
from scigen.materials.scan import Scan, length_unit, settle, three
from scigen.materials.stores import read_store
from scigen.materials.tiff import read_tiff
from scigen.materials.volumes import Phases, Volume, checked, distinct, named, relabel, require_volume

log = logging.getLogger(__name__)

SMALLEST = 8
"""Voxels that a side has at least."""


def read_volumes(
    path: Paths,
    phases: Phases | None = None,
    *,
    voxel_size: float | Sequence[float] | None = None,
    unit: str | None = None,
    shape: Sequence[int] | None = None,
    dtype: str = "uint8",
    variable: str | None = None,
    periodic: bool | Sequence[bool] = False,
    stack: bool | None = None,
) -> tuple[list[Volume], list[str]]:
    """Read segmented volumes.

    TIFF stacks (.tif, .tiff), numpy (.npy, .npz), HDF5 (.h5, .hdf5, .hdf: every dataset with three axes is a volume),
    raw numbers (.raw), zarr (an array, a group, xarray's, OME-Zarr) and netCDF (.nc) are known.

    Args:
        path: a file or store, a folder, a glob, or a list of them; folders of pages are a volume each.
        phases: grey value or values by the name of the phase, in the order of the labels. None takes the names in the
            files, else the distinct values of all volumes.
        voxel_size: one number, or three in the order z, y, x [unit]; None takes what the files say, else 1 voxel.
        unit: of lengths, such as um; sizes in the files are converted to it.
        shape: (Z, Y, X) of raw files, and of flat arrays in others.
        dtype: of raw files.
        variable: dataset, array or variable that is meant, where a file holds several.
        periodic: whether the last plane continues in the first, for all axes or along z, y, x.
        stack: whether all files are pages of one volume, in natural order; None finds out for a folder or glob of TIFF.

    Returns:
        The volumes in natural order of their files, and the names of the phases.

    Raises:
        UserError: if something is missing, damaged, of an unknown kind, not segmented, or too small.
    """
    table = None if phases is None else checked(phases)
    size = None if voxel_size is None else three(voxel_size, "voxel_size")
    unit = None if unit is None else length_unit(unit, "unit")
    shape = None if shape is None else _shape(shape)
    axes = _axes(periodic)
    batches = find(path)
    names = names_of([f for batch in batches for f in batch.files])
    titles = names_of([batch.files[0].parent.resolve() for batch in batches])
    scans = []
    for batch in batches:
        read = [s for f in batch.files for s in _read(f, names[f], shape, dtype, variable)]
        if stack or (stack is None and batch.gathered and _all_pages(batch.files, read)):
            read = [_stacked(batch.files, read, titles[batch.files[0].parent.resolve()])]
        scans += read
    for scan in scans:
        require_volume(scan.values, scan.name)
        if min(scan.values.shape) < SMALLEST:
            raise UserError(
                f"{scan.name} is {_times(scan.values.shape)}: expected at least {SMALLEST} voxels a side. Are its "
                "axes z, y, x?"
            )
    if table is None:
        table = _own_phases(scans)
    unknown = [s.name for s in scans if size is None and s.voxel_size is None]
    if unknown:
        log.info("No voxel size is known of %s%s: 1 voxel is taken.", unknown[0], more(unknown))
    volumes = [
        Volume(
            scan.name,
            relabel(scan.values, {k: list(v) for k, v in table.items()}, scan.name, absent=len(scans) > 1),
            *settle(scan, size, unit),
            axes,
            scan.group,
        )
        for scan in scans
    ]
    _require_phases(volumes, list(table))
    return volumes, list(table)


def _read(path: Path, name: str, shape: tuple[int, ...] | None, dtype: str, variable: str | None) -> list[Scan]:
    """What one file or store holds."""
    if path.is_dir():
        return read_store(path, name, variable)
    match path.suffix.lower():
        case ".tif" | ".tiff":
            return [read_tiff(path, name)]
        case ".npy":
            return read_npy(path, name, shape)
        case ".npz":
            return read_npz(path, name, shape, variable)
        case ".raw":
            return read_raw(path, name, shape, dtype)
        case ".h5" | ".hdf5" | ".hdf":
            return read_hdf5(path, name, shape, variable)
        case ".nc" | ".nc4" | ".netcdf" | ".cdf":
            return read_store(path, name, variable)
    raise UserError(
        f"{path}: volumes do not come in {path.suffix or 'files without a suffix'}, expected one of "
        f"{', '.join(SUFFIXES)}. Convert it, in ImageJ for example: File > Save As > Tiff."
    )


def _all_pages(files: Sequence[Path], scans: Sequence[Scan]) -> bool:
    """Whether all files are TIFF and hold one page each."""
    return all(f.suffix.lower() in TIFF for f in files) and all(s.values.ndim == 2 for s in scans)


def _stacked(files: Sequence[Path], scans: Sequence[Scan], name: str) -> Scan:
    """Pages as one volume."""
    wrong = next((s for s in scans if s.values.ndim != 2), None)
    if wrong is not None:
        raise UserError(
            f"stack=true, but {wrong.name} is {_times(wrong.values.shape)}: expected single pages (y, x). Leave "
            "stack out."
        )
    first = scans[0].values
    for scan in scans:
        if scan.values.shape != first.shape:
            raise UserError(
                f"The pages of {files[0].parent} differ: {scans[0].name} is {_times(first.shape)}, {scan.name} is "
                f"{_times(scan.values.shape)}. Expected pages of one shape: give a narrower glob."
            )
    log.info(
        "%s: %d pages make one volume, %s first, %s last.", files[0].parent, len(files), files[0].name, files[-1].name
    )
    return Scan(name, np.stack([s.values for s in scans]))


def _own_phases(scans: Sequence[Scan]) -> dict[str, tuple[int, ...]]:
    """Phases that the files name, if all name the same; else one for each distinct value of them together."""
    told: Mapping[str, int] | None = scans[0].phases
    if told is not None and all(s.phases == told for s in scans):
        return checked(dict(told))
    every = set[int]()
    for scan in scans:
        every |= set(distinct(scan.values, scan.name)[0].tolist())
    name = scans[0].name if len(scans) == 1 else f"{scans[0].name}{more([s.name for s in scans])}"
    return named(np.array(sorted(every)), name)


def _require_phases(volumes: Sequence[Volume], names: Sequence[str]) -> None:
    """See that every phase occurs somewhere; it is logged where one is missing in some volumes."""
    for i, phase in enumerate(names):
        without = [v.name for v in volumes if not (v.labels == i).any()]
        if len(without) == len(volumes):
            raise UserError(
                f"No volume has a voxel of {phase}: {without[0]}{more(without)}; phases are {', '.join(names)}. "
                "Correct its grey value, or leave that phase out."
            )
        if without:
            log.info("%s%s has no voxel of %s.", without[0], more(without), phase)


def _shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Three positive whole numbers."""
    given = list(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else [shape]
    if len(given) != 3 or not all(isinstance(n, int) and n > 0 for n in given):
        raise UserError(f"shape={shape}: expected three positive whole numbers, [z, y, x].")
    return tuple(given)


def _axes(periodic: bool | Sequence[bool]) -> tuple[bool, bool, bool]:
    """One or three truth values as three."""
    given = [periodic] * 3 if isinstance(periodic, bool) else list(periodic)
    if len(given) != 3 or not all(isinstance(p, bool) for p in given):
        raise UserError(f"periodic={periodic}: expected true, false, or three of them in the order z, y, x.")
    return given[0], given[1], given[2]


def _times(shape: Sequence[int]) -> str:
    """A shape in words: "64×64×64"."""
    return "×".join(map(str, shape))
