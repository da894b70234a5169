"""What a network is told of place and time beside the fields: position in the block, place on the globe, sun, clock."""

from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from scigen.core.codec import tensor
from scigen.errors import UserError

PLACE = 3
"""Fields of `place`."""

FEATURES = ("place", "sun")
"""What `data.features` offers."""


DAYS = {"360_day": 360, "noleap": 365, "365_day": 365, "all_leap": 366, "366_day": 366}
"""Days of a year by calendar; 365.25 in those with leap years."""


def check_features(features: object) -> tuple[str, ...]:
    """The features as a tuple.

    Raises:
        UserError: for one that there is not.
    """
    names = tuple(features) if isinstance(features, list | tuple) else (features,)
    unknown = [f for f in names if f not in FEATURES]
    if unknown:
        raise UserError(f"data.features: {unknown[0]!r} is none of {', '.join(FEATURES)}.")
    return names


def in_block(shape: tuple[int, int], factor: int) -> np.ndarray:
    """Where a cell lies in its coarse cell, as points on two circles: (4, Y, X)."""
    phase = [2 * np.pi * (np.arange(n) % factor + 0.5) / factor for n in shape]
    waves = [f(p) for p in phase for f in (np.sin, np.cos)]
    return np.stack([np.broadcast_to(w[:, None] if i < 2 else w[None], shape) for i, w in enumerate(waves)])


def place(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Points on the unit sphere, which has no seam and no pole: (PLACE, Y, X) of degrees (Y, X)."""
    lat, lon = np.deg2rad(latitude), np.deg2rad(longitude)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def clock(time: xr.DataArray) -> Tensor:
    """sin and cos of the hour of the day and of the day of the year, in UTC: (B, 4)."""
    day, year = angles(time)
    return tensor(np.stack([f(a) for a in (day, year) for f in (np.sin, np.cos)], axis=1))


def sun(time: xr.DataArray, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Cosine of the sun's zenith angle, below 0 at night: (B, Y, X).

    Declination and equation of time by the series of Spencer (1971), good to 0.04 degrees and half a minute.

    Args:
        time: (B,), UTC, any calendar.
        latitude: degrees north, (Y, X).
        longitude: degrees east, (Y, X).
    """
    return zenith(*angles(time), np.deg2rad(latitude), np.deg2rad(longitude))


def zenith(day: Any, year: Any, latitude: Any, longitude: Any, library: Any = np) -> Any:
    """Cosine of the sun's zenith angle: (B, Y, X), of arrays or tensors, whose `library` is numpy or torch.

    Args:
        day: hour of the day as an angle, (B,).
        year: day of the year as an angle, (B,).
        latitude: radians, (Y, X).
        longitude: radians, (Y, X).
        library: with sin and cos.
    """
    cos, sin = library.cos, library.sin
    g = year[:, None, None]
    declination = (
        0.006918 - 0.399912 * cos(g) + 0.070257 * sin(g) - 0.006758 * cos(2 * g) + 0.000907 * sin(2 * g)
        - 0.002697 * cos(3 * g) + 0.00148 * sin(3 * g)
    )  # fmt: skip
    equation = 0.000075 + 0.001868 * cos(g) - 0.032077 * sin(g) - 0.014615 * cos(2 * g) - 0.040849 * sin(2 * g)
    hour = day[:, None, None] - np.pi + longitude[None] + equation
    lat = latitude[None]
    return sin(lat) * sin(declination) + cos(lat) * cos(declination) * cos(hour)


def angles(time: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Hour of the day and day of the year as angles, (B,) each; the year is as long as its calendar has it."""
    length = DAYS.get(time.dt.calendar, 365.25)
    hours = (time.dt.hour + time.dt.minute / 60).values
    return 2 * np.pi * hours / 24, 2 * np.pi * ((time.dt.dayofyear - 1).values + hours / 24) / length
