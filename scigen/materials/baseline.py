"""The cheap baseline: level cuts of Gaussian fields with the two-point function and fractions of real specimens."""

import hashlib
from collections.abc import Sequence

import numpy as np

from scigen.materials.correlation import two_point
from scigen.materials.levelcut import levelcut, matched


def level_cuts(
    labels: np.ndarray, phases: int, periodic: Sequence[bool], members: int, key: str = ""
) -> np.ndarray:  # fmt: skip
    """Gaussian level cuts of a specimen; phase after phase in what the earlier ones have left.

    For open axes the fields are made on a torus of all lags, 2 N − 1 of N voxels, and cut off; at lags beyond a quarter
    of the block, which few pairs of voxels tell of, nothing is correlated.

    Args:
        labels: of the specimen (Z, Y, X).
        phases: P.
        periodic: whether each axis wraps around.
        members: M.
        key: of the specimen, from which the seeds come.

    Returns:
        (M, Z, Y, X) uint8.
    """
    out = np.full((members, *labels.shape), phases - 1, np.uint8)
    left = np.ones((members, *labels.shape), bool)
    window = tuple(slice(0, n) for n in labels.shape)
    room = np.ones(labels.shape, bool)
    for p in range(phases - 1):
        phase = labels == p
        share = float(phase[room].mean()) if room.any() else 0.0
        if 0 < share < 1:
            rho = matched(_near(two_point(phase, periodic), phase, periodic), float(phase.mean()))
            for m in range(members):
                digest = hashlib.blake2b(f"{key}|{p}|{m}".encode(), digest_size=4).digest()
                own = levelcut(rho.shape, rho, share, int.from_bytes(digest))[window]
                out[m][own & left[m]] = p
                left[m] &= ~own
        elif share == 1:
            out[left] = p
            left[:] = False
        room &= ~phase
    return out


def _near(s2: np.ndarray, phase: np.ndarray, periodic: Sequence[bool]) -> np.ndarray:
    """A two-point map that is φ² at lags along open axes of which too few pairs of voxels tell."""
    phi = float(phase.mean())
    weight = np.ones_like(s2)
    for axis, (n, wraps) in enumerate(zip(phase.shape, periodic, strict=True)):
        if not wraps:
            lag = np.abs(np.fft.fftfreq(s2.shape[axis], 1 / s2.shape[axis]))
            taper = np.clip(2 - lag / (n / 8), 0, 1)  # 1 up to an eighth of the block, 0 from a quarter on
            weight = weight * taper.reshape([-1 if a == axis else 1 for a in range(3)])
    return phi**2 + (s2 - phi**2) * weight
