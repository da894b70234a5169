"""Blocks of time: bounded pieces of a lazy archive, and what is said when one cannot be read."""

import contextlib
import zlib
from collections.abc import Iterator

import numpy as np
import xarray as xr
from dask.utils import parse_bytes

from scigen.errors import UserError

BLOCK_BYTES = 2**25
"""Size that a block of one variable aims at, in memory, where the variable has more than 4096 of them."""

FINEST = 4
"""Parts of such a block that blocks of smaller variables are, at least: more of them can be held at a time."""

LARGEST_CHUNK = 2**30
"""Chunks of a file up to this size are read whole; larger ones in parts, at the price of decompressing again."""


def bytes_of(size: str | int, key: str) -> int:
    """A size in words, such as 2GB or 500 MiB, as a number of bytes.

    Args:
        size: words, or the number itself.
        key: what it is the value of, for messages.

    Raises:
        UserError: if it is no size.
    """
    try:
        number = int(parse_bytes(size))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{key}={size}: expected a size such as 2GB or 500MB.") from error
    if number < 0:
        raise UserError(f"{key}={size} must be at least 0.")
    return number


def leading_dim(ds: xr.Dataset) -> str | None:
    """The dimension that blocks run along: `time`, else the first one of the largest variable; None without any."""
    if "time" in ds.dims:
        return "time"
    largest = max(ds.data_vars.values(), key=lambda v: v.size, default=None)
    return str(largest.dims[0]) if largest is not None and largest.ndim else None


def block_length(array: xr.DataArray, dim: str) -> int:
    """Steps along `dim` of a block of about BLOCK_BYTES, whole chunks of the file where these are not huge."""
    step = max(array.nbytes // max(array.sizes[dim], 1), 1)
    length = max(min(BLOCK_BYTES, max(BLOCK_BYTES // FINEST, array.nbytes // 4096)) // step, 1)
    chunks = array.variable.chunksizes.get(dim)  # whatever those of its coordinates are
    native = int(chunks[0]) if chunks else int(array.encoding.get("preferred_chunks", {}).get(dim, 1))
    if native * step <= LARGEST_CHUNK:
        length = max(native, length // native * native)
    return min(length, max(array.sizes[dim], 1))


def lazy(ds: xr.Dataset) -> xr.Dataset:
    """The dataset with every variable that is still on disk cut into dask blocks along its leading dimension."""
    dim = leading_dim(ds)
    if dim is None:
        return ds
    cut = {}
    for name, array in ds.data_vars.items():
        if array.chunks is None and not array.variable._in_memory:
            cut[name] = array.chunk({dim: block_length(array, dim)} if dim in array.dims else {})
    return ds.assign(cut) if cut else ds


def blocks(array: xr.DataArray) -> Iterator[slice]:
    """Slices along `time` that cover an array in bounded pieces, chunk by chunk; one whole slice if it has no time."""
    if "time" not in array.dims:
        yield slice(None)
        return
    length = block_length(array, "time")
    for start in range(0, array.sizes["time"], length):
        yield slice(start, min(start + length, array.sizes["time"]))


class Forward:
    """A dataset read along a dimension, in order: every chunk of the file once, one block of a variable held at a time.

    Positions that are asked for one by one would each decompress their whole chunk.
    """

    def __init__(self, ds: xr.Dataset, dim: str, what: str = "") -> None:
        """Set what is read.

        Args:
            ds: lazy or not; variables without the dimension are passed through.
            dim: along which.
            what: the archive is called, for messages.
        """
        self.ds, self.dim, self.what = ds, dim, what
        self.held: dict[str, tuple[slice, xr.DataArray]] = {}

    def __getitem__(self, part: slice) -> xr.Dataset:
        """Positions lo … hi − 1, in memory, for slice(lo, hi).

        Raises:
            UserError: if they cannot be read.
        """
        names = [str(k) for k in self.ds.data_vars]
        return (
            self.ds[[]]
            .isel({self.dim: part}, missing_dims="ignore")
            .assign({name: self._one(name, part) for name in names})
        )

    def _one(self, name: str, part: slice) -> xr.DataArray:
        array = self.ds[name]
        if self.dim not in array.dims:
            return array
        if array.variable._in_memory:
            return array.isel({self.dim: part})
        block, kept = self.held.pop(name, (slice(0, 0), array.isel({self.dim: slice(0, 0)})))
        if part.start < block.start or part.stop > block.stop:
            each = block_length(array, self.dim)
            behind = block.start <= part.start < block.stop
            start = block.stop if behind else part.start // each * each
            stop = min(-(-part.stop // each) * each, array.sizes[self.dim])
            with reading(f"'{name}' of {self.what}" if self.what else f"'{name}'"):
                more = array.isel({self.dim: slice(start, stop)}).load()
            if behind:
                more = xr.concat([kept.isel({self.dim: slice(part.start - block.start, None)}), more], self.dim)
            block, kept = slice(part.start if behind else start, stop), more
        self.held[name] = (block, kept)
        return self.held[name][1].isel({self.dim: slice(part.start - block.start, part.stop - block.start)})


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn the errors of damaged files into a `UserError`.

    Args:
        what: is being read, for the message: "'t2m' at 2019-03-01 of era5.nc".

    Raises:
        UserError: if a library cannot read or decode what the file holds.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        ours = (OSError, RuntimeError, ValueError, EOFError, zlib.error)
        if not isinstance(error, ours) and not type(error).__module__.startswith("gribapi"):  # ecCodes' have no base
            raise
        raise UserError(
            f"Cannot read {what}: {_first_line(error)}. The file seems damaged or cut short: fetch or make it again."
        ) from error


def values(array: xr.DataArray, what: str) -> np.ndarray:
    """The values of a (block of an) array.

    Raises:
        UserError: if they cannot be read.
    """
    with reading(what):
        return np.asarray(array.values)


def _first_line(error: BaseException) -> str:
    """A library's message, its first line only."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
