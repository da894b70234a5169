"""Laws of mergeable histograms and their quantiles."""

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.metrics.histogram import bin_edges, histogram, quantiles


def test_quantiles_are_those_of_the_sample_to_one_bin():
    values = np.random.default_rng(0).gamma(2, 3, 500_000)
    edges = bin_edges(values.min(), values.max())
    levels = [0.001, 0.01, 0.5, 0.99, 0.999]
    found = quantiles(histogram(values, edges), edges, levels)
    np.testing.assert_allclose(found, np.quantile(values, levels), atol=1.5 * (edges[1] - edges[0]))


def test_parts_add_up_to_the_whole():
    values, edges = np.random.default_rng(0).standard_normal(1000), bin_edges(-2, 2, 64)
    np.testing.assert_array_equal(
        histogram(values[:300], edges) + histogram(values[300:], edges), histogram(values, edges)
    )


def test_weights_move_quantiles():
    edges = bin_edges(0, 1, 100)
    values = np.array([0.1, 0.9])
    assert quantiles(histogram(values, edges, [3.0, 1.0]), edges, [0.5])[0] == pytest.approx(0.1, abs=0.03)
    assert quantiles(histogram(values, edges, [1.0, 3.0]), edges, [0.5])[0] == pytest.approx(0.9, abs=0.03)


def test_values_outside_are_kept_in_the_open_bins():
    edges = bin_edges(0, 1, 10)
    counts = histogram([-50.0, edges[-1], 50.0], edges)
    assert counts[0] == 1 and counts[-1] == 2 and counts.sum() == 3
    assert quantiles(counts, edges, [0.1, 0.9]).tolist() == [edges[0], edges[-1]]


def test_a_constant_field_has_bins_around_it():
    edges = bin_edges(5.0, 5.0, 10)
    assert edges[0] < 5 < edges[-1]


@pytest.mark.parametrize("limits", [(1.0, 0.0), (np.nan, 1.0), (0.0, np.inf)])
def test_limits_must_be_finite_and_ordered(limits):
    with pytest.raises(UserError, match="finite limits"):
        bin_edges(*limits)
