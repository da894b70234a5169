"""Denoising score matching: its optimum on a Gaussian mode, in closed form."""

import pytest
import torch

from scigen.core.methods.denoising import denoising_loss

F64 = torch.float64


def gradient(gain: float, variance: float, sigma: float) -> float:
    """d/dg of E ‖g x_σ − x₀‖²: two rows, (√λ, 0) and (0, 1), carry the whole expectation of a linear student."""
    g = torch.tensor(gain, dtype=F64, requires_grad=True)
    x, noise = torch.tensor([[variance**0.5], [0.0]], dtype=F64), torch.tensor([[0.0], [1.0]], dtype=F64)
    each = denoising_loss(lambda x, s, c: g * x, x, noise, torch.full((2,), sigma, dtype=F64), None, 1.0)
    return float(torch.autograd.grad(each.sum(), g)[0])


@pytest.mark.parametrize("variance", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_stationary_at_the_exact_denoiser_and_descends_towards_it(variance, sigma):
    best = variance / (variance + sigma**2)
    assert abs(gradient(best, variance, sigma)) < 1e-10 * (1 + 1 / sigma**2)
    assert gradient(best * 1.1, variance, sigma) > 1e-4
    assert gradient(best * 0.9, variance, sigma) < -1e-4


def test_weight_makes_an_untrained_network_cost_one_at_every_level():
    """c_skip x alone on data of σ_data: λ(σ) E‖c_skip x_σ − x₀‖² = 1 for every σ."""
    for sigma in (0.01, 0.5, 3.0, 80.0):
        skip = 4 / (4 + sigma**2)
        x, noise = torch.tensor([[2.0], [0.0]], dtype=F64), torch.tensor([[0.0], [1.0]], dtype=F64)
        each = denoising_loss(lambda x, s, c, k=skip: k * x, x, noise, torch.full((2,), sigma, dtype=F64), None, 2.0)
        assert float(each.sum()) == pytest.approx(1.0, rel=1e-12)
