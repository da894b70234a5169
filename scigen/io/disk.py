"""Files that are there whole or not at all, also after a power cut, and what to say when a disk does not take them."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from scigen.errors import UserError

log = logging.getLogger(__name__)

HOPELESS = 0.05
"""Share of the uncompressed size that must be free; compression does not reach further."""


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn the errors of the file system into a `UserError`; HDF5 gives a RuntimeError when a disk is full."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or (str(error).strip().splitlines() or ["unknown error"])[0]
        folder = _folder(path)
        free = shutil.disk_usage(folder).free / 2**20
        raise UserError(
            f"Cannot write {path}: {reason} ({free:,.0f} MiB are free in {folder}). Make room and repeat the command, "
            "which goes on where it stopped, or choose a folder that can be written."
        ) from error


def check_room(path: Path, needed: int) -> None:
    """See, before hours of work, that a disk can take so many bytes; a log line where only compression helps.

    Raises:
        UserError: if less than a twentieth of them is free.
    """
    free = shutil.disk_usage(_folder(path)).free
    if free >= needed:
        return
    said = f"{path} takes up to {needed / 2**20:,.0f} MiB more, and {free / 2**20:,.0f} MiB are free."
    if free < HOPELESS * needed:
        raise UserError(f"{said} Make room, choose another disk, or ask for fewer samples, members or variables.")
    log.warning("%s It may fit after compression; if not, make room and repeat the command.", said)


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; it is on the disk when this returns."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        partial.write_text(json.dumps(content, indent=1, sort_keys=True))
        sync([partial])
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folders([path])


def read_json(path: Path) -> Any:
    """What a JSON file holds; None if it is not there or cut short."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def digest(path: Path) -> str:
    """Checksum of a file, blake2b of 16 bytes; the mark of completeness in a zarr root does not count.

    Raises:
        OSError: if the file cannot be read.
    """
    if path.name == "zarr.json":
        text = path.read_bytes()
        with contextlib.suppress(ValueError, AttributeError):
            root = json.loads(text)
            if root.get("attributes", {}).pop("scigen_complete", None) is not None:
                text = json.dumps(root, sort_keys=True).encode()
        return hashlib.blake2b(text, digest_size=16).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def files_in(folder: Path, beside: str | None = None) -> list[Path]:
    """Every file below a folder, in order, folders of the name `beside` left aside."""
    found = []
    for where, folders, files in os.walk(folder):
        if beside in folders:
            folders.remove(beside)
        found += [Path(where) / name for name in files]
    return sorted(found)


def sync(files: Iterable[Path]) -> None:
    """Wait until files are on the disk."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_folders(files: Iterable[Path]) -> None:
    """Wait until the names of files are on the disk; file systems that cannot are left alone."""
    for folder in {p.parent for p in files}:
        with contextlib.suppress(OSError):
            sync([folder])


def remove(path: Path) -> None:
    """Remove a file or a folder if it is there; what others remove at the same time does not matter."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _folder(path: Path) -> Path:
    """The nearest folder above a path that is there."""
    return next(p for p in path.absolute().parents if p.is_dir())
