"""Progressive distillation: products of the teacher's gains at every stage, nested grids, stages that resume."""

import math

import pytest
import torch

from scigen.core import sample
from scigen.core.denoise import Denoiser, loss_weight
from scigen.core.methods.base import Batch
from scigen.core.methods.progressive import Progressive, progressive_loss, two_steps
from scigen.core.noise import karras_sigmas
from scigen.core.oracle import Gaussian, Mixture
from scigen.errors import UserError

F64 = torch.float64
LAMBDA = torch.tensor([0.01, 0.25, 1.0, 4.0, 100.0], dtype=F64)
LOW, HIGH = 0.002, 80.0


def oracle() -> Gaussian:
    return Gaussian.dense(torch.zeros(5, dtype=F64), torch.diag(LAMBDA), (5,))


class Table(torch.nn.Module):
    """A linear student: one gain per level of the teacher's grid and mode."""

    sigma_data = 1.0

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.register_buffer("grid", karras_sigmas(levels, LOW, HIGH))
        self.gain = torch.nn.Parameter(torch.full((levels, 5), 0.3, dtype=F64))

    def forward(self, x, sigma, condition=None):
        return self.gain[(self.grid[None] - sigma[:, None]).abs().argmin(1)] * x


def make(start: int = 8, heun: bool = True, steps: int = 1) -> Progressive:
    return Progressive(Table(start), oracle(), LOW, HIGH, steps, start, heun=heun)


def begin(method: Progressive, stage: int) -> None:
    """Enter a stage as the driver does."""
    progress = 0.0
    while int(method.stage) < stage:
        method.at(progress)
        progress += 0.01


def settle(method: Progressive, target=None) -> None:
    """Leave the student at this stage's fixed point: one Newton step, exact, the target does not depend on it."""
    now, mid, then = (level.repeat(2) for level in method.levels())
    n = len(now) // 2
    x0 = torch.cat([LAMBDA.sqrt().expand(n, 5), torch.zeros(n, 5, dtype=F64)])
    noise = torch.cat([torch.zeros(n, 5, dtype=F64), torch.ones(n, 5, dtype=F64)])
    x, student = x0 + now[:, None] * noise, method.student
    aim = (target or method.target)(x, now, mid, then, None)
    total = progressive_loss(student, x, aim, now, None, 1.0).sum()
    (slope,) = torch.autograd.grad(total, student.gain, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), student.gain)
    used = curvature > 0
    student.gain.data[used] -= (slope / curvature).detach()[used]


def step_gains(method: Progressive) -> torch.Tensor:
    """Gain of each of the student's Euler steps at this stage, (steps, modes)."""
    now, _, then = method.levels()
    left = (then / now)[:, None]
    ones = torch.ones(len(now), 5, dtype=F64)
    return left + (1 - left) * method.student(ones, now).detach()


def teacher_gains(start: int, heun: bool) -> torch.Tensor:
    """Closed form, every step of the teacher's grid: (start, modes)."""
    grid = karras_sigmas(start, LOW, HIGH)
    out = []
    for s, r in zip(grid, [*grid[1:], torch.zeros((), dtype=F64)], strict=True):
        a, b, h = s / (LAMBDA + s**2), r / (LAMBDA + r**2), r - s
        out.append(1 + 0.5 * h * (a + b * (1 + h * a)) if heun and r > 0 else 1 + h * a)
    return torch.stack(out)


@pytest.mark.parametrize("heun", [True, False])
@pytest.mark.parametrize("start", [2, 8, 32])
def test_every_stage_lands_on_the_products_of_the_teachers_gains(start, heun):
    """Halving is associative: a student's step has the product of all the teacher's steps that it replaces."""
    method = make(start, heun)
    fine = teacher_gains(start, heun)
    for stage in range(method.stages):
        begin(method, stage)
        settle(method)
        expected = fine.reshape(-1, 2 ** (stage + 1), 5).prod(1)
        torch.testing.assert_close(step_gains(method), expected, rtol=1e-9, atol=1e-12)
    assert stage == math.log2(start) - 1


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_student_sampled_with_euler_is_the_teachers_solver(steps):
    """The student's few calls over its own levels carry noise where the teacher's many did."""
    method = make(16, True, steps)
    for stage in range(method.stages):
        begin(method, stage)
        settle(method)
    x = torch.randn(3, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
    counted = sample.Counted(method.student)
    got = getattr(sample, method.sampler)(counted, x, method.sigmas, None)
    assert counted.nfe == steps
    teacher = sample.heun(oracle(), x, karras_sigmas(16, LOW, HIGH).tolist())
    torch.testing.assert_close(got.detach(), teacher, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("heun", "expected"),
    [(False, [0.341, 0.443, 0.479, 0.515, 0.583]), (True, [2.675, 1.943, 1.689, 1.562, 1.291])],
    ids=["euler", "heun"],
)
def test_eight_steps_halved_to_one_keep_the_bias_of_eight(heun, expected):
    """Generated over true variance, noise of σ_max²: DDIM's product and Heun's."""
    method = make(8, heun)
    for stage in range(3):
        begin(method, stage)
        settle(method)
    ratio = step_gains(method)[0] ** 2 * HIGH**2 / LAMBDA
    torch.testing.assert_close(ratio, torch.tensor(expected, dtype=F64), rtol=0, atol=6e-4)


def test_products_fail_when_the_target_is_where_the_steps_lead():
    """x″ instead of the prediction x̂ that leads there."""
    method = make(8)

    def end(x, now, mid, then, condition):
        left = (then / now)[:, None]
        return left * x + (1 - left) * method.target(x, now, mid, then, condition)

    settle(method, end)
    expected = teacher_gains(8, True).reshape(-1, 2, 5).prod(1)
    assert ((step_gains(method) / expected - 1).abs()[0] > 0.5).all()


@pytest.mark.parametrize("heun", [True, False])
@pytest.mark.parametrize(("now", "mid", "then"), [(20.0, 5.0, 1.0), (1.0, 0.5, 0.2), (0.7, 0.1, 0.0)])
def test_one_euler_step_of_the_target_meets_two_steps_of_any_denoiser(heun, now, mid, then):
    law = Mixture(
        torch.tensor([0.3, 0.7], dtype=F64),
        torch.tensor([[-1.0, 0.5], [1.0, 2.0]], dtype=F64),
        torch.tensor([0.2, 0.5], dtype=F64),
    )
    x = now * torch.randn(6, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    levels = [torch.full((6,), s, dtype=F64) for s in (now, mid, then)]
    aim = two_steps(law, x, *levels, None, heun)
    step = sample.heun_step if heun else euler_step
    end = step(law, step(law, x, now, mid, None), mid, then, None)
    torch.testing.assert_close(then / now * x + (1 - then / now) * aim, end, rtol=1e-10, atol=1e-12)


def euler_step(denoiser, x, now, then, condition):
    denoised = denoiser(x, torch.full((len(x),), now, dtype=F64), condition)
    return denoised + then / now * (x - denoised)


@pytest.mark.parametrize("sigma_data", [0.5, 2.0])
def test_weight_is_snr_plus_one(sigma_data):
    """λ(σ) σ_data² = σ_data²/σ² + 1."""
    x, sigma = torch.ones(4, 2, dtype=F64), torch.tensor([0.1, 1.0, 5.0, 80.0], dtype=F64)
    each = progressive_loss(lambda x, s, c: 0 * x, x, x, sigma, None, sigma_data)
    torch.testing.assert_close(each * sigma_data**2, sigma_data**2 / sigma**2 + 1, rtol=1e-12, atol=0)
    torch.testing.assert_close(each, loss_weight(sigma, sigma_data), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("start", "steps"), [(16, 1), (16, 4), (24, 3)])
def test_grids_are_nested_and_end_in_the_students_levels(start, steps):
    method = make(start, steps=steps)
    grid = karras_sigmas(start, LOW, HIGH)
    finer = grid
    for stage in range(method.stages):
        method.stage.fill_(stage)
        now, mid, then = method.levels()
        assert len(now) == start // 2 ** (stage + 1)
        torch.testing.assert_close(torch.stack([now, mid], 1).flatten(), finer, rtol=0, atol=0)
        torch.testing.assert_close(then, torch.cat([now[1:], torch.zeros(1, dtype=F64)]), rtol=0, atol=0)
        finer = now
    assert method.sigmas == tuple(finer.tolist()) and len(method.sigmas) == steps
    assert method.sigmas[0] == pytest.approx(HIGH, rel=1e-12)


def test_stages_take_equal_shares_and_the_last_two_twice_as_much():
    method = make(32)
    seen = []
    for k in range(70):
        method.at(k / 70)
        seen.append(int(method.stage))
    assert [seen.count(i) for i in range(5)] == [10, 10, 10, 20, 20]


def test_the_model_before_is_the_student_as_the_last_stage_left_it():
    method = make(8)
    method.at(0.0)
    first = method.previous.gain.clone()
    method.student.gain.data.fill_(1.0)
    method.at(0.19)  # still the first stage
    torch.testing.assert_close(method.previous.gain, first, rtol=0, atol=0)
    method.at(0.21)
    assert (method.previous.gain == 1.0).all() and int(method.stage) == 1
    method.student.gain.data.fill_(2.0)
    method.at(0.5)
    assert (method.previous.gain == 1.0).all()
    method.at(0.61)
    assert (method.previous.gain == 2.0).all() and int(method.stage) == 2
    assert not any(p.requires_grad for p in method.previous.parameters())
    assert list(method.learners()) == ["student"]


def test_a_resumed_run_keeps_the_model_before():
    """Constructed anew, state loaded, then asked to be where it was: no second copy of a student that went on."""
    method = make(8)
    method.student.gain.data.fill_(1.0)
    method.at(0.3)
    method.student.gain.data.fill_(2.0)
    resumed = make(8)
    kept = {k: v for k, v in method.state_dict().items() if not k.startswith("teacher.")}
    found = resumed.load_state_dict(kept, strict=False)
    assert not found.unexpected_keys and all(k.startswith("teacher.") for k in found.missing_keys)
    resumed.at(0.31)
    assert int(resumed.stage) == 1
    assert (resumed.previous.gain == 1.0).all() and (resumed.student.gain == 2.0).all()


def test_the_model_before_has_no_dropout():
    student = Denoiser(torch.nn.Dropout(0.5))
    method = Progressive(student, torch.nn.Identity(), LOW, HIGH, start=4).train()
    assert student.training and not any(m.training for m in method.previous.modules())


class Half(torch.nn.Module):
    """D = x/2, noting the levels that it is given."""

    sigma_data = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def forward(self, x, sigma, condition=None):
        self.seen.append((sigma, torch.is_grad_enabled()))
        return x / 2


@pytest.mark.parametrize(("heun", "calls"), [(True, 4), (False, 2)])
def test_teacher_steps_in_the_first_stage_and_the_student_afterwards(heun, calls):
    teacher, student = Half(), Half()
    method = Progressive(student, teacher, LOW, HIGH, start=8, heun=heun)
    batch = Batch(torch.zeros(40, 1, 3, dtype=F64), {})
    for stage, (by_teacher, before) in enumerate([(calls, 0), (0, 2), (0, 2)]):
        method.stage.fill_(stage)
        for module in (teacher, student, method.previous):
            module.seen.clear()
        out = method.loss("student", batch)
        assert (len(teacher.seen), len(method.previous.seen), len(student.seen)) == (by_teacher, before, 1)
        assert not any(graph for _, graph in teacher.seen + method.previous.seen) and student.seen[0][1]
        now = method.levels()[0]
        assert [int((student.seen[0][0] == s).sum()) for s in now] == [40 // len(now)] * len(now)
        assert float(out["steps"]) == len(now)


@pytest.mark.parametrize(("start", "steps"), [(12, 1), (1, 1), (8, 3), (4, 8), (8, 0), (0, 1), (48, 2)])
def test_starts_that_cannot_be_halved_are_refused(start, steps):
    with pytest.raises(UserError, match="halving"):
        Progressive(Table(4), oracle(), LOW, HIGH, steps, start)
