"""Archives at a URL, by fsspec: zarr stores are read where they lie, files are fetched once a process."""

import warnings
from pathlib import Path
from typing import Any

import fsspec
import xarray as xr

from scigen.errors import UserError
from scigen.io.blocks import lazy
from scigen.io.coordinates import conventional
from scigen.io.groups import MARK
from scigen.io.opening import ZARR_MARKS, open_one


def is_url(text: str) -> bool:
    """Whether an archive is named by a URL, or a chain of them."""
    return "://" in text


def split_url(text: str) -> tuple[str, str | None]:
    """URL and name of a group, "s3://a/b.zarr::in"; chains of protocols, "filecache::s3://a", stay together."""
    url, mark, group = text.rpartition(MARK)
    return (url, group.strip("/") or None) if mark and not is_url(group) else (text, None)


def open_remote(url: str, group: str | None) -> xr.Dataset:
    """Open a zarr store, or a netCDF or GRIB file, at a URL that fsspec knows: s3, gs, az, https, file, memory, ….

    Credentials and endpoints come from where the file system's library looks for them (environment, fsspec's
    configuration files).

    Args:
        url: of the store or file.
        group: of it, or None.

    Raises:
        UserError: for an unknown protocol or one whose library is not installed, if nothing is there, or it is no
            archive.
    """
    try:
        system, path = fsspec.core.url_to_fs(url)
        store = any(system.exists(f"{path.rstrip('/')}/{mark}") for mark in ZARR_MARKS)
        there = store or system.exists(path)
    except ImportError as error:
        raise UserError(f"{url}: {error}") from error
    except ValueError as error:
        raise UserError(f"{url} is no address that fsspec knows ({error}).") from error
    except Exception as error:  # whatever a network has to say
        raise UserError(f"{url} cannot be reached: {_first(error)}. Check address, network and credentials.") from error
    if not there:
        raise UserError(f"{url} is not there, or is no zarr store that can be seen without credentials.")
    if store:
        return lazy(conventional(_open_store(url, group)))
    try:
        local = fsspec.open_local(f"simplecache::{url}", mode="rb")
    except Exception as error:
        raise UserError(f"{url} cannot be fetched: {_first(error)}.") from error
    return open_one(Path(str(local)), group)


def _open_store(url: str, group: str | None) -> xr.Dataset:
    options: dict[str, Any] = dict(engine="zarr", group=group, chunks=None, cache=False, decode_timedelta=False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*consolidated metadata", category=RuntimeWarning)
            warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification")
            return xr.open_dataset(url, **options)
    except Exception as error:
        raise UserError(f"{url} does not open as a zarr store: {_first(error)}.") from error


def _first(error: BaseException) -> str:
    """A library's message, its first line only."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
