"""The anchor of methods that match distributions: where it leads, and the warm-up in which it trains alone."""

import math

import pytest
import torch
from torch import nn

from scigen.core.denoise import DenoiserModule
from scigen.core.methods.adversarial import Adversarial
from scigen.core.methods.base import Batch
from scigen.core.methods.dmd import DMD, matching_loss
from scigen.core.methods.generating import Generating, anchor_loss
from scigen.core.methods.tdm import TDM, diffuse, euler_step
from scigen.core.oracle import Gaussian
from scigen.errors import UserError

F64 = torch.float64
START = 40.0
GRIDS = [(START,), (START, 1.5), (START, 5.0, 1.0, 0.2)]
CORRELATED = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=F64)


class Table(nn.Module):
    """A linear student: a gain a level and mode."""

    sigma_data = 1.0

    def __init__(self, levels, modes: int = 2, gain: float = 0.3) -> None:
        super().__init__()
        self.levels = torch.tensor(levels, dtype=F64)
        self.gain = nn.Parameter(torch.full((len(levels), modes), gain, dtype=F64))

    def forward(self, x, sigma, condition=None):
        return self.gain[(self.levels[None] - sigma[:, None].to(F64)).abs().argmin(1)] * x


def pairs(teacher: Gaussian, levels, n: int = 2) -> Batch:
    """Exact pairs of unit vectors of noise, which carry the expectation of what is quadratic in it."""
    noise, top = torch.eye(n, dtype=F64), torch.full((n,), levels[0], dtype=F64)
    places = [*levels[1:], 0.0]
    *path, end = (teacher.flow_map(levels[0] * noise, top, torch.full((n,), s, dtype=F64)) for s in places)
    return Batch(end, {}, noise, torch.stack(path, 1) if path else None)


@pytest.mark.parametrize("level", [0, 1])
def test_a_student_s_own_samples_are_of_perturbed_measurements_and_nobody_else_s(level):
    """Every call of a row sees the one perturbed measurement; who judges of it sees the measured one."""

    class Echo(DenoiserModule):
        sigma_data = 1.0

        def forward(self, x, sigma, condition=None):
            return condition["y"] + 0 * x

        def perturbed(self, condition):
            return {"y": condition["y"] + torch.arange(1.0, len(condition["y"]) + 1)[:, None]}

    class Own(Generating):
        def loss(self, turn, batch):
            raise NotImplementedError

    method = Own(Echo(), nn.Identity(), [10.0, 1.0], 0.1, 5.0, members=2, anchor=0.0, pairs=0, warmup=0.0)
    batch = Batch(torch.zeros(2, 1), {"y": torch.tensor([[0.0], [100.0]])})
    assert method.generate(batch, level).flatten().tolist() == [1, 2, 103, 104]
    assert method.condition(batch)["y"].flatten().tolist() == [0, 0, 100, 100]


# ---------------------------------------------------------------------------------------------------------- the anchor

VARIANCE = torch.tensor([0.05, 9.0], dtype=F64)


def exact_gains(levels, walks: bool) -> torch.Tensor:
    """Of calls that give the end of the trajectory, or of Euler's steps that follow it: (K, 2)."""
    now = torch.tensor(levels, dtype=F64)[:, None]
    if not walks:
        return (VARIANCE / (VARIANCE + now**2)).sqrt()
    then = torch.tensor([*levels[1:], 0.0], dtype=F64)[:, None]
    step, ratio = ((VARIANCE + then**2) / (VARIANCE + now**2)).sqrt(), then / now
    return (step - ratio) / (1 - ratio)


@pytest.mark.parametrize("levels", GRIDS, ids=len)
@pytest.mark.parametrize("walks", [False, True])
def test_anchor_is_zero_at_the_exact_student_and_nowhere_near(levels, walks):
    teacher = Gaussian.dense(torch.zeros(2, dtype=F64), torch.diag(VARIANCE), (2,))
    student, batch = Table(levels), pairs(teacher, levels)
    student.gain.data = exact_gains(levels, walks)
    for level in range(len(levels)):
        loss = anchor_loss(student, batch, levels, level, walks).sum()
        (gradient,) = torch.autograd.grad(loss, student.gain)
        assert float(loss.detach()) < 1e-20 and float(gradient.abs().max()) < 1e-9
        student.gain.data[level] *= 1.1
        assert float(anchor_loss(student, batch, levels, level, walks).sum().detach()) > 1e-4
        student.gain.data[level] /= 1.1


@pytest.mark.parametrize("levels", GRIDS[1:], ids=len)
def test_a_student_that_walks_is_not_led_to_the_end_by_its_first_steps(levels):
    """The mutation: the anchor of re-noising students, on one of Euler's steps."""
    teacher = Gaussian.dense(torch.zeros(2, dtype=F64), torch.diag(VARIANCE), (2,))
    student = Table(levels)
    student.gain.data = exact_gains(levels, walks=True)
    found = [float(anchor_loss(student, pairs(teacher, levels), levels, i).sum().detach()) for i in range(len(levels))]
    assert min(found[:-1]) > 1e-4 and found[-1] < 1e-20
    assert TDM.walks and not DMD.walks and not Adversarial.walks


def blind_variance(tau: float, anchor: float) -> float:
    """Of a student that is blind to a correlation of 0.9, where the gradient of matching and anchor vanishes."""
    teacher = Gaussian.dense(torch.zeros(2, dtype=F64), CORRELATED, (2,))
    level, batch = torch.full((4,), tau, dtype=F64), pairs(teacher, (START,))
    zero, one = torch.zeros(2, 2, dtype=F64), torch.eye(2, dtype=F64)
    z, noise = torch.cat([one, zero]), torch.cat([zero, one])
    low, high = torch.tensor(0.05, dtype=F64), torch.tensor(1.5, dtype=F64)
    for _ in range(50):
        spread = float(low + high) / 2
        student = Table((START,), gain=spread / START)
        denoised = student(START * z, torch.full((4,), START, dtype=F64))
        y = diffuse(euler_step(START * z, denoised, START, 0.0), 0.0, level, noise)
        share = spread**2 / (spread**2 + tau**2)
        match = matching_loss(denoised, y, level, teacher, lambda v, s, c: share * v, None, normalise=False)  # noqa: B023
        total = match.sum() + anchor * anchor_loss(student, batch, (START,), 0, walks=True).sum()
        (slope,) = torch.autograd.grad(total, student.gain)
        if float(slope.sum()) < 0:
            low = (low + high) / 2
        else:
            high = (low + high) / 2
    return float(low) ** 2


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_the_anchor_pulls_the_variance_back_that_reverse_kl_narrows(tau):
    """Blind to a correlation: 1/[(Σ + τ²)⁻¹]₁₁ − τ² without; regression's, (½ tr √Σ)², where the anchor is all."""
    variance = 1 / float(torch.linalg.inv(CORRELATED + tau**2 * torch.eye(2, dtype=F64))[0, 0]) - tau**2
    regression = ((math.sqrt(1.9) + math.sqrt(0.1)) / 2) ** 2 * START**2 / (START**2 + 1)
    found = [blind_variance(tau, w) for w in (0.0, 0.1, 1.0, 10.0, 1e4)]
    assert found[0] == pytest.approx(variance, rel=1e-6)
    assert found[-1] == pytest.approx(regression, rel=1e-3)
    assert found == sorted(found, reverse=regression < variance)
    assert abs(found[3] - regression) < 0.1 * abs(found[0] - regression)


# --------------------------------------------------------------------------------------------------------- the warm-up


def method(kind: type[Generating], **settings) -> Generating:
    teacher = Gaussian.dense(torch.zeros(2, dtype=F64), torch.diag(VARIANCE), (2,))
    levels = (START, 1.5)
    own = {"match_min": 0.02} | ({} if kind is TDM else {"match_max": START})
    made = kind(Table(levels), teacher, levels, **own | dict(anchor=1.0, pairs=8, warmup=0.25) | settings)
    made.prepare(pairs(teacher, levels))
    return made


KINDS = [DMD, TDM, Adversarial]


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_warm_up_all_turns_are_the_students_and_its_loss_the_anchor(kind, monkeypatch):
    m, batch = method(kind), pairs(Gaussian.dense(torch.zeros(2, dtype=F64), torch.diag(VARIANCE), (2,)), (START, 1.5))
    m.at(0.24)
    assert {m.turn(i) for i in range(20)} == {"student"}
    monkeypatch.setattr(m.teacher, "forward", lambda *_: pytest.fail("called"))
    for level in (0, 1):
        monkeypatch.setattr(m, "level", lambda level=level: level)
        found = m.loss("student", batch)
        assert set(found) == {"loss"}
        expected = anchor_loss(m.student, batch, m.sigmas, level, kind is TDM).mean()
        torch.testing.assert_close(found["loss"], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_after_the_warm_up_all_learners_have_their_turns(kind):
    m, batch = method(kind), pairs(Gaussian.dense(torch.zeros(2, dtype=F64), torch.diag(VARIANCE), (2,)), (START, 1.5))
    m.at(0.25)
    assert {m.turn(i) for i in range(20)} == set(m.learners())
    assert {"anchor", "loss"} < set(m.loss("student", batch))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [{"pairs": 0}, {"anchor": 0.0}, {"warmup": 0.0}])
def test_without_an_anchor_there_is_nothing_to_begin_with(kind, settings):
    m = method(kind, **settings)
    m.at(0.0)
    assert {m.turn(i) for i in range(20)} == set(m.learners())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_warm_up_that_leaves_nothing_is_refused(kind, share):
    with pytest.raises(UserError, match=f"warmup={share}"):
        method(kind, warmup=share)
