"""Finding the files of volumes: a file, a folder, a glob, a list, and how they are called."""

import difflib
import glob
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scigen.errors import UserError
from scigen.io.archive import PARTIAL
from scigen.io.opening import NETCDF
from scigen.materials.arrays import natural
from scigen.materials.stores import is_store

log = logging.getLogger(__name__)

TIFF = (".tif", ".tiff")
HDF5 = (".h5", ".hdf5", ".hdf")
SUFFIXES = (*TIFF, ".npy", ".npz", *HDF5, ".raw", *NETCDF, ".zarr")

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Batch:
    """Files that belong together.

    Attributes:
        files: and stores, in natural order.
        gathered: whether they come of a folder or glob, and may be the pages of one stack.
    """

    files: list[Path]
    gathered: bool


def find(path: Paths) -> list[Batch]:
    """The files and stores that are meant.

    Every folder is a batch, and so are the files of a glob, or those that a list names singly.

    Raises:
        UserError: if nothing is there, a file is named twice, or a folder holds no volume.
    """
    if isinstance(path, str | Path):
        return _find(path)
    if not path:
        raise UserError("path=[] names no file: give a file, a folder, a glob or a list of them.")
    found = [batch for part in path for batch in _find(part)]
    count = Counter(f.resolve() for batch in found for f in batch.files)
    twice = [str(f) for f, n in count.items() if n > 1]
    if twice:
        raise UserError(f"{twice[0]} is given twice: name each file once.")
    single = [f for batch in found if not batch.gathered for f in batch.files]
    return [*([Batch(single, False)] if single else []), *(b for b in found if b.gathered)]


def names_of(paths: Sequence[Path]) -> dict[Path, str]:
    """A short name for each file or folder that tells it from the others."""
    out = {f: f.stem if f.suffix.lower() in SUFFIXES else f.name for f in paths}
    for longer in (lambda f: f.name, lambda f: f"{f.parent.name}-{f.name}", lambda f: "-".join(f.parts).strip("/-")):
        count = Counter(out.values())
        out = {f: longer(f) if count[name] > 1 else name for f, name in out.items()}
    return out


def _find(path: str | Path) -> list[Batch]:
    """What one path stands for."""
    where = Path(path).expanduser()
    if where.name.endswith(PARTIAL):
        raise UserError(f"{where} is an unfinished output: run the command that makes it again.")
    if where.is_dir() and not is_store(where):
        return [Batch(_of_folder(where), True)]
    if where.exists():
        return [Batch([where], False)]
    if any(c in str(path) for c in "*?["):
        found = [Path(p) for p in sorted(glob.glob(str(where), recursive=True), key=natural) if not p.endswith(PARTIAL)]
        if not found:
            raise UserError(f"Nothing matches {path}: {_nearby(where)}.")
        folders = [p for p in found if p.is_dir() and not is_store(p)]
        files = [p for p in found if p not in folders]
        return [*([Batch(files, True)] if files else []), *(Batch(_of_folder(p), True) for p in folders)]
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
        log.info("%s: %s%s is no volume and left out.", folder, left[0], more(left))
    return found


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


def more(names: Sequence[str]) -> str:
    """The rest of a list that is told by its first item."""
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
