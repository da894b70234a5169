"""Volumes in zarr stores and netCDF files: arrays, and variables with the dimensions (specimen, member,) z, y, x."""

import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from scigen.errors import UserError
from scigen.io.blocks import reading, values
from scigen.io.opening import is_zarr, open_raw
from scigen.materials.arrays import choose, natural, squeezed
from scigen.materials.scan import Scan

log = logging.getLogger(__name__)

SPACE = ("z", "y", "x")
VARIABLE = "phase"
"""What scigen's own archives call the labels."""


def is_store(path: Path) -> bool:
    """Whether a folder is a zarr store, a bare array of format 2 among them."""
    return is_zarr(path) or (path / ".zarray").is_file()


def read_store(path: Path, name: str, variable: str | None) -> list[Scan]:
    """Volumes of a zarr store or netCDF file.

    A variable of xarray's with dimensions before z, y, x gives a volume for each of their positions, named by their
    coordinates; those of one specimen are a group. Voxel sizes are taken from the attribute `voxel_size`, else from
    evenly spaced coordinates.

    Args:
        path: of the store or file.
        name: of the volume, or the beginning of the names of several.
        variable: which is meant; by default `phase`, else the only one that can be.

    Raises:
        UserError: if it is damaged, or `variable` is not there or needed.
    """
    if not is_store(path):
        return _of_dataset(open_raw(path, None), name, variable, path)
    with reading(str(path)):
        root = zarr.open(path, mode="r")
    if isinstance(root, zarr.Array):
        return [_of_array(root, name, {}, path)]
    arrays = {key: item for key, item in root.members(max_depth=None) if isinstance(item, zarr.Array)}
    if any(_dims(a) for a in arrays.values()) and not _ome(root):
        return _of_dataset(open_raw(path, None), name, variable, path)
    if not arrays:
        raise UserError(f"{path} holds no array: expected one with the axes z, y, x.")
    if _ome(root) and variable is None:
        return [_of_pyramid(root, name, path)]
    if variable is None:
        keys = sorted((k for k, a in arrays.items() if a.ndim > 2), key=natural) or sorted(arrays)
    else:
        keys = [choose(list(arrays), variable, path)]
    several = len(keys) > 1
    about = dict(root.attrs)
    return [_of_array(arrays[k], f"{name}-{k.replace('/', '-')}" if several else name, about, path) for k in keys]


def _dims(array: zarr.Array) -> Any:
    """Names of the dimensions, in either format of zarr, as xarray writes them."""
    return array.attrs.get("_ARRAY_DIMENSIONS") or getattr(array.metadata, "dimension_names", None)


def _of_array(array: zarr.Array, name: str, attrs: Mapping[str, Any], path: Path) -> Scan:
    """A bare array."""
    with reading(str(path)):
        return Scan(name, squeezed(np.asarray(array[...]))).about(dict(array.attrs), attrs)


def _ome(root: zarr.Group) -> Any:
    """The multiscales of OME-Zarr, if it is one."""
    about = root.attrs.get("ome")
    return (about if isinstance(about, Mapping) else root.attrs).get("multiscales")


def _of_pyramid(root: zarr.Group, name: str, path: Path) -> Scan:
    """The finest level of OME-Zarr with its voxel size."""
    try:
        image = _ome(root)[0]
        level = image["datasets"][0]
        array = root[level["path"]]
        if not isinstance(array, zarr.Array):
            raise TypeError(level["path"])
        axes = image.get("axes", [])
        scale = next(t["scale"] for t in level.get("coordinateTransformations", []) if t["type"] == "scale")[-3:]
        units = {a.get("unit") for a in axes[-3:]} if axes and isinstance(axes[0], Mapping) else {None}
    except (KeyError, IndexError, TypeError, StopIteration) as error:
        raise UserError(
            f"{path}: its multiscales cannot be understood ({error!r}): name an array, variable=0."
        ) from error
    unit = units.pop() if len(units) == 1 else None
    return _of_array(array, name, {} if unit is None else {"voxel_size": scale, "unit": unit}, path)


def _of_dataset(ds: xr.Dataset, name: str, variable: str | None, path: Path) -> list[Scan]:
    """The volumes of a variable."""
    possible = [str(v) for v, array in ds.data_vars.items() if array.ndim > 2]
    if variable is None and VARIABLE in possible:
        variable = VARIABLE
    if variable is None and not possible:
        shapes = ", ".join(f"{v} {dict(a.sizes)}" for v, a in ds.data_vars.items())
        raise UserError(f"{path} has no variable with the dimensions z, y, x: it has {shapes or 'none'}.")
    known = [str(v) for v in ds.data_vars]
    array = ds[choose(known if variable is not None else possible, variable, path)]
    dims = _space(array, path)
    lead = [str(d) for d in array.dims if d not in dims]
    size, unit = _spacing(ds, dims)
    array = array.transpose(*lead, *dims)
    several = int(np.prod([array.sizes[d] for d in lead], dtype=np.int64)) > 1
    out = []
    for place in itertools.product(*(range(array.sizes[d]) for d in lead)):
        words = [str(_word(array, d, i)) for d, i in zip(lead, place, strict=True)]
        one = array.isel(dict(zip(lead, place, strict=True)))
        scan = Scan(
            "-".join([name, *words]) if several else name,
            values(one, f"'{array.name}' of {path}"),
            size,
            unit,
            group=f"{name}-{words[0]}" if several and len(lead) > 1 else "",
        )
        out.append(scan.about(dict(array.attrs), dict(ds.attrs)))
    return out


def _space(array: xr.DataArray, path: Path) -> list[str]:
    """The dimensions z, y, x of a variable, in this order."""
    by_name = {str(d).lower(): str(d) for d in array.dims}
    if all(a in by_name for a in SPACE):
        return [by_name[a] for a in SPACE]
    if array.ndim == 3:
        log.info("%s: the dimensions %s are taken as z, y, x.", path, ", ".join(map(str, array.dims)))
        return [str(d) for d in array.dims]
    raise UserError(
        f"'{array.name}' of {path} has the dimensions {tuple(map(str, array.dims))}: expected z, y, x, with specimen "
        f"and member before them; rename them, ds.rename({{'{array.dims[-1]}': 'x', …}})."
    )


def _word(array: xr.DataArray, dim: str, position: int) -> Any:
    """What a position along a dimension is called."""
    return array[dim].values[position] if dim in array.coords and array[dim].ndim == 1 else position


def _spacing(ds: xr.Dataset, dims: list[str]) -> tuple[tuple[float, float, float] | None, str | None]:
    """Voxel size and unit of coordinates that are evenly spaced in one unit; None if they are not."""
    steps, units = [], set()
    for d in dims:
        if d not in ds.coords or ds[d].ndim != 1 or ds[d].size < 2 or ds[d].dtype.kind not in "iuf":
            return None, None
        difference = np.diff(ds[d].values.astype(np.float64))
        step = float(difference.mean())
        if step == 0 or not np.allclose(difference, step, rtol=1e-4, atol=0):
            return None, None
        steps.append(float(f"{abs(step):.9g}"))
        units.add(ds[d].attrs.get("units"))
    unit = units.pop() if len(units) == 1 else None
    return ((steps[0], steps[1], steps[2]), str(unit)) if unit else (None, None)
