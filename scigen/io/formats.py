"""How an item becomes files: a whole shard of every variable of a zarr store, or a netCDF file."""

import contextlib
import hashlib
import json
import shutil
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import dask.array
import netCDF4
import numpy as np
import zarr
from xarray.backends.locks import HDF5_LOCK, NETCDFC_LOCK, combine_locks
from zarr.codecs import Crc32cCodec, ZstdCodec

from scigen.io.disk import read_json
from scigen.io.geolocation import mapping_of
from scigen.io.plan import Item
from scigen.io.template import Template, missing_value

CHUNK_BYTES = 2**24
"""Size up to which a field of a zarr store is one chunk; above, it is cut along its first dimension."""

TOGETHER_BYTES = 2**20
"""Size up to which members share a netCDF chunk."""

LIBRARY = threading.RLock()
"""Held while a netCDF file is made, and while a thread beside reads any: xarray locks values, but not new variables."""

LOCK = combine_locks([NETCDFC_LOCK, HDF5_LOCK])  # the one that xarray reads under: HDF5 knows no threads


class Format(Protocol):
    """What turns a template and items into files."""

    def make(self, home: Path) -> None:
        """Write what is there before the first item."""
        ...

    def encode(self, item: Item, fields: Mapping[str, np.ndarray], home: Path, scratch: Path) -> None:
        """Write the files of an item into a scratch folder, named as they will be in `home`."""
        ...


class ZarrShards:
    """A zarr store of format 3: a field is a chunk, an item a shard of every variable, each with a checksum."""

    def __init__(self, template: Template, block: int, group: int) -> None:
        """Samples and members of a shard."""
        self.template, self.block, self.group = template, block, group

    def make(self, home: Path) -> None:
        """Write the coordinates and the metadata of the variables, which read as missing."""
        template = self.template
        encoding = template.encoding()
        for name, dtype in template.dtypes.items():
            chunk, shard = self._cut(dtype)
            encoding[name] = {
                "chunks": (1, 1, *chunk), "shards": (self.block, self.group, *shard),
                "compressors": (ZstdCodec(level=0, checksum=False), Crc32cCodec()), "_FillValue": missing_value(dtype),
            }  # fmt: skip
        data = {
            n: dask.array.full(template.shape, missing_value(t) or 0, dtype=t, chunks=-1)
            for n, t in template.dtypes.items()
        }
        whole = template.filled(data, 0, template.shape[0]).assign_attrs(scigen_complete=0)
        with quiet():
            whole.to_zarr(home, mode="w-", compute=False, zarr_format=3, encoding=encoding, consolidated=True)

    def encode(self, item: Item, fields: Mapping[str, np.ndarray], home: Path, scratch: Path) -> None:
        """Write a shard of every variable; also fields of nothing but zeros or NaN are written."""
        for name, values in fields.items():
            (scratch / name).mkdir(parents=True)
            shutil.copyfile(home / name / "zarr.json", scratch / name / "zarr.json")
            array = zarr.open_array(scratch / name, mode="r+").with_config({"write_empty_chunks": True})
            array[item.start : item.stop, item.low : item.high] = values
            (scratch / name / "zarr.json").unlink()

    def _cut(self, dtype: np.dtype) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Space of a chunk and of a shard: equal parts of the first dimension, as few as keep the size."""
        first, *rest = self.template.shape[2:]
        size = dtype.itemsize * int(np.prod(self.template.shape[2:]))
        parts = min(first, -(-size // CHUNK_BYTES))
        rows = -(-first // parts)
        return (rows, *rest), (rows * -(-first // rows), *rest)


class NetcdfFiles:
    """NetCDF-4 files of whole samples, compressed by zlib at level 1, each chunk with a checksum."""

    def __init__(self, template: Template, stem: str) -> None:
        """Files are called <stem>000012.nc."""
        self.template, self.stem = template, stem

    def make(self, home: Path) -> None:
        """There is nothing before the first item."""

    def encode(self, item: Item, fields: Mapping[str, np.ndarray], home: Path, scratch: Path) -> None:
        """Write the file of an item."""
        template = self.template
        encoding = template.encoding() | {
            n: {**self._options(t), "_FillValue": missing_value(t)} for n, t in template.dtypes.items()
        }
        part = template.filled(fields, item.start, item.stop)
        scratch.mkdir(parents=True)
        with LIBRARY, quiet():
            part.to_netcdf(
                scratch / f"{self.stem}{item.name}.nc", engine="netcdf4", unlimited_dims=template.dims[:1],
                encoding=encoding,
            )  # fmt: skip

    def join(self, items: Iterable[Item], home: Path, target: Path, about: Mapping[str, Any]) -> None:
        """Put the files of all items into one, item by item.

        Args:
            items: in order; each has all members.
            home: where their files lie.
            target: path of the file.
            about: global attributes beside those of the template; a checksum of every variable is added to them.
        """
        template = self.template
        mapping = list(mapping_of(template.coords))
        other = sorted(str(c) for c in template.coords.coords if c not in {*template.coords.dims, *mapping})
        bare = template.coords.reset_coords(mapping)
        with LIBRARY, quiet():
            bare.to_netcdf(target, engine="netcdf4", unlimited_dims=template.dims[:1], encoding=template.encoding())
        sums = {name: hashlib.blake2b(digest_size=16) for name in template.variables}
        with LIBRARY, LOCK, netCDF4.Dataset(target, "a") as file:
            if "coordinates" in file.ncattrs():
                file.delncattr("coordinates")  # they belong to the variables
            for name, attrs in template.variables.items():
                dtype = template.dtypes[name]
                variable = file.createVariable(
                    name, dtype, template.dims, fill_value=missing_value(dtype), **self._options(dtype)
                )
                variable.setncatts({**attrs, **({"coordinates": " ".join(other)} if other else {})})
                variable.set_auto_maskandscale(False)
            for item in items:
                with netCDF4.Dataset(home / f"{self.stem}{item.name}.nc") as part:
                    part.set_auto_maskandscale(False)
                    for name in template.variables:
                        values = np.ascontiguousarray(part[name][:])
                        file[name][item.start : item.stop] = values
                        sums[name].update(values.data)
            checks = {name: total.hexdigest() for name, total in sums.items()}
            file.setncatts({**about, "scigen_checksums": json.dumps(checks), "scigen_complete": 1})

    def _options(self, dtype: np.dtype) -> dict[str, Any]:
        members, *space = self.template.shape[1:]
        together = int(np.clip(TOGETHER_BYTES // (dtype.itemsize * int(np.prod(space))), 1, members))
        return {"zlib": True, "complevel": 1, "fletcher32": True, "chunksizes": (1, together, *space)}


def plan_of(path: Path) -> dict[str, Any] | None:
    """The plan that a joined netCDF file carries; None if it is not scigen's or cannot be read."""
    try:
        with LOCK, netCDF4.Dataset(path) as file:
            found = json.loads(file.getncattr("scigen_plan"))
    except (OSError, RuntimeError, AttributeError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def joined_summary(path: Path) -> dict[str, Any]:
    """The summary that a joined netCDF file carries."""
    with LOCK, netCDF4.Dataset(path) as file:
        return dict(json.loads(file.getncattr("scigen_summary")))


def mark_complete(path: Path, value: int) -> None:
    """Set `scigen_complete` of a zarr store, 1 or 0; a folder of netCDF files has no such attribute."""
    if (path / "zarr.json").is_file() and not is_complete(path) == bool(value):
        with quiet():
            zarr.open_group(path, mode="r+").update_attributes({"scigen_complete": value})


def is_complete(path: Path) -> bool:
    """Whether a zarr store says that it is complete; a folder of netCDF files says nothing against it."""
    root = read_json(path / "zarr.json")
    return root is None or bool(root.get("attributes", {}).get("scigen_complete"))


def blocks_of(path: Path, name: str, rows: int) -> Iterator[np.ndarray]:
    """The values of a variable of a netCDF file as they are stored, so many samples at once."""
    with LOCK, netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        for start in range(0, file[name].shape[0], rows):
            yield np.ascontiguousarray(file[name][start : start + rows])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what a user cannot act on: consolidated metadata of format 3, and times that need a finer unit."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        warnings.filterwarnings("ignore", message="Times can't be serialized faithfully")
        yield
