"""The small parts of judging: sorting, patches, Brier, flatness, positions, memory of series."""

import numpy as np
import pytest
import scoringrules
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scigen.metrics import patches
from scigen.metrics.bootstrap import memory, resampled
from scigen.metrics.distance import energy_score
from scigen.metrics.flatness import flatness
from scigen.metrics.order import sorted_members
from scigen.metrics.positions import find_positions
from scigen.metrics.reliability import brier, reliability


@pytest.fixture
def rng():
    return np.random.default_rng(4)


@pytest.mark.parametrize("members", [1, 2, 3, 16, 31, 64, 65])
def test_networks_sort(rng, members):
    values = rng.integers(0, 9, (members, 40)).astype(np.float32)
    np.testing.assert_array_equal(np.array(sorted_members(values.copy())), np.sort(values, 0))


def test_patch_scores_agree_with_scoringrules(rng):
    x, y = rng.standard_normal((5, 6, 12)), rng.standard_normal((5, 12))
    ours = patches.energy_scores(x - y[:, None])
    np.testing.assert_allclose(ours, scoringrules.es_ensemble(y, x, estimator="fair") / np.sqrt(12), rtol=1e-10)
    np.testing.assert_allclose(ours, energy_score(np.moveaxis(x, 1, 0), y) / np.sqrt(12), rtol=1e-10)
    pairs, weights = patches.choose_pairs([3, 4])
    table = np.zeros((12, 12))
    table[pairs[0], pairs[1]] = table[pairs[1], pairs[0]] = weights
    theirs = np.array([scoringrules.vs_ensemble(a, b, table, p=0.5) for a, b in zip(y, x, strict=True)]) / 2
    told = np.sqrt(np.abs(x[..., pairs[0]] - x[..., pairs[1]])).var(1, ddof=1) @ weights
    np.testing.assert_allclose(patches.variogram_scores(x, y, pairs, weights) + told / 6, theirs, rtol=1e-10)


def test_joint_scores_see_a_wrong_correlation_that_marginals_do_not(rng):
    shared = rng.standard_normal((2000, 8, 1)) * np.ones(9)
    y = rng.standard_normal((2000, 1)) * np.ones(9)
    mixed = rng.standard_normal((2000, 8, 9))
    pairs, weights = patches.choose_pairs([3, 3])
    for score in (
        lambda x: patches.energy_scores(x - y[:, None]),
        lambda x: patches.variogram_scores(x, y, pairs, weights),
    ):
        assert score(shared).mean() < score(mixed).mean() - 0.02


@pytest.mark.parametrize("shape", [(), (5,), (30,), (3, 50), (64, 64), (9, 10, 11)])
def test_patches_lie_in_the_field_without_overlap(shape):
    cells = patches.lay(shape)
    assert cells.min() >= 0 and cells.max() < max(np.prod(shape, dtype=int), 1)
    assert len(np.unique(cells)) == cells.size and 1 <= len(cells) <= 27


def test_brier_is_that_of_scoringrules(rng):
    members = 5
    above, event = rng.integers(0, members + 1, 400), rng.integers(0, 2, 400)
    counts = np.zeros((members + 1, 2))
    np.add.at(counts, (above, event), 1)
    got = brier(counts)
    assert got["score"] == pytest.approx(scoringrules.brier_score(event, above / members).mean())
    assert got["score"] == pytest.approx(got["reliability"] - got["resolution"] + got["uncertainty"])
    forecast, observed, share = reliability(counts, bins=members + 1)
    np.testing.assert_allclose(forecast, np.arange(members + 1) / members)
    np.testing.assert_allclose(observed, counts[:, 1] / counts.sum(1))
    assert share.sum() == pytest.approx(1)


def test_an_event_that_never_comes_has_no_skill_to_tell():
    counts = np.zeros((4, 2))
    counts[0, 0] = 10
    assert brier(counts)["score"] == 0 and np.isnan(brier(counts)["skill"])


def histograms(rng, samples, points, copies, members, spread=1.0):
    """Ranks of `points` independent truths a sample, each `copies` times."""
    y, x = rng.standard_normal((samples, points)), spread * rng.standard_normal((members, samples, points))
    rank = (x < y).sum(0)
    return copies * np.array([np.bincount(r, minlength=members + 1) for r in rank]).astype(float)


def test_flatness_is_rejected_as_often_as_it_says_however_cells_depend(rng):
    p, naive = [], []
    for _ in range(400):
        h = histograms(rng, 50, 4, 25, 9)
        w = h.sum(1)
        p.append(flatness(h.sum(0), (h**2).sum(0), w @ h, float(w @ w), len(h)).p)
        naive.append(stats.chisquare(h.sum(0)).pvalue)
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.085
    assert np.mean(np.array(naive) < 0.05) > 0.9


def test_flatness_of_independent_points_is_pearsons_test(rng):
    h = histograms(rng, 2000, 1, 1, 9, spread=0.9)
    got = flatness(h.sum(0), (h**2).sum(0), h.sum(0), 2000.0, 2000)
    assert got.chi_square == pytest.approx(stats.chisquare(h.sum(0)).statistic, rel=0.03)
    assert flatness(h.sum(0), (h**2).sum(0), h.sum(0), 2000.0, 2000, 3.0).chi_square == pytest.approx(
        got.chi_square / 3
    )
    assert np.isnan(flatness(h[:4].sum(0), (h[:4] ** 2).sum(0), h[:4].sum(0), 4.0, 4).p)


@given(st.lists(st.integers(0, 3590), min_size=2, max_size=12, unique=True), st.randoms())
def test_positions_are_found_in_any_order_and_convention(places, random):
    want = np.array(places) / 10
    have = [v - 360 * random.randint(0, 1) for v in want]
    random.shuffle(have)
    apart = 0.05 * np.abs(np.diff(want)).min()
    found = find_positions(have, want, period=360.0)
    np.testing.assert_allclose(np.array(have)[found] % 360, want % 360)
    assert find_positions(have, [*want[:-1], want[-1] + apart], period=360.0) is None
    assert find_positions(have, want[:-1], period=360.0) is None
    assert find_positions(have, want[1:], period=360.0, subset=True) is not None


@pytest.mark.parametrize(("phi", "inflation"), [(0.0, 1.0), (0.5, 3.0), (0.9, 19.0)])
def test_memory_is_that_of_an_autoregression(rng, phi, inflation):
    found = []
    for _ in range(12):
        noise, series = rng.standard_normal(4000), np.zeros(4000)
        for i in range(1, 4000):
            series[i] = phi * series[i - 1] + noise[i]
        found.append(memory(series))
    blocks, inflations = np.mean(found, 0)
    assert inflations == pytest.approx(inflation, rel=0.2)
    assert blocks == 1 if phi == 0 else blocks > 5


def test_resampled_means_scatter_as_they_should(rng):
    series = rng.standard_normal((300, 2))
    means = resampled(series, draws=4000)
    np.testing.assert_allclose(means.std(0), series.std(0) / np.sqrt(300), rtol=0.05)
    np.testing.assert_allclose(resampled(series, draws=50, block=300), np.broadcast_to(series.mean(0), (50, 2)))
    np.testing.assert_array_equal(resampled(series, draws=5), resampled(series, draws=5))
