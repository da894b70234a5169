"""Geometry on the sphere for grids that are told by the latitude and longitude of every cell."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def unit_vectors(latitude: Array, longitude: Array) -> Array:
    """Points (…) [degrees] as unit vectors (…, 3)."""
    lat, lon = np.deg2rad(latitude), np.deg2rad(longitude)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def degrees(vectors: Array, near: Array) -> tuple[Array, Array]:
    """Directions (…, 3) as (latitude, longitude) [degrees], each longitude within half a turn of `near` (…)."""
    latitude = np.rad2deg(np.arctan2(vectors[..., 2], np.hypot(vectors[..., 0], vectors[..., 1])))
    longitude = np.rad2deg(np.arctan2(vectors[..., 1], vectors[..., 0]))
    return latitude, longitude + 360.0 * np.round((near - longitude) / 360.0)


def distances(one: Array, other: Array) -> Array:
    """Chords between unit vectors (…, 3), which are the angles [radians] where these are small."""
    return np.linalg.norm(one - other, axis=-1)


def cell_size(points: Array) -> float:
    """Typical distance [radians] between neighbours of a grid (Y, X, 3), the narrower way; 0 of one cell."""
    steps = [distances(*pair) for pair in ((points[1:], points[:-1]), (points[:, 1:], points[:, :-1]))]
    return min((float(np.median(s)) for s in steps if s.size), default=0.0)


def cell_areas(latitude: Array, longitude: Array) -> Array:
    """Areas [steradian] of the cells around centres (Y, X), at least two along each side.

    A cell is the spherical quadrilateral between its `corners`. Areas of the two triangles: Van Oosterom & Strackee
    1983, IEEE Trans. Biomed. Eng. 30, eq. 8.
    """
    at = corners(unit_vectors(latitude, longitude))
    a, b, c, d = at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]
    return _triangle(a, b, c) + _triangle(a, c, d)


def corners(centres: Array) -> Array:
    """Corners (Y + 1, X + 1, 3) of cells around centres (Y, X, 3), at least two along each side.

    Each is the mean of the four centres around it; beyond the border centres go on as the last two do.
    """
    for axis in (0, 1):
        first, second, last, other = (np.take(centres, [i], axis) for i in (0, 1, -1, -2))
        centres = np.concatenate([2 * first - second, centres, 2 * last - other], axis)
    out = centres[:-1, :-1] + centres[1:, :-1] + centres[:-1, 1:] + centres[1:, 1:]
    return out / np.linalg.norm(out, axis=-1, keepdims=True)


def _triangle(a: Array, b: Array, c: Array) -> Array:
    """Area of spherical triangles of unit vectors (…, 3)."""
    dot = [(p * q).sum(-1) for p, q in ((a, b), (b, c), (c, a))]
    volume = np.abs((a * np.cross(b - a, c - a)).sum(-1))  # differences first: small triangles keep their digits
    return 2 * np.arctan2(volume, 1 + dot[0] + dot[1] + dot[2])
