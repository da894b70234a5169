"""States on a solver's way: those of the ODE, at the levels asked for, without changing the end."""

from itertools import pairwise

import pytest
import torch

from scigen.core import sample
from scigen.core.noise import karras_sigmas
from scigen.core.oracle import Gaussian, RotatedProduct
from scigen.core.sample import Counted, dpm_solver, euler, heun, heun_step
from scigen.core.trace import through, trace
from scigen.errors import UserError

F64 = torch.float64
LAMBDA = torch.tensor([0.05, 1.0, 9.0], dtype=F64)
SOLVERS = [f for f in (getattr(sample, n, None) for n in ("euler", "heun", "dpm_solver", "unipc")) if f]


def gaussian() -> Gaussian:
    return Gaussian.dense(torch.zeros(3, dtype=F64), torch.diag(LAMBDA), (3,))


def noise(n: int = 8) -> torch.Tensor:
    return torch.randn(n, 3, dtype=F64, generator=torch.Generator().manual_seed(0))


def grid(steps: int, levels=()) -> list[float]:
    return through(karras_sigmas(steps, 0.02, 40.0).tolist(), levels)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda f: f.__name__)
def test_watching_changes_neither_the_end_nor_the_number_of_calls(solver):
    levels = (3.0, 0.5)
    watched, plain = Counted(gaussian()), Counted(gaussian())
    end, _ = trace(solver, watched, 40 * noise(), grid(10, levels), None, levels)
    expected = solver(plain, 40 * noise(), grid(10, levels), None)
    assert torch.equal(end, expected) and watched.nfe == plain.nfe


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("level", [20.0, 3.0, 0.5, 0.1])
def test_states_come_to_the_exact_flow_map(solver, level):
    """Of first order for Euler, of second for the others: four times the steps, a quarter or a sixteenth the error."""
    errors = []
    for steps in (40, 160):
        x = 40 * noise()
        _, (state,) = trace(solver, gaussian(), x, grid(steps, [level]), None, [level])
        exact = gaussian().flow_map(x, torch.full((8,), 40.0, dtype=F64), torch.full((8,), level, dtype=F64))
        errors.append(float((state - exact).norm() / exact.norm()))
    assert errors[1] < errors[0] / (3 if solver is euler else 8)
    assert errors[1] < (0.06 if solver is euler else 2e-3)


def test_states_of_a_law_that_is_not_gaussian_come_to_its_quantile_map():
    q = torch.linalg.qr(torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(1)))[0]
    row = lambda *v: torch.tensor([v] * 3, dtype=F64)  # noqa: E731
    law = RotatedProduct(q, row(0.3, 0.7), row(-1.0, 1.0), row(0.3, 0.3))
    levels = (3.0, 0.5)
    x = 40 * noise()
    end, states = trace(dpm_solver, law, x, grid(200, levels), None, levels)
    for sigma, state in zip((*levels, 0.0), (*states, end), strict=True):
        exact = law.flow_map(x, torch.full((8,), 40.0, dtype=F64), torch.full((8,), sigma, dtype=F64))
        torch.testing.assert_close(state, exact, rtol=0, atol=5e-3)


def test_heuns_state_is_not_its_prediction():
    """The first time that Heun asks at a level it shows Euler's prediction; taking that one would be first order."""
    steps = grid(6, [3.0])
    x, shown = 40 * noise(), []
    here = steps.index(3.0)
    for now, then in pairwise(steps[: here + 1]):
        shown = [x + (then - now) * (x - gaussian()(x, torch.full((8,), now, dtype=F64))) / now]
        x = heun_step(gaussian(), x, now, then, None)
    _, (state,) = trace(heun, gaussian(), 40 * noise(), steps, None, [3.0])
    torch.testing.assert_close(state, x, rtol=1e-12, atol=0)
    assert float((shown[0] - state).abs().max()) > 0.01


@pytest.mark.parametrize("solver", [euler, dpm_solver], ids=lambda f: f.__name__)
def test_states_come_in_the_order_of_the_levels_and_the_first_is_the_start(solver):
    x = 40 * noise()
    levels = (0.5, 40.0, 3.0)
    _, states = trace(solver, gaussian(), x, grid(10, levels), None, levels)
    assert torch.equal(states[1], x)
    sizes = [float(s.norm()) for s in states]
    assert sizes[0] < sizes[2] < sizes[1]


def test_the_condition_reaches_the_denoiser():
    law = Gaussian.dense(lambda c: c["mean"], torch.diag(LAMBDA), (3,))
    condition = {"mean": torch.full((8, 3), 5.0, dtype=F64)}
    start = 40 * noise()
    end, (state,) = trace(dpm_solver, law, start, grid(60, [0.1]), condition, [0.1])
    exact = law.flow_map(start, *(torch.full((8,), s, dtype=F64) for s in (40.0, 0.1)), condition)
    torch.testing.assert_close(state, exact, rtol=0, atol=0.02)
    assert float((end - state).abs().max()) < 1


def test_a_level_that_the_solver_never_comes_to_is_a_defect():
    with pytest.raises(ValueError, match="never came"):
        trace(euler, gaussian(), 40 * noise(), grid(5), None, [3.0])


def test_the_grid_goes_through_the_levels_and_keeps_its_ends_and_the_rest():
    plain = grid(8)
    with_levels = grid(8, (3.0, 0.5))
    assert set(with_levels) == {*plain, 3.0, 0.5}
    assert with_levels == sorted(with_levels, reverse=True)
    assert (with_levels[0], with_levels[-1]) == (plain[0], plain[-1])
    assert grid(8, ()) == plain


def test_levels_that_are_on_the_grid_already_cost_no_call():
    """Also where they are a rounding away from it: a step of no length would divide by zero."""
    plain = grid(8)
    levels = [plain[2] * (1 + 1e-9), plain[5]]
    found = grid(8, levels)
    assert len(found) == 8 and set(levels) <= set(found)
    assert all(b < a for a, b in pairwise(found))


@pytest.mark.parametrize("level", [41.0, 0.01])
def test_levels_outside_the_grid_are_refused(level):
    with pytest.raises(UserError, match="outside the teacher's grid"):
        grid(8, [level])
