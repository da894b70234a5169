import logging

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.weather.variables import VARIABLES, find_variables, recognise


def archive(name: str = "t2m", dims: tuple[str, ...] = ("time", "latitude", "longitude"), **attrs: str) -> xr.Dataset:
    sizes = {"time": 3, "latitude": 2, "longitude": 4}
    values = 270 + np.arange(24.0, dtype=np.float32).reshape(3, 2, 4)
    coords = {"time": pd.date_range("2020", periods=3, freq="D"), "latitude": [50.0, 51.0], "longitude": np.arange(4.0)}
    assert list(values.shape) == list(sizes.values())
    return xr.Dataset({name: (dims, values, {"units": "K", **attrs})}, coords=coords, attrs={"title": "kept"})


@pytest.mark.parametrize("name", ["t2m", "2t", "T2M", "VAR_2T", "2m_temperature", "tas"])
def test_names_that_files_give(name: str) -> None:
    found = find_variables(archive(name), ["t2m"])
    assert list(found.data_vars) == ["t2m"] and found.attrs == {"title": "kept"}
    np.testing.assert_array_equal(found["t2m"], archive()["t2m"])
    original = {} if name == "t2m" else {"original_name": name}
    assert found["t2m"].attrs == VARIABLES["t2m"].attrs | original


def test_by_standard_name_which_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    ds = archive("heat", standard_name="air_temperature")
    with caplog.at_level(logging.INFO, "scigen"):
        found = find_variables(ds, ["t2m"])
    np.testing.assert_array_equal(found["t2m"], ds["heat"])
    assert "t2m: 'heat' is taken" in caplog.text
    with pytest.raises(UserError, match=r"More than one variable may be 't2m': \['heat', 'cold'\]"):
        find_variables(ds.assign(cold=ds["heat"]), ["t2m"])
    with pytest.raises(UserError, match="no variable 't2m'"):
        find_variables(ds.expand_dims(level=[850.0]), ["t2m"])


def test_by_a_map_and_again_by_what_a_bundle_keeps() -> None:
    ds = archive("heat")
    found = find_variables(ds, {"t2m": "heat"})
    np.testing.assert_array_equal(found["t2m"], ds["heat"])
    again = find_variables(ds, {"t2m": found["t2m"].attrs})
    xr.testing.assert_identical(again, found)
    with pytest.raises(UserError, match=r"no variable 'cold' for 't2m'\. It has: heat \[K\]"):
        find_variables(ds, {"t2m": "cold"})


def test_missing_variable_lists_what_there_is() -> None:
    ds = archive().assign(z=archive()["t2m"].drop_attrs())
    with pytest.raises(UserError, match=r"no variable 'u10'\. It has: t2m \[K\], z \[no units\]\. .*map"):
        find_variables(ds, ["t2m", "u10"])


def test_order_is_the_one_asked_for() -> None:
    ds = archive().assign(u10=archive(units="m/s")["t2m"], v10=archive(units="m s**-1")["t2m"])
    assert list(find_variables(ds, ["v10", "t2m", "u10"]).data_vars) == ["v10", "t2m", "u10"]


def test_units_are_converted_or_refused() -> None:
    found = find_variables(archive().assign(t2m=(archive()["t2m"] - 273.15).assign_attrs(units="degC")), ["t2m"])
    np.testing.assert_allclose(found["t2m"], archive()["t2m"], rtol=1e-6)
    with pytest.raises(UserError, match="'t2m' is in hPa, expected K"):
        find_variables(archive(units="hPa"), ["t2m"])
    with pytest.raises(UserError, match="'t2m' has no units, expected K"):
        find_variables(archive(units=""), ["t2m"])


def test_unknown_variables_are_taken_by_name_in_their_own_units() -> None:
    found = find_variables(archive("gust", units="m s-1", odd="x"), ["gust"])
    assert found["gust"].attrs == {"units": "m s-1"}
    with pytest.raises(UserError, match="'gust' has no units"):
        find_variables(archive("gust").drop_attrs(), ["gust"])
    with pytest.raises(UserError, match="'gust' is in K, expected m s-1"):
        find_variables(archive("gust"), {"gust": {"units": "m s-1"}})


def test_dimensions_come_in_order_and_superfluous_ones_go() -> None:
    ds = archive().expand_dims(height=[2.0]).transpose("longitude", "height", "latitude", "time")
    ds = ds.assign_coords(surface=0, twice=(("latitude", "longitude"), np.ones((2, 4))))
    found = find_variables(ds, ["t2m"])
    assert found["t2m"].dims == ("time", "latitude", "longitude")
    assert set(found.coords) == {"time", "latitude", "longitude"}
    assert found["latitude"].attrs["standard_name"] == "latitude"


def test_wrong_dimensions() -> None:
    two = xr.concat([archive(), archive()], pd.Index([2, 10], name="height"))
    with pytest.raises(UserError, match=r"expected \('time', 'latitude', 'longitude'\): select along \['height'\]"):
        find_variables(two, ["t2m"])
    with pytest.raises(UserError, match=r"add the time with ds\.expand_dims"):
        find_variables(archive().isel(time=0), ["t2m"])


@pytest.mark.parametrize("variables", ["t2m", [], {}, ["t2m", "t2m"]])
def test_nonsense_is_refused(variables: object) -> None:
    with pytest.raises(UserError, match="variables="):
        find_variables(archive(), variables)


def test_a_file_stays_on_disk(tmp_path) -> None:
    archive().to_netcdf(tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as ds:
        assert dask.is_dask_collection(find_variables(ds, ["t2m"])["t2m"].data)


@pytest.mark.parametrize(
    ("name", "file", "units", "slope"),
    [
        ("d2m", "2m_dewpoint_temperature", "K", 1),
        ("sp", "ps", "hPa", 100),
        ("msl", "PRMSL", "Pa", 1),
        ("tcc", "total_cloud_cover", "(0 - 1)", 1),
        ("tcc", "clt", "%", 0.01),
        ("r2", "hurs", "1", 100),
        ("r2", "2r", "%", 1),
        ("q2", "huss", "g kg-1", 1e-3),
        ("fg10", "i10fg", "m s**-1", 1),
        ("refc", "maximum_radar_reflectivity", "dBZ", 1),
        ("refc", "refc", "dB", 1),
    ],
)
def test_known_variables_by_the_names_and_units_that_files_give(name: str, file: str, units: str, slope: float) -> None:
    ds = archive(file, units=units)
    found = find_variables(ds, [name])[name]
    np.testing.assert_allclose(found, ds[file] * slope, rtol=1e-5)
    assert found.attrs["units"] == VARIABLES[name].units
    assert recognise(ds) == {name: file}
    again = find_variables(ds, {name: found.attrs})[name]
    xr.testing.assert_identical(again, found)


def test_names_of_known_variables_are_used_once() -> None:
    names = [n for k, v in VARIABLES.items() for n in (k, *v.synonyms)]
    assert len(set(names)) == len(names) and all(n == n.lower() for n in names)
