"""Statistics stream: blocks merged are the whole, and areas count."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.weather import statistics as module
from scigen.weather.statistics import merge, statistics, survey

DIMS = ("time", "member", "latitude", "longitude")


def world(times=12, members=5, size=8, south=40.0, step=1.0):
    """(truth, samples) of independent standard normal cells around 280 K, some of them equal (ties)."""
    noise = np.random.default_rng(5).standard_normal((times, members + 1, size, size))
    values = np.round(280 + noise, 1).astype(np.float32)
    coords = {
        "time": pd.date_range("2020-01-01", periods=times, freq="6h"),
        "latitude": south + step * np.arange(size),
        "longitude": np.arange(size, dtype=float),
    }
    ds = xr.Dataset({"t2m": (DIMS, values, {"units": "K"}), "u10": (DIMS, values[:, ::-1], {"units": "m s-1"})}, coords)
    return ds.isel(member=0, drop=True), ds.isel(member=slice(1, None))


def test_blocks_merged_are_the_whole_whatever_their_length():
    truth, samples = world()
    edges = survey(truth)
    whole = statistics(truth, samples, factor=4, edges=edges)
    cuts = [slice(0, 1), slice(1, 6), slice(6, None)]
    parts = [statistics(truth.isel(time=c), samples.isel(time=c), factor=4, edges=edges) for c in cuts]
    merged = merge(parts)
    xr.testing.assert_allclose(merged, whole, rtol=1e-12)
    xr.testing.assert_identical(merged["ranks"], whole["ranks"])  # ties included
    assert merged.attrs == whole.attrs


def test_the_size_of_blocks_in_memory_changes_nothing(monkeypatch):
    truth, samples = world()
    whole = statistics(truth, samples, factor=4)
    monkeypatch.setattr(module, "BLOCK_BYTES", 8 * 5 * 64 * 5)  # five times of twelve
    xr.testing.assert_allclose(statistics(truth, samples, factor=4), whole, rtol=1e-12)


def test_lazy_archives_give_the_same():
    truth, samples = world()
    lazy = statistics(truth.chunk(time=5), samples.chunk(time=2, member=2))
    xr.testing.assert_allclose(lazy, statistics(truth, samples), rtol=1e-12)


def test_areas_count():
    truth, samples = world(south=0.0, step=11.0)  # from the equator to 77°N
    samples = samples.copy(deep=True)
    samples["t2m"][..., -1, :] += 1000.0  # only the northernmost row is wrong
    north = statistics(truth, samples)
    flat = statistics(truth.drop_vars("latitude"), samples.drop_vars("latitude"))
    for key in ("crps", "squared_error", "error"):
        weight = np.cos(np.deg2rad(77)) / np.cos(np.deg2rad(11.0 * np.arange(8))).mean()
        wrong = [s[key].sel(variable="t2m").mean().item() for s in (north, flat)]
        assert wrong[0] / wrong[1] == pytest.approx(weight, rel=0.05)
    # the truth ranks lowest in that row, which is an eighth of the cells but less of the area
    lowest = [s["ranks"].sel(variable="t2m", rank=0).mean().item() for s in (north, flat)]
    assert lowest[0] < lowest[1] - 0.05
    # and all that is off the scale of the truth lies there
    counts = [s["histogram"].sel(variable="t2m").values for s in (north, flat)]
    np.testing.assert_allclose([c[-1] / c.sum() for c in counts], [weight / 8, 1 / 8], rtol=1e-6)


def test_conservation_is_zero_for_members_with_the_true_block_means_and_sees_a_shift():
    truth, _ = world()
    good = truth.expand_dims(member=3).copy(deep=True)
    checker = (-1.0) ** np.add.outer(np.arange(8), np.arange(8))
    weights = np.cos(np.deg2rad(truth["latitude"].values))[:, None]
    good["t2m"] = truth["t2m"].expand_dims(member=3) + (checker / weights).astype(np.float32)  # weighted mean zero
    good["t2m"].attrs = truth["t2m"].attrs
    stats = statistics(truth, good, factor=4)["conservation"].sel(variable="t2m")
    assert float(np.sqrt(stats.max())) < 1e-4
    shifted = good.copy(deep=True)
    shifted["t2m"][:, :, 4:, :4] += 2.0  # one of four blocks
    stats = statistics(truth, shifted, factor=4)["conservation"].sel(variable="t2m")
    weight = weights[4:].mean() / weights.mean()
    np.testing.assert_allclose(stats, 4 * weight / 4, rtol=1e-3)
    assert "conservation" not in statistics(truth, good)


def test_spectra_are_those_of_members_never_of_their_mean():
    truth, samples = world(members=5)
    stats = statistics(truth, samples)
    ratio = stats["power"].sum("wavenumber").mean() / stats["power_truth"].sum("wavenumber").mean()
    assert ratio.item() == pytest.approx(1, abs=0.1)  # the mean of five would have a fifth


def test_a_single_member_knows_no_spread():
    truth, samples = world()
    stats = statistics(truth, samples.isel(member=[0]))
    assert stats["variance"].isnull().all() and stats["ranks"].isnull().all()
    error = abs(samples.isel(member=0) - truth)["t2m"].values.mean((1, 2))
    np.testing.assert_allclose(stats["crps"].sel(variable="t2m"), error, rtol=0.02)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_missing_values_are_named_with_contender_variable_and_time(value):
    truth, samples = world()
    samples = samples.copy(deep=True)
    samples["u10"][7, 2, 3, 3] = value
    with pytest.raises(UserError, match=r"'u10' of samples 'student' has missing .* 2020-01-02T18:00.*unfinished"):
        statistics(truth, samples, name="student")
    truth = truth.copy(deep=True)
    truth["t2m"][3, 0, 0] = value
    with pytest.raises(UserError, match=r"'t2m' of the truth has missing .* 2020-01-01T18:00"):
        statistics(truth, samples)


@pytest.mark.parametrize("factor", [0, 9])
def test_a_factor_that_leaves_no_coarse_cell_is_refused(factor):
    truth, samples = world()
    with pytest.raises(UserError, match=f"factor={factor} leaves no coarse cell of 8 x 8"):
        statistics(truth, samples, factor=factor)


def test_other_edges_or_members_do_not_merge():
    truth, samples = world()
    whole = statistics(truth, samples)
    for other in (statistics(truth + 50, samples), statistics(truth, samples.isel(member=[0, 1]))):
        with pytest.raises(UserError, match="merge"):
            merge([whole, other])
    with pytest.raises(UserError, match="bin edges for"):
        statistics(truth, samples, edges={"t2m": survey(truth)["t2m"]})
