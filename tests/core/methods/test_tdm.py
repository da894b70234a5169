"""Trajectory distribution matching: fixed points on Gaussian modes, the fake score's law, and what breaks them."""

import math

import pytest
import torch
from torch import nn

from scigen.core.denoise import loss_weight
from scigen.core.methods.base import Batch, repeat
from scigen.core.methods.denoising import denoising_loss
from scigen.core.methods.dmd import matching_loss
from scigen.core.methods.tdm import TDM, diffuse, euler_step, trajectory_score_loss, walk
from scigen.core.oracle import Gaussian
from scigen.core.sample import euler
from scigen.errors import UserError

F64 = torch.float64
VARIANCE = torch.tensor([0.05, 1.0, 9.0], dtype=F64)
START = 40.0


def oracle() -> Gaussian:
    return Gaussian.dense(torch.zeros(3, dtype=F64), torch.diag(VARIANCE), (3,))


class Table(nn.Module):
    """A linear student: a gain a level and mode; notes what it is given."""

    sigma_data = 1.0

    def __init__(self, levels, gain=0.3) -> None:
        super().__init__()
        self.levels = torch.tensor(levels, dtype=F64)
        self.gain = nn.Parameter(torch.full((len(levels), 3), gain, dtype=F64))
        self.seen = []

    def forward(self, x, sigma, condition=None):
        self.seen.append((x.detach(), sigma, condition))
        return self.gain[(self.levels[None] - sigma[:, None].to(F64)).abs().argmin(1)] * x


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """(start, noise): unit vectors of each in turn, which carry the expectation of a linear student."""
    zero, one = torch.zeros(3, 3, dtype=F64), torch.eye(3, dtype=F64)
    return torch.cat([one, zero]), torch.cat([zero, one])


def learned_fake(x: torch.Tensor, noise: torch.Tensor, start: float, tau: torch.Tensor, loss=trajectory_score_loss):
    """Gains of the fake score that minimise its own loss on these states: (3,)."""
    gain = torch.zeros(3, dtype=F64, requires_grad=True)
    total = loss(lambda y, s, c: gain * y, x, start, tau, noise, None, 1.0).sum()
    (slope,) = torch.autograd.grad(total, gain, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), gain)
    return (gain - slope / curvature).detach()


def student_slope(student: Table, levels, step: int, tau: float, loss=trajectory_score_loss) -> torch.Tensor:
    """Expected gradient of the method in the gains of a step, with the fake score that its own loss teaches: (3,)."""
    start, noise = rows()
    now, then = (*levels, 0.0)[step : step + 2]
    x = walk(student, start, levels, step, None)
    denoised = student(x, torch.full((6,), now, dtype=F64))
    state = euler_step(x, denoised, now, then)
    level = torch.full((6,), tau, dtype=F64)
    gain = learned_fake(state.detach(), noise, then, level, loss)
    y = diffuse(state, then, level, noise)
    each = matching_loss(denoised, y, level, oracle(), lambda v, s, c: gain * v, None, normalise=False)
    return torch.autograd.grad(each.sum() * 3, student.gain)[0]


GRIDS = [(START,), (START, 1.5), (START, 5.0, 1.0, 0.2)]


def fixed_point(levels, share: float, loss=trajectory_score_loss) -> Table:
    """Gains where the gradient of every step vanishes, by bisection, step after step."""
    student = Table(levels)
    for step in range(len(levels)):
        high, low = (*levels, 0.02)[step : step + 2]
        tau = low ** (1 - share) * high**share
        ratio = (*levels, 0.0)[step + 1] / levels[step]
        below, above = torch.full((3,), -ratio / (1 - ratio), dtype=F64), torch.full((3,), 2.0, dtype=F64)  # from 0 up
        for _ in range(50):
            student.gain.data[step] = 0.5 * (below + above)
            up = student_slope(student, levels, step, tau, loss)[step] < 0
            below = torch.where(up, student.gain.data[step], below)
            above = torch.where(up, above, student.gain.data[step])
    return student


def variances(student: Table, levels) -> torch.Tensor:
    """Of every state below the first: (K, 3)."""
    start, _ = rows()
    steps = [
        *(walk(student, start, levels, k, None) for k in range(1, len(levels))),
        euler(student, levels[0] * start, levels),
    ]
    return torch.stack([s.square().sum(0) for s in steps]).detach()


@pytest.mark.parametrize("levels", GRIDS, ids=len)
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_fixed_point_has_the_teachers_marginals_at_every_level(levels, share):
    """Each x_{σ_{i+1}} has variance λ + σ_{i+1}², wherever in its interval τ is; fake and student from their losses."""
    found = variances(fixed_point(levels, share), levels)
    then = torch.tensor([*levels[1:], 0.0], dtype=F64)[:, None]
    torch.testing.assert_close(found, VARIANCE + then**2, rtol=1e-6, atol=0)


@pytest.mark.parametrize("levels", GRIDS, ids=len)
def test_fixed_point_is_the_exact_flow_map_of_an_exact_start(levels):
    """From variance λ + σ_0² the gains of the steps are √((λ + σ'²)/(λ + σ²)); the first makes up for the start."""
    student = fixed_point(levels, 0.5)
    all_levels = torch.tensor([*levels, 0.0], dtype=F64)[:, None]
    ratio = all_levels[1:] / all_levels[:-1]
    steps = (ratio + (1 - ratio) * student.gain).detach()
    v = VARIANCE + all_levels**2
    exact = (v[1:] / v[:-1]).sqrt()
    exact[0] *= (v[0] / levels[0] ** 2).sqrt()
    torch.testing.assert_close(steps, exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("step", "share"), [(0, 0.3), (1, 0.3), (1, 1.0)])
def test_gradient_is_that_of_the_kl_at_tau(step, share):
    """τ² d KL/dm · ∂m/∂g over (1 − σ'/σ), the constant that matching the call's output leaves out."""
    levels = (START, 1.5)
    student = Table(levels, 0.2)
    now, then = (*levels, 0.0)[step : step + 2]
    low = then or 0.02
    tau = low ** (1 - share) * now**share
    start, _ = rows()
    m_in = walk(student, start, levels, step, None).sum(0)
    m = (then / now + (1 - then / now) * 0.2) * m_in
    kl = m * (1 / (VARIANCE + tau**2) - 1 / (m**2 + tau**2 - then**2))
    found = student_slope(student, levels, step, tau)
    torch.testing.assert_close(found[step], tau**2 * kl * m_in, rtol=1e-9, atol=1e-12)
    assert float(found[1 - step].abs().sum()) == 0  # the earlier step gets no gradient


def plain_denoising(fake, x, start, tau, noise, condition, sigma_data):
    """The mutation: the fake score taught to give back the state, as if it had no noise in it."""
    y = diffuse(x, start, tau, noise)
    return loss_weight(tau, sigma_data) * (fake(y, tau, condition) - x).square().mean(1)


def test_marginals_fail_when_the_fake_is_taught_by_plain_denoising():
    """m²/(m² + τ² − s²) meets λ/(λ + τ²) at λ (1 − s²/τ²) in place of λ + s²; the last step, with s = 0, is right."""
    levels = (START, 1.5)
    found = variances(fixed_point(levels, 0.5, plain_denoising), levels)
    torch.testing.assert_close(found[0], VARIANCE * (1 - 1.5 / START), rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1], VARIANCE, rtol=1e-6, atol=0)
    assert float((found[0] / (VARIANCE + 1.5**2) - 1).abs().min()) > 0.1


# ------------------------------------------------------------------------------------------------------- the fake score


@pytest.mark.parametrize("start", [0.0, 0.5, 1.9])
@pytest.mark.parametrize("tau", [2.0, 8.0])
def test_fake_learns_the_score_of_the_diffused_states(start, tau):
    """States of variance m²: D = x + τ² score has the gain 1 − τ²/(m² + τ² − start²)."""
    m = torch.tensor([0.7, 2.0, 5.0], dtype=F64)
    white, noise = rows()
    found = learned_fake(m * white, noise, start, torch.full((6,), tau, dtype=F64))
    torch.testing.assert_close(found, 1 - tau**2 / (m**2 + tau**2 - start**2), rtol=1e-9, atol=1e-12)


def test_fakes_loss_is_denoising_where_the_state_has_no_noise():
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 5, 3, dtype=F64, generator=generator)
    tau = torch.tensor([0.1, 0.5, 1.0, 3.0, 20.0], dtype=F64)
    fake = lambda y, s, c: torch.tanh(y) / (1 + s[:, None])  # noqa: E731
    found = trajectory_score_loss(fake, x, 0.0, tau, noise, None, 0.8)
    torch.testing.assert_close(found, denoising_loss(fake, x, noise, tau, None, 0.8), rtol=1e-12, atol=0)


@pytest.mark.parametrize("gap", [1e-6, 1e-3, 0.1])
def test_fakes_loss_stays_bounded_where_tau_meets_the_state(gap):
    """λ(τ) τ² ε² there, whatever the fake says; the target itself, x − τ² ε/√(τ² − start²), has no bound."""
    generator = torch.Generator().manual_seed(1)
    x, noise = torch.randn(2, 1000, 3, dtype=F64, generator=generator)
    tau = torch.full((1000,), 1.0 + gap, dtype=F64)
    found = trajectory_score_loss(lambda y, s, c: 0.5 * y, x, 1.0, tau, noise, None, 1.0).mean()
    limit = (loss_weight(tau, 1.0) * tau**2 * noise.square().mean(1)).mean()
    assert float(found) == pytest.approx(float(limit), rel=3 * gap**0.5)


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_diffused_states_have_the_variance_of_tau(start):
    generator = torch.Generator().manual_seed(2)
    clean, first, noise = torch.randn(3, 100000, dtype=F64, generator=generator)
    y = diffuse(clean + start * first, start, torch.full((100000,), 2.5, dtype=F64), noise)
    assert float(y.var()) == pytest.approx(1 + 2.5**2, rel=5 * (2 / 100000) ** 0.5)


# ----------------------------------------------------------------------------------------------------------- the class


def data(n: int = 8) -> Batch:
    return Batch(torch.zeros(n, 3, dtype=F64), {"scalars": torch.arange(float(n))[:, None]})


def method(levels=(START, 1.5), **settings) -> TDM:
    return TDM(Table(levels), oracle(), levels, **dict(match_min=0.02) | settings)


@pytest.mark.parametrize("levels", GRIDS, ids=len)
def test_states_are_those_of_the_euler_sampler(levels):
    start = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(3))
    student = Table(levels)
    euler(student, levels[0] * start, levels)
    for step, (x, _, _) in enumerate(student.seen[: len(levels)]):
        torch.testing.assert_close(walk(Table(levels), start, levels, step, None), x, rtol=1e-12, atol=0)
    assert TDM.sampler == "euler"


@pytest.mark.parametrize("turn", ["student", "fake"])
def test_tau_fills_the_interval_of_the_step_and_only_its_call_learns(turn):
    levels = (START, 5.0, 1.0)
    m, met = method(levels, members=25), set()
    bounds = (*levels, 0.02)
    torch.manual_seed(4)
    for _ in range(12):
        m.zero_grad()
        m.student.seen.clear()
        seen = []
        reader = m.teacher if turn == "student" else m.fake
        with reader.register_forward_pre_hook(lambda _, args: seen.append(args[1].double())):  # noqa: B023
            m.loss(turn, data())["loss"].backward()
        step = len(m.student.seen) - 1
        met.add(step)
        assert bounds[step + 1] <= float(seen[0].min()) < 1.05 * bounds[step + 1]
        assert 0.95 * bounds[step] < float(seen[0].max()) <= bounds[step] * (1 + 1e-6)
        if turn == "student":
            assert (m.student.gain.grad.abs().sum(1) > 0).tolist() == [i == step for i in range(3)]
        else:
            assert m.student.gain.grad is None and m.fake.gain.grad is not None
    assert met == {0, 1, 2}


def test_members_share_their_samples_condition():
    m, seen = method(members=3), []
    for module in (m.teacher, m.fake):
        module.register_forward_pre_hook(lambda _, args: seen.append(args[2]["scalars"]))
    batch = data()
    m.loss("student", batch)
    m.loss("fake", batch)
    shared = repeat(batch.condition, 3)["scalars"]
    assert len(seen) == 3 and all(torch.equal(s, shared) for s in seen)
    assert all(torch.equal(c["scalars"], shared) for _, _, c in m.student.seen)


def test_the_exact_student_with_the_exact_fake_is_not_moved():
    """Whatever the step and τ: the fake is the teacher then."""
    levels = (START, 1.5)
    m = method(levels)
    exact = fixed_point(levels, 0.5)
    m.student.gain.data = exact.gain.data
    m.fake = oracle()
    torch.manual_seed(5)
    for _ in range(6):
        assert float(m.loss("student", data())["loss"].detach()) == 0


@pytest.mark.parametrize("fakes", [1, 5])
def test_the_student_learns_once_a_cycle_and_first(fakes):
    m = method(fake_steps=fakes)
    turns = [m.turn(i) for i in range(3 * (1 + fakes))]
    assert turns == (["student"] + ["fake"] * fakes) * 3 and set(turns) == set(m.learners())


def test_teacher_and_fake_stay_in_evaluation_mode():
    m = method().train()
    assert m.student.training and not m.teacher.training and not m.fake.training


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(match_min=2.0), "match_min=2.0"),
        (dict(match_min=0.0), "match_min=0.0"),
        (dict(fake_steps=0), "fake_steps=0"),
        (dict(members=0), "members=0"),
        (dict(levels=(1.0, 2.0)), "decreasing"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        method(**settings)


def test_collapse_of_the_last_step_is_dmds():
    """The last step is DMD at τ ∈ [match_min, σ_{K−1}]: blind to a correlation of 0.9 it loses spread at small τ."""
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=F64)
    teacher = Gaussian.dense(torch.zeros(2, dtype=F64), covariance, (2,))
    zero, one = torch.zeros(2, 2, dtype=F64), torch.eye(2, dtype=F64)
    z, noise = torch.cat([one, zero]), torch.cat([zero, one])
    for tau in (0.3, 1.0):
        exact = 1 / float(torch.linalg.inv(covariance + tau**2 * one)[0, 0]) - tau**2
        a = torch.tensor(math.sqrt(exact), dtype=F64, requires_grad=True)
        level = torch.full((4,), tau, dtype=F64)
        x = a * z
        fake = Gaussian.dense(torch.zeros(2, dtype=F64), exact * one, (2,))
        each = matching_loss(x, diffuse(x, 0.0, level, noise), level, teacher, fake, None, normalise=False)
        (slope,) = torch.autograd.grad(each.sum(), a)
        assert abs(float(slope)) < 1e-12 and exact < 0.6
