"""Laws of the paired block bootstrap."""

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.metrics.bootstrap import ratio_interval


def test_the_estimate_is_the_ratio_of_means_and_lies_within():
    a, b = np.random.default_rng(0).uniform(1, 2, (2, 50))
    estimate, low, high = ratio_interval(a, b)
    assert estimate == a.mean() / b.mean() and low < estimate < high
    assert ratio_interval(a, b) == (estimate, low, high) != ratio_interval(a, b, seed=1)


def test_equal_series_have_the_ratio_one_without_doubt():
    a = np.random.default_rng(0).uniform(1, 2, 50)
    assert ratio_interval(a, a, block=3) == (1, 1, 1)
    assert ratio_interval(2 * a, a, block=3) == (2, 2, 2)


def test_pairing_takes_out_what_both_find_hard():
    rng = np.random.default_rng(0)
    hard, noise = rng.gamma(1, 1, 200), 0.01 * rng.standard_normal((2, 200))
    _, low, high = ratio_interval(hard + noise[0], hard + noise[1])
    _, apart_low, apart_high = ratio_interval(hard + noise[0], rng.permutation(hard) + noise[1])
    assert high - low < 0.1 * (apart_high - apart_low)


def coverage(block: int, memory: float) -> float:
    """How often the 95 % interval holds the true ratio 1, with AR(1) series of the given lag-one correlation."""
    rng, hits, repeats, size = np.random.default_rng(3), 0, 200, 120
    for _ in range(repeats):
        series = np.empty((2, size))
        x = rng.standard_normal(2)
        for i in range(size):
            series[:, i] = x
            x = memory * x + np.sqrt(1 - memory**2) * rng.standard_normal(2)
        _, low, high = ratio_interval(10 + series[0], 10 + series[1], block=block, draws=300)
        hits += low <= 1 <= high
    return hits / repeats


def test_the_interval_holds_the_truth_as_often_as_it_says():
    assert coverage(block=1, memory=0.0) == pytest.approx(0.95, abs=0.045)


def test_dependent_samples_need_blocks():
    assert coverage(block=1, memory=0.8) < 0.7
    assert coverage(block=12, memory=0.8) > 0.8


def test_blocks_do_not_widen_the_interval_of_independent_samples():
    a, b = np.random.default_rng(0).uniform(1, 2, (2, 600))
    widths = [high - low for _, low, high in (ratio_interval(a, b, block=n) for n in (1, 6))]
    assert widths[1] / widths[0] == pytest.approx(1, abs=0.2)


def test_root():
    a, b = np.random.default_rng(0).uniform(1, 2, (2, 50))
    np.testing.assert_allclose(np.square(ratio_interval(a, b, root=True)), ratio_interval(a, b))


def test_too_few_blocks_give_no_interval():
    estimate, low, high = ratio_interval([1.0, 3.0], [1.0, 1.0], block=2)
    assert estimate == 2 and np.isnan([low, high]).all()


def test_unknown_stays_unknown():
    assert np.isnan(ratio_interval([np.nan, 1.0], [1.0, 1.0])).all()


@pytest.mark.parametrize(
    ("a", "b", "options"),
    [
        ([1.0], [1.0, 2.0], {}),
        ([], [], {}),
        ([[1.0]], [[1.0]], {}),
        ([1.0], [1.0], {"block": 0}),
        ([1.0], [1.0], {"level": 95}),
    ],
)
def test_what_does_not_pair_is_refused(a, b, options):
    with pytest.raises(UserError):
        ratio_interval(a, b, **options)
