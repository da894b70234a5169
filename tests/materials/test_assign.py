"""Phases from scores, with exact fractions."""

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.materials.assign import counts, largest, largest_with


def test_counts_are_nearest_and_add_up():
    assert counts([0.3, 0.7], 10).tolist() == [3, 7]
    assert counts([1 / 3] * 3, 100).sum() == 100
    assert np.abs(counts([0.123, 0.456, 0.421], 4096) - 4096 * np.array([0.123, 0.456, 0.421])).max() < 1
    assert counts([0.0, 1.0], 7).tolist() == [0, 7]


@pytest.mark.parametrize("bad", [[0.5, 0.6], [-0.1, 1.1], [np.nan, 0.5]])
def test_what_is_no_fraction_is_refused(bad):
    with pytest.raises(UserError, match="add up to 1"):
        counts(bad, 100)


@pytest.mark.parametrize("phases", [2, 3, 5])
def test_fractions_are_exact_whatever_the_scores(phases):
    rng = np.random.default_rng(phases)
    for k in range(5):
        share = rng.dirichlet(np.ones(phases))
        wanted = counts(share, 12**3)
        labels = largest_with(rng.standard_normal((phases, 12, 12, 12)) * rng.uniform(0.1, 3), wanted)
        assert np.bincount(labels.ravel(), minlength=phases).tolist() == wanted.tolist(), k


def test_ties_and_absent_phases_are_settled():
    flat = np.zeros((3, 4, 4, 4))
    assert np.bincount(largest_with(flat, [10, 20, 34]).ravel()).tolist() == [10, 20, 34]
    assert np.bincount(largest_with(flat, [0, 64, 0]).ravel(), minlength=3).tolist() == [0, 64, 0]
    assert set(np.unique(largest_with(np.random.default_rng(0).standard_normal((3, 4, 4, 4)), [32, 0, 32]))) == {0, 2}


def test_biases_keep_the_order_of_margins():
    """Two phases: those voxels get a phase that want it most, so it is a threshold of the margin."""
    scores = np.random.default_rng(1).standard_normal((2, 6, 6, 6))
    labels = largest_with(scores, [50, 166])
    margin = scores[0] - scores[1]
    assert margin[labels == 0].min() > margin[labels == 1].max()


def test_fractions_that_are_met_anyway_change_nothing():
    scores = np.random.default_rng(2).standard_normal((3, 8, 8, 8))
    raw = largest(scores)
    assert np.array_equal(largest_with(scores, np.bincount(raw.ravel(), minlength=3)), raw)
