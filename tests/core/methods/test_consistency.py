"""Consistency: fixed points on Gaussian modes, the √ρ law, ECT's neighbours, one dropout mask, and what breaks them."""

import contextlib
import math
from itertools import pairwise

import pytest
import torch

from scigen.core.denoise import Denoiser, loss_weight
from scigen.core.methods import consistency
from scigen.core.methods.base import Batch
from scigen.core.methods.consistency import (
    Consistency,
    consistency_loss,
    ect_levels,
    ect_neighbour,
    grid_levels,
    neighbours,
    teacher_step,
)
from scigen.core.noise import LogUniform, karras_sigmas
from scigen.core.oracle import Gaussian
from scigen.errors import UserError

F64 = torch.float64
LAMBDA = torch.tensor([0.02, 1.0, 30.0], dtype=F64)
ZERO = torch.zeros(1, dtype=F64)


def oracle(variance: torch.Tensor = LAMBDA) -> Gaussian:
    return Gaussian.dense(torch.zeros(len(variance), dtype=F64), torch.diag(variance), (len(variance),))


class Table(torch.nn.Module):
    """A linear student: one gain per level and mode."""

    sigma_data = 1.0

    def __init__(self, grid: torch.Tensor, modes: int = 3) -> None:
        super().__init__()
        self.grid = grid
        self.gain = torch.nn.Parameter(torch.full((len(grid), modes), 0.3, dtype=F64))

    def forward(self, x, sigma, condition=None):
        i = (self.grid[None] - sigma[:, None]).abs().argmin(1)
        return self.gain[i] * x


def fixed_point(grid, *pairs, loss=consistency_loss, variance=LAMBDA) -> torch.Tensor:
    """Where the loss leaves a linear student: Newton steps, exact per level, until targets have come all the way up.

    Every level and mode sees the rows (√λ, 0) and (0, 1) of (x₀, ε), which carry the expectation of a linear student.
    `pairs` are (weight, neighbours) of a weighted sum of losses.
    """
    n, modes = len(grid), len(variance)
    student = Table(grid, modes)
    levels = torch.arange(n).repeat(2)
    t, r = grid[levels], torch.cat([grid[1:], ZERO])[levels]
    x0 = torch.cat([variance.sqrt().expand(n, modes), torch.zeros(n, modes, dtype=F64)])
    noise = torch.cat([torch.zeros(n, modes, dtype=F64), torch.ones(n, modes, dtype=F64)])
    x_t = x0 + t[:, None] * noise
    found = [(w, f(x0, noise, x_t, t, r)) for w, f in pairs]
    for _ in range(n + 1):
        total = sum(w * loss(student, x_t, x_r, t, r, None, 1.0).sum() for w, x_r in found)
        (slope,) = torch.autograd.grad(total, student.gain, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), student.gain)
        student.gain.data -= (slope / curvature).detach()
    return student.gain.detach()


def by_teacher(heun: bool):
    return lambda x0, noise, x_t, t, r: teacher_step(oracle(), x_t, t, r, None, heun)


def tuning(x0, noise, x_t, t, r):
    return neighbours(oracle(), x0, noise, t, r, None, mixing=1.0)[1]


def gains(grid: torch.Tensor, heun: bool, variance: torch.Tensor = LAMBDA) -> torch.Tensor:
    """m_k of the solver's step from every level to the next, the last one to 0: (levels, modes)."""
    out = []
    for s, r in zip(grid, [*grid[1:], ZERO[0]], strict=True):
        a, b, h = s / (variance + s**2), r / (variance + r**2), r - s
        out.append(1 + 0.5 * h * (a + b * (1 + h * a)) if heun and r > 0 else 1 + h * a)
    return torch.stack(out)


def product(each: torch.Tensor) -> torch.Tensor:
    """Of the gains from every level down to 0."""
    return each.flip(0).cumprod(0).flip(0)


@pytest.mark.parametrize("levels", [2, 10, 40])
@pytest.mark.parametrize("heun", [True, False])
def test_distilled_fixed_point_is_the_product_of_the_solvers_gains(levels, heun):
    grid = karras_sigmas(levels, 0.02, 60)
    found = fixed_point(grid, (1.0, by_teacher(heun)))
    torch.testing.assert_close(found, product(gains(grid, heun)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("levels", [10, 40])
def test_tuned_fixed_point_is_eulers(levels):
    """argmin_a E(a x_t − b x_r)² = b (λ + r t)/(λ + t²): no teacher, the same gain as Euler's step."""
    grid = karras_sigmas(levels, 0.02, 60)
    torch.testing.assert_close(
        fixed_point(grid, (1.0, tuning)), product(gains(grid, heun=False)), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("heun", [True, False])
def test_mixed_fixed_point_mixes_the_gains_of_every_step(share, heun):
    """(1 − w) m_teacher + w m_Euler, since both losses have the curvature λ + t²."""
    grid = karras_sigmas(12, 0.02, 60)
    found = fixed_point(grid, (1 - share, by_teacher(heun)), (share, tuning))
    each = (1 - share) * gains(grid, heun) + share * gains(grid, heun=False)
    torch.testing.assert_close(found, product(each), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("rho", "expected"), [(7.0, [1.207, 1.106, 1.052]), (20.0, [1.103, 1.088, 1.069])], ids=["karras", "default"]
)
def test_rho_evens_out_the_bias_of_the_scales(rho, expected):
    """Variance ratio that Heun's 20 levels leave on [0.01, 300]: the numbers behind the default."""
    grid, variance = karras_sigmas(20, 0.01, 300, rho), torch.tensor([0.01, 1.0, 100.0], dtype=F64)
    step = lambda x0, noise, x_t, t, r: teacher_step(oracle(variance), x_t, t, r, None)  # noqa: E731
    ratio = fixed_point(grid, (1.0, step), variance=variance)[0] ** 2 * (variance + 9e4) / variance
    torch.testing.assert_close(ratio, torch.tensor(expected, dtype=F64), rtol=0, atol=6e-4)


def variance_ratio(grid: torch.Tensor, variance: torch.Tensor, loss=consistency_loss) -> torch.Tensor:
    """Variance of a student tuned on a grid over the truth's at the grid's first level."""
    found = fixed_point(grid, (1.0, tuning), loss=loss, variance=variance)
    return found[0] ** 2 * (variance + grid[0] ** 2) / variance


@pytest.mark.parametrize("rho", [0.75, 0.9])
def test_square_root_law(rho):
    """With r/t = ρ everywhere a tuned student has √ρ of the variance, in every mode."""
    grid = 1e4 * rho ** torch.arange(math.ceil(math.log(1e9) / -math.log(rho)), dtype=F64)
    ratio = variance_ratio(grid, LAMBDA)
    torch.testing.assert_close(ratio, torch.full((3,), rho**0.5, dtype=F64), rtol=2e-3, atol=0)


@pytest.mark.parametrize("level", [0.1, 0.3, 1.0, 3.0])
def test_renoising_neither_heals_nor_adds_to_the_square_root_law(level):
    """What a call at level s forgets of the error, s²/(λ + s²), is what Euler's steps below s make of it anew.

    So √ρ stays √ρ after seven more calls at one level, to 3 % of what is missing; an error in the gain of the same
    size at every level does not: it comes to (λ + s²)/s² times that of one call.
    """
    ratio = 0.9
    grid = 1e4 * ratio ** torch.arange(math.ceil(math.log(1e7) / -math.log(ratio)), dtype=F64)
    found = product(gains(grid, heun=False))
    place = int((grid / level).log().abs().argmin())
    s, exact = float(grid[place]), (LAMBDA / (LAMBDA + grid[place] ** 2)).sqrt()
    first = found[0] ** 2 * (LAMBDA + grid[0] ** 2)
    off = ratio**0.25 * exact  # √ρ of the variance at one call, by a gain that is wrong by the same factor everywhere
    v, w = first, ratio**0.5 * LAMBDA
    for _ in range(7):
        v, w = found[place] ** 2 * (v + s**2), off**2 * (w + s**2)
    assert float(((v - first) / (LAMBDA - first)).abs().max()) < 0.03
    kept = LAMBDA / (LAMBDA + s**2)
    grown = ((LAMBDA - w) / (LAMBDA - ratio**0.5 * LAMBDA))[kept > 0.5]
    assert (grown > 1.5).all()


def test_square_root_law_fails_when_the_neighbour_gets_fresh_noise():
    """A row of its own for the noise of x_r: the student can no longer tell it from the noise of x_t."""

    def fresh(x0, noise, x_t, t, r):
        return x0

    grid = 1e4 * 0.75 ** torch.arange(80, dtype=F64)
    ratio = fixed_point(grid, (1.0, fresh))[0] ** 2 * (LAMBDA + 1e8) / LAMBDA
    assert ((ratio - 0.75**0.5).abs() > 0.1).all()


def chain(ratio: float, first: float, last: float) -> torch.Tensor:
    """Levels of which each is ECT's neighbour of the one before, down to the last above 0."""
    levels = [torch.tensor([first], dtype=F64)]
    while (then := ect_neighbour(levels[-1], ratio, last)) > 0:
        levels.append(then)
    return torch.cat(levels)


@pytest.mark.parametrize("ratio", [0.75, 0.9])
def test_square_root_law_of_ects_neighbours_at_large_scales(ratio):
    variance = torch.tensor([1e5, 1e6, 1e7], dtype=F64)
    got = variance_ratio(chain(ratio, 1e8, 1e-2), variance)
    torch.testing.assert_close(got, torch.full((3,), ratio**0.5, dtype=F64), rtol=2e-3, atol=0)


@pytest.mark.parametrize("ratio", [0.9, 0.96])
def test_ects_wider_steps_at_low_noise_cost_small_scales_five_times_as_much(ratio):
    variance = torch.tensor([1e-8, 1e-7, 1e-6], dtype=F64)
    got = variance_ratio(chain(ratio, 10.0, 1e-8), variance)
    torch.testing.assert_close(got, torch.full((3,), (1 - 5 * (1 - ratio)) ** 0.5, dtype=F64), rtol=2e-3, atol=0)


@pytest.mark.parametrize(
    ("t", "ratio", "expected"),
    [
        (10.0, 0.5, 4.9981840),  # q = 2, stage 0
        (1.0, 0.5, 0.0),  # too far: the step leads to the data, and the training starts as denoising
        (1.0, 0.9, 0.6848469),
        (1.0, 0.999, 0.9968485),
        (0.01, 0.999, 0.0099502),
        (0.0021, 0.96, 0.0),  # below σ_min
        (80.0, 0.999, 79.92),
    ],
)
def test_ects_neighbour_has_the_papers_values(t, ratio, expected):
    got = float(ect_neighbour(torch.tensor([t], dtype=F64), ratio, 0.002))
    assert got == pytest.approx(expected, rel=1e-5)


def test_ects_levels_follow_the_law_and_lie_above_their_neighbours():
    law = LogUniform(0.01, 50.0)
    torch.manual_seed(0)
    t, r = ect_levels(400, torch.device("cpu"), law, 0.9)
    place = (t / 0.01).log() / math.log(5000)
    assert sorted((place * 400).floor().clamp(0, 399).tolist()) == list(range(400))
    torch.testing.assert_close(r, ect_neighbour(t, 0.9, 0.01), rtol=0, atol=0)
    assert (r < t).all() and (r == 0).any() and ((r == 0) | (r >= 0.01)).all()


def test_grid_levels_take_every_step_as_often():
    grid = torch.tensor([8.0, 4.0, 1.0, 0.5, 0.0], dtype=F64)
    t, r = grid_levels(40, torch.device("cpu"), grid)
    for now, then in pairwise(grid):
        assert int((t == now).sum()) == 10 and (r[t == now] == then).all()


def slope_at_truth(t: float, r: float, variance: float, kind: str) -> float:
    """d/da of the expected loss at level t, where the student has the exact gains √(λ/(λ + σ²))."""
    exact = lambda s: (variance / (variance + s**2)) ** 0.5  # noqa: E731
    a = torch.tensor(exact(t), dtype=F64, requires_grad=True)
    student = lambda x, s, c: torch.where(s[:, None] == t, a, exact(r)) * x  # noqa: E731
    teacher = Gaussian.dense(torch.zeros(1, dtype=F64), torch.tensor([[variance]], dtype=F64), (1,))
    x, noise = torch.tensor([[variance**0.5], [0.0]], dtype=F64), torch.tensor([[0.0], [1.0]], dtype=F64)
    now, then = torch.full((2,), t, dtype=F64), torch.full((2,), r, dtype=F64)
    x_t, x_r = neighbours(teacher, x, noise, now, then, None, heun=kind == "heun", mixing=float(kind == "tuning"))
    each = consistency_loss(student, x_t, x_r, now, then, None, 1.0)
    return float(torch.autograd.grad(each.sum(), a)[0])


@pytest.mark.parametrize("variance", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("kind", ["euler", "tuning"])
def test_gradient_at_the_truth_is_the_predicted_one(variance, kind):
    """2 λ(t) √λ (√(λ + t²) − (λ + r t)/√(λ + r²)), to leading order λ(t) λ^{3/2} (λ + t²)^{−3/2} (t − r)²."""
    t = 1.3
    weight = float(loss_weight(torch.tensor(t, dtype=F64), 1.0))
    for r in (0.5, 1.0, 1.2):
        exact = (variance + t * t) ** 0.5 - (variance + r * t) / (variance + r * r) ** 0.5
        assert slope_at_truth(t, r, variance, kind) == pytest.approx(2 * weight * variance**0.5 * exact, rel=1e-9)
    leading = weight * variance**1.5 * (variance + t * t) ** -1.5 * 1e-6
    assert slope_at_truth(t, t - 1e-3, variance, kind) == pytest.approx(leading, rel=5e-3)


@pytest.mark.parametrize(("kind", "order"), [("euler", 2), ("tuning", 2), ("heun", 3)])
def test_gradient_at_the_truth_vanishes_with_the_order_of_the_step(kind, order):
    wide, narrow = (abs(slope_at_truth(1.3, 1.3 - h, 1.0, kind)) for h in (2e-2, 1e-2))
    assert math.log2(wide / narrow) == pytest.approx(order, abs=0.06)


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


def states(n: int = 6, seed: int = 0):
    """Something to compare: x_t, x_r, t, r."""
    make = torch.Generator().manual_seed(seed)
    x_t, x_r = torch.randn(2, n, 2, 5, dtype=F64, generator=make)
    return x_t, x_r, torch.linspace(0.5, 4.0, n, dtype=F64), torch.linspace(0.2, 3.0, n, dtype=F64)


def shrink(x, sigma, condition=None):
    return x / (1 + sigma[:, None, None])


def test_pseudo_huber_is_between_the_squared_and_the_absolute_error():
    square = consistency_loss(shrink, *states(), None, 1.0)
    wide, narrow = (consistency_loss(shrink, *states(), None, 1.0, c) for c in (1e5, 1e-9))
    torch.testing.assert_close(wide * 2e5, square, rtol=1e-4, atol=0)
    torch.testing.assert_close(narrow, square.sqrt(), rtol=1e-8, atol=0)
    middle = consistency_loss(shrink, *states(), None, 1.0, 0.7)
    torch.testing.assert_close((middle + 0.7) ** 2 - 0.49, square, rtol=1e-12, atol=0)


@pytest.mark.parametrize("huber", [None, 0.3])
def test_distance_depends_neither_on_the_size_of_the_field_nor_on_the_units(huber):
    x_t, x_r, t, r = states()
    one = consistency_loss(shrink, x_t, x_r, t, r, None, 1.0, huber)
    larger = consistency_loss(shrink, x_t.repeat(1, 1, 3), x_r.repeat(1, 1, 3), t, r, None, 1.0, huber)
    torch.testing.assert_close(larger, one, rtol=1e-12, atol=0)
    scaled = lambda x, s, c: 7 * shrink(x / 7, s / 7)  # noqa: E731
    units = consistency_loss(scaled, 7 * x_t, 7 * x_r, 7 * t, 7 * r, None, 7.0, huber)
    torch.testing.assert_close(units, one, rtol=1e-12, atol=0)


class Dropping(torch.nn.Module):
    """A network whose output is a dropout mask times its input."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x, c_noise, condition):
        return self.dropout(x)


def dropped_loss() -> float:
    """Of a student in training mode whose neighbours are all but the same."""
    torch.manual_seed(0)
    student = Denoiser(Dropping()).train()
    x_t, _, t, _ = states()
    return float(consistency_loss(student, x_t, x_t * (1 - 1e-9), t, t * (1 - 1e-9), None, 1.0).max())


def test_both_sides_meet_the_same_dropout_mask(monkeypatch):
    assert dropped_loss() < 1e-15
    monkeypatch.setattr(consistency, "rewound", lambda device: contextlib.nullcontext())
    assert dropped_loss() > 1e-2


def test_target_draws_no_random_numbers_of_its_own():
    """What follows the loss meets the generator as one call of the student leaves it."""
    student, (x_t, x_r, t, r) = Denoiser(Dropping()).train(), states()
    torch.manual_seed(1)
    student(x_t, t)
    after = torch.rand(3)
    torch.manual_seed(1)
    consistency_loss(student, x_t, x_r, t, r, None, 1.0)
    torch.testing.assert_close(torch.rand(3), after, rtol=0, atol=0)


class Silent(torch.nn.Module):
    """D = 0, noting what it is given: along its ODE x is proportional to σ."""

    sigma_data = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def forward(self, x, sigma, condition=None):
        self.calls.append((x, sigma))
        return torch.zeros_like(x)


@pytest.mark.parametrize(
    ("mixing", "heun", "teacher_calls"), [(1.0, True, 0), (0.0, False, 1), (0.0, True, 2), (0.3, True, 2)]
)
def test_neighbours_lie_on_one_path_and_all_levels_are_met(mixing, heun, teacher_calls):
    torch.manual_seed(0)
    student, teacher = Silent(), Silent()
    method = Consistency(student, teacher, [10.0], 0.1, levels=[6], heun=heun, mixing=mixing)
    x = torch.randn(600, 1, 4, dtype=F64)
    method.loss("student", Batch(x, {}))
    (x_r, r), (x_t, t) = student.calls  # the target, then the prediction
    assert len(teacher.calls) == teacher_calls
    grid = torch.cat([karras_sigmas(6, 0.1, 10.0, 20.0), ZERO])
    place = (grid[None] - t[:, None]).abs().argmin(1)
    assert sorted(place.tolist()) == sorted(list(range(6)) * 100)
    last = place == 5  # its neighbour is 0, where the student is not asked
    torch.testing.assert_close(r[~last], grid[place + 1][~last], rtol=0, atol=0)
    ratio = (grid[place + 1] / t)[:, None, None]
    same, stepped = x + ratio * (x_t - x), ratio * x_t  # the same noise; the teacher's ODE
    by_data = ((x_r - same).abs() < 1e-9).all((1, 2))
    by_steps = ((x_r - stepped).abs() < 1e-9).all((1, 2))
    assert (by_data | by_steps)[~last].all()
    assert float(by_data[~last].double().mean()) == pytest.approx(mixing, abs=0.09 if 0 < mixing < 1 else 0.0)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_ends_of_the_mix_are_the_pure_ones(share):
    """A share of (almost) 0 or 1 draws its coins and gives what no coin gives."""
    x, noise = torch.randn(2, 8, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
    t, r = torch.linspace(1, 8, 8, dtype=F64), torch.linspace(0.5, 4, 8, dtype=F64)
    torch.manual_seed(0)
    mixed = neighbours(oracle(), x, noise, t, r, None, mixing=min(max(share, 1e-9), 1 - 1e-9))
    pure = neighbours(oracle(), x, noise, t, r, None, mixing=share)
    for a, b in zip(mixed, pure, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{"levels": [4, 8, 16]}, {"ratios": [0.5, 0.75, 0.9]}])
def test_stages_follow_the_progress_and_the_last_is_twice_as_long(options):
    method = Consistency(torch.nn.Identity(), torch.nn.Identity(), [10.0, 1.0], 0.1, **options)
    seen = []
    for progress in (0.0, 0.24, 0.26, 0.49, 0.51, 0.999):
        method.at(progress)
        seen.append(method.stage)
    assert seen == [0, 0, 1, 1, 2, 2]
    closest = []
    for draw in method.stages:
        t, r = draw(64, torch.device("cpu"))
        closest.append(float((r / t).max()))
    assert closest == sorted(closest) and closest[0] < closest[1] < closest[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": [1]}, "two levels"),
        ({"levels": []}, "two levels"),
        ({"mixing": 1.2}, "mixing"),
        ({"mixing": -0.1}, "mixing"),
        ({"huber": 0.0}, "huber"),
        ({"ratios": [0.5, 1.0]}, "between 0 and 1"),
        ({"ratios": [0.0]}, "between 0 and 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Consistency(torch.nn.Identity(), torch.nn.Identity(), [10.0], 0.1, **options)
