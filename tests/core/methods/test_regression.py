"""Regression on end points: the exact map is its optimum, and the spread is kept."""

import pytest
import torch

from scigen.core.methods.base import Batch
from scigen.core.methods.regression import Regression, regression_loss
from scigen.core.oracle import RotatedProduct
from scigen.errors import UserError

F64 = torch.float64


def law() -> RotatedProduct:
    q = torch.linalg.qr(torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(0)))[0]
    w = torch.tensor([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]], dtype=F64)
    return RotatedProduct(
        q, w, torch.tensor([[-1.0, 1.0], [0.0, 2.0], [0.0, 3.0]], dtype=F64), torch.full((3, 2), 0.3, dtype=F64)
    )


def test_the_exact_flow_map_costs_nothing_and_the_mean_costs_the_whole_spread():
    oracle, sigma = law(), 40.0
    noise = torch.randn(400, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    level = torch.full((400,), sigma, dtype=F64)
    end = oracle.flow_map(sigma * noise, level, torch.zeros(400, dtype=F64))
    exact = lambda x, s, c: oracle.flow_map(x, s, torch.zeros(400, dtype=F64))  # noqa: E731
    assert float(regression_loss(exact, noise, end, sigma, None, 1.0).mean()) < 1e-12
    mean = lambda x, s, c: oracle(x, s)  # noqa: E731  what a teacher gives in one step
    cost = float(regression_loss(mean, noise, end, sigma, None, 1.0).mean())
    assert cost == pytest.approx(float(end.var(0).mean()), rel=0.05)


@pytest.mark.parametrize("variance", [0.01, 1.0, 25.0])
def test_linear_student_lands_on_the_flow_maps_gain(variance):
    sigma = 10.0
    exact = (variance / (variance + sigma**2)) ** 0.5
    g = torch.tensor(0.5 * exact, dtype=F64, requires_grad=True)
    noise = torch.randn(50, 1, dtype=F64, generator=torch.Generator().manual_seed(2))
    loss = regression_loss(lambda x, s, c: g * x, noise, exact * sigma * noise, sigma, None, 1.0).mean()
    (slope,) = torch.autograd.grad(loss, g, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, g)
    assert float((g - slope / curvature).detach()) == pytest.approx(exact, rel=1e-10)


def test_loss_does_not_depend_on_the_units_of_the_data():
    """Student, end points and σ_data in other units: the same loss."""
    noise, end = torch.randn(2, 5, 3, dtype=F64, generator=torch.Generator().manual_seed(3))
    one = regression_loss(lambda x, s, c: x / 10, noise, end, 10.0, None, 1.0)
    other = regression_loss(lambda x, s, c: 7 * x / 10, noise, 7 * end, 10.0, None, 7.0)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def test_data_without_noise_and_several_levels_are_refused():
    with pytest.raises(UserError, match="one step"):
        Regression(torch.nn.Identity(), torch.nn.Identity(), [10.0, 1.0])
    method = Regression(torch.nn.Identity(), torch.nn.Identity(), [10.0])
    with pytest.raises(UserError, match="pairs"):
        method.loss("student", Batch(torch.zeros(1, 1), {}))
