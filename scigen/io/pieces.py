"""An archive of rows that any number of processes make piece by piece, and that is gone on with after a kill.

A piece is a fixed range of rows, one shard of the zarr store. Who makes a piece holds its lock, which the operating
system takes back when a process dies; the piece counts when its marker, an empty file, is there, and the marker is made
after the shard is written. So a piece is made once, unless its maker died, and then it is made again.

    folder/
    ├── rows.zarr       rows (row, …), float32, each with a checksum; NaN where nothing is written yet
    └── pieces/         <number>.lock, <number>.done
"""

import contextlib
import errno
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from filelock import FileLock, Timeout
from zarr.codecs import Crc32cCodec

from scigen.errors import UserError

WAIT = 0.2  # seconds between looks at the pieces that other processes are making


class PieceArchive:
    """Rows (row, *rest) made in pieces.

    Attributes:
        folder: where it lies.
        array: the zarr array of the rows.
        piece: rows of a piece; the last may be shorter.
    """

    def __init__(
        self,
        folder: Path,
        shape: Sequence[int],
        dims: Sequence[str],
        piece: int,
        identity: Mapping[str, Any],
        coords: Mapping[str, tuple[str, np.ndarray]],
    ) -> None:
        """Open the archive, or make it, empty.

        Args:
            folder: its place.
            shape: (rows, *rest).
            dims: names of the dimensions.
            piece: rows of a piece.
            identity: all that the rows are a function of, JSON types; kept in the attributes.
            coords: (dimension, values) by name, kept beside the rows.

        Raises:
            UserError: if what lies there belongs to other rows or is damaged, or cannot be written.
        """
        self.folder, self.piece, self.count = Path(folder), int(piece), int(shape[0])
        self.store, self.marks = self.folder / "rows.zarr", self.folder / "pieces"
        self.size = 4 * int(np.prod(shape))
        identity = json.loads(json.dumps(identity))
        with self._storing():
            self.marks.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                if not self.store.exists():
                    self._create(shape, dims, identity, coords)
        try:
            group: Any = zarr.open_group(self.store, mode="r+")
            found, self.array = dict(group.attrs), group["rows"]
        except Exception as error:  # whatever zarr meets in files that are not its own
            raise UserError(f"The archive {self.store} is damaged ({error}): remove {self.folder}.") from error
        other = [k for k in sorted(identity.keys() | found.keys()) if identity.get(k) != found.get(k)]
        if other or self.array.shape != tuple(shape):
            raise UserError(
                f"The archive {self.store} was made with another {', '.join(other) or 'shape'}: remove {self.folder} or"
                " name another folder."
            )

    def _create(
        self,
        shape: Sequence[int],
        dims: Sequence[str],
        identity: Mapping[str, Any],
        coords: Mapping[str, tuple[str, np.ndarray]],
    ) -> None:
        """Make the store under another name, and give it its own when it is whole."""
        partial = self.store.with_name(self.store.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        group = zarr.create_group(partial, zarr_format=3, attributes=dict(identity))
        group.create_array(
            "rows", shape=tuple(shape), dtype="float32", fill_value=np.float32(np.nan), dimension_names=list(dims),
            chunks=(1, *shape[1:]), shards=(self.piece, *shape[1:]), compressors=[Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "/"},
        )  # fmt: skip
        for name, (dim, values) in coords.items():
            group.create_array(name, data=values, dimension_names=[dim])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            zarr.consolidate_metadata(partial)
        os.replace(partial, self.store)

    def rows(self, piece: int) -> np.ndarray:
        """Positions of the rows of a piece."""
        return np.arange(piece * self.piece, min((piece + 1) * self.piece, self.count))

    def left(self) -> list[int]:
        """The pieces that are not there yet."""
        done = {p.stem for p in self.marks.glob("*.done")}
        return [i for i in range(-(-self.count // self.piece)) if str(i) not in done]

    def fill(self, make: Callable[[np.ndarray], np.ndarray], report: Callable[[int], None] | None = None) -> None:
        """Make the pieces that are missing; those in the hands of other processes are waited for.

        Args:
            make: from positions of rows to the rows, (n, *rest).
            report: called with the number of rows that are there.

        Raises:
            UserError: if the disk is full or fails; what was made before stays.
        """
        left = self.left()
        needed = self.size * len(left) * self.piece / self.count
        with self._storing():
            if left and shutil.disk_usage(self.folder).free < needed:  # known before hours of work
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        while left:
            for number in left:
                self._make(number, make)
                if report:
                    report(self.count - sum(len(self.rows(i)) for i in self.left()))
            waiting, left = left, self.left()
            if left == waiting:
                time.sleep(WAIT)

    def _make(self, number: int, make: Callable[[np.ndarray], np.ndarray]) -> None:
        """Make a piece unless another process has it, done or in hand."""
        mark, lock = self.marks / f"{number}.done", FileLock(self.marks / f"{number}.lock")
        try:
            with self._storing():
                lock.acquire(timeout=0)
        except Timeout:
            return
        try:
            if mark.exists():
                return
            rows = self.rows(number)
            values = np.ascontiguousarray(make(rows), dtype=np.float32)
            if values.shape != (len(rows), *self.array.shape[1:]):
                raise ValueError(f"rows {values.shape} do not fit into {self.array.shape}")
            with self._storing():
                shutil.rmtree(self.store / "rows" / "c" / str(number), ignore_errors=True)  # what a kill has left
                self.array[rows[0] : rows[-1] + 1] = values
                mark.touch()
        finally:
            lock.release()

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        """Turn the errors of the file system into a `UserError` that names the size needed."""
        try:
            yield
        except Timeout:
            raise
        except OSError as error:
            folder = next(p for p in (self.folder.absolute(), *self.folder.absolute().parents) if p.exists())
            free = shutil.disk_usage(folder).free / 2**20
            raise UserError(
                f"Cannot write {self.store}: {error.strerror or error}. It takes {self.size / 2**20:,.1f} MiB in all;"
                f" {free:,.1f} MiB are free in {folder}. Make room and repeat the command, which goes on where it"
                " stopped, or choose another folder."
            ) from error
