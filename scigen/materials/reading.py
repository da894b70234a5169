"""Reading volumes: one file, many files, a folder, a glob, in whichever format they are kept."""

import difflib
import glob
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from scigen.errors import UserError
from scigen.io.archive import PARTIAL
from scigen.io.opening import NETCDF
from scigen.materials.arrays import natural, read_hdf5, read_npy, read_npz, read_raw
from scigen.materials.scan import Scan, length_unit, settle, three
from scigen.materials.stores import is_store, read_store
from scigen.materials.tiff import read_tiff
from scigen.materials.volumes import Phases, Volume, checked, distinct, named, relabel, require_volume

log = logging.getLogger(__name__)

TIFF = (".tif", ".tiff")
HDF5 = (".h5", ".hdf5", ".hdf")
SUFFIXES = (*TIFF, ".npy", ".npz", *HDF5, ".raw", *NETCDF, ".zarr")

SMALLEST = 8
"""Voxels that a side has at least."""

Paths = str | Path | Sequence[str | Path]


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
        path: a file or store, a folder, a glob, or a list of them.
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
    files, gathered = _find(path)
    names = _names(files)
    scans = [s for f in files for s in _read(f, names[f], shape, dtype, variable)]
    if stack or (stack is None and gathered and _all_pages(files, scans)):
        scans = [_stacked(files, scans, path)]
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
        log.info("No voxel size is known of %s%s: 1 voxel is taken.", unknown[0], _more(unknown))
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


def _find(path: Paths) -> tuple[list[Path], bool]:
    """The files and stores that are meant, and whether they come of one folder or glob."""
    if not isinstance(path, str | Path):
        if not path:
            raise UserError("path=[] names no file: give a file, a folder, a glob or a list of them.")
        files = [file for part in path for file in _find(part)[0]]
        twice = [str(f) for f, count in Counter(f.resolve() for f in files).items() if count > 1]
        if twice:
            raise UserError(f"{twice[0]} is given twice: name each file once.")
        return files, False
    where = Path(path).expanduser()
    if where.name.endswith(PARTIAL):
        raise UserError(f"{where} is an unfinished output: run the command that makes it again.")
    if where.is_dir() and not is_store(where):
        return _of_folder(where), True
    if where.exists():
        return [where], False
    if any(c in str(path) for c in "*?["):
        found = [Path(p) for p in sorted(glob.glob(str(where), recursive=True), key=natural) if not p.endswith(PARTIAL)]
        if not found:
            raise UserError(f"Nothing matches {path}: {_nearby(where)}.")
        return found, True
    raise UserError(f"{where} is not there: {_nearby(where)}.")


def _of_folder(folder: Path) -> list[Path]:
    """The volumes in a folder, in natural order; other files are left alone."""
    inside = sorted(folder.iterdir(), key=lambda p: natural(p.name))
    found = [p for p in inside if (p.suffix.lower() in SUFFIXES and p.is_file()) or (p.is_dir() and is_store(p))]
    if not found:
        raise UserError(
            f"{folder} is a folder without volumes; it holds {', '.join(p.name for p in inside[:5]) or 'nothing'}. "
            f"Expected files that end with {', '.join(SUFFIXES)}."
        )
    left = [p.name for p in inside if p not in found and not p.name.startswith(".")]
    if left:
        log.info("%s: %s%s is no volume and left out.", folder, left[0], _more(left))
    return found


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """A short name for each file that tells it from the others."""
    out = {f: f.stem for f in files}
    for longer in (lambda f: f.name, lambda f: f"{f.parent.name}-{f.name}", lambda f: "-".join(f.parts).strip("/-")):
        count = Counter(out.values())
        out = {f: longer(f) if count[name] > 1 else name for f, name in out.items()}
    return out


def _all_pages(files: Sequence[Path], scans: Sequence[Scan]) -> bool:
    """Whether all files are TIFF and hold one page each."""
    return all(f.suffix.lower() in TIFF for f in files) and all(s.values.ndim == 2 for s in scans)


def _stacked(files: Sequence[Path], scans: Sequence[Scan], path: Paths) -> Scan:
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
                f"The pages of {path} differ: {scans[0].name} is {_times(first.shape)}, {scan.name} is "
                f"{_times(scan.values.shape)}. Expected pages of one shape: give a narrower glob."
            )
    log.info("%s: %d pages make one volume, %s first, %s last.", path, len(files), files[0].name, files[-1].name)
    name = files[0].parent.resolve().name or "stack"
    return Scan(name, np.stack([s.values for s in scans]))


def _own_phases(scans: Sequence[Scan]) -> dict[str, tuple[int, ...]]:
    """Phases that the files name, if all name the same; else one for each distinct value of them together."""
    told: Mapping[str, int] | None = scans[0].phases
    if told is not None and all(s.phases == told for s in scans):
        return checked(dict(told))
    every = set[int]()
    for scan in scans:
        every |= set(distinct(scan.values, scan.name)[0].tolist())
    name = scans[0].name if len(scans) == 1 else f"{scans[0].name}{_more([s.name for s in scans])}"
    return named(np.array(sorted(every)), name)


def _require_phases(volumes: Sequence[Volume], names: Sequence[str]) -> None:
    """See that every phase occurs somewhere; it is logged where one is missing in some volumes."""
    for i, phase in enumerate(names):
        without = [v.name for v in volumes if not (v.labels == i).any()]
        if len(without) == len(volumes):
            raise UserError(
                f"No volume has a voxel of {phase}: {without[0]}{_more(without)}; phases are {', '.join(names)}. "
                "Correct its grey value, or leave that phase out."
            )
        if without:
            log.info("%s%s has no voxel of %s.", without[0], _more(without), phase)


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


def _nearby(path: Path) -> str:
    """What exists close to a path that does not, as a clause."""
    folder = next((p for p in path.absolute().parents if p.is_dir()), Path("/"))
    if folder != path.absolute().parent:
        return f"there is no folder {path.parent}"
    names = sorted(p.name for p in folder.iterdir())
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    if close and "*" not in path.name:
        return f"the closest name in that folder is {folder / close[0]}"
    volumes = [n for n in names if Path(n).suffix.lower() in SUFFIXES][:5]
    return f"the folder {folder} holds {', '.join(volumes) if volumes else 'no volume'}"


def _more(names: Sequence[str]) -> str:
    """The rest of a list that is told by its first item."""
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _times(shape: Sequence[int]) -> str:
    """A shape in words: "64×64×64"."""
    return "×".join(map(str, shape))
