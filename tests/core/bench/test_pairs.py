"""Pairs are what the teacher's ODE joins."""

import torch

from scigen.core.bench import pairs as module
from scigen.core.bench.pairs import select, teacher_pairs

F64 = torch.float64


def test_ends_and_states_on_the_way_lie_on_the_exact_flow(task):
    pairs = teacher_pairs(task, 20, 160, [15.0, 2.0, 0.3], seed=1)
    start, top = 15.0 * pairs.noise.double(), torch.full((20,), 15.0, dtype=F64)
    for got, level in zip([*pairs.path.unbind(1), pairs.x], (2.0, 0.3, 0.0), strict=True):
        exact = task.law.flow_map(start, top, torch.full((20,), level, dtype=F64), pairs.condition)
        torch.testing.assert_close(got.double(), exact, rtol=0, atol=4e-3)


def test_chunks_change_nothing(task, monkeypatch):
    whole = teacher_pairs(task, 10, 5, [15.0, 2.0], seed=1)
    monkeypatch.setattr(module, "CHUNK", 4)
    parts = teacher_pairs(task, 10, 5, [15.0, 2.0], seed=1)
    torch.testing.assert_close(parts.x, whole.x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(parts.path, whole.path, rtol=1e-6, atol=1e-6)
    assert torch.equal(parts.noise, whole.noise) and not torch.equal(
        parts.noise, teacher_pairs(task, 10, 5, [15.0], 2).noise
    )


def test_rows_stay_together(task):
    pairs, rows = teacher_pairs(task, 6, 4, [15.0, 2.0], seed=1), torch.tensor([4, 0])
    some = select(pairs, rows)
    for a, b in ((some.x, pairs.x), (some.noise, pairs.noise), (some.path, pairs.path)):
        assert torch.equal(a, b[rows])
    assert torch.equal(some.condition["scalars"], pairs.condition["scalars"][rows])


def test_a_student_of_one_level_has_no_states_on_the_way(task):
    assert teacher_pairs(task, 3, 4, [15.0], seed=1).path.shape == (3, 0, 4)
