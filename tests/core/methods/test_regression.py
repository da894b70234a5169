"""Regression on end points, from noise and along the path: the exact map is its optimum, and the spread is kept."""

import pytest
import torch

from scigen.core.denoise import DenoiserModule, loss_weight, preconditioning
from scigen.core.methods.base import Batch
from scigen.core.methods.regression import Regression, level_weights, regression_loss
from scigen.core.noise import karras_sigmas
from scigen.core.oracle import Gaussian, RotatedProduct
from scigen.core.sample import dpm_solver, euler, few_step, heun
from scigen.core.trace import through, trace
from scigen.errors import UserError

F64 = torch.float64
LAMBDA = torch.tensor([0.02, 1.0, 30.0], dtype=F64)
LEVELS = (40.0, 3.0, 0.7)


def law() -> RotatedProduct:
    q = torch.linalg.qr(torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(0)))[0]
    w = torch.tensor([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]], dtype=F64)
    return RotatedProduct(
        q, w, torch.tensor([[-1.0, 1.0], [0.0, 2.0], [0.0, 3.0]], dtype=F64), torch.full((3, 2), 0.3, dtype=F64)
    )


def gaussian() -> Gaussian:
    return Gaussian.dense(torch.zeros(3, dtype=F64), torch.diag(LAMBDA), (3,))


def path(oracle, noise: torch.Tensor, levels=LEVELS) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact states below the first level, (B, K − 1, …), and end points."""
    at = lambda s: torch.full((len(noise),), s, dtype=F64)  # noqa: E731
    states = [oracle.flow_map(levels[0] * noise, at(levels[0]), at(s)) for s in (*levels[1:], 0.0)]
    return torch.stack(states[:-1], 1), states[-1]


class Table(torch.nn.Module):
    """A linear student: one gain per level and mode."""

    sigma_data = 1.0

    def __init__(self, levels) -> None:
        super().__init__()
        self.levels = torch.tensor(levels, dtype=F64)
        self.gain = torch.nn.Parameter(torch.full((len(levels), 3), 0.3, dtype=F64))

    def forward(self, x, sigma, condition=None):
        return self.gain[(self.levels[None] - sigma[:, None]).abs().argmin(1)] * x


def newton(method: Regression, batch: Batch) -> torch.Tensor:
    """Gains where the loss leaves a linear student: it is quadratic in each of them, so one step of Newton's."""
    torch.manual_seed(5)
    loss = method.loss("student", batch)["loss"]
    (slope,) = torch.autograd.grad(loss, method.student.gain, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), method.student.gain)
    return (method.student.gain - slope / curvature).detach()


def draw(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))


def one(n: int) -> torch.Tensor:
    return torch.ones(n, dtype=F64)


@pytest.mark.parametrize("levels", [LEVELS[:1], LEVELS[:2], LEVELS])
def test_linear_students_gain_at_every_level_is_the_flow_maps(levels):
    noise = draw(60)
    states, end = path(gaussian(), noise, levels) if len(levels) > 1 else (None, path(gaussian(), noise)[1])
    found = newton(Regression(Table(levels), torch.nn.Identity(), levels), Batch(end, {}, noise, states))
    exact = (LAMBDA / (LAMBDA + torch.tensor(levels, dtype=F64)[:, None] ** 2)).sqrt()
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=0)


def product_of_gains(solver, grid: list[float]) -> torch.Tensor:
    """Gain of the solver from every level of the grid down to 0, mode by mode: (levels, modes).

    One-step solvers: Π m_k. DPM-Solver++(2M) remembers, so x_{k+1} is followed along with the D before it.
    """
    d = lambda s: LAMBDA / (LAMBDA + s**2)  # noqa: E731
    x, states, before = torch.ones(3, dtype=F64), [], None
    for k, (s, r) in enumerate(zip(grid, [*grid[1:], 0.0], strict=True)):
        states.append(x)
        rate = s / (LAMBDA + s**2)
        if solver is euler:
            x = x * (1 + (r - s) * rate)
        elif solver is heun:
            ahead = r / (LAMBDA + r**2) * (1 + (r - s) * rate) if r else rate
            x = x * (1 + (r - s) * 0.5 * (rate + ahead))
        else:
            now = d(s) * x
            guess = now
            if before is not None and r:
                h, h_before = torch.tensor([s / r, grid[k - 1] / s], dtype=F64).log()
                guess = now + 0.5 * h / h_before * (now - before)
            x, before = r / s * x + (1 - r / s) * guess, now
    return x / torch.stack(states)


@pytest.mark.parametrize("solver", [euler, heun, dpm_solver], ids=lambda f: f.__name__)
@pytest.mark.parametrize("steps", [4, 18])
def test_with_a_solvers_pairs_the_gain_at_every_level_is_the_product_of_its_gains(solver, steps):
    noise = draw(60)
    grid = through(karras_sigmas(steps, 0.02, LEVELS[0]).tolist(), LEVELS[1:])
    end, states = trace(solver, gaussian(), LEVELS[0] * noise, grid, None, LEVELS[1:])
    method = Regression(Table(LEVELS), torch.nn.Identity(), LEVELS)
    found = newton(method, Batch(end, {}, noise, torch.stack(states, 1)))
    expected = product_of_gains(solver, grid)[[min(range(len(grid)), key=lambda k: abs(grid[k] - s)) for s in LEVELS]]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_the_gain_is_another_when_states_are_of_data_with_fresh_noise():
    """x₀ + σ ε has the right law too, but is not tied to the end point: the student regresses to the mean."""
    noise = draw(20000)
    _, end = path(gaussian(), noise)
    fresh = end[:, None] + torch.tensor(LEVELS[1:], dtype=F64)[:, None] * draw(40000, 1).reshape(-1, 2, 3)
    found = newton(Regression(Table(LEVELS), torch.nn.Identity(), LEVELS), Batch(end, {}, noise, fresh))
    mean = (LAMBDA / (LAMBDA + torch.tensor(LEVELS, dtype=F64)[:, None] ** 2))[1:]
    torch.testing.assert_close(found[1:], mean, rtol=0.12, atol=0)
    assert (found[1:, :2] / mean[:, :2].sqrt() < 0.9).all()


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_states_have_the_law_of_renoised_data(level, mode):
    """So the student meets in sampling, where noise is fresh, what it met in training: variance λ + σ²."""
    noise = draw(20000, 2)
    states, _ = path(gaussian(), noise)
    exact_start = (LAMBDA + LEVELS[0] ** 2) / LEVELS[0] ** 2  # noise alone lacks λ at σ_max
    variance = states[:, level - 1, mode].var() * exact_start[mode]
    assert float(variance / (LAMBDA[mode] + LEVELS[level] ** 2)) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_the_landed_student_sampled_with_fresh_noise_has_the_laws_variance(calls):
    """few_step with the gains √(λ/(λ+σ²)): the variance of every mode is that of the law, but for the start."""
    gain = (LAMBDA / (LAMBDA + torch.tensor(LEVELS, dtype=F64)[:, None] ** 2)).sqrt()
    student = Table(LEVELS)
    student.gain.data.copy_(gain)
    with torch.no_grad():
        out = few_step(
            student, LEVELS[0] * draw(40000, 3), LEVELS[:calls], None, [draw(40000, 4 + i) for i in range(calls - 1)]
        )
    start = LEVELS[0] ** 2 / (LAMBDA + LEVELS[0] ** 2)
    expected = LAMBDA * start
    for s in LEVELS[1:calls]:
        expected = LAMBDA * (expected + s**2) / (LAMBDA + s**2)
    torch.testing.assert_close(out.var(0), expected, rtol=0.03, atol=0)


def test_the_exact_map_costs_nothing_from_any_level_and_the_mean_costs_what_is_unknown():
    oracle, noise = law(), draw(300, 1)
    states, end = path(oracle, noise)
    for sigma, x in zip(LEVELS, [LEVELS[0] * noise, *states.unbind(1)], strict=True):
        at = torch.full((300,), sigma, dtype=F64)
        exact = lambda x, s, c: oracle.flow_map(x, s, torch.zeros_like(s))  # noqa: E731
        assert float(regression_loss(exact, x, end, at, None, one(300)).mean()) < 1e-12
        mean = lambda x, s, c: oracle(x, s)  # noqa: E731  what a teacher gives in one step
        cost = float(regression_loss(mean, x, end, at, None, one(300)).mean())
        assert cost > 0.01 and cost < 1.05 * float(end.var(0).mean())


def test_statistics_are_asked_for_as_such():
    """The weight times the squared error of a statistic is added: of an offset d of every value, K d² for their K sums.

    For a denoiser that names none nothing is; and what costs nothing without still does.
    """

    class Off(DenoiserModule):
        sigma_data = 1.0

        def __init__(self, offset: float, names: bool) -> None:
            super().__init__()
            self.offset, self.names = offset, names

        def forward(self, x, sigma, condition=None):
            return law().flow_map(x, sigma, torch.zeros_like(sigma)) + self.offset

        def statistics(self, x, condition=None):
            return torch.stack([x.sum(1), -x.sum(1)], 1) if self.names else None

    noise = draw(20, 1)
    states, end = path(law(), noise)
    for offset, names, expected in [(0.0, True, 0), (0.1, True, 2 * 7 * 0.3**2), (0.1, False, 0)]:
        losses = {}
        for weight in (0.0, 7.0):
            torch.manual_seed(0)
            method = Regression(Off(offset, names), torch.nn.Identity(), LEVELS, statistics=weight)
            losses[weight] = float(method.loss("student", Batch(end, {}, noise, states))["loss"])
        assert losses[0.0] == pytest.approx(0, abs=1e-9) if not offset else losses[0.0] > 0.009
        assert losses[7.0] - losses[0.0] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    with pytest.raises(UserError, match=r"method.statistics=-1"):
        Regression(Off(0.0, True), torch.nn.Identity(), LEVELS, statistics=-1)


@pytest.mark.parametrize("levels", [LEVELS[:1], LEVELS[:2], LEVELS])
@pytest.mark.parametrize("unit", [0.01, 7.0])
def test_loss_does_not_depend_on_the_units_of_the_data(levels, unit):
    """Student, pairs, levels and σ_data in other units: the same loss."""

    class Shrink(torch.nn.Module):
        def __init__(self, sigma_data) -> None:
            super().__init__()
            self.sigma_data = sigma_data

        def forward(self, x, sigma, condition=None):
            return x * preconditioning(sigma, self.sigma_data)[0][:, None]

    noise, end = draw(12), draw(12, 1)
    states = draw(12 * (len(levels) - 1), 2).reshape(12, -1, 3)
    losses = []
    for u in (1.0, unit):
        method = Regression(Shrink(u), torch.nn.Identity(), [u * s for s in levels])
        torch.manual_seed(0)
        losses.append(method.loss("student", Batch(u * end, {}, noise, u * states))["loss"])
    torch.testing.assert_close(*losses, rtol=1e-9, atol=0)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 2.0])
def test_one_level_weighs_one_over_the_datas_variance(sigma_data):
    assert float(level_weights(torch.tensor([80.0]), sigma_data)) == pytest.approx(1 / sigma_data**2, rel=1e-12)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 3.0])
@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_weights_make_an_error_of_the_networks_output_cost_the_same_at_every_level(sigma, sigma_data):
    levels = torch.tensor([80.0, sigma], dtype=F64)
    c_out = preconditioning(levels, sigma_data)[1]
    costs = level_weights(levels, sigma_data) * c_out**2
    assert float(costs[1] / costs[0]) == pytest.approx(1, rel=1e-12)
    assert float(level_weights(levels, sigma_data)[1] / loss_weight(levels, sigma_data)[1]) < 1


class Silent(torch.nn.Module):
    """D = 0, noting what it is given."""

    sigma_data = 1.0

    def forward(self, x, sigma, condition=None):
        self.x, self.sigma = x, sigma
        return torch.zeros_like(x)


@pytest.mark.parametrize("n", [9, 60])
def test_every_level_is_met_equally_often_and_each_pair_at_its_own_state(n):
    """Stratified; what the student is given at a level is that pair's state there, σ_max ε at the first."""
    method = Regression(Silent(), torch.nn.Identity(), LEVELS)
    noise = torch.arange(float(n), dtype=F64)[:, None]
    states = torch.stack([noise + 1000, noise + 2000], 1)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        method.loss("student", Batch(noise, {}, noise, states))
        place = (torch.tensor(LEVELS, dtype=F64)[None] - method.student.sigma[:, None]).abs().argmin(1)
        assert place.bincount(minlength=3).tolist() == [n // 3] * 3
        expected = torch.where(place[:, None] == 0, LEVELS[0] * noise, noise + 1000 * place[:, None])
        torch.testing.assert_close(method.student.x, expected, rtol=0, atol=0)
        seen |= {(int(i), int(p)) for i, p in enumerate(place)}
    assert len(seen) == 3 * n  # every pair at every level


def test_one_level_draws_nothing_and_is_the_mean_squared_distance():
    method = Regression(Silent(), torch.nn.Identity(), [10.0])
    method.student.sigma_data = 0.5
    state = torch.get_rng_state()
    end = draw(8)
    loss = method.loss("student", Batch(end, {}, draw(8, 1)))["loss"]
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(loss, end.square().mean() / 0.25)


@pytest.mark.parametrize("inner", [None, 1, 3])
def test_pairs_of_other_levels_are_refused(inner):
    method = Regression(Silent(), torch.nn.Identity(), LEVELS)
    states = None if inner is None else torch.zeros(2, inner, 3)
    with pytest.raises(UserError, match="2 levels below the first"):
        method.loss("student", Batch(torch.zeros(2, 3), {}, torch.zeros(2, 3), states))


def test_states_that_a_student_of_one_level_does_not_know_are_refused():
    with pytest.raises(UserError, match="0 levels below the first"):
        Regression(Silent(), torch.nn.Identity(), [10.0]).loss(
            "student", Batch(torch.zeros(2, 3), {}, torch.zeros(2, 3), torch.zeros(2, 1, 3))
        )


def test_data_without_noise_and_no_pairs_are_refused():
    method = Regression(Silent(), torch.nn.Identity(), [10.0])
    with pytest.raises(UserError, match="not on data"):
        method.loss("student", Batch(torch.zeros(1, 1), {}))
    with pytest.raises(UserError, match="pairs=0"):
        Regression(Silent(), torch.nn.Identity(), [10.0], pairs=0)
