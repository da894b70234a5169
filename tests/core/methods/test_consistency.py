"""Consistency: fixed points on Gaussian modes, the √ρ law, and what breaks them."""

import math

import pytest
import torch

from scigen.core.denoise import loss_weight
from scigen.core.methods.base import Batch
from scigen.core.methods.consistency import Consistency, consistency_loss, teacher_step
from scigen.core.noise import karras_sigmas
from scigen.core.oracle import Gaussian
from scigen.errors import UserError

F64 = torch.float64
LAMBDA = torch.tensor([0.02, 1.0, 30.0], dtype=F64)


def oracle() -> Gaussian:
    return Gaussian.dense(torch.zeros(3, dtype=F64), torch.diag(LAMBDA), (3,))


class Table(torch.nn.Module):
    """A linear student: one gain per level and mode."""

    def __init__(self, grid: torch.Tensor) -> None:
        super().__init__()
        self.grid = grid
        self.gain = torch.nn.Parameter(torch.full((len(grid), 3), 0.3, dtype=F64))

    def forward(self, x, sigma, condition=None):
        i = (self.grid[None] - sigma[:, None]).abs().argmin(1)
        return self.gain[i] * x


def fixed_point(grid: torch.Tensor, neighbours, loss=consistency_loss) -> torch.Tensor:
    """Where the loss leaves a linear student: Newton steps, exact per level, until targets have come all the way up.

    Every level and mode sees the rows (√λ, 0) and (0, 1) of (x₀, ε), which carry the expectation of a linear student.
    """
    student = Table(grid)
    levels = torch.arange(len(grid)).repeat(2)
    t, r = grid[levels], torch.cat([grid[1:], torch.zeros(1, dtype=F64)])[levels]
    x0 = torch.cat([LAMBDA.sqrt().expand(len(grid), 3), torch.zeros(len(grid), 3, dtype=F64)])
    noise = torch.cat([torch.zeros(len(grid), 3, dtype=F64), torch.ones(len(grid), 3, dtype=F64)])
    for _ in range(len(grid) + 1):
        x_t = x0 + t[:, None] * noise
        x_r = neighbours(x0, noise, x_t, t, r)
        total = loss(student, x_t, x_r, t, r, None, 1.0).sum()
        (slope,) = torch.autograd.grad(total, student.gain, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), student.gain)
        student.gain.data -= (slope / curvature).detach()
    return student.gain.detach()


def by_teacher(heun: bool):
    return lambda x0, noise, x_t, t, r: teacher_step(oracle(), x_t, t, r, None, heun)


def tuning(x0, noise, x_t, t, r):
    return x0 + r[:, None] * noise


def product_of_gains(grid: torch.Tensor, heun: bool) -> torch.Tensor:
    """Π m_k of the solver from every level down to 0: (levels, modes)."""
    gains = []
    for s, r in zip(grid, [*grid[1:], torch.zeros((), dtype=F64)], strict=True):
        a, b, h = s / (LAMBDA + s**2), r / (LAMBDA + r**2), r - s
        gains.append(1 + 0.5 * h * (a + b * (1 + h * a)) if heun and r > 0 else 1 + h * a)
    return torch.stack(gains).flip(0).cumprod(0).flip(0)


@pytest.mark.parametrize("levels", [2, 10, 40])
@pytest.mark.parametrize("heun", [True, False])
def test_distilled_fixed_point_is_the_product_of_the_solvers_gains(levels, heun):
    grid = karras_sigmas(levels, 0.02, 60)
    torch.testing.assert_close(fixed_point(grid, by_teacher(heun)), product_of_gains(grid, heun), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("levels", [10, 40])
def test_tuned_fixed_point_is_eulers(levels):
    """argmin_a E(a x_t − b x_r)² = b (λ + r t)/(λ + t²): no teacher, the same gain as Euler's step."""
    grid = karras_sigmas(levels, 0.02, 60)
    torch.testing.assert_close(fixed_point(grid, tuning), product_of_gains(grid, heun=False), rtol=1e-9, atol=1e-12)


def variance_ratio(rho: float, loss=consistency_loss) -> torch.Tensor:
    """Student's variance over the truth's, for a dense grid of constant ratio ρ between far ends."""
    n = math.ceil(math.log(1e9) / -math.log(rho))
    grid = 1e4 * rho ** torch.arange(n, dtype=F64)
    return fixed_point(grid, tuning, loss)[0] ** 2 * (LAMBDA + 1e8) / LAMBDA


@pytest.mark.parametrize("rho", [0.75, 0.9])
def test_square_root_law(rho):
    """With r/t = ρ everywhere a tuned student has √ρ of the variance, in every mode."""
    torch.testing.assert_close(variance_ratio(rho), torch.full((3,), rho**0.5, dtype=F64), rtol=2e-3, atol=0)


def test_square_root_law_fails_when_the_neighbour_gets_fresh_noise():
    """A row of its own for the noise of x_r: the student can no longer tell it from the noise of x_t."""

    def fresh(x0, noise, x_t, t, r):
        return x0

    grid = 1e4 * 0.75 ** torch.arange(80, dtype=F64)
    ratio = fixed_point(grid, fresh)[0] ** 2 * (LAMBDA + 1e8) / LAMBDA
    assert ((ratio - 0.75**0.5).abs() > 0.1).all()


def test_square_root_law_is_of_the_squared_error_alone():
    """For x₀ = ±1 squared error gives the gain (1 + r t)/(1 + t²), as on Gaussian data; the absolute one another."""
    t, r = 1.0, 0.3
    eps = torch.randn(200000, dtype=F64, generator=torch.Generator().manual_seed(0))
    x0 = torch.where(torch.arange(200000) % 2 == 0, 1.0, -1.0).double()
    x_t, x_r = x0 + t * eps, x0 + r * eps
    squared = float((x_t * x_r).sum() / (x_t * x_t).sum())
    ratio = x_r / x_t
    order = ratio.argsort()
    weight = x_t.abs()[order].cumsum(0)
    absolute = float(ratio[order][torch.searchsorted(weight, weight[-1] / 2)])  # weighted median
    assert squared == pytest.approx((1 + r * t) / (1 + t**2), abs=3e-3)
    assert abs(absolute - squared) > 0.02


def test_target_carries_no_gradient_and_the_last_level_meets_the_data():
    grid = karras_sigmas(5, 0.1, 10)
    student = Table(grid)
    x_t, x_r = torch.ones(1, 3, dtype=F64), 2 * torch.ones(1, 3, dtype=F64)
    last = consistency_loss(student, x_t, x_r, grid[-1:], torch.zeros(1, dtype=F64), None, 1.0)
    expected = loss_weight(grid[-1:], 1.0) * (0.3 - 2.0) ** 2
    torch.testing.assert_close(last.detach(), expected)
    inner = consistency_loss(student, x_t, x_r, grid[1:2], grid[2:3], None, 1.0).sum()
    (g,) = torch.autograd.grad(inner, student.gain)
    assert g[1].abs().sum() > 0 and g[2].abs().sum() == 0


class Silent(torch.nn.Module):
    """D = 0, noting what it is given: along its ODE x is proportional to σ."""

    sigma_data = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def forward(self, x, sigma, condition=None):
        self.calls.append((x, sigma))
        return torch.zeros_like(x)


@pytest.mark.parametrize(("tuning", "heun", "teacher_calls"), [(True, True, 0), (False, False, 1), (False, True, 2)])
def test_neighbours_lie_on_one_path_and_all_levels_are_met(tuning, heun, teacher_calls):
    student, teacher = Silent(), Silent()
    method = Consistency(student, teacher, [10.0], 0.1, levels=[6], heun=heun, tuning=tuning)
    x = torch.randn(60, 1, 4)
    method.loss("student", Batch(x, {}))
    (x_r, r), (x_t, t) = student.calls  # the target, then the prediction
    assert len(teacher.calls) == teacher_calls
    place = (method.grids[0][None] - t[:, None]).abs().argmin(1)
    assert sorted(place.tolist()) == sorted(list(range(6)) * 10)
    last = place == 5  # its neighbour is 0, where the student is not asked
    torch.testing.assert_close(r[~last], method.grids[0][place + 1][~last], rtol=0, atol=0)
    ratio = (method.grids[0][place + 1] / t)[:, None, None]
    expected = x + ratio * (x_t - x) if tuning else ratio * x_t  # the same noise; the teacher's ODE
    torch.testing.assert_close(x_r, expected, rtol=1e-5, atol=1e-5)


def test_stages_follow_the_progress():
    method = Consistency(torch.nn.Identity(), torch.nn.Identity(), [10.0, 1.0], 0.1, levels=[4, 8, 16])
    seen = []
    for progress in (0.0, 0.32, 0.34, 0.66, 0.67, 0.999):
        method.at(progress)
        seen.append(len(method.grids[method.stage]) - 1)
    assert seen == [4, 4, 8, 8, 16, 16]
    with pytest.raises(UserError, match="two levels"):
        Consistency(torch.nn.Identity(), torch.nn.Identity(), [10.0], 0.1, levels=[1])
