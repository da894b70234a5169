"""What a fit is made of: labelled volumes, the names of their phases, and the parameters of their making."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.archive import open_archive
from scigen.materials.reading import read_volumes
from scigen.materials.synth import ATTRIBUTE, PROCESS
from scigen.materials.volumes import Phases, Volume

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Specimens:
    """Labelled volumes of one material.

    Attributes:
        volumes: all of one voxel size.
        phases: their names, in order of the labels.
        process: parameters of their making by name, (volumes,) each.
        groups: (volumes,) those of a group belong to one split.
    """

    volumes: Sequence[Volume]
    phases: Sequence[str]
    process: dict[str, np.ndarray] = field(default_factory=dict)
    groups: Sequence[str] = ()

    def fingerprint(self) -> str:
        """16 hex digits of labels, voxel size and parameters."""
        digest = hashlib.sha256(repr((list(self.phases), self.volumes[0].voxel_size, list(self.groups))).encode())
        for volume in self.volumes:
            digest.update(repr(volume.labels.shape).encode())
            digest.update(volume.labels.tobytes())
        for name, values in sorted(self.process.items()):
            digest.update(name.encode() + np.asarray(values, np.float64).tobytes())
        return digest.hexdigest()[:16]


def open_specimens(
    path: str | Path | Sequence[str], phases: Phases | None = None, process: Sequence[str] | None = None, **reading: Any
) -> Specimens:
    """Read volumes, and where they lie in an archive of specimens, the parameters beside them.

    Args:
        path: see `read_volumes`; or a zarr or netCDF archive of phase (specimen, z, y, x).
        phases: grey values by phase.
        process: variables (specimen) of such an archive that condition; None takes those of the default data.
        reading: further arguments of `read_volumes`.

    Raises:
        UserError: if the volumes cannot be used, or differ in voxel size, or a parameter is missing or not positive.
    """
    beside = _beside(path)
    if beside is not None and "periodic" in beside.attrs:
        reading["periodic"] = [bool(p) for p in np.atleast_1d(beside.attrs["periodic"])]
    volumes, names = read_volumes(path, phases, **reading)
    sizes = {v.voxel_size for v in volumes} | {(v.unit,) for v in volumes}
    if len(sizes) > 2:
        raise UserError(
            f"The volumes of {path} differ in voxel size: {', '.join(map(str, sorted(map(str, sizes))))}. Resample them"
            " to one, or say data.voxel_size= if the files are wrong."
        )
    found: dict[str, np.ndarray] = {}
    groups = [v.group or v.name for v in volumes]
    if beside is not None and beside.sizes["specimen"] == len(volumes):
        wanted = process if process is not None else (list(PROCESS) if ATTRIBUTE in beside.attrs else [])
        found = {name: _parameter(beside, name) for name in wanted}
        if "simulation" in beside:
            groups = [str(g) for g in beside["simulation"].values]
    elif process:
        raise UserError(f"data.process={list(process)}: only archives of phase (specimen, z, y, x) have parameters.")
    return Specimens(volumes, names, found, groups)


def _beside(path: str | Path | Sequence[str]) -> xr.Dataset | None:
    """The archive of specimens at a path, if it is one."""
    if not isinstance(path, str | Path) or Path(path).suffix not in (".zarr", ".nc"):
        return None
    try:
        archive = open_archive(path)
    except UserError:
        return None
    return archive if "specimen" in archive.dims and "member" not in archive.dims else None


def _parameter(archive: xr.Dataset, name: str) -> np.ndarray:
    """One positive number a specimen."""
    if name not in archive or archive[name].dims != ("specimen",):
        has = [str(k) for k, v in archive.data_vars.items() if v.dims == ("specimen",)]
        raise UserError(f"data.process={name}: the archive has {', '.join(has) or 'no parameter'} along specimen.")
    values = np.asarray(archive[name].values, np.float64)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise UserError(f"data.process={name}: parameters are positive numbers, which are normalised as logarithms.")
    return values
