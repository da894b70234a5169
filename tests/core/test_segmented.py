"""Segmented: teleporting, stitching and late starts are exact where theory says so."""

import math
from itertools import pairwise

import pytest
import torch

from scigen.core.noise import karras_sigmas
from scigen.core.oracle import Gaussian, RotatedProduct
from scigen.core.sample import Counted, dpm_solver, euler, few_step, flow_map, heun, ipndm, unipc
from scigen.core.segmented import Segmented
from scigen.errors import UserError

F64 = torch.float64
LAMBDA = torch.tensor([0.01, 0.25, 1.0, 4.0, 100.0], dtype=F64)
SOLVERS = [euler, heun, dpm_solver, unipc, ipndm]
ZERO = torch.zeros(1, dtype=F64)


def gaussian(variance=LAMBDA) -> Gaussian:
    return Gaussian.dense(torch.zeros(5, dtype=F64), torch.diag(variance), (5,))


def bimodal() -> tuple[RotatedProduct, Gaussian]:
    """A law that is not Gaussian, and the Gaussian with its mean and covariance."""
    q = torch.linalg.qr(torch.randn(2, 2, dtype=F64, generator=torch.Generator().manual_seed(0)))[0]
    w, m, s = (
        torch.tensor(v, dtype=F64)
        for v in ([[0.5, 0.5], [0.3, 0.7]], [[-1.0, 1.0], [-0.7, 0.3]], [[0.3, 0.3], [0.6, 0.4]])
    )
    mean = (w * m).sum(1)
    variance = (w * (s**2 + m**2)).sum(1) - mean**2
    return RotatedProduct(q, w, m, s), Gaussian.dense(q @ mean, q @ torch.diag(variance) @ q.mT, (2,))


# ------------------------------------------------------------------------------------------------------- teleporting


@pytest.mark.parametrize("level", [0.1, 1.0, 5.0, 40.0])
def test_teleporting_costs_nothing_on_a_gaussian(level):
    x = 80 * torch.randn(4, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
    exact = gaussian().flow_map(x, torch.tensor([80.0]), ZERO)
    whole = Segmented([(80.0, level, gaussian()), (level, 0.0, gaussian())])
    torch.testing.assert_close(whole.sample(x, [80.0]), exact, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("solver", SOLVERS)
def test_after_the_jump_the_solver_walks_the_rest(solver):
    """The gain is that of the jump times that of the solver on the levels below, σ_s put first."""
    x = torch.full((1, 5), 80.0, dtype=F64)
    grid = karras_sigmas(18, 0.002, 80.0).tolist()
    rest = [5.0, *(s for s in grid if s < 5.0)]
    walked = Counted(gaussian())
    out = Segmented([(80.0, 5.0, gaussian()), (5.0, 0.0, walked)]).sample(x, grid, None, solver)
    jump = ((LAMBDA + 25) / (LAMBDA + 6400)).sqrt()
    gain = solver(gaussian(), torch.ones(1, 5, dtype=F64), rest)
    torch.testing.assert_close(out, x * jump * gain, rtol=1e-12, atol=1e-14)
    assert walked.nfe == (2 * len(rest) - 1 if solver is heun else len(rest))
    below = Segmented([(80.0, 5.0, gaussian()), (5.0, 0.0, walked)]).sample(x, rest[1:], None, solver)
    assert torch.equal(below, out)  # levels above σ_s play no part


def test_teleported_error_falls_with_the_level_where_the_law_is_not_gaussian():
    law, fitted = bimodal()
    x = 80 * torch.randn(200, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    exact = law.flow_map(x, torch.full((200,), 80.0, dtype=F64), torch.zeros(200, dtype=F64))

    def error(level):
        out = Segmented([(80.0, level, fitted), (level, 0.0, law)]).sample(x, [80.0])
        return float((out - exact).square().mean().sqrt())

    errors = [error(level) for level in (0.3, 0.6, 1.2, 2.5, 5.0, 10.0, 40.0)]
    assert all(a > 1.3 * b for a, b in pairwise(errors))
    assert errors[0] > 0.15 and errors[-1] < 2e-3


def test_teleporting_makes_heun_less_over_dispersed_at_equal_calls():
    """18 levels: 7 to 19 % of variance too much from 80 down, 2 to 6 % from σ_s = 5 down."""
    x = torch.full((1, 5), 80.0, dtype=F64)
    plain = heun(gaussian(), x, karras_sigmas(18, 0.002, 80.0).tolist())
    walked = Counted(gaussian())
    teleport = Segmented([(80.0, 5.0, gaussian()), (5.0, 0.0, walked)])
    jumped = teleport.sample(x, karras_sigmas(18, 0.002, 5.0).tolist(), None, heun)
    before, after = ((v[0] ** 2 / LAMBDA - 1)[:4] for v in (plain, jumped))
    assert walked.nfe == 35 and (after < 0.5 * before).all()
    assert (before > 0.07).all() and (before < 0.19).all() and (after < 0.065).all() and (after > 0).all()


@pytest.mark.parametrize(("high", "kept"), [(80.0, 6400 / 6500), (1e6, 1.0)])
def test_a_jump_from_far_above_leaves_out_the_mismatch_of_the_prior(high, kept):
    """Variance of λ = 100 after sampling exactly from N(0, σ_hi²)."""
    whole = Segmented([(high, 5.0, gaussian()), (5.0, 0.0, gaussian())])
    out = whole.sample(torch.full((1, 5), high, dtype=F64), [high])
    assert float(out[0, -1] ** 2 / 100) == pytest.approx(kept, rel=1e-8)


# --------------------------------------------------------------------------------------------------------- stitching


@pytest.mark.parametrize("steps", [2, 8, 18])
def test_a_stitched_pair_has_the_product_of_both_parts_gains(steps):
    """Euler's factor with the variance that each model believes in, 2 λ above σ = 1.5 and λ below."""
    grid = karras_sigmas(steps, 0.02, 80.0).tolist()
    small, large = Counted(gaussian(2 * LAMBDA)), Counted(gaussian())
    out = euler(Segmented([(80.0, 1.5, small), (1.5, 0.0, large)]), torch.ones(1, 5, dtype=F64), grid)
    gain = torch.ones(5, dtype=F64)
    for s, r in zip(grid, [*grid[1:], 0.0], strict=True):
        v = 2 * LAMBDA if s > 1.5 else LAMBDA
        gain = gain * (v + s * r) / (v + s**2)
    torch.testing.assert_close(out[0], gain, rtol=1e-12, atol=1e-15)
    assert small.nfe == sum(s > 1.5 for s in grid) and small.nfe + large.nfe == steps


def test_the_error_of_a_stitch_is_the_small_models_above_the_level():
    """Exact parts: √((2λ + σ*²)/(2λ + σ²)) above σ* and √(λ/(λ + σ*²)) below."""
    grid = torch.logspace(math.log10(80), -3, 400, dtype=F64).tolist()
    for level in (0.5, 5.0, 40.0):
        pair = Segmented([(80.0, level, Counted(gaussian(2 * LAMBDA))), (level, 0.0, gaussian())])
        out = pair.sample(torch.full((1, 5), 80.0, dtype=F64), grid, None, unipc)[0]
        small = ((2 * LAMBDA + level**2) / (2 * LAMBDA + 6400)).sqrt()
        torch.testing.assert_close(out / 80, small * (LAMBDA / (LAMBDA + level**2)).sqrt(), rtol=2e-3, atol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_model_in_three_segments_is_that_model(solver):
    x = 80 * torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    grid, model = karras_sigmas(10, 0.02, 80.0).tolist(), Counted(bimodal()[0])
    three = Segmented([(80.0, 7.0, model), (7.0, 0.3, model), (0.3, 0.0, model)])
    assert torch.equal(solver(three, x, grid), solver(model, x, grid))
    assert torch.equal(three.sample(x, grid, None, solver), solver(model, x, grid))


def named(value):
    return lambda x, sigma, condition=None, **to: torch.full_like(x, value)


def test_each_level_belongs_to_one_segment():
    """A segment has its upper end, where it is walked down from, and not its lower one."""
    three = Segmented([(80.0, 5.0, named(1.0)), (5.0, 0.5, named(2.0)), (0.5, 0.0, named(3.0))])
    levels = torch.tensor([113.0, 80.0, 5.001, 5.0, 0.6, 0.5, 0.1, 0.0], dtype=F64)
    expected = torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0])
    assert torch.equal(three(torch.zeros(8, 4), levels)[:, 0], expected)
    assert [float(three(torch.zeros(1, 4), s)[0, 0]) for s in levels] == expected.tolist()


def test_a_batch_of_mixed_levels_is_answered_row_by_row_with_its_own_condition():
    def first(x, sigma, condition):
        return x * condition["scalars"] + sigma[:, None]

    def second(x, sigma, condition):
        return x - condition["scalars"] * sigma[:, None]

    generator = torch.Generator().manual_seed(0)
    x, sigma = torch.randn(6, 3, dtype=F64, generator=generator), torch.tensor([9.0, 0.1, 2.0, 0.5, 7.0, 0.3]).double()
    condition = {"scalars": torch.randn(6, 1, dtype=F64, generator=generator)}
    both = Segmented([(10.0, 1.0, first), (1.0, 0.0, second)])
    rows = [both(x[i : i + 1], sigma[i : i + 1], {"scalars": condition["scalars"][i : i + 1]}) for i in range(6)]
    assert torch.equal(both(x, sigma, condition), torch.cat(rows))
    seen = []
    same = Segmented([(10.0, 1.0, lambda x, s, c: seen.append(c) or x), (1.0, 0.0, second)])
    same(x, torch.full((6,), 2.0), condition)
    assert seen[0] is condition


# ------------------------------------------------------------------------------------------- students that start late


def test_a_student_that_starts_late_keeps_the_law():
    """Jump to 2, then re-noising with the exact consistency function: the variance is λ in every mode."""

    def student(x, sigma, condition):
        return gaussian().flow_map(x, sigma, ZERO)

    rows = torch.eye(2, dtype=F64)[:, :, None].expand(-1, -1, 5)
    late = Segmented([(1e7, 2.0, gaussian()), (2.0, 0.0, student)])
    out = late.sample(1e7 * rows[0], [2.0, 0.5], None, few_step, [rows[1]])
    torch.testing.assert_close(out.square().sum(0), LAMBDA, rtol=1e-8, atol=0)


def test_flow_maps_are_told_where_to_go():
    law = bimodal()[0]

    def student(x, sigma, condition=None, *, to):
        r = (to / sigma)[:, None]
        return (law.flow_map(x, sigma, to) - r * x) / (1 - r)

    x = 20 * torch.ones(2, 2, dtype=F64)
    exact = law.flow_map(x, torch.full((2,), 20.0, dtype=F64), torch.zeros(2, dtype=F64))
    both = Segmented([(20.0, 1.0, student), (1.0, 0.0, student)])
    torch.testing.assert_close(both.sample(x, [20.0, 4.0, 0.3], None, flow_map), exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([], "none at all"),
        ([(80.0, 5.0)], r"\(80, 5\)"),
        ([(80.0, 5.0), (4.0, 0.0)], r"\(80, 5\), \(4, 0\)"),
        ([(80.0, 5.0), (6.0, 0.0)], r"\(80, 5\), \(6, 0\)"),
        ([(5.0, 80.0), (80.0, 0.0)], "strictly decreasing"),
        ([(5.0, 5.0), (5.0, 0.0)], "strictly decreasing"),
    ],
)
def test_segments_must_be_whole(ends, message):
    with pytest.raises(UserError, match=message):
        Segmented([(high, low, named(0.0)) for high, low in ends])
