"""Everything that is told of one labelled volume."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scigen.errors import UserError
from scigen.materials.correlation import lineal_path, mean_chord, two_point_axes, two_point_radial
from scigen.materials.diffusion import effective_diffusivities, tortuosity_factor
from scigen.materials.indicator import spacing
from scigen.materials.surface import surface, triple_line
from scigen.materials.topology import connected, euler, percolates


def describe(
    labels: ArrayLike,
    phases: int,
    *,
    periodic: bool | Sequence[bool] = False,
    voxel_size: float | Sequence[float] = 1.0,
    transport: Sequence[int] = (),
) -> dict[str, NDArray]:
    """Descriptors of a volume.

    Args:
        labels: whole numbers 0 … P − 1 (Z, Y, X).
        phases: P.
        periodic: along every axis or each.
        voxel_size: edges of a voxel along z, y, x [length].
        transport: the phases whose diffusivity is wanted, T of them; it takes longest.

    Returns:
        volume_fraction (P,); two_point, lineal_path (P, 3, R) at lags of 0 … R − 1 voxels along z, y, x;
        two_point_radial (P, R) over lags in voxels; mean_chord (P, 3) [length]; surface (P,) [1 / length];
        triple_line () [1 / length²]; euler (P,) [1 / length³]; connected (P,); percolates (P, 3);
        effective_diffusivity, tortuosity_factor (T, 3). Of a missing phase what counts is 0, and what averages over it,
        its mean chord, largest cluster and tortuosity, is NaN.

    Raises:
        UserError: if the labels are not such numbers, or a phase of `transport` is none of them.
    """
    values = np.asarray(labels)
    if values.ndim != 3 or values.size == 0 or values.dtype.kind not in "iub":
        raise UserError(f"Labels are whole numbers (Z, Y, X), got {values.dtype} of shape {values.shape}.")
    if values.min() < 0 or values.max() >= phases:
        raise UserError(
            f"Labels are 0 … {phases - 1} for {phases} phases, got {values.min()} … {values.max()}: "
            "number the phases anew."
        )
    if not set(transport) <= set(range(phases)):
        raise UserError(f"Diffusion is asked for in the phases {list(transport)}, of 0 … {phases - 1}.")
    edges = np.array(spacing(voxel_size))
    each = values == np.arange(phases)[:, None, None, None]
    fraction = each.mean((1, 2, 3))
    diffusivity = effective_diffusivities(values[None], transport, periodic=periodic, voxel_size=voxel_size)[0]
    return {
        "volume_fraction": fraction,
        "two_point": two_point_axes(each, periodic),
        "two_point_radial": two_point_radial(each, periodic),
        "lineal_path": lineal_path(each, periodic),
        "mean_chord": mean_chord(each, periodic) * edges,
        "surface": surface(each, voxel_size, periodic),
        "triple_line": triple_line(values, voxel_size, periodic),
        "euler": euler(each, periodic) / edges.prod(),
        "connected": np.array([connected(phase, periodic) for phase in each]),
        "percolates": np.array([percolates(phase, periodic) for phase in each]),
        "effective_diffusivity": diffusivity,
        "tortuosity_factor": tortuosity_factor(fraction[list(transport), None], diffusivity),
    }
