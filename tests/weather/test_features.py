"""What networks are told of place and time."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.weather.features import check_features, clock, in_block, place, sun


def at(*times: str) -> xr.DataArray:
    return xr.DataArray(pd.DatetimeIndex(times), dims="time")


def height(time: xr.DataArray, lat: float, lon: float) -> np.ndarray:
    """Height of the sun [degrees]."""
    return 90 - np.rad2deg(np.arccos(sun(time, np.array([[lat]]), np.array([[lon]]))))[:, 0, 0]


def test_sun_stands_where_almanacs_have_it():
    """Overhead at the equator at the equinox, 23.44 degrees north of it at the solstice, never up in polar night."""
    assert height(at("2020-03-20T12:07"), 0.0, 0.0)[0] == pytest.approx(90, abs=0.5)
    assert height(at("2020-06-21T12:02"), 23.44, 0.0)[0] == pytest.approx(90, abs=0.5)
    assert height(at("2020-06-21T12:02"), 51.48, 0.0)[0] == pytest.approx(90 - 51.48 + 23.44, abs=0.3)
    day = at(*(f"2020-12-21T{h:02d}:00" for h in range(24)))
    assert (height(day, 75.0, 20.0) < 0).all() and (height(day, -75.0, 20.0) > 0).all()


def test_noon_moves_with_longitude_and_equation_of_time():
    """The sun culminates at 12 h UTC less a 24th of a day for 15 degrees; in early November 16.4 minutes before."""
    minutes = pd.date_range("2020-11-03", periods=1440, freq="min")
    for lon in (0.0, 90.0, -120.0):
        noon = int(sun(xr.DataArray(minutes, dims="time"), np.array([[40.0]]), np.array([[lon]]))[:, 0, 0].argmax())
        assert noon == pytest.approx((720 - 4 * lon - 16.4) % 1440, abs=1.5)


def test_clock_goes_round_smoothly():
    hours = clock(xr.DataArray(pd.date_range("2019-12-30", periods=24 * 5, freq="h"), dims="time")).numpy()
    np.testing.assert_allclose(np.hypot(hours[:, 0], hours[:, 1]), 1, rtol=1e-6)
    assert np.abs(np.diff(hours[:, :2], axis=0)).max() < 0.27 and np.abs(np.diff(hours[:, 2:], axis=0)).max() < 0.02


def test_clock_of_a_year_of_360_days_closes():
    times = xr.date_range("2000-12-29", periods=4, freq="D", calendar="360_day", use_cftime=True)
    year = clock(xr.DataArray(times, dims="time")).numpy()[:, 2:]
    assert np.abs(np.diff(year, axis=0)).max() < 0.02


def test_place_has_no_seam_and_tells_cells_apart():
    lat, lon = np.meshgrid(np.linspace(-90, 90, 7), np.arange(0, 360, 30.0), indexing="ij")
    p = place(lat, lon)
    np.testing.assert_allclose((p**2).sum(0), 1)
    np.testing.assert_allclose(place(lat, lon + 360), p, atol=1e-12)
    assert np.abs(p[:, :, 0] - p[:, :, -1]).max() < 0.6


def test_place_in_the_block_repeats():
    waves = in_block((8, 12), 4)
    assert waves.shape == (4, 8, 12)
    np.testing.assert_allclose(waves, np.roll(waves, (4, 4), (1, 2)), atol=1e-12)
    assert len(np.unique(waves[:, :4, :4].reshape(4, -1).round(9), axis=1).T) == 16


def test_unknown_features_are_refused():
    assert check_features(["sun"]) == ("sun",)
    with pytest.raises(UserError, match="'moon' is none of place, sun"):
        check_features(["sun", "moon"])
