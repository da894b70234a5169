"""Archives that differ are aligned where that is safe, and refused with the difference where it is not."""

import logging

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.metrics.judging import Settings, evaluate
from scigen.metrics.layout import Layout
from scigen.metrics.matching import match

N, M, Y, X = 12, 4, 6, 8
ONE = Settings(draws=2)


def grid(**names):
    lat = ("latitude", np.linspace(40, 60, Y), {"units": "degrees_north"})
    lon = ("longitude", np.linspace(-10, 25, X), {"units": "degrees_east"})
    return {"time": pd.date_range("2020-01-01", periods=N), "latitude": lat, "longitude": lon}


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    y, x = rng.standard_normal((N, Y, X)) + 280, rng.standard_normal((N, M, Y, X)) + 280
    truth = xr.Dataset({"t2m": (("time", "latitude", "longitude"), y, {"units": "K"})}, coords=grid())
    samples = xr.Dataset({"t2m": (("time", "member", "latitude", "longitude"), x, {"units": "K"})}, coords=grid())
    return truth, samples


def numbers(truth, samples, settings=ONE):
    """All scores of one ensemble, and what was said."""
    report = evaluate(truth, {"a": samples}, settings)
    return report["value"].sel(interval="estimate").squeeze().to_series(), report.attrs["notes"]


CHANGES = {
    "rows the other way": lambda s: s.isel(latitude=slice(None, None, -1)),
    "longitudes from 0 to 360": lambda s: s.assign_coords(longitude=s["longitude"] % 360).sortby("longitude"),
    "members last": lambda s: s.transpose("latitude", "time", "longitude", "member"),
    "other names": lambda s: s.rename(latitude="lat", longitude="lon"),
    "degrees Celsius": lambda s: s.assign(t2m=(s["t2m"] - 273.15).assign_attrs(units="degC")),
    "spelling of units": lambda s: s.assign(t2m=s["t2m"].assign_attrs(units="kelvin")),
    "no units": lambda s: s.assign(t2m=s["t2m"].assign_attrs(units="")),
    "samples in another order": lambda s: s.isel(time=np.random.default_rng(1).permutation(N)),
    "float32 coordinates": lambda s: s.assign_coords(latitude=s["latitude"].astype("f4")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_safe_is_aligned(pair, change):
    truth, samples = pair
    plain, _ = numbers(truth, samples)
    other = CHANGES[change](samples)
    turned = ["spectrum", "energy", "variogram"]  # of patches, and of pairs in them, that lie elsewhere
    turned = turned if change.startswith(("longitudes", "rows")) else []
    got, notes = numbers(truth, other)
    np.testing.assert_allclose(got.drop(turned), plain.drop(turned), rtol=1e-5, atol=1e-5)
    assert any("converted" in n for n in notes) == (change == "degrees Celsius")
    assert any("no units" in n for n in notes) == (change == "no units")


def test_the_truth_may_hold_more_and_common_samples_are_judged(pair):
    truth, samples = pair
    part = samples.isel(time=slice(2, 7), latitude=slice(1, 5), longitude=slice(2, 8))
    plain, _ = numbers(truth.isel(time=slice(2, 7), latitude=slice(1, 5), longitude=slice(2, 8)), part)
    got, _ = numbers(truth, part)
    np.testing.assert_allclose(got, plain, rtol=1e-12)
    report = evaluate(truth, {"a": samples, "b": samples.isel(time=slice(2, 6))}, ONE)
    assert report.attrs["samples"] == 4 and any("8 of 12 samples of 'a'" in n for n in report.attrs["notes"])


def refused(pair, change, words, side=1):
    both = list(pair)
    both[side] = change(both[side])
    with pytest.raises(UserError, match=words):
        evaluate(both[0], {"a": both[1]}, ONE)


def test_other_cells_are_refused(pair):
    refused(
        pair, lambda s: s.assign_coords(latitude=s["latitude"] + 0.5), "6 cells of latitude from 40 to 60.*40.5 to 60.5"
    )
    refused(pair, lambda t: t.isel(longitude=slice(1, None)), "7 cells of longitude", side=0)
    refused(pair, lambda s: s.drop_vars("latitude").isel(latitude=slice(1, None)), "6 cells along latitude.*has 5")


def test_2d_places_that_differ_are_refused(pair):
    truth, samples = (d.rename(latitude="y", longitude="x").drop_vars(["y", "x"]) for d in pair)
    lat, lon = np.meshgrid(np.linspace(40, 60, Y), np.linspace(-10, 25, X), indexing="ij")
    place = {"latitude": (("y", "x"), lat), "longitude": (("y", "x"), lon)}
    truth, samples = truth.assign_coords(place), samples.assign_coords(place)
    numbers(truth, samples)
    refused((truth, samples), lambda s: s.assign_coords(latitude=(("y", "x"), lat[::-1])), "different latitude")


def test_other_times_calendars_and_units_are_refused(pair):
    later = pd.date_range("2031-01-01", periods=N)
    refused(pair, lambda s: s.assign_coords(time=later), "No time is held by truth and all samples")
    refused(pair, lambda s: s.convert_calendar("noleap"), "noleap calendar, that of the truth standard calendar")
    refused(pair, lambda s: s.assign_coords(time=np.arange(N)), "numbers")
    refused(pair, lambda s: s.assign(t2m=s["t2m"].assign_attrs(units="m s-1")), "is in m s-1, expected K")
    refused(pair, lambda s: xr.concat([s, s.isel(time=[0])], "time"), "more than once")
    refused(pair, lambda s: s.drop_vars("time").isel(time=slice(1, None)), "numbers differ")


def test_missing_and_asked_variables(pair):
    truth, samples = pair
    refused(pair, lambda s: s.rename(t2m="tas"), "share no variable: the truth has .*t2m.*tas")
    _, notes = numbers(truth, samples.assign(u10=samples["t2m"]))
    assert any("u10" in n for n in notes)
    with pytest.raises(UserError, match="no \\['u10'\\]"):
        evaluate(truth, {"a": samples}, Settings(variables=["u10"]))


def test_a_truth_with_members_and_empty_archives_are_refused(pair):
    refused(pair, lambda t: t.expand_dims(member=2), "truth has 2 members", side=0)
    refused(pair, lambda s: s.isel(time=slice(0, 0)), "empty along")
    with pytest.raises(UserError, match="nothing to judge"):
        evaluate(pair[0], {}, ONE)
    with pytest.raises(UserError, match="reference=b"):
        evaluate(pair[0], {"a": pair[1]}, Settings(reference="b"))


def test_a_single_member_is_judged_without_spread_and_that_is_said(pair):
    truth, samples = pair
    for alone in (samples.isel(member=[0]), samples.isel(member=0)):
        got, notes = numbers(truth, alone)
        assert "spread_skill" not in got.index or np.isnan(got["spread_skill"])
        assert got["crps"] == pytest.approx(float(abs(alone["t2m"] - truth["t2m"]).mean()), rel=1e-5)
        assert any("single member" in n for n in notes)


def test_copies_are_said_loudly_and_first(pair, caplog):
    truth, samples = pair
    samples["t2m"][:, 2] = samples["t2m"][:, 0]
    with caplog.at_level(logging.WARNING):
        _, notes = numbers(truth, samples)
    assert notes[0].startswith("COPIES") and "0 and 2" in notes[0] and "COPIES" in caplog.text


def test_masked_regions_are_left_out_counted_and_said(pair):
    truth, samples = pair
    land = samples["latitude"] > 49
    _, notes = numbers(truth.where(land), samples)
    assert any(
        "50 % of the values of 't2m' are missing in the truth, of them all of 50 % of the cells" in n for n in notes
    )
    plain, _ = numbers(truth.where(land), samples.where(land))
    got, notes = numbers(truth, samples.where(land))
    assert any("lack 50 % of the values" in n for n in notes)
    marginal = ["crps", "bias", "rmse", "spread_skill"]
    np.testing.assert_allclose(got[marginal], plain[marginal], rtol=1e-10)
    inside, _ = numbers(truth.isel(latitude=slice(3, 6)), samples.isel(latitude=slice(3, 6)))
    np.testing.assert_allclose(got[marginal], inside[marginal], rtol=1e-6)
    refused(pair, lambda t: t * np.nan, "has no value in any sample", side=0)
    refused(pair, lambda s: s * np.nan, "has no value where the truth has one")


def test_fields_without_variance_are_judged_and_said(pair):
    truth, samples = pair
    got, notes = numbers(xr.full_like(truth, 3.0), xr.full_like(samples, 3.0))
    assert got["crps"] == 0 and np.isnan(got["spread_skill"]) and any("hardly varies" in n for n in notes)
    got, notes = numbers(xr.full_like(truth, 280.0), samples)
    assert np.isfinite(got["crps"]) and any("hardly varies" in n for n in notes)


def test_leads_are_groups_and_their_truth_is_at_start_plus_lead(pair):
    truth, _ = pair
    rng = np.random.default_rng(3)
    leads = pd.to_timedelta([0, 24, 72], "h")
    starts = truth.indexes["time"][:10]
    known = truth["t2m"].reindex(time=pd.date_range("2020-01-01", periods=N + 3), fill_value=0.0)
    values = np.stack([[known.sel(time=s + x).values for x in leads] for s in starts])
    members = values[:, :, None] + np.array([0.0, 1.0, 2.0])[:, None, None, None] * rng.standard_normal(
        (10, 3, M, Y, X)
    )
    dims = ("time", "lead_time", "member", "latitude", "longitude")
    samples = xr.Dataset(
        {"t2m": (dims, members, {"units": "K"})}, coords={**grid(), "time": starts, "lead_time": leads}
    )
    report = evaluate(truth, {"a": samples}, ONE)
    crps = report["value"].sel(score="crps", interval="estimate").squeeze()
    assert report.attrs["samples"] == 9  # the last start that has a truth three days later
    assert float(crps.sel(group="lead_time=0 h")) == pytest.approx(0, abs=1e-9)
    amid = np.sqrt(2 / np.pi) - 1 / np.sqrt(np.pi)  # the truth is the mean of the forecast
    for lead, spread in ((24, 1.0), (72, 2.0)):
        assert float(crps.sel(group=f"lead_time={lead} h")) == pytest.approx(amid * spread, rel=0.15)


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        (("time", "member", "lat", "lon"), ("time", (), ("lat", "lon"))),
        (("slice", "member", "y", "x"), ("slice", (), ("y", "x"))),
        (("specimen", "member", "z", "y", "x"), ("specimen", (), ("z", "y", "x"))),
        (("time", "member"), ("time", (), ())),
        (("time", "level", "member", "lat", "lon"), ("time", ("level",), ("lat", "lon"))),
        (("member", "station", "time"), ("time", (), ("station",))),
        (("draw", "member", "a"), ("draw", (), ("a",))),
    ],
)
def test_dimensions_are_known_by_their_names(dims, expected):
    layout = Layout.of(xr.DataArray(np.zeros([2] * len(dims)), dims=dims, name="t"))
    assert (layout.sample, layout.cases, layout.space) == expected


def test_dimensions_that_cannot_be_told_are_refused():
    with pytest.raises(UserError, match="none that samples lie along"):
        Layout.of(xr.DataArray(np.zeros((2, 2)), dims=("y", "x"), name="t"))
    with pytest.raises(UserError, match="sample=z"):
        Layout.of(xr.DataArray(np.zeros((2, 2)), dims=("y", "x"), name="t"), "z")


def test_groups_that_cannot_be_had_are_refused(pair):
    truth, samples = pair
    for settings, words in (
        (Settings(groups=["week"]), "groups=week"),
        (Settings(bins={"cape": [0, 1]}), "bins.cape"),
        (Settings(mask={"land": "lsm"}), "no variable 'lsm'"),
        (Settings(mask={"box": {"latitude": [80, 90]}}), "holds no cell"),
        (Settings(mask={"box": {"altitude": [80, 90]}}), "altitude"),
    ):
        with pytest.raises(UserError, match=words):
            evaluate(truth, {"a": samples}, settings)
    numbered = [d.assign_coords(time=np.arange(N)) for d in pair]
    with pytest.raises(UserError, match="needs samples with dates"):
        evaluate(numbered[0], {"a": numbered[1]}, Settings(groups=["season"]))


def test_every_field_of_an_ensemble_matches_itself(pair):
    (one,), _ = match(pair[0], {"a": pair[1]})
    np.testing.assert_array_equal(one.rows, np.arange(N))
    assert one.shape == (Y, X) and one.cases == 1 and one.units == "K"
