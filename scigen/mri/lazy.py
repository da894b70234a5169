"""Scans larger than memory: blocks of slices that are read, checked and prepared when they are sampled."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import dask.array
import numpy as np
import xarray as xr
from dask.delayed import delayed

from scigen.io.archive import fingerprint
from scigen.io.opening import NETCDF, is_zarr, open_raw
from scigen.mri import fastmri, rawdata
from scigen.mri.checks import check_scans
from scigen.mri.finding import find
from scigen.mri.reading import names, open_parts

log = logging.getLogger(__name__)

LARGE = 2**28
"""Bytes of k-space above which an archive is read in parts."""

BLOCK = 2**26
"""Bytes of k-space in a block, about; what is prepared of it takes several times as many."""

SEEN = 8
"""Slices that the fingerprint looks at."""

FINGERPRINT = "fingerprint"
"""Entry of a dataset's encoding: of the archive that its lazy variables are made of."""

Prepare = Callable[[xr.Dataset], xr.Dataset]


@dataclass(frozen=True)
class Extent:
    """How much there is in a file.

    Attributes:
        path: of the file or store.
        slices: their number.
        size: bytes of k-space as complex64.
    """

    path: Path
    slices: int
    size: int


def open_lazily(path: str | Path | Sequence[str | Path], prepare: Prepare) -> xr.Dataset | None:
    """Prepared scans whose variables are dask arrays, a block of slices each; None where it is one for memory.

    That is for archives below `LARGE`, several files, and formats that cannot be read in parts: fastMRI's HDF5, zarr
    and netCDF can. Every block is checked on its own: what `check_scans` says of a scan is said of a block.

    Args:
        path: see `scigen.mri.finding.find`.
        prepare: makes inputs of checked scans, slice by slice.

    Raises:
        UserError: if the file, or its first block, is not fit.
    """
    files = find(path)
    extent = _extent(files[0]) if len(files) == 1 else None
    if extent is None or extent.size < LARGE:
        return None
    count = max(1, round(extent.slices * BLOCK / extent.size))
    edges = [*range(0, extent.slices, count), extent.slices]
    log.info("%s: %.1f GB of k-space, read %d slices at a time.", extent.path, extent.size / 1e9, count)

    read = open_parts(extent.path)

    def block(start: int, stop: int) -> xr.Dataset:
        return prepare(check_scans(read(slice(start, stop))))

    first = block(0, edges[1])
    later = {i: delayed(block)(i, j) for i, j in pairwise(edges[1:])}
    later[0] = delayed(first)
    variables = {}
    for name, array in first.data_vars.items():
        own = [
            dask.array.from_delayed(later[i][name].data, (j - i, *array.shape[1:]), array.dtype)
            for i, j in pairwise(edges)
        ]
        variables[name] = (array.dims, dask.array.concatenate(own))
    out = xr.Dataset(variables, names(extent.path, extent.slices), first.attrs)
    out.encoding = {"source": str(extent.path), FINGERPRINT: _fingerprint(read, extent.slices)}
    return out


def _fingerprint(read: Callable[[slice], xr.Dataset], slices: int) -> str:
    """16 hexadecimal digits of `SEEN` slices, evenly spread, and the number of all."""
    seen = np.unique(np.linspace(0, slices - 1, SEEN).round().astype(int)).tolist()
    parts = [fingerprint(read(slice(i, i + 1))) for i in seen]
    return hashlib.sha256(repr((slices, parts)).encode()).hexdigest()[:16]


def _extent(path: Path) -> Extent | None:
    """How much there is, of files that can be read in parts."""
    if path.suffix.lower() in rawdata.SUFFIXES:
        if rawdata.is_raw(path):
            return None
        shape = fastmri.shape_of(path)
        return None if shape is None or len(shape) < 3 else Extent(path, shape[0], 8 * int(np.prod(shape)))
    if not is_zarr(path) and path.suffix.lower() not in NETCDF:
        return None
    with open_raw(path, None) as ds:
        found = next((ds[n] for n in ("kspace", "kspace_re") if n in ds), None)
        if found is None or "slice" not in found.dims:
            return None
        return Extent(path, found.sizes["slice"], 8 * found.size)
