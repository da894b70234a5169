"""Truth and contenders are brought together, or refused with the difference and the remedy."""

import logging

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.weather.area import cell_weights
from scigen.weather.pairing import pair
from scigen.weather.variables import find_variables


def archive(times=4, members=3, y=4, x=6, start="2020-01-01", names=("t2m",), units="K", y0=50.0):
    """An archive whose values say where they are: time · 10⁶ + member · 10⁴ + row · 10² + column."""
    n = (np.arange(m) for m in (times, members or 1, y, x))
    t, m, r, c = np.meshgrid(*n, indexing="ij")
    values = (t * 10**6 + m * 10**4 + r * 100 + c).astype(np.float32)
    ds = xr.Dataset(
        {k: (("time", "member", "latitude", "longitude"), values, {"units": units}) for k in names},
        coords={
            "time": pd.date_range(start, periods=times, freq="6h"),
            "member": np.arange(members or 1),
            "latitude": y0 + np.arange(y),
            "longitude": np.arange(x, dtype=float),
        },
    )
    return ds if members else ds.isel(member=0, drop=True)


def test_a_larger_truth_is_cut_to_the_samples():
    truth = archive(times=8, members=0, y=6, x=8, names=("t2m", "u10"))
    truth["orography"] = (("latitude", "longitude"), np.zeros((6, 8)))
    samples = archive(times=3, start="2020-01-01T06", y0=51.0)
    cut, paired = pair(truth, {"student": samples})
    assert list(cut) == ["t2m"] and cut["t2m"].shape == (3, 4, 6)
    assert cut["t2m"].values[0, 0, 0] == 10**6 + 100  # second time, second row
    assert paired["student"]["t2m"].dims == ("time", "member", "latitude", "longitude")


def test_rows_that_run_the_other_way_are_matched_by_latitude():
    truth, samples = archive(members=0), archive()
    cut, paired = pair(
        truth.isel(latitude=slice(None, None, -1)), {"a": samples, "b": samples.isel(latitude=[3, 2, 1, 0])}
    )
    xr.testing.assert_equal(cut["t2m"], truth["t2m"])
    xr.testing.assert_equal(paired["b"]["t2m"], samples["t2m"])


def test_longitudes_match_in_either_convention():
    truth = archive(members=0).assign_coords(longitude=np.arange(357.0, 363.0) % 360)  # 357 … 359, 0 … 2
    samples = archive().assign_coords(longitude=np.arange(-3.0, 3.0))
    cut, _ = pair(truth, {"a": samples})
    np.testing.assert_array_equal(cut["longitude"], samples["longitude"])
    xr.testing.assert_equal(cut["t2m"].drop_vars("longitude"), truth["t2m"].drop_vars("longitude"))


def test_float32_coordinates_match_their_float64_originals():
    truth = archive(members=0).assign_coords(latitude=np.linspace(50, 50.7, 4))
    samples = archive().assign_coords(latitude=np.linspace(50, 50.7, 4).astype(np.float32))
    cut, paired = pair(truth, {"a": samples})
    assert cut["t2m"].shape == (4, 4, 6)
    assert (cut["t2m"] - paired["a"]["t2m"]).shape == (4, 4, 6, 3)  # aligned: no cell lost


def test_a_deterministic_contender_gets_one_member():
    _, paired = pair(archive(members=0), {"a": archive(), "interpolation": archive(members=0)})
    assert paired["interpolation"].sizes["member"] == 1


def test_dimensions_may_come_in_any_order():
    samples = archive().transpose("longitude", "latitude", "member", "time")
    cut, paired = pair(archive(members=0), {"a": samples})
    assert set(cut["t2m"].dims[1:]) == {"latitude", "longitude"} and cut["t2m"].dims[0] == "time"
    assert paired["a"]["t2m"].dims[:2] == ("time", "member")


def test_common_times_are_kept_and_the_rest_is_announced(caplog):
    with caplog.at_level(logging.WARNING):
        cut, _ = pair(archive(times=8, members=0), {"a": archive(times=5), "b": archive(times=3)})
    assert cut.sizes["time"] == 3
    assert "a: 2 of 5 times" in caplog.text and "b:" not in caplog.text


def test_nothing_is_loaded():
    truth, samples = archive(members=0).chunk(time=1), archive().chunk(time=1)
    cut, paired = pair(truth, {"a": samples})
    assert cut["t2m"].chunks and paired["a"]["t2m"].chunks


@pytest.mark.parametrize("spelling", ["m s**-1", "m s^-1", "m/s", "m  s-1"])
def test_spelling_of_units_is_no_difference(spelling):
    pair(archive(members=0, units=spelling), {"a": archive(units="m s-1")})


TURNS = {
    "as it is": lambda ds, y, x: ds,
    "flipped": lambda ds, y, x: ds.isel({y: slice(None, None, -1)}),
    "renumbered": lambda ds, y, x: ds.assign_coords({y: np.arange(12), x: np.arange(16)}) if y != "y" else ds,
    "by place only": lambda ds, y, x: ds.drop_vars([y, x], errors="ignore"),
}


@pytest.mark.parametrize("turn", TURNS)
def test_curvilinear_cells_are_matched_by_place(turn, lambert, kind):
    """A larger truth that runs otherwise: the same values at the same cells, and one set of coordinates."""
    truth = lambert(kind=kind)
    y, x = truth["t2m"].dims[1:]
    part = find_variables(truth.isel({y: slice(2, 10), x: slice(1, 13)}), ["t2m"])
    samples = part.expand_dims(member=2, axis=1)
    cut, paired = pair(TURNS[turn](truth, y, x), {"a": samples})
    np.testing.assert_array_equal(cut["t2m"], part["t2m"])
    assert cut["t2m"].coords["latitude"].identical(paired["a"]["t2m"].coords["latitude"])
    assert not {"XLAT", "XLONG"} & set(cut.coords)
    np.testing.assert_array_equal(cell_weights(cut, (y, x)), cell_weights(paired["a"], (y, x)))


def test_curvilinear_cells_that_are_others_are_refused(lambert, kind):
    truth = find_variables(lambert(kind=kind), ["t2m"])
    samples = truth.assign_coords(longitude=truth["longitude"] + 0.01).expand_dims(member=2)
    with pytest.raises(UserError, match=r"the truth has .*longitude -97.*samples 'a' has .*longitude -97"):
        pair(truth, {"a": samples})
    two = {"a": truth.expand_dims(member=2), "b": truth.isel({truth["t2m"].dims[1]: slice(8)}).expand_dims(member=2)}
    with pytest.raises(UserError, match=r"samples 'b' has 8"):
        pair(truth, two)


def noleap(ds):
    return ds.assign_coords(time=xr.date_range("2020-01-01", periods=4, freq="6h", calendar="noleap", use_cftime=True))


TRUTH = archive(members=0)
BAD = {
    "nothing to judge": (TRUTH, {}, "samples={name: path"),
    "other variables": (TRUTH, {"a": archive(), "b": archive(names=("u10",))}, r"'b' has the variables \['u10'\]"),
    "not in the truth": (TRUTH, {"a": archive(names=("u10",))}, r"truth has no variable \['u10'\]"),
    "other units": (TRUTH, {"a": archive(units="degC")}, "degC in samples 'a' and in K in the truth"),
    "no units": (archive(members=0, units=None), {"a": archive()}, "no units in the truth"),
    "other grid": (TRUTH, {"a": archive(y0=50.5)}, "the truth has 4 cells of latitude from 50 to 53"),
    "grids of contenders": (TRUTH, {"a": archive(y=3), "b": archive()}, "samples 'b' has 4 cells of latitude"),
    "finer than the truth": (archive(members=0, x=3), {"a": archive()}, "6 cells of longitude"),
    "other times": (TRUTH, {"a": archive(start="2021-01-01")}, "No time is held by all"),
    "a time twice": (TRUTH, {"a": archive().isel(time=[0, 1, 1])}, "2020-01-01 06:00:00 more than once"),
    "no times": (TRUTH.drop_vars("time"), {"a": archive()}, "no time coordinate"),
    "other calendar": (TRUTH, {"a": noleap(archive())}, "noleap"),
    "ensemble as truth": (archive(), {"a": archive()}, "member=0"),
    "no time dimension": (TRUTH, {"a": archive().isel(time=0)}, "expand_dims"),
    "levels": (TRUTH, {"a": archive().expand_dims(level=[1, 2])}, "choose one level"),
    "other names": (TRUTH.rename(latitude="lat"), {"a": archive()}, "space dimensions"),
    "no members": (TRUTH, {"a": archive().isel(member=slice(0))}, "empty along"),
    "no coordinates": (TRUTH.drop_vars("latitude").isel(latitude=slice(3)), {"a": archive()}, "without coordinates"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_with_the_difference(case):
    truth, samples, message = BAD[case]
    with pytest.raises(UserError, match=message):
        pair(truth, samples)
