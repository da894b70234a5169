"""Every shared score against its closed form for Gaussian ensembles, and defects that it must notice."""

import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import integrate, special, stats

from scigen.metrics.derive import compared
from scigen.metrics.judging import Settings, evaluate

M = 10
SIDE = 16
COUNT = 400


def archive(values: np.ndarray, **attrs) -> xr.Dataset:
    """(time, member, y, x) or (time, y, x), or without space."""
    dims = ("time", "member", "y", "x")[: values.ndim] if values.ndim != 3 else ("time", "y", "x")
    coords = {"time": pd.date_range("2020-01-01", periods=len(values), freq="D")}
    coords |= {d: np.arange(values.shape[dims.index(d)]) * 1000.0 for d in ("y", "x") if d in dims}
    return xr.Dataset({"t": (dims, values, {"units": "K"})}, coords=coords, attrs=attrs)


def ensemble(rng, spread=1.0, members=M, signal=0.0, count=COUNT):
    """(truth, samples): N(m, 1) against members N(m, spread²), m ~ N(280, signal²) at every cell."""
    m = 280 + signal * rng.standard_normal((count, SIDE, SIDE))
    truth = m + rng.standard_normal(m.shape)
    return archive(truth), archive(m[:, None] + spread * rng.standard_normal((count, members, SIDE, SIDE)))


def one(report, key="value", model="a", group="all"):
    """Score → (estimate, low, high)."""
    table = report[key].sel(model=model, group=group).isel(variable=0)
    return {str(s): table.sel(score=s).values for s in table["score"].values}


def ranks_of(spread: float, members: int) -> np.ndarray:
    """The law of ranks of a truth N(0, 1) among members N(0, spread²)."""

    def density(y: float, k: int) -> float:
        return stats.norm.pdf(y) * stats.binom.pmf(k, members, special.ndtr(y / spread))

    return np.array([integrate.quad(density, -9, 9, args=(k,))[0] for k in range(members + 1)])


@pytest.fixture(scope="module", params=[0.8, 1.0, 1.1])
def judged(request):
    rng = np.random.default_rng(5)
    truth, samples = ensemble(rng, request.param)
    return request.param, evaluate(truth, {"a": samples}, Settings(draws=200))


def test_means_over_gaussian_ensembles_have_their_closed_forms(judged):
    k, report = judged
    got = one(report)
    cells = min(SIDE, 8) ** 2
    norm = math.sqrt(2) * math.exp(special.gammaln((cells + 1) / 2) - special.gammaln(cells / 2))
    half = 2**0.25 * math.gamma(0.75) / math.sqrt(math.pi)  # E|z|^½ of a standard normal z
    mine, theirs = half * math.sqrt(math.sqrt(2) * k), half * math.sqrt(math.sqrt(2))
    scatter = math.sqrt(2) * (math.sqrt(2 / math.pi) - half**2)
    expected = {
        "crps": math.sqrt(2 * (1 + k * k) / math.pi) - k / math.sqrt(math.pi),
        "bias": 0.0,
        "mae": math.sqrt(2 / math.pi * (1 + k * k / M)),
        "rmse": math.sqrt(1 + k * k / M),
        "spread": k,
        "spread_skill": k / math.sqrt(1 + k * k / M) * math.sqrt((M + 1) / M),
        "diversity": k,
        "energy": norm * (math.sqrt(1 + k * k) - k / math.sqrt(2)) / math.sqrt(cells),
        "variogram": scatter + (mine - theirs) ** 2,
        "brier q0.5": 0.25,
        "brier q0.9": 0.09 + (special.ndtr(-stats.norm.ppf(0.9) / k) - 0.1) ** 2,
    }
    for score, value in expected.items():
        assert got[score][0] == pytest.approx(value, rel=6e-3, abs=8e-3), score
    assert got["spectrum"][0] == pytest.approx(abs(20 * math.log10(k)), abs=0.2)


def test_ranks_coverage_and_tails_have_their_closed_forms(judged):
    k, report = judged
    law = ranks_of(k, M)
    np.testing.assert_allclose(report["rank"].sel(model="a", group="all").values[0], law, atol=2.5e-3)
    got = one(report)
    for level, held in ((0.5, 3), (0.8, 1), (0.9, 1)):
        inside = law[held : M + 1 - held].sum()
        assert got[f"coverage {level:g}"][0] == pytest.approx(inside, abs=5e-3)
    told = report["quantile_value"].sel(model="a").isel(variable=0)
    for q in (0.01, 0.5, 0.999, 0.9999):
        assert float(told.sel(quantile=q)) == pytest.approx(280 + k * stats.norm.ppf(q), abs=0.08)


def test_brier_decomposes_and_reliability_is_on_the_diagonal(judged):
    k, report = judged
    row = report.isel(variable=0).sel(model="a", group="all")
    score, rel, res, unc = (row[f"brier_{n}"].values for n in ("score", "reliability", "resolution", "uncertainty"))
    np.testing.assert_allclose(score, rel - res + unc, atol=1e-12)
    truth, samples = ensemble(np.random.default_rng(1), k, members=40, signal=2.0, count=600)
    row = evaluate(truth, {"a": samples}, Settings(draws=2)).isel(variable=0).sel(model="a", threshold="q0.5")
    assert (float(row["brier_reliability"].sel(group="all")) < 1.25e-4) == (k == 1.0)
    p = integrate.quad(
        lambda m: stats.norm.pdf(m, scale=2) * special.ndtr(m) * special.ndtr(-m), -20, 20
    )[0]  # fmt: skip
    if k == 1.0:
        assert float(row["brier_fair"].sel(group="all")) == pytest.approx(p, abs=2e-3)


def test_a_perfect_forecast_scores_perfect():
    truth, _ = ensemble(np.random.default_rng(0), count=20)
    same = truth.expand_dims(member=5, axis=1).copy()
    report = evaluate(truth, {"a": same}, Settings(draws=10))
    got = one(report)
    for score in ("crps", "bias", "mae", "rmse", "spread", "energy", "variogram", "spectrum"):
        assert got[score][0] == pytest.approx(0, abs=1e-9), score
    assert np.isnan(got["spread_skill"][0])
    assert all(report["brier_score"].values.ravel() == 0)
    np.testing.assert_allclose(report["quantile_value"].values[:, 0], report["quantile_truth"].values)


@pytest.mark.parametrize("spread", [0.8, 0.9, 1.1])
def test_wrong_spread_is_noticed_with_2000_points_and_the_right_one_is_not(spread):
    members = 39
    rng = np.random.default_rng(3)
    truth = archive(rng.standard_normal(2000))
    wrong, right = (archive(k * rng.standard_normal((2000, members))) for k in (spread, 1.0))
    report = evaluate(truth, {"wrong": wrong, "right": right}, Settings(draws=500))
    for model, noticed in (("wrong", True), ("right", False)):
        got = one(report, model=model)
        _, low, high = got["spread_skill"]
        assert (low > 1 or high < 1) == noticed
        nominal = float(report["coverage_nominal"].sel(model=model, level=0.9).item())
        _, low, high = got["coverage 0.9"]
        assert (low > nominal or high < nominal) == noticed
        assert (float(report["rank_p"].sel(model=model, group="all").item()) < 0.01) == noticed
    _, low, high = one(report, "against", "right")["spread_skill"]
    assert (low > 0 or high < 0) and compared("spread_skill") == "difference"


def test_intervals_hold_the_truth_as_often_as_they_say():
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth, samples = archive(rng.standard_normal(150)), archive(rng.standard_normal((150, M)))
        _, low, high = one(evaluate(truth, {"a": samples}, Settings(draws=200)))["crps"]
        hits += low < 1 / math.sqrt(math.pi) < high
    assert 51 <= hits <= 60  # 95 % of 60 is 57


def test_memory_widens_intervals():
    rng = np.random.default_rng(0)
    days = np.repeat(rng.standard_normal(100), 20)
    truth, samples = archive(days), archive(np.repeat(rng.standard_normal((100, M)), 20, axis=0))
    slow = evaluate(truth, {"a": samples}, Settings(draws=300))
    blind = evaluate(truth, {"a": samples}, Settings(draws=300, block=1))
    wide, narrow = (float(np.diff(one(r)["crps"][1:])[0]) for r in (slow, blind))
    assert slow.attrs["block"] > 10 and wide > 2.5 * narrow


def test_paired_differences_are_surer_than_the_scores_themselves():
    rng = np.random.default_rng(0)
    truth, a = ensemble(rng, count=60, signal=1.0)
    b = a + 0.1 * archive(rng.standard_normal(a["t"].shape))
    report = evaluate(truth, {"a": a, "b": b}, Settings(draws=300))
    low, high = one(report, "against", "b")["crps"][1:]
    alone = np.diff(one(report)["crps"][1:])[0] / one(report)["crps"][0]
    assert report.attrs["reference"] == "a" and high - low < 0.5 * alone and high < 1.02
    assert np.isnan(one(report, "against", "a")["crps"]).all()


def test_groups_are_the_scores_of_their_samples_and_cells():
    rng = np.random.default_rng(2)
    truth, samples = ensemble(rng, count=365)
    samples["t"] = samples["t"].where(samples["time"].dt.season != "JJA", samples["t"] + 1)
    samples["t"] = samples["t"].where(samples["y"] < 8000, samples["t"] + 3)
    truth["south"] = (("y", "x"), (truth["y"] < 8000).values[:, None] & np.ones(SIDE, bool))
    truth["index"] = ("time", np.arange(365.0))
    settings = Settings(
        groups=["season"], mask={"south": "south", "box": {"y": [8000, 1e9], "x": [0, 4000]}},
        bins={"index": [0, 100, 200]}, draws=2,
    )  # fmt: skip
    report = evaluate(truth, {"a": samples}, settings)
    assert one(report, group="season=JJA")["bias"][0] - one(report, group="season=DJF")["bias"][0] == pytest.approx(
        1, abs=0.02
    )
    assert one(report, group="region=box")["bias"][0] - one(report, group="region=south")["bias"][0] == pytest.approx(
        3, abs=0.02
    )
    part = evaluate(truth.isel(time=slice(0, 100)), {"a": samples.isel(time=slice(0, 100))}, Settings(draws=2))
    for score in ("crps", "rmse", "spread_skill", "energy"):
        assert one(report, group="index=0 to 100")[score][0] == pytest.approx(one(part)[score][0], rel=1e-6)


@pytest.mark.parametrize("factor", [300.0, 1e-25])
def test_scores_have_the_units_of_the_variable(factor):
    rng = np.random.default_rng(0)
    truth, samples = ensemble(rng, count=30)
    plain = one(evaluate(truth, {"a": samples}, Settings(draws=20)))
    scaled = one(evaluate(truth * factor, {"a": samples * factor}, Settings(draws=20)))
    for score, values in plain.items():
        same = score.startswith(("spread_skill", "diversity", "coverage", "brier", "spectrum"))
        np.testing.assert_allclose(scaled[score], values * (1 if same else factor), rtol=1e-4, atol=1e-5 * factor)


def test_the_climate_is_that_of_each_cell_not_of_the_map():
    truth, samples = ensemble(np.random.default_rng(0), 0.7, count=100)
    slope = 50 * truth["y"] / truth["y"].max()
    got = one(evaluate(truth + slope, {"a": samples + slope}, Settings(draws=2)))
    assert got["diversity"][0] == pytest.approx(0.7, rel=0.01)


def test_spectra_look_at_every_member_in_turn():
    rng = np.random.default_rng(0)
    truth, samples = ensemble(rng, count=120)
    mean = samples.mean(("y", "x"))
    loud = xr.where(samples["member"] >= M // 2, 2 * (samples - mean) + mean, samples).transpose(*samples["t"].dims)
    row = evaluate(truth, {"a": loud}, Settings(draws=2)).isel(variable=0, model=0, group=0)
    assert float((row["power"] / row["power_truth"]).mean()) == pytest.approx(2.5, rel=0.05)
