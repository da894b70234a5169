"""Predictions on other schedules as denoisers: exact on a Gaussian, from the schedules' own definitions."""

import math

import pytest
import torch

from scigen.core.teachers.predictions import PREDICTIONS, affine
from scigen.core.teachers.schedule import Edm, RectifiedFlow, TrigFlow
from scigen.core.teachers.schedules import schedule
from scigen.core.teachers.table import Table
from scigen.core.teachers.variance_preserving import VpCosine, VpLinear
from scigen.errors import UserError

MEAN, VARIANCE = 0.7, 1.9


def linear(t):
    return torch.exp(-0.5 * (0.1 * t + 0.5 * 19.9 * t**2))


def cosine(t):
    return torch.cos(0.5 * math.pi * (t + 0.008) / 1.008) / math.cos(0.5 * math.pi * 0.008 / 1.008)


def rest(alpha):
    return torch.sqrt((1 - alpha) * (1 + alpha))


# schedule, α(t), s(t), times from nearly clean to nearly noise
CASES = {
    "edm": (Edm(), lambda t: 1 + 0 * t, lambda t: t, (1e-3, 1e3)),
    "vp_linear": (VpLinear(), linear, lambda t: rest(linear(t)), (1e-3, 1.0)),
    "vp_linear, 1000": (
        VpLinear(times=999.0), lambda t: linear(t / 999), lambda t: rest(linear(t / 999)), (1.0, 999.0),
    ),
    "vp_cosine": (VpCosine(), cosine, lambda t: rest(cosine(t)), (1e-3, 0.999)),
    "rectified_flow": (RectifiedFlow(), lambda t: 1 - t, lambda t: t, (1e-3, 0.999)),
    "data at 1": (RectifiedFlow(data_last=True), lambda t: t, lambda t: 1 - t, (0.001, 0.999)),
    "trigflow": (TrigFlow(sigma_data=0.5), torch.cos, lambda t: 0.5 * torch.sin(t), (1e-3, 1.57)),
}  # fmt: skip


def expected(predicts, y, alpha, s, d_alpha, d_s):
    """What an exact network predicts of y = α x₀ + s ε, x₀ ~ N(MEAN, VARIANCE)."""
    total = alpha**2 * VARIANCE + s**2
    x0 = (alpha * VARIANCE * y + s**2 * MEAN) / total
    epsilon = s * (y - alpha * MEAN) / total
    return {
        "x0": x0,
        "epsilon": epsilon,
        "v": alpha * epsilon - s * x0,
        "score": -(y - alpha * MEAN) / total,
        "velocity": d_alpha * x0 + d_s * epsilon,
    }[predicts]


@pytest.mark.parametrize("predicts", [p for p in PREDICTIONS if p != "edm"])
@pytest.mark.parametrize("case", CASES)
def test_every_prediction_on_every_schedule_is_the_gaussians_denoiser(case, predicts):
    own, alpha, s, ends = CASES[case]
    t = torch.linspace(*ends, 101, dtype=torch.float64, requires_grad=True)
    a, b = alpha(t), s(t)
    (d_alpha,) = torch.autograd.grad(a.sum(), t, allow_unused=True, retain_graph=True)
    (d_s,) = torch.autograd.grad(b.sum(), t)
    d_alpha = torch.zeros_like(t) if d_alpha is None else d_alpha
    t, a, b = t.detach(), a.detach(), b.detach()
    sigma = b / a
    x = MEAN + (VARIANCE + sigma**2).sqrt() * torch.linspace(-3, 3, 101, dtype=torch.float64)
    skip, out, scale, time = affine(own, predicts, sigma)
    y = a * x
    unit = own.unit if predicts == "velocity" else 1.0
    torch.testing.assert_close(scale * x, y / own.unit, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(time, t, rtol=1e-8, atol=0)  # √(1 − α²) of the test itself has lost some digits
    given = expected(predicts, y, a, b, d_alpha, d_s) / unit
    denoised = (VARIANCE * x + sigma**2 * MEAN) / (VARIANCE + sigma**2)
    # a prediction of digits 1e-16 leaves D those of |out| times as many
    error = (skip * x + out * given - denoised).abs() / (1 + (skip * x).abs() + (out * given).abs())
    assert error.max() < 1e-10


@pytest.mark.parametrize("case", CASES)
def test_times_and_levels_are_inverse_of_each_other_to_the_ends(case):
    own, *_, ends = CASES[case]
    t = torch.linspace(*ends, 101, dtype=torch.float64)
    torch.testing.assert_close(own.time(own.sigma(t)), t, rtol=1e-10, atol=0)
    low, high = own.ends
    levels = torch.logspace(math.log10(low), math.log10(high), 50, dtype=torch.float64)
    torch.testing.assert_close(own.sigma(own.time(levels)), levels, rtol=1e-10, atol=0)


def ddpm():
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


def test_a_table_is_exact_at_its_times_and_monotone_between():
    own = Table.of_alphas(ddpm())
    t = torch.arange(1000, dtype=torch.float64)
    sigma = ((1 - ddpm()) / ddpm()).sqrt()
    torch.testing.assert_close(own.time(sigma), t, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(own.sigma(t), sigma, rtol=1e-10, atol=0)
    between = torch.linspace(0, 999, 3001, dtype=torch.float64)
    assert (own.sigma(between).diff() > 0).all()
    torch.testing.assert_close(own.time(own.sigma(between)), between, rtol=1e-9, atol=1e-9)
    # beyond the ends the network is told the end, and D stays exact for what an exact network would say there
    assert own.time(torch.tensor([1e-9, 1e9])).tolist() == [0.0, 999.0]
    skip, out, scale, _ = affine(own, "epsilon", torch.tensor([1e-9, 1e3], dtype=torch.float64))
    assert skip.tolist() == [1, 1] and out.tolist() == [-1e-9, -1e3]
    torch.testing.assert_close(scale, torch.tensor([1, 1e-3], dtype=torch.float64), rtol=1e-6, atol=0)


def test_a_table_agrees_with_the_schedule_that_it_samples():
    fine = Table(tuple(VpLinear().sigma(torch.linspace(1e-3, 1, 1000, dtype=torch.float64)).tolist()))
    sigma = torch.logspace(-1.5, 2, 50, dtype=torch.float64)
    torch.testing.assert_close(1e-3 + fine.time(sigma) * 0.999 / 999, VpLinear().time(sigma), rtol=0, atol=2e-5)


def test_a_time_without_any_data_is_no_level():
    assert len(Table.of_alphas(torch.tensor([0.9, 0.5, 0.1, 0.0])).sigmas) == 3


def test_what_cannot_be_is_refused():
    one = torch.ones(1, dtype=torch.float64)
    for words, match in (
        ("linear", "schedule=linear: unknown"),
        ({"kind": "vp_linear", "beta": 3}, "has no beta"),
        ({"kind": "edm", "sigma_min": 3, "sigma_max": 2}, "are no range"),
        ({"kind": "table", "sigmas": [1.0, float("nan")]}, "must be positive, finite and increasing"),
        ({"kind": "vp_cosine", "offset": "a"}, "vp_cosine"),
    ):
        with pytest.raises(UserError, match=match):
            schedule(words)
    with pytest.raises(UserError, match="predicts=noise: unknown"):
        affine(Edm(), "noise", one)
    with pytest.raises(UserError, match="has no velocity"):
        affine(Table((0.1, 1.0)), "velocity", one)
    assert all(schedule(s.to_dict()) == s for s, *_ in CASES.values())
