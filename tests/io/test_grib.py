"""GRIB files that ecCodes has written, and the real one beside its netCDF twin."""

import builtins
import logging
import os
from pathlib import Path
from typing import IO

import dask
import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.io.archive import fingerprint, open_archive
from scigen.io.coordinates import check_finite, check_times

eccodes = pytest.importorskip("eccodes", reason="the extra grib is not installed")

REAL = os.environ.get("SCIGEN_TEST_DATA")
real = pytest.mark.skipif(REAL is None, reason="SCIGEN_TEST_DATA is not set")
ERA5 = Path(REAL or ".") / "weather" / "era5_t2m_uk_2019-03.grib"

GRID = dict(
    Ni=4, Nj=3, latitudeOfFirstGridPointInDegrees=52, latitudeOfLastGridPointInDegrees=50,
    longitudeOfFirstGridPointInDegrees=0, longitudeOfLastGridPointInDegrees=3,
    iDirectionIncrementInDegrees=1, jDirectionIncrementInDegrees=1,
)  # fmt: skip
CELLS = np.arange(12.0).reshape(3, 4)
LAMBERT = dict(
    gridType="lambert", Nx=4, Ny=3, LaDInDegrees=50, Latin1InDegrees=50, Latin2InDegrees=50, LoVInDegrees=5,
    latitudeOfFirstGridPointInDegrees=50, longitudeOfFirstGridPointInDegrees=5, DxInMetres=3000, DyInMetres=3000,
    jScansPositively=1,
)  # fmt: skip


def message(file: IO[bytes], name: str, values: np.ndarray, edition: int = 1, **keys: object) -> None:
    """Append one message of 2020-01-01T00 unless told otherwise."""
    handle = eccodes.codes_grib_new_from_samples(f"regular_ll_sfc_grib{edition}")
    grid = {} if "gridType" in keys else GRID
    for key, value in {**grid, "shortName": name, "dataDate": 20200101, "dataTime": 0, **keys}.items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, np.asarray(values, dtype=float).ravel())
    eccodes.codes_write(handle, file)
    eccodes.codes_release(handle)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.grib"


@real
def test_the_real_file_is_its_netcdf_twin_to_the_last_bit(tmp_path: Path) -> None:
    before = sorted(ERA5.parent.iterdir())
    one, two = open_archive(ERA5), open_archive(ERA5.with_suffix(".nc"))
    assert dask.is_dask_collection(one["t2m"].data)
    assert one["t2m"].dtype == two["t2m"].dtype == np.float32 and dict(one.sizes) == dict(two.sizes)
    np.testing.assert_array_equal(one["t2m"].values.view(np.uint32), two["t2m"].values.view(np.uint32))
    assert set(one.coords) == set(two.coords) == {"time", "latitude", "longitude"}
    for name in one.coords:
        np.testing.assert_array_equal(one[name], two[name])
    assert fingerprint(one) == fingerprint(two)
    assert sorted(ERA5.parent.iterdir()) == before


@pytest.mark.parametrize("suffix", ["grib", "grb", "grib2", "grb2", "grib1", "GRIB2", "bin"])
def test_every_suffix_in_a_file_a_folder_and_a_glob(suffix: str, tmp_path: Path) -> None:
    for day in (1, 2):
        with (tmp_path / f"{day}.{suffix}").open("wb") as file:
            message(file, "2t", CELLS + 280, dataDate=20200100 + day, edition=2 if "2" in suffix else 1)
    one = open_archive(tmp_path / f"1.{suffix}")
    np.testing.assert_allclose(one["t2m"].values[0], CELLS + 280, atol=0.01)
    if suffix != "bin":
        assert open_archive(tmp_path).sizes["time"] == 2
    assert open_archive(tmp_path / f"*.{suffix}").sizes["time"] == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_variables_levels_members_and_static_fields_of_one_file(path: Path) -> None:
    with path.open("wb") as file:
        for hour in (600, 0, 1200):  # in no order
            for number in (1, 0):
                ens = dict(dataTime=hour, localDefinitionNumber=1, type="pf", numberOfForecastsInEnsemble=2)
                message(file, "2t", CELLS + 280 + hour / 100 + 100 * number, perturbationNumber=number, **ens)
            message(file, "10u", CELLS + hour, dataTime=hour)
            for level in (850, 500):
                message(file, "t", CELLS + level, dataTime=hour, typeOfLevel="isobaricInhPa", level=level)
            message(file, "gh", CELLS + 5000, dataTime=hour, typeOfLevel="isobaricInhPa", level=500)
            message(file, "tcc", CELLS / 12, dataTime=hour, edition=2)
        message(file, "lsm", CELLS / 12, dataDate=20000101)
    ds = open_archive(path)
    check_times(ds)
    assert set(ds.data_vars) == {"t2m", "u10", "t", "gh", "tcc", "lsm"}
    assert set(ds.coords) == {"time", "latitude", "longitude", "member", "isobaricInhPa", "isobaricInhPa_2"}
    assert ds["time"].dt.hour.values.tolist() == [0, 6, 12] and ds["latitude"].values.tolist() == [52, 51, 50]
    assert ds["t2m"].dims == ("member", "time", "latitude", "longitude")
    np.testing.assert_allclose(ds["t2m"][1, 2], CELLS + 280 + 12 + 100, atol=0.01)
    np.testing.assert_allclose(ds["t"].sel(isobaricInhPa=500).isel(time=1), CELLS + 500, atol=0.01)
    assert ds["gh"].sizes["isobaricInhPa_2"] == 1 and ds["gh"]["isobaricInhPa_2"].values == [500]
    assert ds["lsm"].dims == ("latitude", "longitude") and ds["tcc"].attrs["units"] == "1"
    assert not any(key.startswith("GRIB_") for v in ds.variables.values() for key in v.attrs)


def test_a_name_that_two_levels_share_gets_theirs(path: Path) -> None:
    with path.open("wb") as file:
        for hour in (0, 600):
            message(file, "t", CELLS + 270, dataTime=hour, typeOfLevel="surface")
            message(file, "t", CELLS + 250, dataTime=hour, typeOfLevel="isobaricInhPa", level=500)
    ds = open_archive(path)
    assert set(ds.data_vars) == {"t_surface", "t"}
    np.testing.assert_allclose(ds["t_surface"][0], CELLS + 270, atol=0.01)
    np.testing.assert_allclose(ds["t"][0, 0], CELLS + 250, atol=0.01)


def test_a_name_that_two_parameters_share_gets_their_number(path: Path) -> None:
    with path.open("wb") as file:
        for number in (228, 228228):
            message(file, "tp", CELLS * number, edition=2, paramId=number, stepType="accum", startStep=0, endStep=6)
    ds = open_archive(path)
    assert set(ds.data_vars) == {"tp", "tp_228228"}
    np.testing.assert_allclose(ds["tp_228228"][0], CELLS * 228228, rtol=1e-3)


def test_forecasts_lie_at_the_times_they_are_valid_at(path: Path) -> None:
    """The sums of ERA5 start at 6 and 18 h and follow on each other."""
    with path.open("wb") as file:
        for start in (600, 1800):
            for step in range(1, 13):
                keys = dict(dataTime=start, stepType="accum", startStep=step - 1, endStep=step)
                message(file, "tp", CELLS * 1e-3 + step * 1e-2, edition=2, **keys)
    ds = open_archive(path)
    assert ds["time"].values[[0, 12, 23]].astype("datetime64[h]").tolist() == [
        np.datetime64(t).astype("datetime64[h]").item() for t in ("2020-01-01T07", "2020-01-01T19", "2020-01-02T06")
    ]
    np.testing.assert_allclose(ds["tp"][13], CELLS * 1e-3 + 0.02, atol=1e-4)
    assert ds["tp"].attrs["accumulation"] == "1 hours"
    assert "step" not in ds.coords


@pytest.mark.parametrize(("starts", "told"), [([0, 0, 0], "since the start of the forecast"), ([0, 6, 12], "6 hours")])
def test_sums_tell_what_they_run_over(starts: list[int], told: str, path: Path) -> None:
    with path.open("wb") as file:
        for start, end in zip(starts, (6, 12, 18), strict=True):
            message(file, "tp", CELLS * 1e-3, edition=2, stepType="accum", startStep=start, endStep=end)
    assert open_archive(path)["tp"].attrs["accumulation"] == told


def test_overlapping_forecasts_are_refused(path: Path) -> None:
    with path.open("wb") as file:
        for hour in (0, 600):
            for step in (6, 12):
                message(file, "2t", CELLS + 280, dataTime=hour, step=step)
    with pytest.raises(UserError, match=r"'2t' more than once at 2020-01-01T12:00:00.*grib_copy -w step="):
        open_archive(path)


def test_two_grids_are_refused_with_what_lies_where(path: Path) -> None:
    with path.open("wb") as file:
        message(file, "2t", CELLS + 280)
        message(file, "10u", CELLS, longitudeOfFirstGridPointInDegrees=10, longitudeOfLastGridPointInDegrees=13)
    with pytest.raises(UserError, match=r"lie on 2 grids: t2m \(3 × 4 cells, 50 to 52 N, 0 to 3 E\); u10 .*grib_copy"):
        open_archive(path)


def test_a_projected_grid_keeps_its_places(path: Path) -> None:
    with path.open("wb") as file:
        message(file, "2t", CELLS + 280, edition=2, **LAMBERT)
        message(file, "2t", CELLS + 281, edition=2, dataTime=600, **LAMBERT)
    ds = open_archive(path)
    assert ds["t2m"].dims == ("time", "y", "x") and ds["latitude"].dims == ds["longitude"].dims == ("y", "x")
    np.testing.assert_allclose(ds["latitude"][:, 0], 50 + 3 / 111.2 * np.arange(3), atol=1e-3)
    assert {"units": "degrees_north", "standard_name": "latitude"}.items() <= ds["latitude"].attrs.items()


def test_a_grid_that_makes_no_sense_is_told(path: Path) -> None:
    with path.open("wb") as file:
        message(file, "2t", CELLS + 280, edition=2, **(LAMBERT | {"Latin1InDegrees": -50}))
    with pytest.raises(UserError, match=r"'2t' of .*a\.grib cannot be made out \(Grid description is wrong"):
        open_archive(path)


def test_a_grid_without_rows_is_refused(path: Path) -> None:
    handle = eccodes.codes_grib_new_from_samples("reduced_gg_pl_32_grib1")
    with path.open("wb") as file:
        eccodes.codes_write(handle, file)
    eccodes.codes_release(handle)
    with pytest.raises(UserError, match=r"without rows and columns .*cdo -f nc4 -setgridtype,regular a\.grib out\.nc"):
        open_archive(path)


def test_variables_of_other_times_meet_at_the_common_ones(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with path.open("wb") as file:
        for hour in range(0, 600, 100):
            message(file, "2t", CELLS + 280, dataTime=hour)
        for hour in range(200, 900, 100):
            message(file, "10u", CELLS, dataTime=hour)
    with caplog.at_level(logging.INFO, "scigen"):
        ds = open_archive(path)
    assert ds["time"].dt.hour.values.tolist() == [2, 3, 4, 5]
    assert "the 4 times that all variables share are taken of t2m 6" in caplog.text
    with path.open("ab") as file:
        for hour in (1200, 1300):
            message(file, "10v", CELLS, dataTime=hour)
    with pytest.raises(UserError, match="share no time"):
        open_archive(path)
    with path.open("wb") as file:
        message(file, "2t", CELLS + 280)
        message(file, "10u", CELLS, dataTime=600)
    with pytest.raises(UserError, match=r"one time each, not the same: t2m 2020-01-01 00:00:00, u10 2020-01-01 06:00"):
        open_archive(path)


def test_a_bitmap_of_missing_cells_reads_as_missing(path: Path) -> None:
    masked = np.where(CELLS == 5, 9999.0, CELLS + 280)
    with path.open("wb") as file:
        for hour in (0, 600):
            message(file, "2t", masked, dataTime=hour, bitmapPresent=1, missingValue=9999)
    with pytest.raises(UserError, match="'t2m' has 2 in 24 cells, first at 2020-01-01T00:00"):
        check_finite(open_archive(path))


def test_damaged_files_are_refused(path: Path) -> None:
    with path.open("wb") as file:
        for hour in (0, 600, 1200):
            message(file, "2t", CELLS + 280, dataTime=hour)
    whole = path.read_bytes()
    for content, told in (
        (b"", "is empty"),
        (b"these are words " * 50, "holds no GRIB message"),
        (whole[:-20], "seems damaged or cut short"),
        (whole[:60], "seems damaged or cut short"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"a\.grib .*{told}"):
            open_archive(path)
    path.write_bytes(whole)
    with pytest.raises(UserError, match="GRIB, which has no groups"):
        open_archive(f"{path}::surface")


def test_a_file_that_is_damaged_after_it_was_opened_is_told_when_it_is_read(path: Path) -> None:
    with path.open("wb") as file:
        for hour in (0, 600, 1200):
            message(file, "2t", CELLS + 280, dataTime=hour)
    ds = open_archive(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"Cannot read 't2m'.*damaged"):
        check_finite(ds)


@real
def test_the_real_file_cut_short_is_refused(path: Path) -> None:
    whole = ERA5.read_bytes()
    path.write_bytes(whole[: int(0.6 * len(whole))])
    with pytest.raises(UserError, match="cut short"):
        open_archive(path)


def test_without_the_extra_it_says_how_to_get_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with path.open("wb") as file:
        message(file, "2t", CELLS + 280)
    genuine = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name.split(".")[0] == "cfgrib":
            raise ImportError("No module named 'cfgrib'")
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"GRIB needs cfgrib.*pip install 'scigen\[grib\]'"):
        open_archive(path)


def test_a_folder_of_grib_and_netcdf_of_other_variables(path: Path) -> None:
    with path.open("wb") as file:
        for hour in (0, 600):
            message(file, "2t", CELLS + 280, dataTime=hour)
    twin = open_archive(path).load().rename(t2m="u10")
    twin.to_netcdf(path.with_suffix(".nc"))
    assert set(open_archive(path.parent).data_vars) == {"t2m", "u10"}
    assert isinstance(twin, xr.Dataset)
