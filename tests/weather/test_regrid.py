"""Regridding: what bilinear interpolation and shared areas must reproduce, everywhere and at every seam."""

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.weather.area import cell_weights
from scigen.weather.grid import Grid
from scigen.weather.regrid import METHODS, check_method, regrid


def archive(lat: np.ndarray, lon: np.ndarray, field=None, times: int = 2) -> xr.Dataset:
    """t2m (time, lat, lon) of field(lat, lon) plus the number of the time; noise without a field."""
    grid = np.meshgrid(lat, lon, indexing="ij")
    noise = np.random.default_rng(0).standard_normal(grid[0].shape)
    values = (noise if field is None else field(*grid)) + np.arange(times)[:, None, None]
    coords = {"time": pd.date_range("2020", periods=times), "lat": lat, "lon": lon}
    return xr.Dataset({"t2m": (("time", "lat", "lon"), values, {"units": "K"})}, coords, {"title": "kept"})


def linear(lat, lon):
    return 3 * lat - 2 * lon + 1


def wave(lat, lon):
    """Smooth on the sphere."""
    return np.sin(np.deg2rad(lat)) + np.cos(np.deg2rad(lat)) * np.cos(np.deg2rad(lon - 40))


def regular(lat, lon) -> Grid:
    return Grid.of(xr.Dataset(coords={"latitude": np.asarray(lat, float), "longitude": np.asarray(lon, float)}))


REGION = regular(np.arange(41.0, 49, 0.7), np.arange(3.0, 12, 0.9))
STORED = {
    "as it is": lambda ds: ds,
    "flipped": lambda ds: ds.isel(lat=slice(None, None, -1)),
    "0 to 360": lambda ds: ds.assign_coords(lon=ds["lon"] + 360),
    "mirrored": lambda ds: ds.isel(lon=slice(None, None, -1)),
    "transposed": lambda ds: ds.transpose("lon", "time", "lat"),
    "chunked": lambda ds: ds.chunk(time=1, lat=5),
}


@pytest.mark.parametrize("stored", STORED)
def test_bilinear_interpolation_reproduces_a_linear_field(stored: str) -> None:
    out = regrid(STORED[stored](archive(np.arange(38.0, 53, 1.5), np.arange(-1.0, 16, 1.3), linear)), REGION, "linear")
    expected = linear(REGION.y[:, None], REGION.x[None]) + np.arange(2)[:, None, None]
    np.testing.assert_allclose(out["t2m"], expected, rtol=1e-12)
    assert out["t2m"].dims == ("time", "latitude", "longitude") and Grid.of(out).to_dict() == REGION.to_dict()
    assert set(out.coords) == {"time", "latitude", "longitude"}
    assert out["t2m"].attrs == {"units": "K"} and out.attrs == {"title": "kept"}
    assert dask.is_dask_collection(out["t2m"].data) == (stored == "chunked")


def test_it_reproduces_it_on_a_projected_grid(lambert, kind) -> None:
    """ERA5 under HRRR: a 0.25° archive at the places of 3-km cells, told by their 2-D coordinates."""
    target = Grid.of(lambert(24, 32, kind=kind))
    ds = archive(np.arange(36.0, 41, 0.25), np.arange(259.0, 266, 0.25), lambda lat, lon: linear(lat, lon - 360))
    out = regrid(ds.chunk(time=1), target, "linear")
    expected = linear(target.latitude, target.longitude)
    np.testing.assert_allclose(out["t2m"][0], expected, rtol=1e-9)
    assert dask.is_dask_collection(out["t2m"].data) and Grid.of(out).same(target)
    assert ("crs" in out.coords) == (kind == "projected")
    with pytest.raises(UserError, match=r"regrid=conservative needs a fine grid with 1-D latitudes"):
        regrid(ds, target, "conservative")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stored", STORED)
def test_a_constant_stays_it(method: str, stored: str) -> None:
    ds = archive(np.linspace(90, -90, 46), np.arange(-180, 180, 4.0), lambda lat, lon: 273.15 + 0 * lat)
    target = regular(np.linspace(-90, 90, 37), np.arange(1.3, 361, 5.0))
    for grid in (target, REGION):
        np.testing.assert_allclose(regrid(STORED[stored](ds), grid, method)["t2m"][0], 273.15, rtol=1e-12)


@pytest.mark.parametrize("rows", [np.linspace(90, -90, 46), np.arange(-88, 90, 4.0)])
@pytest.mark.parametrize(
    "target",
    [
        (np.linspace(-90, 90, 37), np.arange(0, 360, 5.0)),
        (np.arange(87.1875, -90, -5.625), np.arange(1.3, 361, 5.625)),
        (np.linspace(-90, 90, 91), np.arange(-180, 180, 2.0)),
    ],
)
def test_shared_areas_keep_the_mean_of_the_globe(rows, target) -> None:
    """To the last digits, poles and seam included, for noise; bilinear interpolation does not."""
    ds, grid = archive(rows, np.arange(0, 360, 4.0)), regular(*target)
    mean = (ds["t2m"].values[0] * cell_weights(ds, ("lat", "lon"))).mean()
    out = {m: (regrid(ds, grid, m)["t2m"].values[0] * grid.weights).mean() for m in METHODS}
    assert out["conservative"] == pytest.approx(mean, abs=1e-14)
    assert abs(out["linear"] - mean) > 1e-6


def test_blocks_are_means_of_the_cells_in_them() -> None:
    ds = archive(np.arange(40.25, 50, 0.5), np.arange(0.25, 10, 0.5))
    grid = Grid.of(ds)
    out = regrid(ds, grid.coarse(4), "conservative")
    weights = cell_weights(ds, ("lat", "lon")).reshape(5, 4, 5, 4)
    blocks = ds["t2m"].values[0].reshape(5, 4, 5, 4)
    np.testing.assert_allclose(out["t2m"][0], (blocks * weights).sum((1, 3)) / weights.sum((1, 3)), rtol=1e-12)


@pytest.mark.parametrize(("method", "close"), [("linear", 3e-3), ("conservative", 1e-2)])
def test_nothing_happens_at_the_seam(method: str, close: float) -> None:
    """A globe cut anywhere gives the same fields, and the error at the cut is that of elsewhere."""
    target = regular(np.arange(-86.0, 88, 4), np.arange(0, 360, 4.0))
    outs = []
    for start in (0.0, -180.0, 91.0):
        outs.append(regrid(archive(np.linspace(-90, 90, 61), start + np.arange(0, 360, 3.0), wave), target, method))
    error = np.abs(outs[0]["t2m"][0] - wave(target.y[:, None], target.x[None])).max("latitude")
    assert error.max() < close and error[[0, -1]].max() <= error[1:-1].max()
    np.testing.assert_allclose(outs[1]["t2m"], outs[0]["t2m"], atol=1e-12)
    np.testing.assert_allclose(outs[2]["t2m"], outs[0]["t2m"], atol=close)


def test_beyond_the_last_row_of_a_globe_is_its_mean_at_the_pole() -> None:
    ds = archive(np.arange(-87.5, 90, 5), np.arange(0, 360, 5.0), wave)
    out = regrid(ds, regular(np.arange(-89.0, 90, 2), np.arange(0, 360, 2.0)), "linear")
    assert np.abs(out["t2m"][0].isel(latitude=-1) - 1).max() < 0.05  # sin 90° = 1
    with pytest.raises(UserError, match="does not cover the fine region"):
        regrid(ds.isel(lat=slice(-3)), regular(np.arange(-89.0, 90, 2), np.arange(0, 360, 2.0)), "linear")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("lat", "lon"),
    [((42, 55), (-2, 20)), ((35, 48), (-2, 20)), ((35, 55), (4, 20)), ((35, 55), (-2, 10)), ((35, 55), (100, 130))],
)
def test_what_the_archive_does_not_cover_is_refused(method: str, lat, lon) -> None:
    ds = archive(np.arange(*lat, 1.0), np.arange(*lon, 1.0))
    with pytest.raises(
        UserError, match=r"does not cover the fine region: it has .*between latitudes 41 and 48\.7, longitudes 3 and 11"
    ):
        regrid(ds, REGION, method)
    assert np.isfinite(regrid(archive(np.arange(35, 55.0), np.arange(-2, 20.0)), REGION, method)["t2m"]).all()


def test_what_cannot_be_regridded(lambert) -> None:
    with pytest.raises(UserError, match=r"Only archives with 1-D latitude and longitude are regridded"):
        regrid(lambert(), REGION, "linear")
    ds = archive(np.arange(35, 55.0), np.arange(-2, 20.0))
    with pytest.raises(UserError, match=r"has no latitude and longitude, which regridding needs"):
        regrid(ds, Grid.of(lambert().drop_vars(["latitude", "longitude"])), "linear")
    with pytest.raises(UserError, match="needs two rows and columns at least"):
        regrid(ds.isel(lat=[3]), REGION, "linear")
    with pytest.raises(UserError, match="needs two rows and columns at least"):
        regrid(ds, regular([45.0], [3.0, 4.0]), "conservative")
    for method in ("nearest", True, 1):
        with pytest.raises(UserError, match=r"data\.regrid=.*expected null, linear or conservative"):
            check_method(method)
    assert check_method(None) is None and check_method("linear") == "linear"
