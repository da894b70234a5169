"""Regression of the mean, and why residuals come from folds."""

import numpy as np
import pytest
import torch
from torch import nn

from scigen.core.denoise import DenoiserModule
from scigen.core.mean import ConditionalMean
from scigen.core.methods.base import Batch
from scigen.core.methods.mean import DirectMean, MeanRegression, folds
from scigen.core.sample import mean
from scigen.errors import UserError


class Linear(nn.Module):
    """F = a · fields, blind to the sample and the noise level."""

    def __init__(self, gain: float):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))

    def forward(self, x, c_noise, condition):
        assert not x.any() and not c_noise.any()
        return self.gain * condition["fields"]


def gradient(gain: float) -> tuple[float, float]:
    """Mean gradient of the loss, with its standard error, where x = 0.7 c + noise."""
    generator = torch.Generator().manual_seed(0)
    method = MeanRegression(ConditionalMean(Linear(gain), "", {}))
    found = []
    for _ in range(100):
        c, e = torch.randn(2, 64, 1, 4, dtype=torch.float64, generator=generator)
        loss = method.loss("student", Batch(0.7 * c + e, {"fields": c}))["loss"]
        found.append(torch.autograd.grad(loss, method.student.network.gain)[0].item())
    return float(np.mean(found)), float(np.std(found) / 10)


def test_the_conditional_mean_is_where_the_gradient_vanishes():
    value, error = gradient(0.7)
    assert abs(value) < 4 * error
    value, error = gradient(0.8)
    assert value == pytest.approx(0.2, abs=4 * error)


@pytest.mark.parametrize(("count", "number"), [(10, 2), (11, 4), (7, 7)])
def test_folds_part_the_samples_into_neighbours(count, number):
    parts = folds(count, number)
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(count))
    assert len(parts) == number and max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("number", [1, 6])
def test_folds_that_leave_nothing_are_refused(number):
    with pytest.raises(UserError, match=f"folds={number}"):
        folds(5, number)


def test_without_folds_the_spread_of_residuals_is_underestimated():
    """Least squares of p numbers on n samples leaves 1 − p/n of the variance in sample, and more than 1 on new ones.

    A new sample's residual has the variance 1 + p/(n − p − 1) in expectation over Gaussian designs, and so has one out
    of fold, with the n that its fit had.
    """
    rng = np.random.default_rng(0)
    n, p, inside, outside, new = 120, 40, [], [], []
    for _ in range(60):
        c, truth = rng.standard_normal((n + 200, p)), rng.standard_normal(p)
        x = c @ truth + rng.standard_normal(n + 200)
        fit = lambda rows: np.linalg.lstsq(c[rows], x[rows], rcond=None)[0]  # noqa: B023, E731
        whole = fit(np.arange(n))
        inside.append(np.mean((x[:n] - c[:n] @ whole) ** 2))
        new.append(np.mean((x[n:] - c[n:] @ whole) ** 2))
        for part in folds(n, 10):
            outside.append(np.mean((x[part] - c[part] @ fit(np.setdiff1d(np.arange(n), part))) ** 2))
    assert np.mean(inside) == pytest.approx(1 - p / n, rel=0.03)
    assert np.mean(new) == pytest.approx(1 + p / (n - p - 1), rel=0.05)
    kept = n - n // 10
    assert np.mean(outside) == pytest.approx(1 + p / (kept - p - 1), rel=0.05)
    assert np.mean(outside) > np.mean(new) > 2 * np.mean(inside)


class Direct(DenoiserModule):
    """D = a · fields + x, of which the sample would show at once, and half of it is a second prediction."""

    sigma_data = 1.0

    def __init__(self, gain: float):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))

    def forward(self, x, sigma, condition=None, to=None):
        assert (sigma == 3).all()
        return x + self.gain * condition["fields"]

    def predictions(self, x, sigma, condition=None, to=None):
        whole = self(x, sigma, condition)
        return [(0.8, whole), (0.2, whole / 2)]


def test_the_baseline_learns_the_mean_without_a_sample_and_gives_it_in_one_call():
    """x = 0.7 c + noise: the loss 0.8 (a − 0.7)² + 0.2 (a/2 − 0.7)² has its minimum at 0.63 / 0.85."""
    c, e = torch.randn(2, 20000, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    best = (0.8 * 0.7 + 0.1 * 0.7) / (0.8 + 0.05)
    slopes = []
    for gain in (best - 0.1, best, best + 0.1):
        method = DirectMean(Direct(gain), 3.0)
        loss = method.loss("student", Batch(0.7 * c + e, {"fields": c}))["loss"]
        slopes.append(float(torch.autograd.grad(loss, method.student.gain)[0]))
    assert slopes[0] < -0.15 and slopes[2] > 0.15 and abs(slopes[1]) < 0.02
    starts = 3 * torch.randn(2, 5, 1, 4, dtype=torch.float64)
    one, two = (mean(Direct(0.7), s, [3.0, 1.0], {"fields": c[:5]}) for s in starts)
    assert torch.equal(one, two) and torch.allclose(one, 0.7 * c[:5])
