"""Sinks: a zarr store or a netCDF file that takes fields of an ensemble at positions of samples."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import dask.array
import netCDF4
import numpy as np
import xarray as xr
import zarr

from scigen.io.coordinates import has_dates
from scigen.io.geolocation import mapping_of

SHARD_BYTES = 2**24
"""Size that a zarr shard, one variable's block of samples with all their members, aims at."""

CHUNK_BYTES = 2**20
"""Size up to which members share a netCDF chunk."""


class Sink(Protocol):
    """What takes fields of one variable at positions of samples."""

    def write(self, name: str, start: int, fields: np.ndarray) -> None:
        """Put fields (T, M, *space) of a variable at sample positions start … start + T."""
        ...

    def close(self) -> None:
        """Write what is held back, and close the file."""
        ...


class ZarrSink:
    """A zarr store of format 3, one field a chunk, shards of whole samples that are each written once."""

    def __init__(
        self,
        path: Path,
        template: xr.Dataset,
        variables: Mapping[str, Mapping[str, Any]],
        dims: tuple[str, ...],
        dtypes: Mapping[str, np.dtype],
    ) -> None:
        """Make the store with all coordinates and empty variables."""
        self.path = path
        shape = tuple(template.sizes[d] for d in dims)
        sample = 4 * int(np.prod(shape[1:]))
        self.block = int(np.clip(SHARD_BYTES // sample, 1, shape[0]))
        data = {n: dask.array.full(shape, _missing(t) or 0, dtype=t, chunks=-1) for n, t in dtypes.items()}
        whole = template.reset_coords(list(mapping_of(template))).assign(
            {name: (dims, data[name], about) for name, about in variables.items()}
        )
        layout = dict(chunks=(1, 1, *shape[2:]), shards=(self.block, *shape[1:]))
        encoding = _coordinate_encoding(template) | {
            n: {**layout, "_FillValue": _missing(dtypes[n])} for n in variables
        }
        with _quiet():
            whole.to_zarr(path, mode="w-", compute=False, zarr_format=3, encoding=encoding, consolidated=False)
        group = zarr.open_group(path, mode="r+")
        self.arrays: dict[str, Any] = {name: group[name] for name in variables}
        self.held: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}

    def write(self, name: str, start: int, fields: np.ndarray) -> None:
        """Hold fields back until their shard is whole, then write it."""
        for number in range(start // self.block, (start + len(fields) - 1) // self.block + 1):
            first = number * self.block
            shape = self.arrays[name].shape
            if (name, number) not in self.held:
                if len(self.held) >= 4 * len(self.arrays):  # scattered writes: bounded memory comes first
                    self._flush(*next(iter(self.held)))
                length = min(self.block, shape[0] - first)
                dtype = self.arrays[name].dtype
                self.held[name, number] = (np.empty((length, *shape[1:]), dtype), np.zeros(length, bool))
            shard, full = self.held[name, number]
            low, high = max(start, first), min(start + len(fields), first + len(shard))
            shard[low - first : high - first] = fields[low - start : high - start]
            full[low - first : high - first] = True
            if full.all():
                self._flush(name, number)

    def close(self) -> None:
        """Write what is held back; gather the metadata in one place, which plain `xr.open_zarr` looks for."""
        for name, number in list(self.held):
            self._flush(name, number)
        with _quiet():
            zarr.consolidate_metadata(self.path)

    def _flush(self, name: str, number: int) -> None:
        shard, full = self.held.pop((name, number))
        edges = np.flatnonzero(np.diff(np.concatenate([[False], full, [False]])))
        for low, high in edges.reshape(-1, 2):
            first = number * self.block
            self.arrays[name][first + low : first + high] = shard[low:high]


class NetcdfSink:
    """A netCDF-4 file, compressed by zlib at level 1, unlimited along the samples."""

    def __init__(
        self,
        path: Path,
        template: xr.Dataset,
        variables: Mapping[str, Mapping[str, Any]],
        dims: tuple[str, ...],
        dtypes: Mapping[str, np.dtype],
    ) -> None:
        """Make the file with all coordinates and empty variables."""
        with _quiet():
            template.to_netcdf(path, engine="netcdf4", unlimited_dims=dims[:1], encoding=_coordinate_encoding(template))
        self.file = netCDF4.Dataset(path, "a")
        shape = tuple(template.sizes[d] for d in dims)
        together = int(np.clip(CHUNK_BYTES // (4 * int(np.prod(shape[2:]))), 1, shape[1]))  # members a chunk
        other = sorted(str(c) for c in template.coords if c not in {*template.dims, *mapping_of(template)})
        if "coordinates" in self.file.ncattrs():
            self.file.delncattr("coordinates")  # they belong to the variables
        for name, about in variables.items():
            variable = self.file.createVariable(
                name, dtypes[name], dims, zlib=True, complevel=1, fill_value=_missing(dtypes[name]),
                chunksizes=(1, together, *shape[2:]),
            )  # fmt: skip
            variable.set_auto_mask(False)
            variable.setncatts({**about, **({"coordinates": " ".join(other)} if other else {})})

    def write(self, name: str, start: int, fields: np.ndarray) -> None:
        """Write the fields."""
        self.file.variables[name][start : start + len(fields)] = fields

    def close(self) -> None:
        """Close the file."""
        if self.file.isopen():
            self.file.close()


def _missing(dtype: np.dtype) -> Any:
    """What stands for a missing value; whole numbers have none."""
    return dtype.type(np.nan) if dtype.kind == "f" else None


def _coordinate_encoding(template: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Coordinates have no missing values, and times are whole numbers in the units of the input."""
    encoding: dict[str, dict[str, Any]] = {}
    for name, array in template.coords.items():
        encoding[str(name)] = {"_FillValue": None}
        if has_dates(array):
            encoding[str(name)] |= {**array.encoding, "dtype": "int64"}
    return encoding


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what a user cannot act on: consolidated metadata of format 3, and times that need a finer unit."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        warnings.filterwarnings("ignore", message="Times can't be serialized faithfully")
        yield
