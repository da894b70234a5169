"""Fits and samples on grids that are not a regular region: a globe, and a projected grid under a coarse archive."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import scigen
from scigen.cli import main
from scigen.io.archive import open_archive
from scigen.weather.grid import Grid
from scigen.weather.physics import DownscalingCodec, Statistics
from scigen.workflows.training import build

from .conftest import ONE

WORDS = [w for w in ONE if not w.startswith("data.")] + ["data.variables=[t2m]", "method=denoising", "run=run"]


def waves(lat: np.ndarray, lon: np.ndarray, times: int = 24) -> np.ndarray:
    """Smooth fields on the sphere with some noise, (time, *shape) [K]."""
    rng, hours = np.random.default_rng(0), np.arange(times)[:, None, None]
    smooth = np.cos(np.deg2rad(lat)) * np.cos(np.deg2rad(3 * lon) + hours / 3) + 0.3 * np.sin(np.deg2rad(lat) * 5)
    return 280 + 5 * smooth + 0.3 * rng.standard_normal((times, *lat.shape))


def globe() -> xr.Dataset:
    lat, lon = np.linspace(-90, 90, 16), np.arange(0, 360, 15.0)
    coords = {"time": pd.date_range("2020", periods=24, freq="D"), "latitude": lat, "longitude": lon}
    values = waves(*np.meshgrid(lat, lon, indexing="ij"))
    return xr.Dataset({"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})}, coords)


def projected() -> xr.Dataset:
    """16 × 16 cells of 30 km on a sinusoidal projection."""
    y, x = np.arange(16) * 30e3 + 4.5e6, np.arange(16) * 30e3 - 2e5
    lat = np.rad2deg(y[:, None] / 6.371e6 + 0 * x)
    lon = 10 + np.rad2deg(x / 6.371e6) / np.cos(np.deg2rad(lat))
    ds = xr.Dataset(
        {"t2m": (("time", "y", "x"), waves(lat, lon), {"units": "K", "grid_mapping": "crs"})},
        coords={
            "time": pd.date_range("2020", periods=24, freq="D"),
            "y": ("y", y, {"standard_name": "projection_y_coordinate", "units": "m"}),
            "x": ("x", x, {"standard_name": "projection_x_coordinate", "units": "m"}),
            "latitude": (("y", "x"), lat, {"units": "degrees_north"}),
            "longitude": (("y", "x"), lon, {"units": "degrees_east"}),
        },
    )
    return ds.assign(crs=((), 0, {"grid_mapping_name": "sinusoidal", "earth_radius": 6.371e6}))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where fits write their teacher without training it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "scigen.workflows.fit._teach", lambda cfg, data, bundle, path, start: (bundle.save(path), bundle)[1]
    )
    return tmp_path


def test_the_network_wraps_around_the_globe(here: Path) -> None:
    globe().to_netcdf("globe.nc")
    assert main(["fit", *WORDS, "data.path=globe.nc", "data.factor=2"]) == 0
    bundle = scigen.load(here / "run" / "teacher.safetensors")
    assert bundle.network_args["periodic"] == [False, True] and bundle.codec.periodic == (False, True)
    assert bundle.network.stem.wrap == [1, 1, 0, 0]
    turned = globe().assign_coords(longitude=np.arange(-180, 180, 15.0))
    out = bundle.sample(turned.isel(time=[0]), members=2)
    np.testing.assert_array_equal(out["longitude"], turned["longitude"])


@pytest.mark.parametrize(("periodic", "warns"), [(False, True), ([False, True], False), (True, False), ("auto", False)])
def test_a_network_that_does_not_wrap_is_named(periodic, warns: bool, caplog: pytest.LogCaptureFixture) -> None:
    ds = globe()
    attrs = {"t2m": {"units": "K"}}
    codec = DownscalingCodec(Grid.of(ds), 2, attrs, {}, Statistics(np.array([[280.0], [5.0]])))
    network = {"_target_": "scigen.core.networks.unet.UNet", "widths": [8], "embedding": 8, "periodic": periodic}
    with caplog.at_level(logging.WARNING, "scigen"):
        args = build(network, codec, seed=0)[2]
    assert ("The data wrap around along an axis and UNet does not: a seam may show there" in caplog.text) == warns
    assert args["periodic"] == ([False, True] if periodic == "auto" else periodic)


def test_a_coarse_archive_under_a_projected_grid(here: Path) -> None:
    """Fit to a regridded archive, sample from another of its kind: latitudes, longitudes and CRS are in the output."""
    fine = projected()
    lat, lon = np.arange(38.0, 47, 0.5), np.arange(5.0, 16, 0.5)
    coarse = xr.Dataset(
        {"2t": (("time", "lat", "lon"), waves(*np.meshgrid(lat, lon, indexing="ij")), {"units": "K"})},
        {"time": fine["time"], "lat": lat, "lon": lon % 360},
    )
    fine.to_netcdf("fine.nc")
    coarse.to_zarr("coarse.zarr", consolidated=False)
    words = [*WORDS, "data.path=fine.nc", "data.coarse=coarse.zarr", "data.factor=4"]
    assert main(["fit", *words]) == 2
    assert main(["fit", *words, "data.regrid=linear"]) == 0
    bundle = scigen.load(here / "run" / "teacher.safetensors")
    assert bundle.codec.measured is None and bundle.codec.grid.mapping[0] == "crs"
    words = ["sample", "bundle=run/teacher.safetensors", "input=coarse.zarr", "members=2", "time=2020-01-03", "batch=2"]
    assert main([*words, "output=out.nc"]) == 0 and main([*words, "output=out.zarr"]) == 0
    for name in ("out.nc", "out.zarr"):
        out = open_archive(name)
        assert out["t2m"].dims == ("time", "member", "y", "x")
        assert Grid.of(out).same(Grid.of(fine)) and np.isfinite(out["t2m"]).all()
        assert out["t2m"].attrs["grid_mapping"] == "crs" and out["crs"].attrs["grid_mapping_name"] == "sinusoidal"
    assert main(["evaluate", "truth=fine.nc", "samples={a: out.nc}", "output=report"]) == 0
    assert list((here / "report").rglob("maps_t2m.png"))
