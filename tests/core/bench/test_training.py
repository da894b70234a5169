"""The bench's loop: the driver's order, costs of turns and stages, what it refuses."""

import copy

import pytest
import torch
from torch import nn

from scigen.core.bench.training import Diverged, alone, fit, period, schedule, trial
from scigen.core.denoise import Denoiser
from scigen.core.driver import step_seed
from scigen.core.methods.base import Batch, Method
from scigen.core.networks.mlp import MLP

B = 8


def network(seed: int = 0) -> Denoiser:
    torch.manual_seed(seed)
    return Denoiser(MLP(3, width=8, blocks=1, embedding=8))


def data(step: int) -> Batch:
    return Batch(torch.randn(B, 3, generator=torch.Generator().manual_seed(step)), {})


class Turns(Method):
    """A student's step (3 passes), then two of a fake (a sample of the student and 3 passes); late ones twice over."""

    def __init__(self, rows: int = 1) -> None:
        super().__init__()
        self.student, self.fake, self.rows = network(), network(1), rows
        self.seen: list[tuple[float, str, int]] = []
        self.late = False

    def learners(self) -> dict[str, nn.Module]:
        return {"student": self.student, "fake": self.fake}

    def turn(self, step: int) -> str:
        return "fake" if step % 3 else "student"

    def at(self, progress: float) -> None:
        self.late, self.progress = progress >= 0.5, progress

    def loss(self, turn: str, batch: Batch) -> dict[str, torch.Tensor]:
        self.seen.append((self.progress, turn, torch.initial_seed()))
        x = batch.x.repeat(self.rows, 1)
        level = torch.ones(len(x))
        if turn == "fake":
            with torch.no_grad():
                x = self.student(x, level)
        total = torch.zeros(())
        for _ in range(2 if self.late else 1):
            total = total + (self.learners()[turn](x, level) - 1).square().mean()
        return {"loss": total}


def test_a_trial_counts_turns_and_stages():
    """(3 + 2 · 4)/3 passes a step early, (6 + 2 · 7)/3 late: on the mean 31/6, in teacher steps 31/18."""
    cost, rows = trial(Turns(), data, B)
    assert cost == pytest.approx(31 / 18, rel=1e-12) and rows == 1


def test_a_trial_counts_turns_that_come_in_later(monkeypatch):
    """The student's alone at first, 1 a step, then 2 + 3 + 4 a cycle of three late: as many places of each."""
    monkeypatch.setattr(Turns, "turn", lambda self, step: "fake" if self.late and step % 3 else "student")
    cost, _ = trial(Turns(), data, B)
    assert cost == pytest.approx((3 / 3 + (6 + 2 * 7) / 3 / 3) / 2, rel=1e-12)


@pytest.mark.parametrize("members", [2, 4])
def test_a_trial_finds_how_many_rows_a_call_has(members):
    cost, rows = trial(Turns(members), data, B)
    assert rows == members and cost == pytest.approx(members * 31 / 18, rel=1e-12)


def test_a_trial_leaves_no_trace():
    method = Turns()
    method.at(0.0)
    before = copy.deepcopy(method.state_dict())
    torch.manual_seed(5)
    trial(method, data, B)
    after = torch.randn(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.randn(3)) and method.seen == []
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in method.parameters())


@pytest.mark.parametrize(
    ("turns", "expected"), [("aaaaaa", 1), ("ababab", 2), ("abbabbabb", 3), ("abcd", 4), ("aabaabaab", 3), ("aaaab", 5)]
)
def test_period_of_turns(turns, expected):
    assert period(list(turns)) == expected


def test_only_the_learner_whose_turn_it_is_gets_gradients():
    method = Turns()
    method.fake.network.head.bias.requires_grad_(False)
    with alone(method, "student"):
        assert all(p.requires_grad for p in method.student.parameters())
        assert not any(p.requires_grad for p in method.fake.parameters())
    frozen = [n for n, p in method.fake.named_parameters() if not p.requires_grad]
    assert frozen == ["network.head.bias"]  # as it was before, whatever it was


def test_order_seeds_and_progress_are_the_drivers():
    method, done = Turns(), []
    fit(method, data, schedule(6, B, {"lr": 1e-3}), 7, lambda: done.append(1))
    assert len(done) == 6
    expected = [(i / 6, method.turn(i), step_seed(7, i)) for i in range(6)]
    assert [(p, t) for p, t, _ in method.seen] == [(p, t) for p, t, _ in expected]
    assert [s % 2**63 for _, _, s in method.seen] == [s % 2**63 for _, _, s in expected]


def test_the_same_seed_gives_the_same_student_and_the_average_is_of_its_turns():
    runs = [fit(Turns(), data, schedule(9, B, {"lr": 1e-2}), 7, lambda: None) for _ in range(2)]
    for a, b in zip(*(r.parameters() for r in runs), strict=True):
        assert torch.equal(a, b)
    assert not any(p.requires_grad for p in runs[0].parameters()) and not runs[0].training
    once = Turns()
    kept = fit(once, data, schedule(1, B, {"lr": 1e-2}), 7, lambda: None)
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), once.student.parameters(), strict=True))


def test_learners_have_their_own_rates():
    plan = schedule(100, B, {"lr": 1e-3, "rates": {"fake": 0.5}, "steps": 7, "batch": 99})
    assert plan.steps == 100 and plan.batch == B
    assert plan.rate(50, "fake") == pytest.approx(0.5 * plan.rate(50))


def test_what_is_no_number_stops_before_the_weights():
    method = Turns()
    before = copy.deepcopy(method.state_dict())
    with pytest.raises(Diverged, match="student's loss nan"):
        fit(method, lambda i: Batch(torch.full((B, 3), torch.nan), {}), schedule(3, B, {"lr": 1e-3}), 0, lambda: None)
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
