"""Archives on grids that are not regular: Lambert's conformal projection of the sphere, with or without its metres."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import xarray as xr

RADIUS, PARALLEL, MERIDIAN = 6371229.0, 38.5, -97.5


def _inverse(y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of points [m] of the tangent Lambert conformal cone (Snyder 1987, eq. 14-8 ff.)."""
    n = np.sin(np.deg2rad(PARALLEL))
    f = np.cos(np.deg2rad(PARALLEL)) * np.tan(np.pi / 4 + np.deg2rad(PARALLEL) / 2) ** n / n
    top = f / np.tan(np.pi / 4 + np.deg2rad(PARALLEL) / 2) ** n
    radius, angle = np.hypot(x / RADIUS, top - y / RADIUS), np.arctan2(x / RADIUS, top - y / RADIUS)
    return np.rad2deg(2 * np.arctan((f / radius) ** (1 / n)) - np.pi / 2), MERIDIAN + np.rad2deg(angle / n)


def _archive(rows: int = 12, columns: int = 16, step: float = 3000.0, kind: str = "projected", times: int = 3):
    """t2m (time, Y, X), whose value is 200 + latitude + longitude / 10 + hours, on 2-D coordinates.

    kind: `projected` has metres and a grid mapping as HRRR has; `counted` has neither, as WRF.
    """
    y, x = step * (np.arange(rows) - 5.0), step * (np.arange(columns) - 3.0)
    lat, lon = _inverse(y[:, None], x[None])
    dims = ("y", "x") if kind == "projected" else ("south_north", "west_east")
    names = ("latitude", "longitude") if kind == "projected" else ("XLAT", "XLONG")
    values = 200 + lat + lon / 10 + np.arange(times)[:, None, None]
    ds = xr.Dataset(
        {"t2m": (("time", *dims), values, {"units": "K", "grid_mapping": "crs"})},
        coords={
            "time": pd.date_range("2020", periods=times, freq="h"),
            names[0]: (dims, lat.astype(np.float32), {"units": "degrees_north"}),
            names[1]: (dims, lon.astype(np.float32), {"units": "degrees_east"}),
        },
    )
    if kind == "projected":
        ds = ds.assign_coords(
            y=("y", y, {"standard_name": "projection_y_coordinate", "units": "m"}),
            x=("x", x, {"standard_name": "projection_x_coordinate", "units": "m"}),
        )
        ds["crs"] = (
            (),
            0,
            {
                "grid_mapping_name": "lambert_conformal_conic",
                "standard_parallel": [PARALLEL, PARALLEL],
                "longitude_of_central_meridian": MERIDIAN,
                "earth_radius": RADIUS,
                "proj4": "+proj=lcc",
            },
        )
    return ds


@pytest.fixture
def lambert() -> Callable[..., xr.Dataset]:
    return _archive


@pytest.fixture(params=["projected", "counted"])
def kind(request) -> str:
    return request.param
