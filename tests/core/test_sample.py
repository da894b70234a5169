"""Samplers against their exact discrete gains on Gaussian modes."""

import math
from itertools import pairwise

import pytest
import torch

from scigen.core.noise import karras_sigmas
from scigen.core.oracle import Gaussian, RotatedProduct
from scigen.core.sample import Counted, dpm_solver, euler, few_step, heun
from scigen.errors import UserError

LAMBDA = torch.tensor([0.01, 0.25, 1.0, 4.0, 100.0], dtype=torch.float64)


def gaussian() -> Gaussian:
    return Gaussian.dense(torch.zeros(5, dtype=torch.float64), torch.diag(LAMBDA), (5,))


def euler_gain(v, grid):
    g = torch.ones_like(v)
    for s, r in zip(grid, [*grid[1:], 0.0], strict=True):
        g = g * (v + s * r) / (v + s**2)
    return g


def heun_gain(v, grid):
    g = torch.ones_like(v)
    for s, r in zip(grid, [*grid[1:], 0.0], strict=True):
        a, h = s / (v + s**2), r - s
        b = r / (v + r**2)
        g = g * (1 + 0.5 * h * (a + b * (1 + h * a)) if r else 1 + h * a)
    return g


def dpm_gain(v, grid):
    """The scalar two-term recursion in (x, D of the step before), written from the algorithm in ln σ."""
    x, before, h_before = torch.ones_like(v), None, None
    for s, r in zip(grid, [*grid[1:], 0.0], strict=True):
        d = v / (v + s**2) * x
        if r == 0:
            return d
        h = math.log(s) - math.log(r)
        ratio = 1.0 if before is None else h_before / h
        mixed = d if before is None else (1 + 1 / (2 * ratio)) * d - 1 / (2 * ratio) * before
        x = math.exp(-h) * x - math.expm1(-h) * mixed
        before, h_before = d, h
    raise AssertionError


CASES = [(euler, euler_gain), (heun, heun_gain), (dpm_solver, dpm_gain)]


@pytest.mark.parametrize("n", [1, 2, 8, 18, 40])
@pytest.mark.parametrize(("sampler", "gain"), CASES)
def test_exact_discrete_gains(sampler, gain, n):
    grid = karras_sigmas(n, 0.002, 80).tolist()
    x = sampler(gaussian(), torch.full((1, 5), 80.0, dtype=torch.float64), grid)
    torch.testing.assert_close(x[0] / 80, gain(LAMBDA, grid), rtol=1e-10, atol=1e-14)


def test_published_variance_ratios():
    """λ = 1: Euler 0.739, Heun 1.092 with 18 levels, 2M 1.017 with 40, the prior's mismatch included."""
    one = torch.ones(1, dtype=torch.float64)
    for gain, n, expected in [(euler_gain, 18, 0.739), (heun_gain, 18, 1.092), (dpm_gain, 40, 1.017)]:
        grid = karras_sigmas(n, 0.002, 80).tolist()
        assert float((80 * gain(one, grid)) ** 2) == pytest.approx(expected, abs=2e-3)


def test_euler_is_always_under_dispersed():
    grid = karras_sigmas(18, 0.002, 80).tolist()
    exact = (LAMBDA / (LAMBDA + 80**2)).sqrt()
    assert (euler_gain(LAMBDA, grid) < exact).all()
    assert not (heun_gain(LAMBDA, grid) < exact).all()


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2), (dpm_solver, 2)])
def test_order_on_a_law_that_is_not_gaussian(sampler, order):
    """Error of the flow from 3 to 0.3 on bimodal, rotated coefficients falls as N^-order."""
    q = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    law = RotatedProduct(
        q,
        torch.tensor([[0.5, 0.5], [0.3, 0.7], [0.8, 0.2]], dtype=torch.float64),
        torch.tensor([[-1.0, 1.0], [0.0, 1.5], [-0.5, 2.0]], dtype=torch.float64),
        torch.tensor([[0.4, 0.5], [0.6, 0.4], [0.5, 0.7]], dtype=torch.float64),
    )
    x = 3 * torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    end = torch.full((4,), 0.3, dtype=torch.float64)
    exact = law(law.flow_map(x, torch.full((4,), 3.0, dtype=torch.float64), end), end)

    def error(n):
        grid = torch.linspace(math.log(3), math.log(0.3), n + 1, dtype=torch.float64).exp().tolist()
        if sampler is heun:  # stop on the last level with one denoising, as the others do
            from scigen.core.sample import heun_step

            y = x
            for a, b in pairwise(grid):
                y = heun_step(law, y, a, b, None)
            y = law(y, end)
        else:
            y = sampler(law, x, grid)
        return float((y - exact).norm())

    slope = math.log2(error(40) / error(80))
    assert slope == pytest.approx(order, abs=0.25)


def test_calls_are_counted():
    grid = karras_sigmas(7, 0.01, 80).tolist()
    for sampler, expected in [(euler, 7), (heun, 13), (dpm_solver, 7)]:
        counted = Counted(gaussian())
        sampler(counted, torch.zeros(2, 5, dtype=torch.float64), grid)
        assert counted.nfe == expected


def test_few_step_with_exact_consistency_function_keeps_the_law():
    """f(x; σ) = flow map to 0: re-noising at any level leaves the variance exactly λ."""
    oracle = gaussian()
    x = torch.eye(5, dtype=torch.float64)

    def f(x, sigma, condition):
        return oracle.flow_map(x, sigma, torch.zeros(1, dtype=torch.float64))

    # linear in (start, noise): the variance is the sum of squared responses
    zero = torch.zeros_like(x)
    from_start = few_step(f, 80 * x, [80.0, 1.5], None, [zero]).diagonal()
    from_noise = few_step(f, zero, [80.0, 1.5], None, [x]).diagonal()
    prior = 80**2 / (LAMBDA + 80**2)  # what starting from N(0, 80²) costs
    expected = (prior * LAMBDA + 1.5**2) * LAMBDA / (LAMBDA + 1.5**2)
    torch.testing.assert_close(from_start**2 + from_noise**2, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("grid", [[], [1.0, 2.0], [1.0, 0.0], [1.0, 1.0]])
def test_bad_grids_are_refused(grid):
    with pytest.raises(UserError):
        euler(gaussian(), torch.zeros(1, 5, dtype=torch.float64), grid)


def test_few_step_needs_its_noises():
    with pytest.raises(UserError, match="1 fresh"):
        few_step(gaussian(), torch.zeros(1, 5, dtype=torch.float64), [2.0, 1.0])
