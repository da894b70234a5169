"""Scores of generators whose faults are known in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from scigen.core.bench.scores import Scorer, TestSet
from scigen.core.bench.tasks import TASKS

CASES, MEMBERS = 64, 39


@pytest.fixture(scope="module")
def scorers():
    """A scorer of any task, made once."""
    made: dict[str, Scorer] = {}

    def of(name: str) -> Scorer:
        if name not in made:
            made[name] = Scorer(TestSet.make(TASKS[name](), CASES, MEMBERS, seed=3))
        return made[name]

    return of


def around_the_mean(test: TestSet, factor: float, shift: float = 0.0) -> torch.Tensor:
    """The exact ensemble, spread by a factor around the conditional mean and moved by a share of the std."""
    mean, std = test.task.law.moments(test.condition)
    mean, std = (v.reshape(-1, 1, v.shape[-1]) for v in (mean, std))
    u = test.exact @ test.task.law.rotation
    return (mean + shift * std + factor * (u - mean)) @ test.task.law.rotation.mT


def expected_coverage(factor: float, k: int = 2) -> float:
    """P(x_(k) < y < x_(M+1−k)) for 39 members of N(0, factor²) and y ~ N(0, 1), by quadrature."""
    y = np.linspace(-9, 9, 20001)
    below = stats.binom.cdf(k - 1, MEMBERS, stats.norm.cdf(y / factor))  # fewer than k members lie below y
    return 1 - 2 * float(np.trapezoid(stats.norm.pdf(y) * below, y))


def test_expected_coverage_of_the_right_spread_is_nominal():
    assert expected_coverage(1.0) == pytest.approx(0.9, abs=1e-9)  # (M + 1 − 4)/(M + 1) = 36/40


@pytest.mark.parametrize("name", TASKS)
def test_the_exact_ensemble_scores_as_exact(scorers, name):
    scorer = scorers(name)
    found, n = scorer.score(scorer.test.exact), scorer.test.truth.shape[1]
    assert found["nominal"] == pytest.approx(0.9)
    assert found["crps"] == pytest.approx(1, abs=1e-12) and found["energy"] == pytest.approx(1, abs=1e-12)
    assert abs(found["coverage"] - 0.9) < 4.5 * math.sqrt(0.09 / (CASES * n))
    assert found["variance"] == pytest.approx(1, abs=0.02)
    # that of sampling: √(2/πN) ∫ √(F (1 − F)) dz, which is 1.29/√N for the normal law
    assert found["w1"] == pytest.approx(1.29 / math.sqrt(CASES * MEMBERS), rel=0.25)
    assert found.get("minor_mode", 0.3) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("name", TASKS)
def test_other_noise_gives_the_same_crps_within_statistics(scorers, name):
    scorer = scorers(name)
    other = TestSet.make(scorer.test.task, CASES, MEMBERS, seed=4)
    torch.manual_seed(5)
    noise = torch.randn_like(other.noise)
    repeated = {k: v.repeat_interleave(MEMBERS, 0) for k, v in scorer.test.condition.items()}
    drawn = scorer.test.task.exact(noise.flatten(0, 1), repeated).reshape(noise.shape)
    found = scorer.score(drawn)
    tolerance = 0.03 if name == "modes" else 0.012  # one coefficient holds most of the score
    assert found["crps"] == pytest.approx(1, abs=tolerance) and found["energy"] == pytest.approx(1, abs=tolerance / 2)


@pytest.mark.parametrize("name", ["gaussian", "downscaling"])
@pytest.mark.parametrize("factor", [0.8, 0.9, 1.2])
def test_a_wrong_spread_is_seen_as_theory_says(scorers, name, factor):
    scorer = scorers(name)
    found = scorer.score(around_the_mean(scorer.test, factor))
    base = scorer.score(scorer.test.exact)
    assert found["variance"] == pytest.approx(factor**2 * base["variance"], rel=1e-9)
    assert found["w1"] == pytest.approx(abs(1 - factor) * math.sqrt(2 / math.pi), abs=0.012)
    assert found["crps"] == pytest.approx(math.sqrt(2 * (1 + factor**2)) - factor, abs=0.006)
    spread = 4.5 * math.sqrt(0.16 / (CASES * 64))
    assert abs(found["coverage"] - expected_coverage(factor)) < spread
    if factor < 0.9:
        assert abs(found["coverage"] - 0.9) > 2 * spread  # and a collapse is not taken for the truth


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("shift", [0.1, -0.5])
def test_a_shift_is_its_wasserstein_distance(scorers, name, shift):
    scorer = scorers(name)
    found = scorer.score(around_the_mean(scorer.test, 1.0, shift))
    assert found["w1"] == pytest.approx(abs(shift), abs=0.012)
    assert found["variance"] == pytest.approx(1, abs=0.02)
    assert found["crps"] > 1 + 0.2 * shift**2


@pytest.mark.parametrize("name", ["inverse", "downscaling"])
def test_a_generator_deaf_to_its_condition_is_seen(scorers, name):
    scorer = scorers(name)
    found = scorer.score(scorer.test.exact.roll(1, 0))
    assert found["crps"] > 1.2 and found["energy"] > 1.1 and found["coverage"] < 0.8 and found["w1"] > 0.1


def test_the_worst_coefficient_is_found():
    scorer = Scorer(TestSet.make(TASKS["gaussian"](), CASES, MEMBERS, seed=3))
    q = scorer.test.task.law.rotation
    u = scorer.test.exact @ q
    u[..., 5] *= 0.5
    found = scorer.score(u @ q.mT)
    assert found["variance_worst"] == pytest.approx(0.25, abs=0.03)
    assert found["w1_worst"] == pytest.approx(0.5 * math.sqrt(2 / math.pi), abs=0.03)
    assert found["variance"] == pytest.approx(1 - 0.75 / 64, abs=0.02)


def test_a_lost_mode_is_seen(scorers):
    scorer = scorers("modes")
    split = scorer.test.task.split
    x = scorer.test.exact
    found = scorer.score(torch.where((x @ split > 0)[..., None], x - 2 * split, x))
    assert found["minor_mode"] == 0
    assert found["w1_worst"] > 0.3


@pytest.mark.parametrize("name", TASKS)
def test_standardised_truths_have_mean_zero_and_variance_one(scorers, name):
    z = scorers(name).test.standardised(scorers(name).test.truth)
    n = z.size
    assert abs(z.mean()) < 4.5 / math.sqrt(n)
    assert z.var() == pytest.approx(1, abs=4.5 * math.sqrt((np.mean(z**4) - 1) / n))


def test_pooled_quantiles_of_gaussians_are_the_normals(scorers):
    for name in ("gaussian", "downscaling"):
        levels = (np.arange(200) + 0.5) / 200
        expected = stats.norm.ppf(levels)[:, None]
        np.testing.assert_allclose(scorers(name).test.quantiles(200), np.broadcast_to(expected, (200, 64)), atol=2e-4)


def test_tests_are_the_same_for_the_same_seed():
    a, b, c = (TestSet.make(TASKS["modes"](), 4, 3, seed=s) for s in (1, 1, 2))
    assert torch.equal(a.exact, b.exact) and torch.equal(a.truth, b.truth) and not torch.equal(a.noise, c.noise)
