"""One file or store, lazily: netCDF, zarr or GRIB, or a group of it, in whichever layout it is kept."""

import logging
import warnings
from pathlib import Path

import netCDF4
import scipy.io
import xarray as xr

from scigen.errors import UserError
from scigen.io import corrdiff, grib
from scigen.io.blocks import lazy
from scigen.io.coordinates import conventional
from scigen.io.groups import MARK, group_names, refuse_rootless, with_root

log = logging.getLogger(__name__)

NETCDF = (".nc", ".nc4", ".netcdf", ".cdf")
FILES = (*NETCDF, *grib.SUFFIXES)
"""Suffixes of files that are archives."""

ZARR_MARKS = ("zarr.json", ".zgroup", ".zmetadata")


def open_one(path: Path, group: str | None) -> xr.Dataset:
    """Open one file or store, or a group of it; see `scigen.io.archive.open_archive`."""
    if is_grib(path):
        if group is not None:
            raise UserError(f"{path} is GRIB, which has no groups: leave out {MARK}{group}.")
        return lazy(conventional(grib.open_grib(path)))
    root = open_raw(path, None)
    if corrdiff.stacks(root):
        return lazy(conventional(corrdiff.unstack(root, group, str(path))))
    if group is None and root.data_vars and not _of_crops(root):
        return lazy(conventional(root))
    names = group_names(path)
    if {"input", "output"} <= set(names) and group in (None, "input", "output") and "time" in root.variables:
        side = group or corrdiff.FINE["crops"]
        if group is None:
            log.info("%s: the group '%s' is taken; the other side is %s%sinput.", path, side, path, MARK)
        both = {name: with_root(open_raw(path, name), root) for name in ("input", "output")}
        other = both["output" if side == "input" else "input"]
        return lazy(conventional(corrdiff.crops(both[side], other, root, side, str(path))))
    if group is None and root.data_vars:
        return lazy(conventional(root))
    if group is None:
        raise refuse_rootless(path, names)
    if group not in names:
        raise UserError(f"{path} has no group '{group}' with variables: it has {', '.join(names) or 'none'}.")
    ds = with_root(open_raw(path, group), root)
    if not ds.data_vars:
        raise UserError(f"The group '{group}' of {path} holds no variable but coordinates.")
    return lazy(conventional(ds))


def is_grib(path: Path) -> bool:
    """Whether a file is GRIB, by its suffix or its first bytes."""
    if not path.is_file():
        return False
    if path.suffix.lower() in grib.SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(4) == b"GRIB"


def _of_crops(root: xr.Dataset) -> bool:
    """Whether the root holds nothing but what HRRR-Mini has there."""
    return set(map(str, root.data_vars)) <= {"coord", "time"}


def open_raw(path: Path, group: str | None) -> xr.Dataset:
    """Open the root or a group of a file or store."""
    try:
        if is_zarr(path):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*consolidated metadata", category=RuntimeWarning)
                warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification")
                return xr.open_dataset(
                    path, engine="zarr", group=group, chunks=None, cache=False, decode_timedelta=False
                )
        _check_classic(path)
        return xr.open_dataset(path, group=group, chunks=None, cache=False, decode_timedelta=False)
    except UserError:
        raise
    except Exception as error:
        raise _complaint(path, error) from error


def _check_classic(path: Path) -> None:
    """See that a file of the classic netCDF formats has its full length: what is missing would be read as zeros.

    Raises:
        UserError: if it is cut short.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if head[:3] != b"CDF" or head[4:8] == b"\xff" * 4:  # the latter: written as a stream, of unknown length
        return
    if head[3] == 5:  # scipy reads versions 1 and 2 only; this bound overlooks the length of the header
        with netCDF4.Dataset(path) as classic:
            short = path.stat().st_size < sum(v.size * v.dtype.itemsize for v in classic.variables.values())
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its maps of the file are closed when they are collected
                scipy.io.netcdf_file(path, mmap=True).close()
            short = False
        except (ValueError, TypeError, IndexError):
            short = True
    if short:
        raise UserError(f"{path} is cut short: its header announces more data than it holds. Fetch or make it again.")


def _complaint(path: Path, error: Exception) -> UserError:
    """What to say when a file does not open."""
    if "unable to decode time" in str(error).lower():
        return UserError(
            f"The times of {path} cannot be decoded: they need units such as 'hours since 1970-01-01' and a calendar."
        )
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(4)
        if head[:3] != b"CDF" and head != b"\x89HDF":
            what = "is no netCDF file" if head else "is empty"
            return UserError(f"{path} {what}: give a netCDF file (classic or netCDF-4), a zarr store or GRIB.")
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(f"{path} does not open ({first}): it seems damaged or cut short. Fetch or make it again.")


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr store."""
    return any((path / mark).is_file() for mark in ZARR_MARKS)
