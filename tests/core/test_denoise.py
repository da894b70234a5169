"""Preconditioning and conversions."""

import pytest
import torch
from torch import nn

from scigen.core.denoise import Denoiser, loss_weight, preconditioning, score, slope, v_prediction, velocity
from scigen.core.oracle import Gaussian
from scigen.errors import UserError

SIGMA = torch.logspace(-3, 3, 25, dtype=torch.float64)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 3.0])
def test_preconditioning_normalises_inputs_and_targets(sigma_data):
    c_skip, c_out, c_in, _ = preconditioning(SIGMA, sigma_data)
    # variance of the network's input c_in (x₀ + σ ε)
    torch.testing.assert_close(c_in**2 * (sigma_data**2 + SIGMA**2), torch.ones_like(SIGMA), rtol=1e-12, atol=0)
    # variance of its target (x₀ − c_skip (x₀ + σ ε)) / c_out
    variance = ((1 - c_skip) ** 2 * sigma_data**2 + c_skip**2 * SIGMA**2) / c_out**2
    torch.testing.assert_close(variance, torch.ones_like(SIGMA), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss_weight(SIGMA, sigma_data) * c_out**2, torch.ones_like(SIGMA), rtol=1e-12, atol=0)


class Zero(nn.Module):
    def forward(self, x, c_noise, condition):
        self.seen = c_noise
        return torch.zeros_like(x)


def test_a_silent_network_gives_the_best_linear_denoiser_of_white_data():
    denoiser, x = Denoiser(Zero(), 2.0), torch.randn(25, 3, 4, dtype=torch.float64)
    expected = x * (4 / (4 + SIGMA**2))[:, None, None]
    torch.testing.assert_close(denoiser(x, SIGMA), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(denoiser.network.seen, SIGMA.log() / 4)


class Wild(nn.Module):
    def forward(self, x, c_noise, condition):
        return 1e3 * torch.ones_like(x) + c_noise.reshape(-1, 1, 1)


def test_boundary_condition_at_zero_noise():
    x = torch.randn(2, 3, 4)
    assert torch.equal(Denoiser(Wild(), 1.0)(x, torch.zeros(2)), x)


def test_sigma_data_must_be_positive():
    with pytest.raises(UserError, match="constant"):
        Denoiser(Zero(), 0.0)


def test_conversions_agree_with_the_gaussian_closed_form():
    variance, n = 0.7, len(SIGMA)
    oracle = Gaussian.dense(
        torch.tensor([1.5], dtype=torch.float64), torch.tensor([[variance]], dtype=torch.float64), (1,)
    )
    x = torch.linspace(-3, 4, n, dtype=torch.float64)[:, None]
    denoised = oracle(x, SIGMA)
    s2 = SIGMA[:, None] ** 2
    torch.testing.assert_close(score(x, denoised, SIGMA), -(x - 1.5) / (variance + s2), rtol=1e-9, atol=1e-12)
    eps = SIGMA[:, None] * (x - 1.5) / (variance + s2)
    torch.testing.assert_close(slope(x, denoised, SIGMA), eps, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(velocity(x, denoised, SIGMA), eps - denoised, rtol=1e-9, atol=1e-12)
    alpha = (1 + s2).rsqrt()
    expected = alpha * eps - SIGMA[:, None] * alpha * denoised
    torch.testing.assert_close(v_prediction(x, denoised, SIGMA), expected, rtol=1e-9, atol=1e-12)
