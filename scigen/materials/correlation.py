"""Two-point and lineal statistics of a phase: S2, lineal path, chords.

Torquato 2002, Random Heterogeneous Materials, chapter 2. Lags and lengths are in voxels. `periodic` is one truth or
three, for z, y, x; along open axes only what lies within the volume counts.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from scigen.materials.indicator import Mask, checked, place, wraps

Array = NDArray[np.float64]
SPACE = (-3, -2, -1)


def reach(shape: Sequence[int]) -> int:
    """R, the number of lags 0 … R − 1 of statistics along axes: up to half of the shortest side."""
    return min(shape[-3:]) // 2 + 1


def two_point(indicator: ArrayLike, periodic: bool | Sequence[bool] = False) -> Array:
    """S2: probability that both ends of a lag are in the phase.

    Args:
        indicator: (…, Z, Y, X).
        periodic: along every axis or each.

    Returns:
        Map on lags in the order of `numpy.fft.fftfreq`, negative ones behind: (…, Z, Y, X) along periodic axes,
        2 N − 1 lags along open ones of N voxels. At lag 0 it is the volume fraction.
    """
    phase = checked(indicator)
    flags = wraps(periodic)
    sides = phase.shape[-3:]
    lags = [n if wrap else 2 * n - 1 for n, wrap in zip(sides, flags, strict=True)]
    padded = [n if wrap else fft.next_fast_len(n, real=True) for n, wrap in zip(lags, flags, strict=True)]
    power = np.abs(fft.rfftn(phase.astype(np.float64), padded, axes=SPACE)) ** 2
    pairs = np.rint(fft.irfftn(power, padded, axes=SPACE))  # counts
    for axis, (n, wrap) in enumerate(zip(sides, flags, strict=True)):
        lag = np.abs(_lags(n, wrap))
        pairs = np.take(pairs, _lags(n, wrap), axis - 3)
        counts = np.full(lag.size, n) if wrap else n - lag
        pairs = pairs / counts.reshape(-1, *(1,) * (2 - axis))
    return pairs


def two_point_axes(indicator: ArrayLike, periodic: bool | Sequence[bool] = False) -> Array:
    """S2 (…, 3, R) at lags 0 … R − 1 along z, y, x; `reach` tells R."""
    s2 = two_point(indicator, periodic)
    lags = np.arange(reach(np.shape(indicator)))
    return np.stack([s2[..., lags, 0, 0], s2[..., 0, lags, 0], s2[..., 0, 0, lags]], axis=-2)


def two_point_radial(indicator: ArrayLike, periodic: bool | Sequence[bool] = False) -> Array:
    """S2 (…, R), the mean over all lags whose length rounds to 0 … R − 1 voxels."""
    s2 = two_point(indicator, periodic)
    sides = np.shape(indicator)[-3:]
    z, y, x = np.meshgrid(*map(_lags, sides, wraps(periodic)), indexing="ij", sparse=True)
    length = np.floor(np.sqrt(z**2 + y**2 + x**2) + 0.5).astype(np.int64).ravel()
    count = reach(sides)
    near = length < count
    rows = s2.reshape(-1, length.size)[:, near]
    total = np.array([np.bincount(length[near], row, count) for row in rows])
    return (total / np.bincount(length[near], minlength=count)).reshape(*s2.shape[:-3], count)


def lineal_path(indicator: ArrayLike, periodic: bool | Sequence[bool] = False) -> Array:
    """L (…, 3, R): probability that r + 1 successive voxels along z, y, x are all in the phase, r = 0 … R − 1."""
    phase = checked(indicator)
    lags = reach(phase.shape)
    out = np.empty((*phase.shape[:-3], 3, lags))
    for axis, wrap in enumerate(wraps(periodic)):
        lines = np.moveaxis(phase, axis - 3, -3)
        n = lines.shape[-3]
        area = lines.shape[-2] * lines.shape[-1]
        whole = lines
        for r in range(lags):
            if r:
                whole = whole & np.roll(lines, -r, -3) if wrap else whole[..., :-1, :, :] & lines[..., r:, :, :]
            out[..., axis, r] = np.count_nonzero(whole, axis=SPACE) / ((n if wrap else n - r) * area)
    return out


def chord_lengths(
    indicator: ArrayLike, axis: int, periodic: bool | Sequence[bool] = False, *, border: bool = False
) -> NDArray[np.int64]:
    """Lengths [voxels] of the maximal runs of a phase along an axis.

    Args:
        indicator: (…, Z, Y, X).
        axis: 0 (z), 1 (y) or 2 (x).
        periodic: along every axis or each; a run all the way round is as long as the axis.
        border: keep the runs that an open border cuts as well.

    Returns:
        One number a run, in no order.
    """
    axis = place(axis)
    lines = np.moveaxis(checked(indicator), axis - 3, -1).reshape(-1, np.shape(indicator)[axis - 3])
    n = lines.shape[-1]
    if wraps(periodic)[axis]:
        full = lines.all(1)
        rest = lines[~full]
        gap = rest.argmin(1)  # a voxel out of the phase comes first: no run is cut
        rest = np.take_along_axis(rest, (np.arange(n) + gap[:, None]) % n, 1)
        return np.concatenate([np.full(full.sum(), n), _runs(rest)[0]])
    lengths, whole = _runs(lines)
    return lengths if border else lengths[whole]


def mean_chord(indicator: ArrayLike, periodic: bool | Sequence[bool] = False, *, border: bool = False) -> Array:
    """Mean chord (…, 3) [voxels] along z, y, x, as `chord_lengths` counts them; NaN where there is none."""
    phase = checked(indicator)
    volumes = phase.reshape(-1, *phase.shape[-3:])
    chords = [[chord_lengths(v, axis, periodic, border=border) for axis in range(3)] for v in volumes]
    means = [[float(c.mean()) if c.size else float("nan") for c in row] for row in chords]
    return np.array(means).reshape(*phase.shape[:-3], 3)


def _runs(lines: Mask) -> tuple[NDArray[np.int64], Mask]:
    """Lengths of the runs of lines (K, N), and whether each ends within its line on both sides."""
    edges = np.diff(np.pad(lines, ((0, 0), (1, 1))).astype(np.int8), axis=1).ravel()
    width = lines.shape[-1] + 1
    begin, end = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return (end - begin).astype(np.int64), (begin % width > 0) & (end % width < width - 1)


def _lags(n: int, wrap: bool) -> NDArray[np.int64]:
    """Lags of an axis in the order of `two_point`, signed."""
    count = n if wrap else 2 * n - 1
    return np.rint(fft.fftfreq(count, 1 / count)).astype(np.int64)
