"""Opening an archive, lazily: netCDF, zarr or GRIB, one file, a glob or a folder, a group of a file or store."""

import difflib
import glob
import hashlib
import itertools
import logging
from pathlib import Path

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io import corrdiff
from scigen.io.blocks import values
from scigen.io.coordinates import has_dates
from scigen.io.groups import MARK, group_names, split_group
from scigen.io.opening import FILES, is_grib, is_zarr, open_one, open_raw
from scigen.io.remote import is_url, open_remote, split_url
from scigen.io.times import find_gaps, say_gaps

log = logging.getLogger(__name__)

PARTIAL = ".partial"
"""Suffix of an output that is not finished."""

THIN = 8
"""Positions along each dimension that a fingerprint looks at."""


def open_archive(path: str | Path) -> xr.Dataset:
    """Open an archive lazily, as dask blocks along time; nothing but coordinates is read.

    Packed integers are decoded. Times of the standard calendar become datetime64, those of others (noleap, 360_day, …)
    cftime objects. The time dimension is called `time` and a member dimension `member` whatever the file calls them;
    the length-one `number` and the `expver` of the Climate Data Store are dropped. Gaps in time are logged.

    GRIB needs the extra `grib`. Variables that lie in a group are reached by its name behind two colons,
    `file.nc::forecast`, with times and places of the root where the group has none. The layouts that CorrDiff's data
    come in are known: `cwa.zarr` is its fine side, `cwa.zarr::era5` its coarse one; `hrrr_mini.nc` likewise, with
    `::output` and `::input` (see `scigen.io.corrdiff`).

    Args:
        path: netCDF or GRIB file, zarr store (format 2 or 3), folder of files, glob of files or stores, or the URL of
            a file or store (see `scigen.io.remote`); each with `::group` or without.

    Raises:
        UserError: if nothing is there, it is no archive, a file is damaged or cut short, it has no such group, or files
            do not combine, such as ones that hold the same time.
    """
    if is_url(str(path)):
        ds = open_remote(*split_url(str(path)))
        ds.encoding["source"] = str(path)
        return _with_gaps_said(ds)
    text, group = split_group(str(path))
    where = Path(text).expanduser()
    found = _find(where, text)
    parts = [open_one(p, group) for p in found]
    ds = parts[0] if len(parts) == 1 else _combine(parts, found, text)
    ds.encoding["source"] = str(where) if group is None else f"{where}{MARK}{group}"
    return _with_gaps_said(ds)


def _with_gaps_said(ds: xr.Dataset) -> xr.Dataset:
    if "time" in ds.indexes and has_dates(ds["time"]) and ds.indexes["time"].is_monotonic_increasing:
        gaps = find_gaps(ds.indexes["time"])
        if gaps:
            log.info("%s has %s.", ds.encoding["source"], say_gaps(gaps))
    return ds


def groups_of(path: str | Path) -> list[str]:
    """Names that may follow :: behind the path of one file or store, none for a folder, a glob or GRIB."""
    where = Path(str(path)).expanduser()
    if (
        is_url(str(path))
        or MARK in str(path)
        or not where.exists()
        or (where.is_dir() and not is_zarr(where))
        or is_grib(where)
    ):
        return []
    return corrdiff.stacks(open_raw(where, None)) or group_names(where)


def _find(path: Path, text: str) -> list[Path]:
    """The files and stores that a path stands for."""
    if path.name.endswith(PARTIAL):
        raise UserError(f"{path} is an unfinished output: run the command that makes it again.")
    if path.is_dir() and not is_zarr(path):
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in FILES and p.is_file())
        if not found:
            inside = sorted(p.name for p in path.iterdir())[:5]
            raise UserError(
                f"{path} is a folder without netCDF or GRIB files and no zarr store; it holds {inside or 'nothing'}. "
                "Give a file, a zarr store, a folder of files or a glob such as 'folder/*.zarr'."
            )
        return found
    if path.exists():
        return [path]
    if any(c in text for c in "*?["):
        found = [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if not p.endswith(PARTIAL)]
        if not found:
            raise UserError(f"Nothing matches {text}: {_nearby(path)}.")
        return found
    raise UserError(f"{path} is not there: {_nearby(path)}.")


def fingerprint(ds: xr.Dataset) -> str:
    """16 hexadecimal digits that tell archives apart, whatever their path, chunks, encoding or order of variables.

    They depend on dimensions, coordinates, names, dimensions, types and units of the variables, and on at most 8 values
    along each dimension of a variable, evenly spread: cheap for a large archive, and blind to a change between them.

    Raises:
        UserError: if the file is damaged.
    """
    source = ds.encoding.get("source", "the archive")
    digest = hashlib.sha256(repr(sorted((str(k), n) for k, n in ds.sizes.items())).encode())
    for name, array in sorted(ds.variables.items(), key=lambda item: str(item[0])):
        role = "coordinate" if name in ds.coords else "variable"
        kind = {"M": "time", "O": "text", "S": "text", "U": "text", "T": "text"}.get(
            array.dtype.kind
        ) or array.dtype.name
        units = str(array.attrs.get("units", ""))
        digest.update(repr((role, str(name), array.dims, kind, units)).encode())
        whole = role == "coordinate" and array.ndim <= 1
        places = {d: _spread(n, n if whole else min(n, THIN)) for d, n in array.sizes.items()}
        thin = values(ds[name].isel(places), f"'{name}' of {source}")
        if thin.dtype.kind == "M":
            thin = thin.astype("datetime64[us]").astype(np.int64)
        elif thin.dtype.kind in "OSTU":
            thin = np.array("\n".join(map(str, thin.ravel())).encode())
        digest.update(np.ascontiguousarray(thin, thin.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()[:16]


def _spread(length: int, count: int) -> np.ndarray:
    """`count` positions, evenly spread over 0 … length − 1."""
    return np.linspace(0, length - 1, count).round().astype(int)


def _combine(parts: list[xr.Dataset], found: list[Path], what: str) -> xr.Dataset:
    """Join files of consecutive times, or of different variables."""
    _refuse_copies(parts, found)
    try:
        ds = xr.combine_by_coords(
            parts, data_vars="minimal", coords="minimal", compat="equals", join="exact", combine_attrs="drop_conflicts"
        )
    except (ValueError, TypeError, xr.MergeError) as error:
        first = str(error).strip().splitlines()[0]
        names = ", ".join(p.name for p in found[:4]) + (", …" if len(found) > 4 else "")
        raise UserError(
            f"The {len(found)} files of {what} ({names}) do not combine: {first}. They must share one grid and hold "
            "either different times, without overlap, or different variables; give a narrower glob."
        ) from error
    assert isinstance(ds, xr.Dataset)
    if "time" in ds.coords:
        ds["time"].encoding = {k: v for k, v in parts[0]["time"].encoding.items() if k in ("units", "calendar")}
    log.info("%s: %d files combined.", what, len(found))
    return ds


def _refuse_copies(parts: list[xr.Dataset], found: list[Path]) -> None:
    """Refuse files of the same variables that hold the same time.

    Raises:
        UserError: if there are such; it names two of them and the first time.
    """
    timed = [i for i, p in enumerate(parts) if "time" in p.indexes and len(p.indexes["time"])]
    alike: dict[frozenset[str], list[int]] = {}
    for i in timed:
        alike.setdefault(frozenset(map(str, parts[i].data_vars)), []).append(i)
    for group in alike.values():
        group.sort(key=lambda i: parts[i].indexes["time"].min())
        for a, b in itertools.pairwise(group):
            if _same_cells(parts[a], parts[b]):
                both = parts[a].indexes["time"].intersection(parts[b].indexes["time"])
                if len(both):
                    raise UserError(
                        f"{found[a]} and {found[b]} both hold {len(both)} time{'s' * (len(both) > 1)}, first "
                        f"{both[0]}: leave one of the files out, or cut the copies off one, e.g. "
                        "ds.sel(time=slice(…)).to_netcdf(…)."
                    )


def _same_cells(a: xr.Dataset, b: xr.Dataset) -> bool:
    """Whether two datasets lie on the same grid, as far as their indexes tell."""
    others = [d for d in a.indexes if d != "time"]
    return set(a.indexes) == set(b.indexes) and all(a.indexes[d].equals(b.indexes[d]) for d in others)


def _nearby(path: Path) -> str:
    """What exists close to a path that does not, as a clause."""
    folder = path.parent
    if not folder.is_dir():
        while not folder.parent.is_dir() and folder != folder.parent:
            folder = folder.parent
        return f"there is no folder {folder}"
    names = sorted(p.name for p in folder.iterdir())
    close = [] if "*" in path.name else difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    if close:
        return f"the closest name in that folder is {folder / close[0]}"
    archives = [n for n in names if Path(n).suffix.lower() in (*FILES, ".zarr")][:5]
    return f"the folder {folder.resolve()} holds {', '.join(archives) if archives else 'no archive'}"
