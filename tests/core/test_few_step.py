"""Students' samplers: what they keep of an exact student's law, and how errors add up."""

import pytest
import torch

from scigen.core.denoise import FlowMap
from scigen.core.noise import karras_sigmas
from scigen.core.oracle import Gaussian, Oracle, RotatedProduct
from scigen.core.sample import euler, few_step, flow_map
from scigen.errors import UserError

F64 = torch.float64
LAMBDA = torch.tensor([0.01, 0.25, 1.0, 4.0, 100.0], dtype=F64)
ZERO = torch.zeros(1, dtype=F64)


def gaussian() -> Gaussian:
    return Gaussian.dense(torch.zeros(5, dtype=F64), torch.diag(LAMBDA), (5,))


def bimodal() -> RotatedProduct:
    q = torch.linalg.qr(torch.randn(2, 2, dtype=F64, generator=torch.Generator().manual_seed(0)))[0]
    two = [[0.5, 0.5], [0.3, 0.7]], [[-1.0, 1.0], [0.0, 1.5]], [[0.4, 0.5], [0.6, 0.4]]
    return RotatedProduct(q, *(torch.tensor(v, dtype=F64) for v in two))


def consistency(oracle: Oracle, error: float = 0.0):
    """f(x; σ) = the flow map to 0, too large by a factor 1 + error."""
    return lambda x, sigma, condition=None: (1 + error) * oracle.flow_map(x, sigma, ZERO)


def exact_map(oracle: Oracle, error: float = 0.0):
    """G of the exact flow map X, or of (1 + error) X."""

    def student(x, sigma, condition=None, *, to):
        r = (to / sigma)[:, None]
        return ((1 + error) * oracle.flow_map(x, sigma, to) - r * x) / (1 - r)

    return student


def renoised_variance(student, grid):
    """Exactly: the sampler is linear, so one row a source of noise, added up in squares."""
    rows = torch.eye(len(grid), dtype=F64)[:, :, None].expand(-1, -1, 5)
    return few_step(student, grid[0] * rows[0], grid, None, list(rows[1:])).square().sum(0)


@pytest.mark.parametrize("error", [0.0, -0.05, 0.1])
@pytest.mark.parametrize("grid", [[80.0], [80.0, 1.5], [80.0, 10.0, 1.5, 0.3]])
def test_renoising_has_the_recursion_of_a_gain_error(grid, error):
    """v ← (1 + e)² λ (v + σ²)/(λ + σ²) with v = 0 at first; e = 0 and an exact start keep the law."""
    v = torch.zeros(5, dtype=F64)
    for sigma in grid:
        v = (1 + error) ** 2 * LAMBDA * (v + sigma**2) / (LAMBDA + sigma**2)
    torch.testing.assert_close(renoised_variance(consistency(gaussian(), error), grid), v, rtol=1e-12, atol=0)


def test_more_renoising_makes_a_wrong_gain_worse_and_an_exact_one_keeps_the_law():
    far = 1e6  # no mismatch of the prior
    for error, expected in [(0.0, [1.0, 1.0, 1.0]), (-0.05, [0.9025, 0.8585, 0.8386])]:
        ratios = [float(renoised_variance(consistency(gaussian(), error), [far, 1.0, 0.999][:k])[2]) for k in (1, 2, 3)]
        assert ratios == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_an_exact_flow_map_is_exact_with_any_number_of_steps(k):
    grid = karras_sigmas(k + 1, 0.02, 20.0)[:k].tolist()
    x = 20 * torch.randn(16, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    expected = bimodal().flow_map(x, torch.full((16,), 20.0, dtype=F64), torch.zeros(16, dtype=F64))
    torch.testing.assert_close(flow_map(exact_map(bimodal()), x, grid), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_gain_errors_of_a_flow_map_multiply(k):
    """(1 + e)^{2K} in the variance: no noise is fresh, nothing is forgotten."""
    grid = karras_sigmas(k + 1, 0.02, 80.0)[:k].tolist()
    x = torch.full((1, 5), 80.0, dtype=F64)
    ratio = flow_map(exact_map(gaussian(), -0.05), x, grid) / gaussian().flow_map(x, torch.tensor([80.0]), ZERO)
    torch.testing.assert_close(ratio**2, torch.full((1, 5), 0.95 ** (2 * k), dtype=F64), rtol=1e-12, atol=0)


def test_exactness_fails_when_the_map_is_told_of_the_wrong_end():
    """A sampler that always asks for the way to 0 and then takes part of it is Euler's, and not exact."""
    student = exact_map(bimodal())

    def to_zero(x, sigma, condition=None, *, to):
        return student(x, sigma, condition, to=torch.zeros_like(to))

    x, grid = 20 * torch.ones(1, 2, dtype=F64), [20.0, 3.0, 0.5]
    exact = bimodal().flow_map(x, torch.tensor([20.0], dtype=F64), ZERO)
    assert (flow_map(student, x, grid) - exact).abs().max() < 1e-10
    assert (flow_map(to_zero, x, grid) - exact).abs().max() > 0.05


def test_a_flow_map_that_gives_the_denoiser_steps_as_euler_does():
    def student(x, sigma, condition=None, *, to):
        return bimodal()(x, sigma)

    x, grid = 20 * torch.ones(1, 2, dtype=F64), [20.0, 3.0, 0.5]
    assert torch.equal(flow_map(student, x, grid), euler(bimodal(), x, grid))


def test_every_call_gets_the_condition_its_level_and_the_next():
    given, seen = {"scalars": torch.zeros(3, 1)}, []

    def student(x, sigma, condition, to=None):
        seen.append((condition is given, sigma.tolist(), None if to is None else to.tolist()))
        return x

    x = torch.ones(3, 2, dtype=F64)
    flow_map(student, x, [4.0, 1.0], given)
    assert seen == [(True, [4.0] * 3, [1.0] * 3), (True, [1.0] * 3, [0.0] * 3)]
    seen.clear()
    few_step(student, x, [4.0, 1.0], given, [x])
    assert seen == [(True, [4.0] * 3, None), (True, [1.0] * 3, None)]


def test_flow_map_modules_are_sampled():
    """Two steps by hand: X(x; σ → s) = (s/σ) x + (1 − s/σ) G, the second with s = 0."""

    class Network(torch.nn.Module):
        def forward(self, x, noise, condition):
            return x.tanh() * condition["scalars"].sum(1)[:, None, None]

    model = FlowMap(Network())
    x = torch.randn(2, 1, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    full = [torch.full((2,), s, dtype=F64) for s in (5.0, 0.7, 0.0)]
    mid = 0.7 / 5 * x + (1 - 0.7 / 5) * model(x, full[0], None, full[1])
    end = model(mid, full[1], None, full[2])
    torch.testing.assert_close(flow_map(model, x, [5.0, 0.7]), end, rtol=1e-12, atol=1e-14)
    assert (model(x, full[0], None, full[2]) - end).abs().max() > 1e-3


@pytest.mark.parametrize("count", [0, 2])
def test_few_step_needs_its_noises(count):
    noises = [torch.zeros(1, 5, dtype=F64)] * count
    with pytest.raises(UserError, match=f"1 fresh noises, not {count}"):
        few_step(gaussian(), torch.zeros(1, 5, dtype=F64), [2.0, 1.0], None, noises)
