"""Preconditioning and conversions."""

import pytest
import torch
from torch import nn

from scigen.core.denoise import (
    Denoiser,
    FlowMap,
    loss_weight,
    preconditioning,
    score,
    slope,
    v_prediction,
    velocity,
)
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


class Listening(nn.Module):
    def forward(self, x, c_noise, condition):
        self.x, self.c_noise, self.scalars = x, c_noise, condition["scalars"]
        return torch.ones_like(x)


@pytest.mark.parametrize("sigma_data", [0.5, 2.0])
def test_flow_map_is_preconditioned_as_a_denoiser_and_told_of_the_end_by_scalars(sigma_data):
    student, x = FlowMap(Listening(), sigma_data), torch.randn(25, 2, 4, dtype=torch.float64)
    c_skip, c_out, c_in, c_noise = (c[:, None, None] for c in preconditioning(SIGMA, sigma_data))
    torch.testing.assert_close(student(x, SIGMA, to=0.3 * SIGMA), c_skip * x + c_out, rtol=1e-12, atol=1e-12)
    seen = student.denoiser.network
    torch.testing.assert_close(seen.x, c_in * x, rtol=1e-12, atol=0)
    torch.testing.assert_close(seen.c_noise, c_noise.flatten(), rtol=1e-12, atol=0)
    assert torch.equal(seen.scalars, student.features(0.3 * SIGMA)) and seen.scalars.shape == (25, FlowMap.FEATURES)


def test_flow_map_puts_its_scalars_after_those_of_the_condition_and_leaves_that_alone():
    student, own = FlowMap(Listening(), 1.0), torch.arange(6.0).reshape(3, 2)
    condition = {"scalars": own}
    student(torch.zeros(3, 1, 4), torch.ones(3), condition, to=torch.full((3,), 0.5))
    seen = student.denoiser.network.scalars
    assert torch.equal(seen[:, :2], own) and seen.shape[1] == 2 + FlowMap.FEATURES
    assert condition == {"scalars": own} and condition["scalars"] is own


def test_flow_map_ends_at_zero_unless_told_otherwise():
    student, x = FlowMap(Listening(), 1.0), torch.zeros(2, 1, 4)
    scalars = []
    for to in (None, torch.zeros(2), torch.tensor(0.0), torch.full((2,), 1e-2)):
        student(x, torch.ones(2), to=to)
        scalars.append(student.denoiser.network.scalars)
    assert torch.equal(scalars[0], scalars[1]) and torch.equal(scalars[0], scalars[2])
    assert float((scalars[3] - scalars[0]).abs().max()) > 0.1


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, at the first derivative
@pytest.mark.parametrize("sigma_data", [0.5, 2.0])
def test_features_of_the_end_are_bounded_smooth_and_tell_levels_apart(sigma_data):
    student = FlowMap(Listening(), sigma_data)
    to = torch.cat([torch.zeros(1, dtype=torch.float64), sigma_data * torch.logspace(-3, 3, 61, dtype=torch.float64)])
    features = student.features(to)
    assert float(features.abs().max()) < 2 and torch.isfinite(features).all()
    assert float((features[1:] - features[:-1]).norm(dim=1).min()) > 0.02  # a tenth of a decade apart
    value, change = torch.func.jvp(student.features, (to,), (to,))  # ∂/∂ln s
    assert torch.isfinite(change).all() and float(change.abs().max()) < 3 and float(change[0].abs().max()) == 0
    torch.testing.assert_close(value, features, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, at the first derivative
@pytest.mark.parametrize("two_times", [False, True])
def test_derivatives_by_the_levels_have_the_dtype_of_the_states(two_times):
    """The levels count in float64 inside; what comes out, and its tangent, is of x."""
    student = FlowMap(Listening(), 1.0) if two_times else Denoiser(Zero(), 1.0)
    x = torch.randn(3, 1, 4)
    for dtype in (torch.float32, torch.float64):
        sigma = torch.tensor([0.1, 1.0, 9.0], dtype=dtype)
        out = torch.func.jvp(lambda x, s: student(x, s), (x, sigma), (x, sigma))
        assert all(v.dtype == torch.float32 for v in out)
        double = torch.func.jvp(lambda x, s: student(x, s), (x.double(), sigma.double()), (x.double(), sigma.double()))
        torch.testing.assert_close(out[1].double(), double[1], rtol=1e-5, atol=1e-6)
