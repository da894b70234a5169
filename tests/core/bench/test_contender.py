"""Equal budgets: what methods are charged, what they start from, what they may be asked for."""

import copy
from dataclasses import replace

import pytest
import torch

from scigen.core.bench import contender
from scigen.core.bench.contender import Recipe, Shared, generate, grids, train
from scigen.core.bench.scores import TestSet
from scigen.core.methods.base import Batch, Distiller
from scigen.core.methods.consistency import Consistency
from scigen.core.methods.regression import Regression
from scigen.core.sample import dpm_solver, few_step

F64 = torch.float64


class Plain(Distiller):
    """A teacher step each: the student meets the data."""

    def loss(self, turn: str, batch: Batch) -> dict[str, torch.Tensor]:
        sigma = torch.full((len(batch.x),), self.sigmas[0])
        out = self.student(batch.x + sigma[:, None] * torch.randn_like(batch.x), sigma, batch.condition)
        return {"loss": (out - batch.x).square().mean()}


class After(Plain):
    follows = "plain"


class TwoTimes(Plain):
    sampler, two_times = "flow_map", True


def recipe(kind: type[Distiller], **settings) -> Recipe:
    return Recipe(kind.__name__.lower(), kind, lambda low, high: {"sigmas": [high], **settings}, {"lr": 1e-3})


@pytest.fixture
def shared(task, effort) -> Shared:
    return Shared(task, effort)


def test_a_step_of_one_teacher_step_is_taken_budget_times(shared):
    done = train(shared, recipe(Plain), {})
    assert (done.steps, done.per_step, done.cost) == (12, 1.0, 12.0)


def test_consistency_costs_two_and_a_little(shared):
    """Heun's two calls, the target and the prediction are 6 passes: half as many steps as of the plain method."""
    options = {"sigma_min": 0.02, "levels": [4]}
    done = train(shared, recipe(Consistency, **options), {})
    assert (done.steps, done.per_step, done.cost) == (6, 2.0, 12.0)


def test_pairs_are_paid_and_take_at_most_half_of_the_budget(shared, task):
    """12 teacher steps are 36 passes of 8 rows; half of them make 18 · 8/6 pairs by six calls each."""
    done = train(shared, recipe(Regression, pairs=1000), {})
    assert done.method.pairs == 24
    paid = 24 * 6 / 8 / 3
    assert paid == 6 and done.steps == 6 and done.cost == 12
    few = train(Shared(task, replace(shared.effort, pairs=8)), recipe(Regression, pairs=1000), {})
    assert few.method.pairs == 8 and few.steps == 10 and few.cost == 12


def test_what_follows_another_leaves_it_half(shared):
    reported = []
    done = train(shared, recipe(After), {"plain": recipe(Plain)}, reported.append)
    assert (done.steps, done.cost) == (6, 12.0)
    first = shared.effort.start * 4 / 3
    assert sum(reported) == pytest.approx(first + 12)
    alone = train(shared, recipe(Plain), {})
    half = contender._train(shared, recipe(Plain), shared.student(Plain), 6, lambda cost: None)
    moved = [
        float((a - b).abs().max()) for a, b in zip(done.student.parameters(), half.student.parameters(), strict=True)
    ]
    assert max(moved) > 0 and half.steps == 6 and alone.steps == 12


def test_all_students_start_from_one_denoiser(shared):
    a, b = shared.student(Plain), shared.student(Plain)
    assert a is not b and all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    x, sigma = torch.randn(8, 4), torch.full((8,), 0.7)
    condition = {"scalars": torch.randn(8, 2)}
    flow = shared.student(TwoTimes)
    for to in (0.0 * sigma, 0.5 * sigma, sigma):
        torch.testing.assert_close(flow(x, sigma, condition, to=to), a(x, sigma, condition), rtol=1e-5, atol=1e-6)


def test_the_start_learns_the_oracle(task, effort):
    """Its distance to the exact denoiser falls to a small part of that of the best linear guess, c_skip x."""
    shared = Shared(task, replace(effort, start=400, batch=128, network={"width": 64, "blocks": 2, "embedding": 16}))
    start, fresh = shared.start(), shared.network()
    batch = task.draw(2000, torch.Generator().manual_seed(9))
    sigma = torch.full((2000,), 0.7)
    x = batch.x + 0.7 * torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(10))
    exact = task.law(x, sigma, batch.condition)
    untrained = type(start)(fresh, start.sigma_data)
    with torch.no_grad():
        after, before = ((d(x, sigma, batch.condition) - exact).square().mean() for d in (start, untrained))
    assert float(after) < 0.1 * float(before)


def test_batches_are_functions_of_their_number_and_epochs_meet_every_pair(shared):
    draws = shared.data(5)
    assert torch.equal(draws(3).x, draws(3).x) and not torch.equal(draws(3).x, draws(4).x)
    pairs = shared.pairs(14, [15.0])
    rows = shared.data(4, pairs)
    seen = torch.cat([rows(i).noise for i in range(7)])  # two epochs of 14, batches run on across the border
    for epoch in (seen[:14], seen[14:]):
        assert sorted(map(tuple, epoch.tolist())) == sorted(map(tuple, pairs.noise.tolist()))
    assert not torch.equal(seen[:14], seen[14:])
    assert shared.pairs(14, [15.0]) is pairs


def test_rows_of_a_call_are_those_of_the_bench(shared):
    """A method of four members a condition gets a quarter of the conditions, and pays for its rows as others do."""

    class Members(Plain):
        sizes: list[int] = []  # noqa: RUF012

        def loss(self, turn, batch):
            self.sizes.append(len(batch.x))
            four = Batch(batch.x.repeat(4, 1), {k: v.repeat(4, 1) for k, v in batch.condition.items()})
            return super().loss(turn, four)

    done = train(shared, recipe(Members), {})
    assert done.per_step == 1.0 and done.steps == 12 and set(Members.sizes[-12:]) == {2}


def test_steps_that_a_student_can_be_asked_for(shared, task):
    two = Plain(shared.student(Plain), task.law, [15.0, 1.5])
    assert grids(two, [1, 2, 4, 8], 0.02) == {1: [15.0], 2: [15.0, 1.5]}
    flow = TwoTimes(shared.student(TwoTimes), task.law, [15.0])
    found = grids(flow, [1, 2, 4, 8], 0.02)
    assert list(found) == [1, 2, 4, 8] and [len(g) for g in found.values()] == [1, 2, 4, 8]
    assert all(g[0] == pytest.approx(15.0) and g[-1] > 0.05 for g in found.values())


def test_samples_start_from_the_tests_noise_each_with_its_own_condition(task, monkeypatch):
    test = TestSet.make(task, 5, 3, seed=1)
    law = copy.deepcopy(task.law)
    whole = generate(law, "dpm_solver", [15.0, 3.0, 0.5], test, 0)
    for case in range(5):
        condition = {k: v[case : case + 1].expand(3, -1).float() for k, v in test.condition.items()}
        one = dpm_solver(law, 15.0 * test.noise[case], [15.0, 3.0, 0.5], condition)
        torch.testing.assert_close(whole[case], one, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(contender, "ROWS", 4)
    for sampler in ("dpm_solver", "few_step"):
        chunked = generate(law, sampler, [15.0, 3.0], test, 0)
        monkeypatch.setattr(contender, "ROWS", 4096)
        torch.testing.assert_close(generate(law, sampler, [15.0, 3.0], test, 0), chunked, rtol=1e-5, atol=1e-5)
        monkeypatch.setattr(contender, "ROWS", 4)


def test_fresh_noise_is_the_same_for_all_and_is_no_start(task):
    test = TestSet.make(task, 4, 3, seed=1)
    a = generate(task.law, "few_step", [15.0, 1.5], test, 0)
    assert torch.equal(a, generate(task.law, "few_step", [15.0, 1.5], test, 0))
    assert not torch.equal(a, generate(task.law, "few_step", [15.0, 1.5], test, 1))
    noise = test.noise.flatten(0, 1)
    condition = {k: v.repeat_interleave(3, 0).float() for k, v in test.condition.items()}
    again = few_step(task.law, 15.0 * noise, [15.0, 1.5], condition, [noise])
    assert float((again.reshape(a.shape) - a).abs().mean()) > 0.1
