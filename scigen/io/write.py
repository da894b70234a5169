"""Writing an ensemble archive: a template with every coordinate first, then blocks of samples, whole or not at all."""

import contextlib
import datetime
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import xarray as xr

from scigen import __version__
from scigen.errors import UserError
from scigen.io.archive import PARTIAL
from scigen.io.coordinates import axis_of, with_cf_attributes
from scigen.io.geolocation import mapping_attribute
from scigen.io.sinks import NetcdfSink, Sink, ZarrSink

log = logging.getLogger(__name__)


class SampleWriter:
    """Context manager that writes an ensemble archive block by block.

    The archive is made as `<path>.partial` and takes its name only when the context is left without an exception; an
    older output that it replaces stays until then. What was never written reads NaN.

    Example:
        with SampleWriter("out.zarr", coords, {"t2m": {"units": "K"}}, members=16) as writer:
            writer.write(0, {"t2m": fields})  # (T, 16, Y, X)
    """

    def __init__(
        self,
        path: str | Path,
        coords: xr.Dataset,
        variables: Mapping[str, Mapping[str, Any]],
        members: int,
        dims: Sequence[str] | None = None,
        attrs: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        dtypes: Mapping[str, str] | None = None,
    ) -> None:
        """Make the template.

        Args:
            path: `.zarr` (zarr format 3: a field a chunk, shards of whole samples) or `.nc` (netCDF-4, zlib).
            coords: coordinates of the output; data variables are ignored. Units and calendar of times are kept.
            variables: CF attributes by name.
            members: M.
            dims: dimension of samples first, then those of space; None for those of `coords`, time first, Y and X last.
            attrs: global attributes; what netCDF has no type for is stored as JSON. `history` gets a line.
            overwrite: whether an existing output may be replaced.
            dtypes: by variable; float32 for the others. Whole numbers have no missing value, so all must be written.

        Raises:
            UserError: if the output exists, its suffix is unknown, or its folder cannot be written.
        """
        self.path, self.overwrite = Path(path).expanduser(), overwrite
        self.partial = self.path.with_name(self.path.name + PARTIAL)
        order = {"T": 0, "Y": 2, "X": 3}
        own = [str(d) for d in (coords.sizes if dims is None else dims) if d != "member"]
        if dims is None:
            own.sort(key=lambda dim: order.get(axis_of(coords, dim) or "", 1))
        self.dims = (own[0], "member", *own[1:])
        if self.path.suffix not in (".zarr", ".nc"):
            raise UserError(
                f"Output {self.path}: expected a name that ends with .zarr or .nc, got {self.path.suffix!r}."
            )
        if members < 1:
            raise UserError(f"members={members} must be at least 1.")
        self._refuse_existing()
        template = with_cf_attributes(_template(coords, self.dims, members, attrs or {}))
        self.shape = tuple(template.sizes[d] for d in self.dims)
        self.written = np.zeros(self.shape[0], bool)
        self.variables = {name: {**about, **mapping_attribute(template)} for name, about in variables.items()}
        self.dtypes = {name: np.dtype((dtypes or {}).get(name, "float32")) for name in variables}
        with self._storing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.partial.exists():
                log.info("The unfinished output %s is dropped.", self.partial)
                _remove(self.partial)
            make = ZarrSink if self.path.suffix == ".zarr" else NetcdfSink
            self._sink: Sink = make(self.partial, template, self.variables, self.dims, self.dtypes)

    def write(self, start: int, fields: Mapping[str, np.ndarray]) -> None:
        """Write a block of samples.

        Args:
            start: position of its first sample.
            fields: (T, M, *space) of every variable, physical units.

        Raises:
            UserError: if the disk is full or fails.
            ValueError: if names or shapes are not those of the template.
        """
        if set(fields) != set(self.variables):
            raise ValueError(f"got the variables {sorted(fields)}, the template has {sorted(self.variables)}")
        for name, block in fields.items():
            end = start + len(block)
            if block.shape[1:] != self.shape[1:] or start < 0 or end > self.shape[0]:
                raise ValueError(f"{name} {block.shape} at {start} does not fit into {self.shape} {self.dims}")
            with self._storing():
                self._sink.write(name, start, np.asarray(block, dtype=self.dtypes[name]))
            self.written[start:end] = True

    def close(self) -> None:
        """Finish the archive and give it its name.

        Raises:
            UserError: if the disk is full or fails, or the output has come to exist meanwhile.
            ValueError: if samples of whole numbers were not written.
        """
        with self._storing():
            self._sink.close()
        left = int((~self.written).sum())
        if left and any(t.kind != "f" for t in self.dtypes.values()):
            raise ValueError(f"{left} of {len(self.written)} samples were not written, and whole numbers know no NaN")
        if left:
            log.warning("%s: %d of %d samples were not written and read NaN.", self.path, left, len(self.written))
        self._refuse_existing()
        with self._storing():
            old = self.path.with_name(f".{self.path.name}.replaced-{os.getpid()}")
            if self.path.is_dir() or (self.path.exists() and self.partial.is_dir()):
                os.replace(self.path, old)  # a folder gives way to nothing but a rename
            os.replace(self.partial, self.path)
            _remove(old)

    def __enter__(self) -> Self:
        """The writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the archive, or after an exception leave what there is under its `.partial` name."""
        if kind is None:
            self.close()
            return
        with contextlib.suppress(Exception):
            self._sink.close()
        log.warning("The output is not finished; what was written lies in %s.", self.partial)

    def _refuse_existing(self) -> None:
        if self.path.exists() and not self.overwrite:
            raise UserError(f"The output {self.path} exists: choose another name, or set overwrite=true to replace it.")

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        """Turn the errors of the file system into a `UserError`; HDF5 gives a RuntimeError when a disk is full."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or (str(error).strip().splitlines() or ["unknown error"])[0]
            folder = next(p for p in self.path.absolute().parents if p.exists())
            free = shutil.disk_usage(folder).free / 2**20
            raise UserError(
                f"Cannot write {self.path}: {reason} ({free:,.0f} MiB are free in {folder}). Make room, or "
                "choose a folder that can be written."
            ) from error


def _template(coords: xr.Dataset, dims: tuple[str, ...], members: int, attrs: Mapping[str, Any]) -> xr.Dataset:
    """Coordinates and global attributes of the output."""
    template = xr.Dataset(coords=coords.coords).drop_vars("member", errors="ignore")
    missing = [d for d in dims if d != "member" and d not in template.sizes]
    if missing:
        raise ValueError(f"the dimensions {missing} have no coordinate: {coords}")
    template = template.assign_coords(member=("member", np.arange(members, dtype=np.int64)))
    for name in template.variables:
        old = template[name].encoding
        template[name].encoding = {k: old[k] for k in ("units", "calendar") if k in old}
    line = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ} sampled by scigen {__version__}"
    history = [line, str(attrs["history"])] if attrs.get("history") else [line]
    stored = {k: _storable(v) for k, v in attrs.items() if v is not None}
    return template.assign_attrs({"Conventions": "CF-1.11", **stored, "history": "\n".join(history)})


def _storable(value: Any) -> Any:
    """A global attribute as text, number or numbers; anything else as JSON."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list) and value and all(type(v) in (int, float) for v in value):
        return value
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else json.dumps(value)


def _remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
