"""The ledger foretells spread: solver gains, the √ρ law, students that are trained by the methods' own losses."""

import numpy as np
import pytest
import torch

from scigen.core.ledger import (
    PARTS,
    account,
    chain,
    consistency_gain,
    denoiser_gain,
    flow_gain,
    prior_variance,
    regression_gain,
    sampled_variance,
    step_gain,
)
from scigen.core.methods.consistency import neighbours
from scigen.core.noise import karras_sigmas
from scigen.core.oracle import Gaussian
from scigen.core.sampling import SAMPLERS, Sampling
from scigen.core.trace import through, trace
from scigen.errors import UserError

MODES = np.array([0.01, 0.25, 1.0, 4.0, 100.0])


def diagonal(variance):
    shape = (1, len(variance))
    values = torch.from_numpy(np.asarray(variance, np.float64)).reshape(shape)
    return Gaussian(torch.zeros(shape, dtype=torch.float64), values, lambda x: x, lambda m: m)


@pytest.mark.parametrize(
    ("sampler", "steps", "table"),
    [
        ("euler", 18, [0.657, 0.716, 0.739, 0.760, 0.794]),
        ("heun", 18, [1.189, 1.114, 1.092, 1.073, 1.029]),
        ("dpm_solver", 40, [1.033, 1.021, 1.017, 1.013, 0.993]),
    ],
)
def test_a_solvers_variance_is_the_published_one(sampler, steps, table):
    """Discrete gains on Karras' grid in [0.002, 80], prior mismatch included."""
    sampling = Sampling.solver(sampler, steps, 0.002, 80.0)
    found = sampled_variance(sampling, denoiser_gain(MODES)) / MODES
    assert found == pytest.approx(table, abs=6e-4)


def test_an_exact_student_has_the_prior_mismatch_alone():
    one = Sampling("few_step", (80.0,), trained=True)
    assert np.allclose(sampled_variance(one, flow_gain(MODES)), prior_variance(MODES, 80.0), rtol=1e-12)
    two = Sampling("few_step", (80.0, 1.5), trained=True)  # fresh noise at 1.5 forgets the mismatch in part
    after = prior_variance(MODES, 80.0) + 1.5**2
    assert np.allclose(sampled_variance(two, flow_gain(MODES)), after * MODES / (MODES + 1.5**2), rtol=1e-12)


def test_fresh_noise_is_counted_as_a_random_run_has_it():
    sampling = Sampling("churn", tuple(float(s) for s in karras_sigmas(6, 0.05, 40.0, 7.0)))
    law, count = diagonal(MODES), 40_000
    generator = torch.Generator().manual_seed(0)
    x, *fresh = (
        torch.randn(count, 1, 5, generator=generator, dtype=torch.float64) for _ in range(1 + sampling.noises(6))
    )
    end = sampling.run(law, sampling.sigmas[0] * x, sampling.sigmas, None, fresh)
    assert np.allclose(end.var((0, 1)).numpy(), sampled_variance(sampling, denoiser_gain(MODES)), rtol=0.03)


@pytest.mark.parametrize("ratio", [0.9, 0.99])
def test_tuning_with_a_constant_ratio_leaves_the_root_of_it(ratio):
    levels = chain(80.0, lambda s: s * ratio if s > 1e-4 else 0.0)
    gain = consistency_gain(MODES, levels, heun=False)
    left = (gain(80.0) * 80.0) ** 2 / prior_variance(MODES, 80.0)
    assert left == pytest.approx(np.full(5, ratio**0.5), rel=2e-3)


def test_a_step_of_the_teacher_mixed_with_data_has_the_mixed_gain():
    euler, heun = (step_gain(MODES, 3.0, 2.7, h) for h in (False, True))
    assert np.allclose(step_gain(MODES, 3.0, 2.7, True, 0.3), 0.7 * heun + 0.3 * euler)
    assert np.allclose(euler, (MODES + 8.1) / (MODES + 9))
    exact = np.sqrt((MODES + 7.29) / (MODES + 9))
    assert (euler < exact).all() and (abs(heun - exact) < abs(euler - exact)).all()


@pytest.mark.parametrize(("heun", "mixing"), [(True, 0.0), (False, 0.0), (True, 1.0), (True, 0.5)])
def test_a_linear_consistency_student_has_the_spread_that_is_foretold(heun, mixing):
    """Least squares on the method's own neighbours, level by level upwards; sampled with fresh noise at two levels."""
    torch.manual_seed(0)
    law, count = diagonal(MODES), 60_000
    levels = [float(s) for s in karras_sigmas(12, 0.05, 80.0, 7.0)]
    student: dict[float, torch.Tensor] = {}
    for now, then in reversed(list(zip(levels, [*levels[1:], 0.0], strict=True))):
        x, noise = law.draw(count), torch.randn(count, 1, 5, dtype=torch.float64)
        t, r = (torch.full((count,), v, dtype=torch.float64) for v in (now, then))
        x_t, x_r = neighbours(law, x, noise, t, r, None, heun, mixing)
        goal = x_r if then == 0 else student[then] * x_r
        student[now] = (x_t * goal).mean((0, 1)) / x_t.square().mean((0, 1))
    sampling = Sampling("few_step", (levels[0], levels[4]), trained=True)
    start = torch.randn(2, count, 1, 5, dtype=torch.float64)
    end = sampling.run(lambda x, s, c: student[float(s[0])] * x, levels[0] * start[0], sampling.sigmas, None, start[1:])
    told = sampled_variance(sampling, consistency_gain(MODES, levels, heun, mixing))
    assert np.allclose(end.std((0, 1)).numpy(), np.sqrt(told), rtol=0.03)
    assert not np.allclose(end.std((0, 1)).numpy(), np.sqrt(MODES), rtol=0.03)  # an exact one it is not


@pytest.mark.parametrize("solver", ["euler", "dpm_solver", "heun"])
def test_a_linear_regression_student_has_the_spread_that_is_foretold(solver):
    """Least squares on pairs of a coarse solver, from two levels of its path."""
    law, count = diagonal(MODES), 60_000
    teacher = Sampling.solver(solver, 7, 0.05, 80.0)
    levels = (80.0, 1.5)
    generator = torch.Generator().manual_seed(1)
    x = 80.0 * torch.randn(count, 1, 5, generator=generator, dtype=torch.float64)
    grid = through(teacher.sigmas, levels[1:])
    end, states = trace(SAMPLERS[solver].run, law, x, grid, None, levels[1:])
    fit = {
        level: (state * end).mean((0, 1)) / state.square().mean((0, 1))
        for level, state in zip(levels, [x, *states], strict=True)
    }
    sampling = Sampling("few_step", levels, trained=True)
    start = torch.randn(2, count, 1, 5, generator=generator, dtype=torch.float64)
    made = sampling.run(lambda x, s, c: fit[float(s[0])] * x, 80.0 * start[0], levels, None, start[1:])
    told = sampled_variance(sampling, regression_gain(teacher, MODES, levels))
    assert np.allclose(made.std((0, 1)).numpy(), np.sqrt(told), rtol=0.03)
    assert not np.allclose(made.std((0, 1)).numpy(), np.sqrt(MODES), rtol=0.03)


def test_the_factors_multiply_to_what_was_measured():
    teacher, rng = Sampling.solver("dpm_solver", 10, 0.05, 40.0), np.random.default_rng(0)
    law = sampled_variance(Sampling("few_step", (40.0,), trained=True), regression_gain(teacher, MODES, (40.0,)))
    measured = {f"{who}_measured": MODES * rng.uniform(0.5, 1.5, 5) for who in ("teacher", "student", "reduced")}
    for solver in (True, False):
        found = account(np.arange(1, 6), lambda v: v, MODES, teacher, law, solver=solver, **measured)
        assert tuple(found.factors) == PARTS
        assert np.allclose(found.truth * np.prod(list(found.factors.values()), 0), measured["reduced_measured"])
        total = found.total
        assert np.prod([total[p] for p in PARTS]) == pytest.approx(total["measured"])


def test_a_flow_map_has_no_gain_of_one_level():
    sampling = Sampling("flow_map", (40.0,), trained=True, sigma_min=0.05)
    with pytest.raises(UserError, match="two times"):
        sampled_variance(sampling, flow_gain(MODES))
