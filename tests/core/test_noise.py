"""Laws of noise levels and grids."""

import math

import pytest
import torch

from scigen.core.noise import LogNormal, LogUniform, karras_sigmas, log_sigmas, sigma_range
from scigen.errors import UserError


@pytest.mark.parametrize("law", [LogUniform(0.01, 80), LogNormal(0.01, 80, -0.5, 1.8)])
def test_law_covers_the_whole_range(law):
    ends = law.quantile(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.01, 80.0], dtype=torch.float64), rtol=1e-5, atol=0)
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert (law.quantile(u).diff() > 0).all()


def test_lognormal_has_its_moments_where_truncation_is_far():
    torch.manual_seed(0)
    draws = LogNormal(1e-3, 1e2, -1.2, 1.2).draw(20000).log()
    assert abs(float(draws.mean()) + 1.2) < 0.02
    assert abs(float(draws.std()) - 1.2) < 0.02


def test_draws_are_stratified():
    torch.manual_seed(0)
    n, law = 64, LogUniform(0.01, 100)
    u = (law.draw(n).log() - math.log(0.01)) / math.log(1e4)
    assert sorted((u * n).floor().int().tolist()) == list(range(n))


@pytest.mark.parametrize(
    "make", [lambda: LogUniform(1, 1), lambda: LogUniform(-1, 1), lambda: LogNormal(1e-6, 80, 0, 0.5)]
)
def test_bad_ranges_are_refused(make):
    with pytest.raises(UserError):
        make()


def test_grids_end_where_they_should_and_one_level_is_sigma_max():
    for grid in (karras_sigmas(18, 0.002, 80), log_sigmas(18, 0.002, 80)):
        assert float(grid[0]) == pytest.approx(80) and float(grid[-1]) == pytest.approx(0.002)
        assert (grid.diff() < 0).all()
    assert karras_sigmas(1, 0.002, 80).tolist() == pytest.approx([80.0])
    # evenly spaced in σ^(1/7)
    steps = (karras_sigmas(18, 0.002, 80) ** (1 / 7)).diff()
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), rtol=1e-9, atol=0)
    with pytest.raises(UserError):
        karras_sigmas(0, 0.002, 80)


def test_sigma_range_follows_the_largest_mode_and_the_smallest_scales():
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(500, 1, 1, 1, generator=generator)  # one mode of variance 64 over 8 × 8 cells
    white = 0.1 * torch.randn(500, 1, 8, 8, generator=generator)
    low, high = sigma_range(common + white)
    assert high == pytest.approx(80, rel=0.1)
    assert low == pytest.approx(0.02, rel=0.1)
    assert sigma_range(10 + common + white) == (low, high)


@pytest.mark.parametrize("spread", [0.61, 1.032, 10.4, 99.6])
def test_sigma_max_is_at_least_ten_times_the_largest_modes_spread(spread):
    """Rounding goes upwards: a smaller σ_max would cost the largest mode more variance than stated."""
    x = spread * torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2) / 8**0.5
    _, high = sigma_range(x)
    assert 10 * spread * (1 - 1e-6) <= high <= 11 * spread


def test_one_sample_gives_a_range():
    low, high = sigma_range(torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert 0 < low < high == 1.0
