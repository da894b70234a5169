"""Laws of the distances between laws."""

import math

import numpy as np
import pytest
from scipy import stats

from scigen.errors import UserError
from scigen.metrics.distance import energy_score, wasserstein
from scigen.metrics.ensemble import fair_crps

N = 20001
NORMAL = stats.norm.ppf((np.arange(N) + 0.5) / N)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("shift", [0.0, 0.3, -2.0])
def test_shifted_laws_are_apart_by_the_shift(shift):
    assert wasserstein(NORMAL + shift, NORMAL) == pytest.approx(abs(shift), abs=1e-12)


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.5])
def test_gaussians_of_other_spread(factor):
    """∫ |factor − 1| |z| dp = |factor − 1| √(2/π)."""
    assert wasserstein(factor * NORMAL, NORMAL) == pytest.approx(abs(factor - 1) * math.sqrt(2 / math.pi), abs=1e-4)


def test_gaussians_of_other_mean_and_spread_have_the_folded_normals_mean():
    m, s = 0.4, 0.7 - 1.0
    expected = abs(s) * math.sqrt(2 / math.pi) * math.exp(-(m**2) / (2 * s**2)) + m * (
        1 - 2 * stats.norm.cdf(-m / abs(s))
    )
    assert wasserstein(m + 0.7 * NORMAL, NORMAL) == pytest.approx(expected, abs=1e-4)


def test_order_does_not_matter_and_scipy_agrees(rng):
    a, b = rng.standard_normal((50, 3)), rng.exponential(size=(50, 3))
    found = wasserstein(rng.permuted(a, axis=0), b)
    np.testing.assert_allclose(found, [stats.wasserstein_distance(a[:, i], b[:, i]) for i in range(3)], rtol=1e-12)
    np.testing.assert_allclose(wasserstein(b, a), wasserstein(a, b))


def test_it_is_missed_without_sorting(rng):
    a = rng.standard_normal(5000)
    assert np.abs(a - rng.permutation(a)).mean() > 1 > wasserstein(a, rng.permutation(a)) == 0


def test_energy_score_in_one_dimension_is_the_fair_crps(rng):
    members, truth = rng.standard_normal((7, 40, 1)), rng.standard_normal((40, 1))
    np.testing.assert_allclose(energy_score(members, truth), fair_crps(members, truth)[:, 0], atol=1e-12)


@pytest.mark.parametrize("members", [2, 5, 20])
def test_energy_score_is_fair(rng, members):
    """Its mean does not depend on the number of members: E‖X − Y‖/2 for the right law, ‖·‖ of √2 N(0, I₃)."""
    score = energy_score(rng.standard_normal((members, 40000, 3)), rng.standard_normal((40000, 3)))
    expected = 0.5 * math.sqrt(2) * 2 * math.sqrt(2 / math.pi)
    assert score.mean() == pytest.approx(expected, abs=4.5 * score.std() / 200)


def test_energy_score_sees_the_joint_law_and_crps_does_not(rng):
    """Members with the right marginals and correlation 0 instead of 0.95."""
    root = np.linalg.cholesky(np.array([[1, 0.95], [0.95, 1]]))
    truth, right = rng.standard_normal((20000, 2)) @ root.T, rng.standard_normal((8, 20000, 2)) @ root.T
    wrong = rng.standard_normal((8, 20000, 2))
    assert fair_crps(wrong, truth).mean() == pytest.approx(fair_crps(right, truth).mean(), rel=0.02)
    assert energy_score(wrong, truth).mean() > 1.02 * energy_score(right, truth).mean()


def test_mistakes_are_told(rng):
    with pytest.raises(UserError, match="as many draws"):
        wasserstein(np.zeros(3), np.zeros(4))
    with pytest.raises(UserError, match="as many draws"):
        wasserstein(np.zeros((0, 2)), np.zeros((0, 2)))
    with pytest.raises(UserError, match="two members"):
        energy_score(np.zeros((1, 3, 2)), np.zeros((3, 2)))
