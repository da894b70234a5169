"""Levels of pressure, in the layouts of WeatherBench 2, ARCO-ERA5, the Climate Data Store, CMIP and GRIB."""

from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.io.archive import open_archive
from scigen.weather.data import open_pair
from scigen.weather.known import known, on_level
from scigen.weather.variables import find_variables

LEVELS = [500, 850, 1000]


def weatherbench(tmp_path: Path, zarr_format: int = 2, ascending: bool = True, consolidated: bool = True) -> Path:
    """(time, level, longitude, latitude) with 64 × 32 cells in small."""
    rng = np.random.default_rng(0)
    lat = np.linspace(-70, 70, 8) if ascending else np.linspace(70, -70, 8)
    coords = {
        "time": pd.date_range("2020-01-01", periods=6, freq="6h"),
        "level": ("level", LEVELS),
        "longitude": ("longitude", np.arange(0, 360, 30.0), {"units": "degrees_east"}),
        "latitude": ("latitude", lat, {"units": "degrees_north"}),
    }
    flat, deep = ("time", "longitude", "latitude"), ("time", "level", "longitude", "latitude")
    ds = xr.Dataset(coords=coords)
    for name, dims, units in (
        ("2m_temperature", flat, "K"), ("10m_u_component_of_wind", flat, "m s**-1"), ("temperature", deep, "K"),
        ("geopotential", deep, "m**2 s**-2"), ("land_sea_mask", flat[1:], "(0 - 1)"),
        ("total_precipitation_6hr", flat, "m"),
    ):  # fmt: skip
        shape = [len(ds[d]) for d in dims]
        values = 0.006 * rng.random(shape) if units == "m" else rng.normal(280, 5, shape)
        ds[name] = (dims, values.astype("f4"), {"units": units})
    path = tmp_path / f"wb2-{zarr_format}-{ascending}-{consolidated}.zarr"
    ds.chunk(time=2).to_zarr(path, zarr_format=zarr_format, consolidated=consolidated)
    return path


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize("ascending", [True, False])
def test_weatherbench_opens_whatever_its_order(
    zarr_format: int, consolidated: bool, ascending: bool, tmp_path: Path
) -> None:
    path = weatherbench(tmp_path, zarr_format, ascending, consolidated)
    raw = xr.open_zarr(path, consolidated=consolidated)
    names = ["t2m", "u10", "tp", "t850", "z500"]
    pair = open_pair(path, variables=names, factor=2, static="land_sea_mask")
    assert list(pair.fine.data_vars) == names
    assert dask.is_dask_collection(pair.fine["t850"].data)
    assert pair.fine["t850"].dims == ("time", "latitude", "longitude") and pair.fine["t850"].shape == (6, 8, 12)
    expected = raw["temperature"].sel(level=850).transpose("time", "latitude", "longitude")
    np.testing.assert_array_equal(pair.fine["t850"], expected)
    np.testing.assert_array_equal(pair.fine["latitude"], raw["latitude"])
    tp = raw["total_precipitation_6hr"].transpose("time", "latitude", "longitude")
    np.testing.assert_allclose(pair.fine["tp"], tp * 1000 / 6, rtol=1e-5)
    assert pair.fine["tp"].attrs["units"] == "mm h-1"
    assert pair.fine["t850"].attrs == {
        "units": "K", "standard_name": "air_temperature", "long_name": "temperature at 850 hPa",
        "original_name": "temperature@850",
    }  # fmt: skip
    again = find_variables(open_archive(path), {n: pair.fine[n].attrs for n in names})
    xr.testing.assert_identical(again, pair.fine)


def test_a_level_by_a_map_or_a_remedy(tmp_path: Path) -> None:
    ds = open_archive(weatherbench(tmp_path))
    found = find_variables(ds, {"warm": "temperature@850", "t1000": "temperature@1000hPa"})
    np.testing.assert_array_equal(found["warm"], find_variables(ds, ["t850"])["t850"])
    for variables, message in (
        ({"t": "temperature"}, r"choose a level, such as variables=\{t: temperature@500\}, of 500, 850, 1000 hPa"),
        ({"t": "temperature@700"}, "'temperature' has no level 700 hPa: it has 500, 850, 1000 hPa"),
        ({"t": "temperature@high"}, "expected a level of pressure in hPa, such as temperature@850"),
        ({"t2m": "2m_temperature@850"}, "'2m_temperature' has no dimension of pressure.*leave out @850"),
        ({"t": "heat@850"}, "no variable 'heat' for 't'"),
        (["q850"], r"no variable 'q850', specific humidity at 850 hPa.*variables=\{q850: name in the file@850\}"),
        (["t700"], "has no level 700 hPa"),
    ):
        with pytest.raises(UserError, match=message):
            find_variables(ds, variables)


@pytest.mark.parametrize(
    ("dim", "values", "attrs"),
    [
        ("level", [500, 850], {}),
        ("level", [500, 850], {"units": "millibars"}),
        ("plev", [50000.0, 85000.0], {"units": "Pa", "standard_name": "air_pressure"}),
        ("plev", [50000.0, 85000.0], {}),
        ("pressure_level", [500.0, 850.0], {"units": "hPa"}),
        ("isobaricInhPa_2", [500.0, 850.0], {"units": "hPa"}),
        ("z", [500.0, 850.0], {"standard_name": "air_pressure", "units": "hPa"}),
    ],
)
def test_levels_whatever_they_are_called(dim: str, values: list[float], attrs: dict[str, str], tmp_path: Path) -> None:
    ds = open_archive(weatherbench(tmp_path)).isel(level=slice(2)).rename(level=dim)
    ds = ds.assign_coords({dim: (dim, values, attrs)})
    found = find_variables(ds, ["t850"])["t850"]
    np.testing.assert_array_equal(found, ds["temperature"].isel({dim: 1}).transpose("time", "latitude", "longitude"))


def test_other_dimensions_are_no_levels(tmp_path: Path) -> None:
    ds = open_archive(weatherbench(tmp_path)).rename(level="height")
    with pytest.raises(UserError, match="no variable 't850'"):
        find_variables(ds, ["t850"])
    with pytest.raises(UserError, match=r"select along \['height'\]"):
        find_variables(ds, {"t": "temperature"})


def test_a_variable_that_has_the_name_of_a_level_is_taken_as_it_is(tmp_path: Path) -> None:
    ds = open_archive(weatherbench(tmp_path))
    ds["T850"] = ds["2m_temperature"]
    np.testing.assert_array_equal(find_variables(ds, ["t850"])["t850"], find_variables(ds, ["t2m"])["t2m"])


def test_what_names_mean() -> None:
    assert on_level("t850") == ("t", 850.0) and on_level("gh500") == ("gh", 500.0)
    for name in ("u10", "t2m", "t2", "d2m", "x850", "t9999", "tp"):
        assert on_level(name) is None
    assert known("z500").units == "m2 s-2" and known("nothing") is None
