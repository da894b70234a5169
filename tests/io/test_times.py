import pandas as pd
import pytest
import xarray as xr

from scigen.io.times import find_gaps, is_even, say_gaps, say_step, usual_step


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_gaps_are_found_in_any_calendar(calendar: str) -> None:
    cftime = calendar != "standard"
    index = xr.date_range("2001-02-26", periods=40, freq="6h", calendar=calendar, use_cftime=cftime)
    assert find_gaps(index) == [] and usual_step(index) == pd.Timedelta("6h") and is_even(index)
    gaps = find_gaps(index.delete([3, 4, 20]))
    assert [(g.before, g.after, g.count) for g in gaps] == [(index[2], index[5], 2), (index[19], index[21], 1)]
    assert say_gaps(gaps).startswith("2 gaps in time, 3 steps missing: 2001-02-26")
    assert is_even(index.delete([3, 4, 20]))


def test_months_are_no_gaps_but_uneven() -> None:
    for index in (
        pd.date_range("2019-01-01", periods=30, freq="MS"),
        pd.date_range("2019-04-01", periods=5, freq="MS"),
    ):
        assert find_gaps(index) == [] and not is_even(index)


def test_nothing_is_made_of_one_time() -> None:
    assert usual_step(pd.date_range("2020", periods=1)) is None and find_gaps(pd.date_range("2020", periods=1)) == []


@pytest.mark.parametrize(("step", "words"), [("6h", "6 h"), ("1D", "1 d"), ("90min", "90 min"), ("1.5s", "1.5 s")])
def test_steps_in_words(step: str, words: str) -> None:
    assert say_step(pd.Timedelta(step)) == words
