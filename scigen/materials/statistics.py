"""Descriptors of many volumes, specimen by specimen and member by member."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context

import numpy as np
import xarray as xr

from scigen.io.blocks import Forward
from scigen.materials.descriptors import describe

DIMS = {
    "volume_fraction": ("phase",), "two_point": ("phase", "axis", "lag"), "lineal_path": ("phase", "axis", "lag"),
    "two_point_radial": ("phase", "lag"), "mean_chord": ("phase", "axis"), "surface": ("phase",), "triple_line": (),
    "euler": ("phase",), "connected": ("phase",), "percolates": ("phase", "axis"),
    "effective_diffusivity": ("conductor", "axis"), "tortuosity_factor": ("conductor", "axis"),
}  # fmt: skip
"""Dimensions of the descriptors beside specimen and member."""


def phase_names(archive: xr.Dataset) -> list[str]:
    """Names of the phases of an archive, from the attributes of its labels."""
    about = archive["phase"].attrs
    if "flag_meanings" in about:
        return str(about["flag_meanings"]).split()
    return [f"phase_{i}" for i in range(int(archive["phase"].max()) + 1)]


def describe_all(
    archive: xr.Dataset,
    transport: Sequence[str] = (),
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> xr.Dataset:
    """Descriptors of every volume of an archive.

    Args:
        archive: phase (specimen, z, y, x) or (specimen, member, z, y, x), labels; attributes voxel_size, periodic. It
            may be lazy: one specimen, or a chunk of the file, is in memory at a time.
        transport: names of the phases whose diffusivity is solved for.
        workers: processes (see `effective_diffusivities`).
        progress: called with the number of volumes done.

    Returns:
        The descriptors of `describe` with the dimensions specimen, member (one, if there was none) and theirs.
    """
    names = phase_names(archive)
    single = "member" not in archive["phase"].dims
    data = archive["phase"].expand_dims("member", 1) if single else archive["phase"]
    data = data.transpose("specimen", "member", ...)
    periodic = [bool(p) for p in np.atleast_1d(archive.attrs.get("periodic", [0, 0, 0]))]
    step = [float(v) for v in np.atleast_1d(archive.attrs.get("voxel_size", [1.0, 1.0, 1.0]))]
    conductors = [names.index(p) for p in transport]
    rows: list[dict[str, np.ndarray]] = []

    one = partial(describe, phases=len(names), periodic=periodic, voxel_size=step, transport=conductors)
    with ExitStack() as stack:
        each: Callable = map
        if workers > 1:
            each = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn"))).map
        source = Forward(data.to_dataset(name="phase"), "specimen")
        for i in range(data.sizes["specimen"]):
            volumes = np.asarray(source[slice(i, i + 1)]["phase"].values[0]).astype(np.uint8)
            for row in each(one, volumes):
                rows.append(row)
                if progress:
                    progress(len(rows))
    shape = (data.sizes["specimen"], data.sizes["member"])
    out = {
        k: (("specimen", "member", *dims), np.stack([r[k] for r in rows]).reshape(*shape, *np.shape(rows[0][k])))
        for k, dims in DIMS.items()
    }
    coords = {"specimen": data["specimen"].values, "phase": names, "axis": list("zyx"), "conductor": list(transport)}
    return xr.Dataset(out, coords=coords)
