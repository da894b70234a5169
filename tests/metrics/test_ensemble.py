"""Laws of the ensemble scores, each with the defect that it must notice."""

import math

import numpy as np
import pytest
import scoringrules

from scigen.errors import UserError
from scigen.metrics import ensemble

POINTS = 200_000


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def expected_crps(s: float, t: float) -> float:
    """Mean CRPS of the forecast N(0, s²) for truths N(0, t²)."""
    return math.sqrt(2 * (s * s + t * t) / math.pi) - s / math.sqrt(math.pi)


@pytest.mark.parametrize("members", [2, 5, 16])
@pytest.mark.parametrize("spread", [0.8, 1.0, 1.1])
def test_fair_crps_has_the_closed_form_mean_for_any_member_count(rng, members, spread):
    truth = rng.standard_normal(POINTS)
    score = ensemble.fair_crps(spread * rng.standard_normal((members, POINTS)), truth)
    assert score.mean() == pytest.approx(expected_crps(spread, 1), abs=4 * score.std() / math.sqrt(POINTS))


def test_fair_crps_agrees_with_scoringrules_point_by_point(rng):
    truth, members = rng.standard_normal((3, 4, 5)), rng.standard_normal((7, 3, 4, 5))
    theirs = scoringrules.crps_ensemble(truth, members, 0, estimator="fair")
    np.testing.assert_allclose(ensemble.fair_crps(members, truth), theirs, atol=1e-12)


def test_the_usual_crps_is_one_part_in_m_too_large_and_the_fair_one_is_not(rng):
    members = 8
    truth, forecast = rng.standard_normal(POINTS), rng.standard_normal((members, POINTS))
    usual = scoringrules.crps_ensemble(truth, forecast, 0, estimator="nrg").mean()
    infinite = expected_crps(1, 1)
    assert usual / infinite - 1 == pytest.approx(1 / members, abs=0.01)
    assert ensemble.fair_crps(forecast, truth).mean() / infinite - 1 == pytest.approx(0, abs=0.01)


def test_crps_alone_hardly_sees_a_collapse(rng):
    assert expected_crps(0.9, 1) / expected_crps(1, 1) - 1 == pytest.approx(0.0026, abs=1e-4)


def test_fair_crps_keeps_its_digits_at_300_kelvin(rng):
    truth, members = rng.standard_normal(50), rng.standard_normal((9, 50))
    shifted = ensemble.fair_crps(members + 300, truth + 300)
    np.testing.assert_allclose(shifted, ensemble.fair_crps(members, truth), atol=1e-11)


def test_one_member_scores_its_absolute_error():
    np.testing.assert_allclose(ensemble.fair_crps([[1.0, 5.0]], [3.0, 4.0]), [2.0, 1.0])


def test_no_member_is_refused():
    with pytest.raises(UserError, match="at least one member"):
        ensemble.fair_crps(np.empty((0, 3)), np.zeros(3))


def test_gaussian_crps_is_that_of_scoringrules_and_the_limit_of_many_members(rng):
    mean, std, truth = rng.standard_normal(30), rng.uniform(0.2, 2, 30), rng.standard_normal(30)
    ours = ensemble.gaussian_crps(mean, std, truth)
    np.testing.assert_allclose(ours, scoringrules.crps_normal(truth, mean, std), atol=1e-12)
    members = mean + std * rng.standard_normal((20_000, 30))
    np.testing.assert_allclose(ensemble.fair_crps(members, truth), ours, atol=0.05)


def test_gaussian_crps_of_a_certain_forecast_is_the_absolute_error():
    np.testing.assert_allclose(ensemble.gaussian_crps([1.0, 2.0], [0.0, 0.0], [3.0, 2.0]), [2.0, 0.0])


def test_ranks_count_members_below():
    rng = np.random.default_rng(0)
    ranks = ensemble.ranks(np.array([[1.0], [2.0], [3.0]]) + np.zeros(4), np.array([0.5, 1.5, 2.5, 9.0]), rng)
    assert ranks.tolist() == [0, 1, 2, 3]


def test_ties_are_shared_evenly_over_the_ranks_they_could_have():
    rng, points = np.random.default_rng(0), 40_000
    members = np.stack([np.zeros(points), np.zeros(points), np.ones(points)])  # truth 0 may have rank 0, 1 or 2
    counts = np.bincount(ensemble.ranks(members, np.zeros(points), rng), minlength=4) / points
    np.testing.assert_allclose(counts, [1 / 3, 1 / 3, 1 / 3, 0], atol=0.01)


def rejections(rng, spread: float, repeats: int = 60) -> float:
    """How often 2,000 points reject a flat rank histogram at 1 %."""
    rejected = 0
    for _ in range(repeats):
        truth, members = rng.standard_normal(2000), spread * rng.standard_normal((19, 2000))
        counts = np.bincount(ensemble.ranks(members, truth, rng), minlength=20)
        rejected += ensemble.rank_chi_square(counts)[1] < 0.01
    return rejected / repeats


def test_rank_histogram_is_flat_for_a_perfect_ensemble_and_rejects_one_of_nine_tenths(rng):
    assert rejections(rng, 1.0) <= 0.07
    assert rejections(rng, 0.9) >= 0.75


def test_rank_deviation_is_zero_for_flat_and_near_two_for_a_single_rank():
    assert ensemble.rank_deviation(np.ones(20)) == pytest.approx(0, abs=1e-12)
    assert ensemble.rank_deviation([0] * 19 + [5]) == pytest.approx(2 * 19 / 20)


@pytest.mark.parametrize(
    ("members", "level", "k", "nominal"),
    [
        (19, 0.9, 1, 0.9),
        (19, 0.5, 5, 0.5),
        (39, 0.9, 2, 0.9),
        (8, 0.9, 1, 7 / 9),
        (2, 0.5, 1, 1 / 3),
        (16, 0.9, 1, 15 / 17),
    ],
)
def test_central_interval_states_the_level_it_really_has(members, level, k, nominal):
    assert ensemble.central_interval(members, level) == (k, pytest.approx(nominal))


@pytest.mark.parametrize(("members", "level"), [(1, 0.9), (19, 0.0), (19, 1.0), (19, 90)])
def test_central_interval_refuses_what_has_none(members, level):
    with pytest.raises(UserError):
        ensemble.central_interval(members, level)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_is_nominal_for_a_perfect_ensemble_and_short_for_a_collapsed_one(rng, level):
    def covered(spread):
        truth, members = rng.standard_normal(POINTS // 4), spread * rng.standard_normal((19, POINTS // 4))
        counts = np.bincount(ensemble.ranks(members, truth, rng), minlength=20)
        ordered = np.sort(members, axis=0)
        k, _ = ensemble.central_interval(19, level)
        observed, nominal = ensemble.coverage(counts, level)
        # the rank says the same as the order statistics
        assert observed == pytest.approx(((ordered[k - 1] <= truth) & (truth <= ordered[-k])).mean())
        return observed - nominal

    assert covered(1.0) == pytest.approx(0, abs=0.007)
    assert covered(0.8) < -0.05


@pytest.mark.parametrize("members", [4, 19])
def test_spread_skill_is_one_for_a_perfect_ensemble_of_any_size_and_sees_a_collapse(rng, members):
    def ratio(spread):
        truth, x = rng.standard_normal(POINTS // 4), spread * rng.standard_normal((members, POINTS // 4))
        error = ((x.mean(0) - truth) ** 2).mean()
        return float(ensemble.spread_skill(x.var(0, ddof=1).mean(), error, members))

    assert ratio(1.0) == pytest.approx(1, abs=0.01)
    # √(M+1)/√M is no detail: four perfect members would look 11 % over-confident without it
    assert ratio(1.0) / math.sqrt((members + 1) / members) == pytest.approx(
        math.sqrt(members / (members + 1)), abs=0.01
    )
    # error variance is 1 + 0.64/M
    assert ratio(0.8) == pytest.approx(0.8 * math.sqrt((members + 1) / (members + 0.64)), abs=0.01)


def test_spread_skill_of_one_member_is_unknown():
    assert np.isnan(ensemble.spread_skill(0.0, 1.0, 1))
