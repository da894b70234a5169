"""Precipitation and radiation in every way that archives keep them, against rates that are known."""

import logging
from pathlib import Path

import cftime
import dask
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.io.archive import open_archive
from scigen.weather.variables import find_variables

RATE = np.random.default_rng(0).gamma(0.5, 2, (8, 3, 4))
"""What it rains [mm h-1]."""


def rain(name: str = "tp", scale: float = 1.0, units: str = "mm h-1", freq: str = "1h", **attrs: str) -> xr.Dataset:
    coords = {
        "time": pd.date_range("2020-01-01", periods=8, freq=freq),
        "latitude": [50.0, 51.0, 52.0],
        "longitude": np.arange(4.0),
    }
    values = (RATE * scale).astype("f4")
    return xr.Dataset({name: (("time", "latitude", "longitude"), values, {"units": units, **attrs})}, coords=coords)


def found(ds: xr.Dataset, name: str = "tp") -> xr.DataArray:
    out = find_variables(ds.chunk(time=3), [name])[name]
    assert dask.is_dask_collection(out.data) and out.dtype == np.float32
    return out


@pytest.mark.parametrize(
    ("name", "units", "scale"),
    [
        ("tp", "mm h-1", 1), ("pr", "kg m-2 s-1", 1 / 3600), ("prate", "kg m**-2 s**-1", 1 / 3600),
        ("rain_rate", "mm/day", 24), ("precipitation", "in/h", 1 / 25.4), ("tprate", "m s**-1", 1e-3 / 3600),
    ],
)  # fmt: skip
def test_rates_and_fluxes_of_mass(name: str, units: str, scale: float) -> None:
    out = found(rain(name, scale, units))
    np.testing.assert_allclose(out, RATE, rtol=1e-5)
    assert out.attrs["units"] == "mm h-1" and out.attrs["standard_name"] == "lwe_precipitation_rate"


@pytest.mark.parametrize(
    ("name", "units", "freq", "scale"),
    [
        ("tp", "m", "1h", 1e-3), ("tp", "m", "6h", 6e-3), ("precip", "mm", "1D", 24), ("tp", "kg m-2", "3h", 3),
        ("tp", "in", "1h", 1 / 25.4),
    ],
)  # fmt: skip
def test_sums_over_the_step_of_the_times_which_a_warning_says(
    name: str, units: str, freq: str, scale: float, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "scigen"):
        np.testing.assert_allclose(found(rain(name, scale, units, freq)), RATE, rtol=1e-5)
    assert any(r.levelname == "WARNING" and "is taken for a sum over" in r.message for r in caplog.records)


@pytest.mark.parametrize(
    ("name", "attrs"),
    [
        ("tp", {"accumulation": "6 hours"}),
        ("tp", {"cell_methods": "area: mean time: sum (interval: 6 hr)"}),
        ("tp", {"cell_methods": "time: sum (interval: 6 hours comment: of radar)"}),
        ("total_precipitation_6hr", {}),
    ],
)
def test_what_tells_the_time_of_a_sum_comes_before_the_step(
    name: str, attrs: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "scigen"):
        np.testing.assert_allclose(found(rain(name, 6e-3, "m", "12h", **attrs)), RATE, rtol=1e-5)
    assert not any(r.levelname == "WARNING" for r in caplog.records)
    one = rain(name, 6e-3, "m", "12h", **attrs).isel(time=[3])
    np.testing.assert_allclose(find_variables(one, ["tp"])["tp"], RATE[[3]], rtol=1e-5)


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_bounds_of_the_times_come_before_the_step(calendar: str, tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for dim, n in (("time", 8), ("lat", 3), ("lon", 4), ("bnds", 2)):
            file.createDimension(dim, n)
        time = file.createVariable("time", "f8", ("time",))
        time.setncatts(dict(units="hours since 2001-01-01", calendar=calendar, bounds="time_bnds"))
        time[:] = np.arange(8) * 12 + 6
        file.createVariable("time_bnds", "f8", ("time", "bnds"))[:] = time[:][:, None] - [6, 0]
        for dim, n in (("lat", 3), ("lon", 4)):
            file.createVariable(dim, "f8", (dim,))[:] = np.arange(n)
        tp = file.createVariable("tp", "f4", ("time", "lat", "lon"))
        tp.units, tp[:] = "mm", RATE * 6
    ds = open_archive(tmp_path / "a.nc")
    assert isinstance(ds["time"].values[0], cftime.DatetimeNoLeap) == (calendar == "noleap")
    np.testing.assert_allclose(find_variables(ds, ["tp"])["tp"], RATE, rtol=1e-5)


def test_sums_since_the_start_of_a_forecast_are_refused() -> None:
    ds = rain(scale=1e-3, units="m", accumulation="since the start of the forecast")
    with pytest.raises(UserError, match=r"sum since the start of a forecast\. .*differences .*'accumulation'"):
        found(ds)
    ds = rain(scale=1e-3, units="m").assign_coords(step=("time", np.arange(8)))
    with pytest.raises(UserError, match="seems a sum since the start of a forecast, as it has 'step'"):
        found(ds)
    np.testing.assert_allclose(found(ds.isel(step=0) if "step" in ds.dims else ds.drop_vars("step")), RATE, rtol=1e-5)


def test_sums_over_a_time_that_is_not_told_are_refused() -> None:
    with pytest.raises(UserError, match=r"there is one time only.*attrs\['accumulation'\] = '1 hour'"):
        found(rain(scale=1e-3, units="m").isel(time=[0]))
    with pytest.raises(UserError, match="not evenly spaced"):
        find_variables(rain(scale=1e-3, units="m", freq="MS"), ["tp"])
    gaps = rain(scale=1e-3, units="m").isel(time=[0, 1, 2, 5, 6])
    np.testing.assert_allclose(found(gaps), RATE[[0, 1, 2, 5, 6]], rtol=1e-5)


def test_other_units_are_refused() -> None:
    for units, message in (("K", "'tp' is in K, expected mm h-1"), ("", "no units"), ("J m-2", "is in J m-2")):
        with pytest.raises(UserError, match=message):
            found(rain(units=units))


def test_negative_rounding_becomes_zero_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    ds = rain(scale=1e-3, units="m")
    ds["tp"][:, 0, 0] = -1e-8
    out = found(ds)
    assert not any("rounding" in r.message for r in caplog.records)
    with caplog.at_level(logging.INFO, "scigen"):
        values = out.values
    assert (values[:, 0, 0] == 0).all() and (values >= 0).all()
    np.testing.assert_allclose(values[:, 1:], RATE[:, 1:], rtol=1e-5)
    assert sum("are rounding and become 0" in r.message for r in caplog.records) == 1


def test_packed_integers_round_below_zero(tmp_path: Path) -> None:
    packing = {"dtype": "int16", "scale_factor": 4e-7, "add_offset": 0.0099999, "_FillValue": np.int16(-32768)}
    ds = rain(scale=1e-3, units="m")
    ds["tp"] = ds["tp"].where(ds["tp"] > 1e-3, 0.0)
    ds.to_netcdf(tmp_path / "a.nc", encoding={"tp": packing})
    raw = xr.open_dataset(tmp_path / "a.nc")
    assert float(raw["tp"].min()) < 0
    out = find_variables(open_archive(tmp_path / "a.nc"), ["tp"])["tp"]
    np.testing.assert_allclose(out, ds["tp"] * 1000, atol=2e-4)
    assert float(out.min()) >= 0


def test_large_negative_values_are_refused_when_they_are_read() -> None:
    ds = rain(scale=1e-3, units="m")
    ds["tp"][5, 1, 1] = -1e-3
    out = found(ds)
    out.isel(time=slice(0, 3)).load()
    with pytest.raises(UserError, match="'tp' falls to -1 mm h-1, which cannot be"):
        out.load()


def test_missing_cells_stay_missing() -> None:
    ds = rain(scale=1e-3, units="m")
    ds["tp"][5, 1, 1] = np.nan
    assert int(np.isnan(found(ds)).sum()) == 1


def test_radiation_in_joules_becomes_watts() -> None:
    ds = rain("ssrd", 3600.0, "J m**-2")
    np.testing.assert_allclose(found(ds, "ssrd"), RATE, rtol=1e-5)
    np.testing.assert_allclose(found(rain("rsds", 1.0, "W m-2"), "ssrd"), RATE, rtol=1e-5)


def test_a_bundle_finds_it_again() -> None:
    ds = rain("total_precipitation", 1e-3, "m")
    attrs = dict(found(ds).attrs)
    np.testing.assert_allclose(find_variables(ds, {"tp": attrs})["tp"], RATE, rtol=1e-5)
    np.testing.assert_allclose(find_variables(rain("tp"), {"tp": attrs})["tp"], RATE, rtol=1e-5)
