"""Conductance of the voxels of a phase between two plates, by conjugate gradients.

Neighbours are one bond apart, the plates half a bond beyond the first and the last layer. Voxels of one colour of the
checkerboard are eliminated, which halves unknowns and iterations. The conductance is an energy, so its error is of
second order in that of the potential; the decrease of the energy at every step is known (Hestenes & Stiefel 1952, J.
Res. Natl. Bur. Stand. 49, 409), and what is left of it is at most |residual|² over the least eigenvalue, for which that
of the Lanczos matrix of the iteration stands or, while that is still far off, that of layers at equal potential.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from scigen.materials.indicator import Mask

Array = NDArray[np.float64]


@dataclass
class _Network:
    """The equations x − K x − CᵀC x = b of the black voxels, scaled by √(sum of bonds), and where they start."""

    across: sparse.csr_array  # C: black to red
    back: sparse.csr_array  # Cᵀ
    among: sparse.csr_array | None  # K: black to black, at the seam of an odd periodic axis
    b: Array
    x: Array
    energy: float  # of x
    slowest: float  # the least eigenvalue, or rather more, of layers at equal potential

    def __matmul__(self, x: Array) -> Array:
        """The left-hand side."""
        out = x - self.back @ (self.across @ x)
        return out if self.among is None else out - self.among @ x


def conductance(phase: Mask, flags: tuple[bool, bool, bool], bonds: Sequence[float], tolerance: float) -> float:
    """Current between plates at 1 and 0 beyond the faces of the first axis, every voxel connected to both."""
    network = _network(phase, flags, bonds)
    energy = network.energy
    residual = network.b - network @ network.x
    direction, square = residual.copy(), float(residual @ residual)
    steps: list[float] = []
    ratios: list[float] = []
    check = 4
    while square > 1e-28 * network.energy and len(steps) < 4 * residual.size + 100:
        image = network @ direction
        steps.append(square / float(direction @ image))
        residual -= steps[-1] * image
        energy -= steps[-1] * square
        before, square = square, float(residual @ residual)
        ratios.append(square / before)
        if len(steps) == check:
            if square <= tolerance * energy * min(_least(steps, ratios), network.slowest):
                break
            check += 2 + check // 8
        direction *= ratios[-1]
        direction += residual
    return energy


def _least(steps: Sequence[float], ratios: Sequence[float]) -> float:
    """The least eigenvalue of the Lanczos matrix of conjugate gradients with these steps and ratios of residuals."""
    a, b = np.array(steps), np.array(ratios[:-1])
    diagonal = 1 / a
    diagonal[1:] += b / a[:-1]
    return float(linalg.eigvalsh_tridiagonal(diagonal, np.sqrt(b) / a[:-1], select="i", select_range=(0, 0))[0])


def _network(phase: Mask, flags: tuple[bool, bool, bool], bonds: Sequence[float]) -> _Network:
    """The reduced equations of a phase; flags and bonds (conductances) of every axis, the first between the plates."""
    where = np.arange(phase.size, dtype=np.int32).reshape(phase.shape)
    z, y, x = np.ogrid[tuple(slice(n) for n in phase.shape)]
    red = (z + y + x) % 2 == 0
    ends, weights = [], []
    for axis, (wrap, bond) in enumerate(zip(flags, bonds, strict=True)):
        n = phase.shape[axis]
        sides = [(slice(0, n - 1), slice(1, n))]
        if wrap and n > 1:
            sides.append((slice(n - 1, n), slice(0, 1)))
            if n % 2:
                red[(slice(None),) * axis + (n - 1,)] = False  # no two red voxels may touch
        for pair in sides:
            lower, upper = ((slice(None),) * axis + (side,) for side in pair)
            both = phase[lower] & phase[upper]
            ends.append(np.stack([where[lower][both], where[upper][both]]))
            weights.append(np.full(ends[-1].shape[1], bond))
    (i, j), weight = np.concatenate(ends, axis=1), np.concatenate(weights)
    flat, red = phase.ravel(), red.ravel()
    plate = 2.0 * bonds[0]
    source = np.zeros(phase.size)
    source[: phase[0].size] = plate * phase[0].ravel()
    total = np.bincount(i, weight, phase.size) + np.bincount(j, weight, phase.size) + source
    total[-phase[0].size :] += plate * phase[-1].ravel()
    scale = np.zeros(phase.size)
    scale[flat] = 1 / np.sqrt(total[flat])

    number = np.empty(phase.size, np.int32)  # of each voxel among those of its colour
    colours = [np.flatnonzero(flat & red), np.flatnonzero(flat & ~red)]
    for members in colours:
        number[members] = np.arange(members.size)
    reds, blacks = (members.size for members in colours)
    entry = weight * scale[i] * scale[j]
    mixed = red[i] | red[j]
    r, k = np.where(red[i], i, j)[mixed], np.where(red[i], j, i)[mixed]
    across = sparse.csr_array((entry[mixed], (number[r], number[k])), (reds, blacks))
    among = None
    if not mixed.all():
        one, other, seam = number[i[~mixed]], number[j[~mixed]], entry[~mixed]
        pairs = np.r_[one, other], np.r_[other, one]
        among = sparse.csr_array((np.r_[seam, seam], pairs), (blacks, blacks))
    back = across.T.tocsr()

    guess, slowest = _layers(phase, bonds[0], total.reshape(phase.shape))
    b = source * scale
    inside = np.flatnonzero(flat)
    potential = np.zeros(phase.size)
    potential[inside] = guess[inside // phase[0].size]
    start = potential[colours[1]] / scale[colours[1]]
    potential[colours[0]] = (b[colours[0]] + across @ start) * scale[colours[0]]
    first, last = potential[: phase[0].size][phase[0].ravel()], potential[-phase[0].size :][phase[-1].ravel()]
    energy = float(weight @ (potential[i] - potential[j]) ** 2) + plate * float(((1 - first) ** 2).sum() + last @ last)
    return _Network(across, back, among, b[colours[1]] + back @ b[colours[0]], start, energy, slowest)


def _layers(phase: Mask, bond: float, total: Array) -> tuple[Array, float]:
    """Potential (Z,) of layers at equal potential, in series, and the least eigenvalue of the reduced equations there.

    `total` (Z, Y, X) are the sums of the bonds of every voxel.
    """
    area = phase.reshape(len(phase), -1)
    bonds = bond * np.r_[2 * area[0].sum(), (area[1:] & area[:-1]).sum(1), 2 * area[-1].sum()]
    drop = np.cumsum(1 / bonds)
    mass = total.sum((1, 2))
    diagonal, beside = (bonds[:-1] + bonds[1:]) / mass, -bonds[1:-1] / np.sqrt(mass[:-1] * mass[1:])
    least = float(linalg.eigvalsh_tridiagonal(diagonal, beside, select="i", select_range=(0, 0))[0])
    return 1 - drop[:-1] / drop[-1], least * (2 - least)
