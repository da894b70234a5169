"""The layouts of CorrDiff's data, made as their loaders read them."""

import logging
from pathlib import Path

import dask
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.io.archive import open_archive
from scigen.io.coordinates import check_times

TIMES = pd.date_range("2021-01-01", periods=5, freq="h")
LAT, LON = np.meshgrid(np.linspace(21, 26, 4), np.linspace(119, 123, 6), indexing="ij")
CWB = ["maximum_radar_reflectivity", "temperature_2m", "eastward_wind_10m", "soil_moisture"]
ERA5 = [
    ("geopotential_height", 500.0),
    ("temperature", 850.0),
    ("relative_humidity", 850.0),
    ("temperature_2m", np.nan),
]
MEANS = {"cwb": [5, 290, 0, 0.2], "era5": [5700, 280, 70, 291]}


def cwa(**change: object) -> xr.Dataset:
    rng = np.random.default_rng(0)
    cells = ("south_north", "west_east")
    ds = xr.Dataset(
        {
            "cwb": (("time", "cwb_channel", *cells), rng.normal(size=(5, 4, 4, 6)).astype("f4")),
            "cwb_center": ("cwb_channel", np.array(MEANS["cwb"], "f4")),
            "cwb_scale": ("cwb_channel", np.ones(4, "f4")),
            "cwb_valid": ("time", np.array([1, 1, 0, 1, 1], "i1")),
            "era5": (("time", "era5_channel", *cells), rng.normal(size=(5, 4, 4, 6)).astype("f4")),
            "era5_center": ("era5_channel", np.array(MEANS["era5"], "f4")),
            "era5_valid": (("time", "era5_channel"), np.ones((5, 4), bool)),
        },
        coords={
            "time": TIMES,
            "XLAT": (cells, LAT.astype("f4"), {"units": "degree_north", "FieldType": 104}),
            "XLONG": (cells, LON.astype("f4"), {"units": "degree_east"}),
            "XLAT_U": (("south_north", "west_east_stag"), np.zeros((4, 7), "f4")),
            "XTIME": np.datetime64("2022-12-18T13:00", "ns"),
            "cwb_pressure": ("cwb_channel", np.full(4, np.nan)),
            "cwb_variable": ("cwb_channel", np.array(CWB, "<U26")),
            "era5_pressure": ("era5_channel", np.array([p for _, p in ERA5])),
            "era5_scale": ("era5_channel", np.ones(4, "f4")),
            "era5_variable": ("era5_channel", np.array([v for v, _ in ERA5], "<U19")),
        },
    )
    ds["era5_valid"][4, 2] = False
    return ds.assign(**change)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    cwa().to_zarr(tmp_path / "cwa.zarr", zarr_format=2, consolidated=True)
    return tmp_path / "cwa.zarr"


def test_the_fine_side_is_one_variable_a_channel(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "scigen"):
        found = open_archive(store)
    assert list(found.data_vars) == ["refc", "t2m", "u10", "soil_moisture"]
    for number, (name, units) in enumerate((("refc", "dBZ"), ("t2m", "K"), ("u10", "m s-1"), ("soil_moisture", None))):
        assert found[name].dims == ("time", "y", "x") and dask.is_dask_collection(found[name].data)
        np.testing.assert_array_equal(found[name], cwa()["cwb"][[0, 1, 3], number])
        assert found[name].attrs.get("units") == units and found[name].attrs["long_name"] == CWB[number]
    assert found.indexes["time"].equals(TIMES[[0, 1, 3]])
    assert set(found.coords) == {"time", "latitude", "longitude"}
    assert found["latitude"].dims == ("y", "x") and found["latitude"].attrs["units"] == "degrees_north"
    np.testing.assert_allclose(found["latitude"], LAT, rtol=1e-6)
    np.testing.assert_allclose(found["longitude"], LON, rtol=1e-6)
    assert f"the other side is {store}::era5" in caplog.text and "2 of 5 times are flagged as invalid" in caplog.text


def test_the_coarse_side_has_levels_in_its_names(store: Path) -> None:
    found = open_archive(f"{store}::era5")
    units = {k: v.attrs["units"] for k, v in found.data_vars.items()}
    assert units == {"gh500": "m", "t850": "K", "r850": "%", "t2m": "K"}
    np.testing.assert_array_equal(found["r850"], cwa()["era5"][[0, 1, 3], 2])
    assert found["t850"].attrs["long_name"] == "temperature at 850 hPa"
    fine = open_archive(f"{store}::cwb")
    assert found.indexes["time"].equals(fine.indexes["time"])
    with pytest.raises(UserError, match=r"has no 'gefs': it has .*cwa\.zarr::cwb, .*cwa\.zarr::era5"):
        open_archive(f"{store}::gefs")


def test_means_that_speak_against_the_units_are_believed(tmp_path: Path) -> None:
    means = ("cwb_channel", np.array([5, 17, 0, 0.2], "f4"))
    names = ("cwb_channel", np.array(["mean_sea_level_pressure", "temperature_2m", "relative_humidity", "v"]))
    for number, (center, expected) in enumerate(
        (
            (means, [None, None, "1", None]),
            (("cwb_channel", np.array([1012, 290, 60, 1], "f4")), ["hPa", "K", "%", None]),
        )
    ):
        path = tmp_path / f"{number}.zarr"
        cwa(cwb_center=center).assign_coords(cwb_variable=names).to_zarr(path, zarr_format=2)
        assert [v.attrs.get("units") for v in open_archive(path).data_vars.values()] == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(cwb_valid=("time", np.zeros(5, bool))), "No time of .* is valid: look at cwb_valid, era5_valid"),
        (dict(cwb_variable=("cwb_channel", np.array(["t", "t", "u", "v"]))), "Two channels of cwb .* are called t"),
    ],
)
def test_stores_that_make_no_sense(change: dict[str, object], message: str, tmp_path: Path) -> None:
    cwa(**change).to_zarr(tmp_path / "a.zarr", zarr_format=2)
    with pytest.raises(UserError, match=message):
        open_archive(tmp_path / "a.zarr")


def hrrr(path: Path, hours: list[int], fine: int = 8, coarse: int = 2) -> dict[str, np.ndarray]:
    rng, n = np.random.default_rng(0), len(hours)
    arrays = {"output/10u": rng.normal(size=(n, fine, fine)), "output/10v": rng.normal(size=(n, fine, fine))}
    arrays |= {"input/u500": rng.normal(size=(n, coarse, coarse)), "input/odd": rng.normal(size=(n, coarse, coarse))}
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("time", n)
        file.createDimension("two", 2)
        time = file.createVariable("time", "i8", ("time",))
        time.units, time[:] = "hours since 2020-01-01", hours
        file.createVariable("coord", "i4", ("time", "two"))[:] = np.arange(2 * n).reshape(n, 2)
        for name, size in (("output", fine), ("input", coarse), ("invariant", 20)):
            group = file.createGroup(name)
            for dim in ("y", "x"):
                group.createDimension(dim, size)
        for name, values in arrays.items():
            file.createVariable(name, "f4", ("time", "y", "x"))[:] = values
        file.createVariable("invariant/elev_mean", "f4", ("y", "x"))[:] = 1
    return {k: v.astype("f4") for k, v in arrays.items()}


def test_crops_of_hrrr_mini(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "hrrr_mini.nc"
    arrays = hrrr(path, [3, 0, 1, 0])
    with caplog.at_level(logging.INFO, "scigen"):
        fine, coarse = open_archive(path), open_archive(f"{path}::input")
    order = [1, 3, 2, 0]
    assert list(fine.data_vars) == ["10u", "10v"] and list(coarse.data_vars) == ["u500", "odd"]
    np.testing.assert_array_equal(fine["10v"], arrays["output/10v"][order])
    np.testing.assert_array_equal(coarse["u500"], arrays["input/u500"][order])
    assert dask.is_dask_collection(fine["10u"].data)
    assert fine["10u"].attrs["units"] == coarse["u500"].attrs["units"] == "m s-1" and not coarse["odd"].attrs
    seconds = (fine.indexes["time"] - pd.Timestamp("2020-01-01")).total_seconds().tolist()
    assert seconds == [0, 1, 3600, 10800] and coarse.indexes["time"].equals(fine.indexes["time"])
    check_times(fine)
    np.testing.assert_array_equal(fine["row"], np.arange(0, 8, 2)[order])
    np.testing.assert_array_equal(fine["y"].values.reshape(2, 4).mean(1), coarse["y"])
    assert "::input" in caplog.text and "up to 2 crops share a time" in caplog.text
    assert open_archive(f"{path}::invariant")["elev_mean"].shape == (20, 20)


def test_crops_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    hrrr(tmp_path / "a.nc", [0, 1], fine=8, coarse=3)
    with pytest.raises(UserError, match=r"\(8, 8\) cells are no multiple of \(3, 3\)"):
        open_archive(f"{tmp_path}/a.nc::input")
