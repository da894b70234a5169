"""Sampling: grids that a model may be sampled on, and what every sampler costs."""

import json
from dataclasses import asdict

import pytest
import torch

from scigen.core import sample
from scigen.core.noise import karras_sigmas
from scigen.core.sampling import SAMPLERS, Sampling
from scigen.errors import UserError

F64 = torch.float64
SOLVERS = [name for name, rule in SAMPLERS.items() if not rule.first]


def half(x, sigma, condition=None, to=None):
    return 0.5 * x


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("name", SAMPLERS)
def test_calls_and_noises_are_as_the_table_says(name, n):
    sampling = Sampling(name, tuple(karras_sigmas(n, 0.1, 10).tolist()))
    grid, counted = sampling.grid(), sample.Counted(half)
    noises = [torch.ones(2, 3, dtype=F64)] * sampling.noises(n)
    sampling.run(counted, torch.ones(2, 3, dtype=F64), grid, None, noises)
    assert counted.nfe == sampling.calls() == SAMPLERS[name].calls(n)
    assert sampling.calls() == (1 if name == "mean" else 2 * n - 1 if name in ("heun", "churn") else n)
    if noises:
        with pytest.raises(UserError, match="fresh noises"):
            sampling.run(counted, torch.ones(2, 3, dtype=F64), grid, None, noises[1:])


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_table_holds_the_functions_of_their_names(name):
    assert SAMPLERS[name].run is getattr(sample, name)


@pytest.mark.parametrize("name", SOLVERS)
def test_fewer_steps_end_above_the_last_level(name):
    """The first k levels of a grid of k + 1: its next level would be σ_min."""
    sampling = Sampling.solver(name, 18, 0.02, 80.0, rho=5.0)
    assert sampling.own_steps == tuple(range(1, 19))
    assert sampling.grid() == list(sampling.sigmas) == karras_sigmas(18, 0.02, 80.0, 5.0).tolist()
    for k in (1, 2, 4, 40):
        assert sampling.grid(k) == pytest.approx(karras_sigmas(k + 1, 0.02, 80.0, 5.0).tolist()[:k], rel=1e-12)
        assert sampling.calls(k) == SAMPLERS[name].calls(k)


@pytest.mark.parametrize("trained", [True, False])
def test_a_renoising_student_takes_the_first_of_its_levels(trained):
    sampling = Sampling("few_step", (80.0, 5.0, 0.7), trained=trained)
    assert [sampling.grid(k) for k in (1, 2, 3)] == [[80.0], [80.0, 5.0], [80.0, 5.0, 0.7]]
    assert sampling.own_steps == (1, 2, 3)
    for k in (-1, 0, 4):
        with pytest.raises(UserError, match=f"1 to 3 steps, not steps={k}"):
            sampling.grid(k)


@pytest.mark.parametrize("name", [n for n in SOLVERS if n != "flow_map"])
def test_a_student_trained_along_whole_steps_takes_all_of_them(name):
    sampling = Sampling(name, (80.0, 5.0, 0.7, 0.1), trained=True)
    assert sampling.grid() == sampling.grid(4) == [80.0, 5.0, 0.7, 0.1]
    assert sampling.own_steps == (4,)
    for k in (0, 1, 2, 3, 5):
        with pytest.raises(UserError, match=f"takes 4 steps, not steps={k}"):
            sampling.grid(k)
    single = Sampling(name, (80.0,), trained=True)
    assert single.own_steps == (1,) and single.grid(1) == [80.0]


@pytest.mark.parametrize("trained", [True, False])
def test_a_flow_map_takes_any_number_of_steps(trained):
    sampling = Sampling("flow_map", (80.0, 5.0, 0.1), trained=trained)
    assert sampling.two_times and sampling.own_steps == (1, 2, 3)
    assert sampling.grid(3) == [80.0, 5.0, 0.1]
    assert sampling.grid(8) == pytest.approx(karras_sigmas(9, 0.1, 80.0).tolist()[:8])


@pytest.mark.parametrize("name", SOLVERS)
def test_one_level_is_no_range(name):
    sampling = Sampling(name, (80.0,))
    assert sampling.grid(1) == [80.0]
    with pytest.raises(UserError, match="steps=3 has no range"):
        sampling.grid(3)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_teacher_takes_no_fewer_than_one_step(name):
    with pytest.raises(UserError, match="steps=0 must be at least 1"):
        Sampling.solver(name, 5, 0.1, 10.0).grid(0)


def test_options_reach_the_sampler():
    sampling = Sampling.solver("churn", 3, 0.1, 10.0, options={"s_churn": 0, "s_noise": 1})
    x, noises = torch.ones(2, 3, dtype=F64), [torch.ones(2, 3, dtype=F64)] * 3
    expected = sample.heun(half, x, sampling.grid())
    assert torch.equal(sampling.run(half, x, sampling.grid(), None, noises), expected)
    churned = Sampling.solver("churn", 3, 0.1, 10.0)
    assert not torch.equal(churned.run(half, x, churned.grid(), None, noises), expected)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling("few_step", (20.0, 1.5)),
        Sampling("euler", (20.0, 1.5), trained=True),
        Sampling.solver("churn", 3, 0.1, 10.0, 5.0, {"s_churn": 10, "s_max": 5.0}),
    ],
)
def test_it_survives_json(sampling):
    read = json.loads(json.dumps(asdict(sampling), allow_nan=False))
    assert Sampling(**read) == sampling


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampling("magic", (1.0,)), "Unknown sampler 'magic'.*euler.*unipc.*flow_map"),
        (lambda: Sampling("heun", (1.0, 2.0)), "strictly decreasing"),
        (lambda: Sampling("heun", (1.0,), options={"s_churn": 1.0}), "heun takes no options, not s_churn"),
        (lambda: Sampling("churn", (1.0,), options={"churn": 1.0}), "churn takes s_churn.*, not churn"),
        (lambda: Sampling("churn", (1.0,), options={"s_churn": "much"}), "finite number"),
        (lambda: Sampling("churn", (1.0,), options={"s_max": float("inf")}), "finite number"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_flow_map_of_one_level_takes_any_number_of_steps_down_to_its_sigma_min():
    sampling = Sampling("flow_map", (60.0,), trained=True, sigma_min=0.05)
    assert sampling.own_steps == (1, 2, 4)
    assert sampling.grid() == sampling.grid(1) == [60.0]
    for n in (2, 4, 8):
        assert sampling.grid(n) == [float(s) for s in karras_sigmas(n + 1, 0.05, 60.0)[:n]]
