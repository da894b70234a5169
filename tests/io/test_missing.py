import logging

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.io.coordinates import check_finite
from scigen.io.missing import check_policy, complete_times, fill_gaps, settle, skip_times


def fields(times: int = 6) -> xr.Dataset:
    values = np.arange(times * 12.0, dtype="f4").reshape(times, 3, 4)
    coords = {"time": pd.date_range("2020", periods=times, freq="D"), "lat": [1.0, 2.0, 3.0], "lon": np.arange(4.0)}
    ds = xr.Dataset(
        {n: (("time", "lat", "lon"), values + i, {"units": "K"}) for i, n in enumerate("ab")}, coords=coords
    )
    ds["time"].encoding = {"units": "hours since 1900-01-01"}
    return ds


@pytest.mark.parametrize("chunk", [None, {"time": 2}, {"time": 4, "lat": 1, "lon": 3}])
@pytest.mark.parametrize("order", [("time", "lat", "lon"), ("lon", "lat", "time")])
def test_a_missing_cell_gets_the_nearest_value_lazily(
    chunk: dict[str, int] | None, order: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    whole = fields()
    ds = whole.copy(deep=True)
    ds["a"][2, 0, 0] = np.nan  # its nearest is above or beside
    ds["a"][3, :, 3] = np.inf  # a column: each gets its neighbour to the left
    ds = ds.transpose(*order)
    with caplog.at_level(logging.INFO, "scigen"):
        out = fill_gaps(ds if chunk is None else ds.chunk(chunk))
        if chunk is not None:
            assert dask.is_dask_collection(out["a"].data) and not caplog.records
        out = out.load()
    assert sum("are filled from the nearest" in r.message for r in caplog.records) == 1
    assert out["a"].dims == order and out["a"].dtype == np.float32 and out["a"].attrs == {"units": "K"}
    out = out.transpose("time", "lat", "lon")
    assert float(out["a"][2, 0, 0]) in (float(whole["a"][2, 0, 1]), float(whole["a"][2, 1, 0]))
    np.testing.assert_array_equal(out["a"][3, :, 3], whole["a"][3, :, 2])
    there = np.isfinite(ds["a"].transpose("time", "lat", "lon"))
    np.testing.assert_array_equal(out["a"].where(there), whole["a"].where(there))
    np.testing.assert_array_equal(out["b"], whole["b"])


def test_a_coast_and_other_gaps_are_each_filled_with_their_own_neighbours() -> None:
    whole = fields()
    ds = whole.copy(deep=True)
    for time, column in ((0, 0), (1, 0), (2, 3), (3, 0)):
        ds["a"][time, :, column] = np.nan
    out = fill_gaps(ds)
    for time, column, neighbour in ((0, 0, 1), (1, 0, 1), (2, 3, 2), (3, 0, 1)):
        np.testing.assert_array_equal(out["a"][time, :, column], whole["a"][time, :, neighbour])


def test_a_field_of_which_more_than_a_third_is_missing_is_left_for_the_check() -> None:
    ds = fields()
    ds["a"][1].values[:] = np.where(np.arange(12).reshape(3, 4) < 4, np.nan, ds["a"][1])
    check_finite(fill_gaps(ds))
    ds["a"][2].values[:] = np.where(np.arange(12).reshape(3, 4) < 5, np.nan, ds["a"][2])
    with pytest.raises(UserError, match=r"'a' has 5 in 72 cells, first at 2020-01-03.*at most a third"):
        settle(fill_gaps(ds), "fill", "the input")


@pytest.mark.parametrize("chunk", [None, 4])
def test_times_with_gaps_are_left_out_of_all(chunk: int | None, caplog: pytest.LogCaptureFixture) -> None:
    one, two = fields(), fields()
    one["a"][2, 0, 0] = np.nan
    two["b"][4, 1, 1] = np.inf
    if chunk:
        one, two = one.chunk(time=chunk), two.chunk(time=chunk)
    assert complete_times(one).tolist() == [True, True, False, True, True, True]
    with caplog.at_level(logging.INFO, "scigen"):
        left = skip_times(one, two, what="the archives")
    assert "2 of 6 times of the archives miss values and are left out, first 2020-01-03" in caplog.text
    for ds in left:
        np.testing.assert_array_equal(ds["time"], fields()["time"][[0, 1, 3, 5]])
        np.testing.assert_array_equal(ds["a"], fields()["a"][[0, 1, 3, 5]])
        assert ds["time"].encoding == {"units": "hours since 1900-01-01"} and bool(ds["a"].chunks) == bool(chunk)
    assert skip_times(fields())[0].sizes["time"] == 6


def test_nothing_left_and_nonsense_are_refused() -> None:
    ds = fields()
    ds["a"][:, 0, 0] = np.nan
    with pytest.raises(UserError, match=r"Every one of the 6 times.*missing=skip leaves none: use missing=fill"):
        settle(ds, "skip", "the input")
    with pytest.raises(UserError, match="missing=drop: expected refuse, fill or skip"):
        check_policy("drop")
    with pytest.raises(UserError, match="the input has none"):
        settle(fields().isel(time=0, drop=True), "skip", "the input")
    assert settle(ds, "refuse", "the input") is ds
