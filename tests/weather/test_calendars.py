"""Hour and season in the calendars of climate models."""

import numpy as np
import pytest
import torch
import xarray as xr

from scigen.weather.features import clock

DAYS = {"360_day": 360, "noleap": 365, "all_leap": 366, "standard": 365, "proleptic_gregorian": 365, "julian": 365}


def times(calendar: str, start: str, periods: int, freq: str = "D") -> xr.DataArray:
    cftime = calendar not in ("standard", "proleptic_gregorian")
    index = xr.date_range(start, periods=periods, freq=freq, calendar=calendar, use_cftime=cftime)
    return xr.DataArray(index, dims="time", coords={"time": index}, name="time")


@pytest.mark.parametrize("calendar", ["360_day", "noleap", "all_leap"])
def test_a_year_without_leap_days_goes_once_around(calendar: str) -> None:
    season = clock(times(calendar, "2001-01-01", DAYS[calendar]))[:, 2:].double()
    torch.testing.assert_close(season.sum(0), torch.zeros(2).double(), rtol=0, atol=1e-4)
    half = DAYS[calendar] // 2
    if DAYS[calendar] % 2 == 0:
        torch.testing.assert_close(season[half], -season[0], rtol=0, atol=1e-6)
    following = clock(times(calendar, "2002-01-01", 1))
    torch.testing.assert_close(following[0, 2:].double(), season[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("calendar", DAYS)
def test_a_season_is_the_same_in_every_calendar(calendar: str) -> None:
    for month in range(1, 13):
        here, there = (clock(times(c, f"2001-{month:02d}-01", 1))[0] for c in (calendar, "standard"))
        assert float(torch.linalg.norm(here - there)) < 2 * np.pi * 2.5 / 365


@pytest.mark.parametrize("calendar", DAYS)
def test_hours_go_once_around_a_day(calendar: str) -> None:
    hour = clock(times(calendar, "2001-02-27", 8, "3h"))[:, :2]
    expected = [(np.sin(a), np.cos(a)) for a in 2 * np.pi * np.arange(8) / 8]
    torch.testing.assert_close(hour, torch.tensor(expected).float(), rtol=0, atol=1e-6)
