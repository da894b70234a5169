"""The report on known truth: perfect ensembles score perfectly, collapsed and blurred ones are found out."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.weather.metrics import evaluate, to_json

DIMS = ("time", "member", "latitude", "longitude")
TIMES, MEMBERS, SIZE = 64, 19, 16


class World:
    """Cells that are N(known mean, 1): the truth and every ensemble come from one Gaussian law."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.mean = 3 * self.rng.standard_normal((TIMES, 1, SIZE, SIZE)) + [[[[280.0]]]]
        self.coords = {
            "time": pd.date_range("2020-01-01", periods=TIMES, freq="6h"),
            "latitude": 45.0 + np.arange(SIZE),
            "longitude": np.arange(SIZE, dtype=float),
        }
        self.truth = self.draw(1).isel(member=0, drop=True)

    def pack(self, values, **attrs):
        data = {"t2m": (DIMS, values.astype(np.float32), {"units": "K"})}
        return xr.Dataset(data, self.coords, attrs)

    def draw(self, members=MEMBERS, spread=1.0, bias=0.0, **attrs):
        noise = self.rng.standard_normal((TIMES, members, SIZE, SIZE))
        return self.pack(self.mean + spread * noise + bias, **attrs)


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def report(world):
    samples = {
        "exact": world.draw(scigen_role="exact", scigen_nfe=0),
        "teacher": world.draw(scigen_role="teacher", scigen_nfe=40),
        "student": world.draw(spread=0.8, scigen_role="student", scigen_nfe=1),
        "biased": world.draw(bias=0.5, members=4),
        "interpolation": world.pack(world.mean).isel(member=0, drop=True),
    }
    return evaluate(world.truth, samples, factor=4, seed=1).sel(variable="t2m")


def test_a_perfect_ensemble_has_the_closed_form_crps(report):
    for model in ("exact", "teacher"):
        assert report["crps"].sel(model=model).item() == pytest.approx(1 / np.sqrt(np.pi), rel=0.015)


def test_perfect_ensembles_are_reliable_and_a_collapse_is_found_out(report):
    skill = report["spread_skill"]
    for model in ("exact", "teacher"):
        assert skill.sel(model=model, interval="estimate").item() == pytest.approx(1, abs=0.025)
        assert report["coverage"].sel(model=model, level=0.9).item() == pytest.approx(0.9, abs=0.01)
        assert report["coverage"].sel(model=model, level=0.5).item() == pytest.approx(0.5, abs=0.02)
    estimate, _, high = skill.sel(model="student").values
    assert estimate == pytest.approx(0.8 * np.sqrt(20 / 19.64), abs=0.02) and high < 0.9
    assert report["coverage"].sel(model="student", level=0.9) < 0.85
    assert report["rank_deviation"].sel(model="student") > 4 * report["rank_deviation"].sel(model="exact")
    # which CRPS alone would hardly show: √(2·1.64) − 0.8 over √4 − 1
    ratio = report["crps_ratio"].sel(model="student", reference="exact", interval="estimate").item()
    assert ratio == pytest.approx(np.sqrt(2 * 1.64) - 0.8, abs=0.012)


def test_two_perfect_ensembles_have_a_ratio_of_one_within_its_interval(report):
    estimate, low, high = report["crps_ratio"].sel(model="teacher", reference="exact").values
    assert low < 1 < high and abs(estimate - 1) < 0.01 and high - low < 0.03
    back = report["crps_ratio"].sel(model="exact", reference="teacher", interval="estimate").item()
    assert estimate * back == pytest.approx(1)
    assert (report["crps_ratio"].sel(model="teacher", reference="teacher") == 1).all()
    # and a worse one is told apart
    assert report["crps_ratio"].sel(model="biased", reference="exact", interval="low") > 1.02


def test_the_interval_of_two_perfect_ensembles_holds_one_over_many_worlds():
    held = 0
    for seed in range(12):
        world = World(seed)
        ratio = evaluate(world.truth.isel(time=slice(32)), {"a": world.draw(9), "b": world.draw(9)})["crps_ratio"]
        _, low, high = ratio.sel(model="a", reference="b", variable="t2m").values
        held += low <= 1 <= high
    assert held >= 9


def test_bias_and_errors_are_in_physical_units(report):
    assert report["bias"].sel(model="biased").item() == pytest.approx(0.5, abs=0.02)
    assert report["rmse"].sel(model="interpolation").item() == pytest.approx(1, abs=0.02)
    assert report["spread"].sel(model="student").item() == pytest.approx(0.8, abs=0.01)
    # block means of 16 cells: two independent ones for a member, the truth's alone for the mean
    assert report["conservation"].sel(model="exact").item() == pytest.approx(np.sqrt(2 / 16), rel=0.05)
    assert report["conservation"].sel(model="interpolation").item() == pytest.approx(np.sqrt(1 / 16), rel=0.05)


def test_power_is_full_for_members_and_short_for_a_blurred_field(report):
    share = report["variance_share"]
    assert share.sum().item() == pytest.approx(1)
    held = share > 1e-3
    # every cell is independent: variance 9 + 1
    assert (abs(report["power_ratio"].sel(model="exact") - 1).where(held).mean() < 0.05).item()
    assert report["power_ratio"].sel(model="interpolation").where(held).mean().item() == pytest.approx(0.9, abs=0.03)
    k = int(report["power_ratio_where"].sel(model="exact"))
    estimate, low, high = report["power_ratio_worst"].sel(model="exact").values
    assert (
        estimate == pytest.approx(report["power_ratio"].sel(model="exact", wavenumber=k).item())
        and low < estimate < high
    )
    off = abs(np.log(report["power_ratio"].sel(model="exact").where(held)))
    assert off.max().item() == pytest.approx(abs(np.log(estimate)))


def test_wavenumbers_that_hold_nothing_are_not_asked_for_their_power(world):
    wave = np.cos(np.pi * (np.arange(SIZE) + 0.5) / SIZE)[:, None] * np.ones((TIMES, 1, SIZE, SIZE))

    def field(noise):
        return world.pack(wave + noise * world.rng.standard_normal(wave.shape))

    report = evaluate(field(0.001).isel(member=0), {"noisy": field(0.01)}).isel(model=0, variable=0)
    assert report["power_ratio"].max() > 50
    assert report["power_ratio_where"] == 1
    np.testing.assert_allclose(report["power_ratio_worst"], 1, atol=0.01)


def test_tails_are_the_quantiles_of_all_cells(report, world):
    weights = np.cos(np.deg2rad(world.coords["latitude"]))
    order = np.argsort(world.truth["t2m"].values.ravel())
    mass = np.cumsum(np.broadcast_to(weights[:, None], (TIMES, SIZE, SIZE)).ravel()[order])
    for q in report["quantile"].values:
        expected = world.truth["t2m"].values.ravel()[order][np.searchsorted(mass, q * mass[-1])]
        assert report["quantile_truth"].sel(quantile=q).item() == pytest.approx(expected, abs=0.1)
        # 10 = 9 + 1 is the variance of a cell
    top = report["quantile_value"].sel(model="exact", quantile=0.99).item()
    assert top == pytest.approx(280 + 2.326 * np.sqrt(10), abs=0.3)


def test_what_one_member_cannot_say_is_unknown_not_an_error(report):
    one = report.sel(model="interpolation")
    for key in ("spread", "spread_skill", "coverage", "rank_histogram", "rank_deviation", "coverage_nominal"):
        assert one[key].isnull().all()
    assert one["crps"].item() == pytest.approx(np.sqrt(2 / np.pi), rel=0.02)  # mean |N(0, 1)|


def test_member_counts_may_differ(report):
    assert report["members"].values.tolist() == [19, 19, 19, 4, 1]
    assert report["coverage_nominal"].sel(model="biased", level=0.9) == 3 / 5
    histogram = report["rank_histogram"]
    assert histogram.sel(model="biased").notnull().sum() == 5
    np.testing.assert_allclose(histogram.sum("rank").sel(model=["exact", "biased"]), 1)


def test_cost_and_role_are_carried(report):
    np.testing.assert_array_equal(report["nfe"], [0, 40, 1, np.nan, np.nan])
    assert report["role"].values.tolist() == ["exact", "teacher", "student", "biased", "interpolation"]
    assert report.attrs["samples"] == TIMES and report.attrs["factor"] == 4


def test_a_perfect_forecast_scores_perfectly(world):
    perfect = evaluate(world.truth, {"oracle": world.truth.expand_dims(member=5)}, factor=4).isel(model=0, variable=0)
    assert perfect["crps"] == perfect["rmse"] == perfect["conservation"] == perfect["spread"] == 0
    np.testing.assert_allclose(perfect["power_ratio"], 1, rtol=1e-9)
    np.testing.assert_allclose(perfect["quantile_value"], perfect["quantile_truth"])
    # ties everywhere: ranks are shared evenly, so that nothing looks unreliable
    assert perfect["coverage"].sel(level=0.9).item() == pytest.approx(4 / 6, abs=0.02)


def test_equal_seeds_give_equal_reports_in_any_order_of_contenders(world):
    samples = {"a": world.draw(5), "b": world.draw(5)}
    one = evaluate(world.truth, samples)
    xr.testing.assert_identical(one, evaluate(world.truth, samples))
    turned = evaluate(world.truth, dict(reversed(samples.items())))
    xr.testing.assert_identical(one, turned.sel(model=["a", "b"], reference=["a", "b"])[list(one.data_vars)])


def test_an_unfinished_archive_is_named(world):
    samples = world.draw(3)
    samples["t2m"][10:] = np.nan
    with pytest.raises(UserError, match=r"'t2m' of samples 'student' .* 2020-01-03T12:00.* sample it again"):
        evaluate(world.truth, {"teacher": world.draw(3), "student": samples})


def test_a_report_survives_netcdf(report, tmp_path):
    report.to_netcdf(tmp_path / "report.nc")
    with xr.open_dataset(tmp_path / "report.nc") as back:
        np.testing.assert_array_equal(back["crps"], report["crps"])
        assert back["model"].values.tolist() == report["model"].values.tolist()


def test_json_is_strict_and_complete(report):
    numbers = json.loads(json.dumps(to_json(report.expand_dims("variable")), allow_nan=False))
    student, plain = numbers["student"]["t2m"], numbers["interpolation"]["t2m"]
    assert student["nfe"] == 1 and student["members"] == 19 and student["samples"] == TIMES and student["units"] == "K"
    assert student["crps"] == report["crps"].sel(model="student").item()
    assert student["crps_ratio"]["teacher"].keys() == {"estimate", "low", "high"}
    assert student["coverage"]["0.9"] == {
        "nominal": 0.9,
        "observed": report["coverage"].sel(model="student", level=0.9),
    }
    assert len(student["rank_histogram"]) == 20 and len(student["power_ratio"]) == len(student["wavenumber"])
    assert plain["nfe"] is plain["spread"] is plain["spread_skill"]["estimate"] is None
    assert plain["rank_histogram"] == [None, None]


def test_rain_has_a_wet_share_and_other_variables_have_none(world):
    """Cells wet with a probability of 0.3: an ensemble that is wet in 0.15 of them is found out, as is its tail."""
    rng = np.random.default_rng(3)

    def rain(members, share):
        values = np.where(rng.random((TIMES, members, SIZE, SIZE)) < share, rng.exponential(2.0), 0.0) + 0.05
        return xr.Dataset({"tp": (DIMS, values, {"units": "mm h-1"})}, world.coords)

    truth = rain(1, 0.3).isel(member=0, drop=True)
    report = evaluate(truth, {"good": rain(5, 0.3), "dry": rain(5, 0.15)}).sel(variable="tp")
    share = report["wet_share"] / report["wet_share_truth"]
    assert share.sel(model="good").item() == pytest.approx(1.0, abs=0.03)
    assert share.sel(model="dry").item() == pytest.approx(0.5, abs=0.03)
    assert to_json(report.expand_dims("variable"))["dry"]["tp"]["wet_share"] == pytest.approx(0.15, abs=0.01)
    other = evaluate(world.truth, {"one": world.draw(3)})
    assert np.isnan(other["wet_share"]).all() and np.isnan(other["wet_share_truth"]).all()
