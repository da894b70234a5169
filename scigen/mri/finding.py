"""Which files and stores a path means: one, a folder, a glob, or a list of them."""

import glob
from collections.abc import Sequence
from pathlib import Path

from scigen.errors import UserError
from scigen.io.archive import PARTIAL
from scigen.io.opening import NETCDF, is_zarr
from scigen.mri import rawdata
from scigen.mri.nifti import stem_of

SUFFIXES = (*rawdata.SUFFIXES, ".npy", ".npz", *NETCDF, ".zarr", ".nii", ".nii.gz")


def find(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files and stores that are meant, in the order of their names.

    Raises:
        UserError: if nothing is there, a file is meant twice, two have one stem, or one is of an unknown kind.
    """
    if isinstance(path, str | Path):
        found = _find(Path(path).expanduser())
    else:
        found = [f for part in path for f in _find(Path(part).expanduser())]
    stems: dict[str, Path] = {}
    for file in found:
        if not _known(file):
            raise UserError(f"{file}: scans and images do not come in this format, expected {', '.join(SUFFIXES)}.")
        if stems.setdefault(stem_of(file), file) != file or found.count(file) > 1:
            raise UserError(
                f"{stems[stem_of(file)]} and {file} are one subject by their names: name each file once, or rename one."
            )
    if not found:
        raise UserError("path=[] names no file: give a file, a folder, a glob or a list of them.")
    return found


def _find(path: Path) -> list[Path]:
    """What one path stands for."""
    if path.name.endswith(PARTIAL):
        raise UserError(f"{path} is an unfinished output: run the command that makes it again.")
    if path.is_dir() and not is_zarr(path):
        inside = sorted(path.iterdir())
        found = [p for p in inside if _known(p)]
        if not found:
            held = ", ".join(p.name for p in inside[:5]) or "nothing"
            raise UserError(f"{path} is a folder without scans; it holds {held}. Expected {', '.join(SUFFIXES)}.")
        return found
    if path.exists():
        return [path]
    found = [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if not p.endswith(PARTIAL)]
    if not found:
        beside = sorted(p.name for p in path.parent.iterdir() if _known(p))[:5] if path.parent.is_dir() else []
        what = f"the folder holds {', '.join(beside) or 'no scan'}" if path.parent.is_dir() else "nor is its folder"
        raise UserError(f"{path} is not there: {what}.")
    return found


def _known(path: Path) -> bool:
    """Whether a file or store is of a known kind."""
    if path.is_dir():
        return is_zarr(path)
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")
