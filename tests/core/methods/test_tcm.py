"""Truncated consistency: fixed points above the transition, the frozen net below it, and what breaks them."""

import math
from itertools import pairwise

import pytest
import torch

from scigen.core.denoise import Denoiser
from scigen.core.methods.base import Batch
from scigen.core.methods.consistency import consistency_loss, ect_neighbour, neighbours
from scigen.core.methods.tcm import TCM, truncated
from scigen.core.oracle import Gaussian
from scigen.errors import UserError

F64 = torch.float64
LAMBDA = torch.tensor([0.05, 1.0, 30.0], dtype=F64)
TRANSITION = 1.0


def oracle() -> Gaussian:
    return Gaussian.dense(torch.zeros(3, dtype=F64), torch.diag(LAMBDA), (3,))


def exact(sigma: torch.Tensor) -> torch.Tensor:
    """Gains of the exact flow map to 0: (B,) to (B, 3)."""
    return (LAMBDA / (LAMBDA + sigma[:, None] ** 2)).sqrt()


class Table(torch.nn.Module):
    """A linear student: one gain per level and mode."""

    sigma_data = 1.0

    def __init__(self, grid: torch.Tensor) -> None:
        super().__init__()
        self.grid = grid
        self.gain = torch.nn.Parameter(torch.full((len(grid), 3), 0.3, dtype=F64))

    def forward(self, x, sigma, condition=None):
        return self.gain[(self.grid[None] - sigma[:, None]).abs().argmin(1)] * x


def chain(ratio: float, first: float = 40.0) -> torch.Tensor:
    """Levels of which each is the neighbour of the one before, down to the first below the transition."""
    levels = [torch.tensor([first], dtype=F64)]
    while levels[-1] >= TRANSITION:
        levels.append(ect_neighbour(levels[-1], ratio, 0.01))
    return torch.cat(levels)


def fixed_point(levels: torch.Tensor, pair, frozen, whole=truncated) -> torch.Tensor:
    """Where the loss leaves a linear student on `levels` but the last, which lies below the transition.

    Newton steps, exact per level, on the rows (√λ, 0) and (0, 1) of (x₀, ε).
    """
    n = len(levels) - 1
    student = Table(levels[:-1])
    t, r = levels[:-1].repeat(2), levels[1:].repeat(2)
    x0 = torch.cat([LAMBDA.sqrt().expand(n, 3), torch.zeros(n, 3, dtype=F64)])
    noise = torch.cat([torch.zeros(n, 3, dtype=F64), torch.ones(n, 3, dtype=F64)])
    x_t, x_r = pair(x0, noise, t, r)
    for _ in range(n + 1):
        both = whole(frozen, student, TRANSITION)
        total = consistency_loss(student, x_t, x_r, t, r, None, 1.0, target=both).sum()
        (slope,) = torch.autograd.grad(total, student.gain, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), student.gain)
        student.gain.data -= (slope / curvature).detach()
    return student.gain.detach()


def product_of_gains(levels: torch.Tensor, heun: bool) -> torch.Tensor:
    """Of the solver from every level down to the last of them."""
    gains = []
    for s, r in pairwise(levels):
        a, b, h = s / (LAMBDA + s**2), r / (LAMBDA + r**2), r - s
        gains.append(1 + 0.5 * h * (a + b * (1 + h * a)) if heun else 1 + h * a)
    return torch.stack(gains).flip(0).cumprod(0).flip(0)


PAIRS = {
    "heun": lambda x, e, t, r: neighbours(oracle(), x, e, t, r, None, True),
    "euler": lambda x, e, t, r: neighbours(oracle(), x, e, t, r, None, False),
    "tuning": lambda x, e, t, r: neighbours(oracle(), x, e, t, r, None, mixing=1.0),
}


def wrong(x, sigma, condition=None):
    """A first stage that is off: 0.8 of the exact gain."""
    return 0.8 * exact(sigma) * x


@pytest.mark.parametrize("kind", list(PAIRS))
@pytest.mark.parametrize("ratio", [0.75, 0.95])
def test_fixed_point_is_the_frozen_gain_at_the_edge_times_the_steps_above(kind, ratio):
    levels = chain(ratio)
    expected = 0.8 * exact(levels[-1:]) * product_of_gains(levels, kind == "heun")
    torch.testing.assert_close(fixed_point(levels, PAIRS[kind], wrong), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("ratio", "low", "high"), [(0.75, 0.1, 0.3), (0.9, 0.005, 0.011), (0.95, 0.001, 0.003)])
def test_default_ratio_costs_a_percent_of_the_variance(ratio, low, high):
    """Worst excess of a mode, Heun's steps above an exact first stage."""
    levels = chain(ratio, 60.0)
    found = fixed_point(levels, PAIRS["heun"], lambda x, s, c=None: exact(s) * x)
    worst = float((found[0] / exact(levels[:1])).square().max()) - 1
    assert low < worst < high


def test_an_exact_first_stage_and_exact_neighbours_give_the_exact_flow_map():
    def pair(x, noise, t, r):
        x_t = x + t[:, None] * noise
        return x_t, oracle().flow_map(x_t, t, r)

    levels = chain(0.75)
    found = fixed_point(levels, pair, lambda x, s, c=None: exact(s) * x)
    torch.testing.assert_close(found, exact(levels[:-1]), rtol=1e-9, atol=1e-12)


def test_fixed_point_fails_without_the_frozen_net():
    """The student as its own target below the transition, where it is not trained: nothing ties it to the data."""
    levels = chain(0.75)
    found = fixed_point(levels, PAIRS["heun"], wrong, whole=lambda frozen, student, transition: student)
    expected = 0.8 * exact(levels[-1:]) * product_of_gains(levels, True)
    assert ((found / expected - 1).abs() > 0.1).all()


def test_the_frozen_net_answers_below_the_transition_and_the_student_from_there():
    f = truncated(lambda x, s, c: 2 * x, lambda x, s, c: 5 * x, TRANSITION)
    levels = torch.tensor([0.1, 0.999, 1.0, 1.001, 30.0], dtype=F64)
    got = f(torch.ones(5, 1, 2, dtype=F64), levels, None)[:, 0, 0]
    assert got.tolist() == [2, 2, 5, 5, 5]


class Dropping(torch.nn.Module):
    """A network whose output is a dropout mask times its input."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x, c_noise, condition):
        return self.dropout(x)


@pytest.mark.parametrize("level", [TRANSITION, 3.0])
def test_frozen_net_target_and_prediction_meet_the_same_dropout_mask(level):
    """All three are the same network at all but the same level, on either side of the transition."""
    method = TCM(Denoiser(Dropping()), torch.nn.Identity(), [10.0], 0.01).train()
    assert method.frozen.training
    x = torch.randn(4, 2, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
    t = torch.full((4,), level, dtype=F64)
    both = truncated(method.frozen, method.student, TRANSITION)
    near = 1 - 1e-9
    loss = consistency_loss(method.student, x, x * near, t, t * near, None, 1.0, target=both)
    assert float(loss.detach().max()) < 1e-15
    method.frozen.eval()
    loss = consistency_loss(method.student, x, x * near, t, t * near, None, 1.0, target=both)
    assert (float(loss.detach().max()) > 1e-2) == (level == TRANSITION)


class Gain(torch.nn.Module):
    """x times a number, noting the levels that it is given."""

    sigma_data = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.5, dtype=F64))
        self.calls = []

    def forward(self, x, sigma, condition=None):
        self.calls.append(sigma.detach())
        return self.gain * x


def make(**options) -> TCM:
    return TCM(Gain(), oracle(), [40.0, 2.0], 0.01, **options)


def value(method: TCM, n: int = 64, seed: int = 0) -> dict[str, float]:
    torch.manual_seed(seed)
    return {k: float(v.detach()) for k, v in method.loss("student", Batch(oracle().draw(n), {})).items()}


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_levels_are_log_uniform_above_the_transition_and_a_share_stands_at_it(share):
    method = make(share=share)
    value(method)
    r, t = method.student.calls  # the target, then the prediction
    edge = round(share * 64)
    assert (t[-edge:] == TRANSITION).all() and (r[-edge:] < TRANSITION).all()
    place = t[:-edge].log() / math.log(40) * (64 - edge)
    assert sorted(place.floor().clamp(0, 63 - edge).tolist()) == list(range(64 - edge))
    torch.testing.assert_close(r, ect_neighbour(t, 0.9, 0.01), rtol=1e-12, atol=0)


def test_loss_is_the_mean_above_and_the_weighted_mean_at_the_transition():
    none, some, much = (value(make(weight=w)) for w in (0.0, 0.1, 1.0))
    assert some["loss"] - none["loss"] == pytest.approx(0.1 * none["boundary"], rel=1e-9)
    assert much["loss"] - none["loss"] == pytest.approx(none["boundary"], rel=1e-9)
    assert none["boundary"] > 0


def test_targets_of_the_loss_come_from_the_frozen_net_at_the_transition():
    """Teacher D = x keeps x_r = x_t; so the term there is λ(t′) (g − g₀)² E x², with student and frozen gains."""
    teacher, boundary = Gain(), []
    teacher.gain.data.fill_(1.0)
    for gain in (0.5, 0.8, 1.1):
        method = TCM(Gain(), teacher, [40.0], 0.01)
        method.frozen.gain.data.fill_(gain)
        boundary.append(value(method)["boundary"])
    assert boundary[0] < 1e-20
    assert boundary[2] == pytest.approx(4 * boundary[1], rel=1e-9)
    assert boundary[1] > 0.09  # λ(1) = 2, E x² > 1


def test_without_a_share_there_is_no_boundary_term():
    method = make(share=0.0, weight=5.0)
    out = value(method)
    assert set(out) == {"loss"} and math.isfinite(out["loss"])
    assert (method.student.calls[1] > TRANSITION).all()


@pytest.mark.parametrize("n", [2, 3, 5])
def test_small_batches_hold_both_kinds(n):
    out = value(make(), n)
    assert all(math.isfinite(v) for v in out.values()) and out["boundary"] > 0
    with pytest.raises(UserError, match="too few"):
        value(make(), 1)


def test_frozen_net_is_the_student_as_given_and_stays_so():
    student = Gain()
    method = TCM(student, oracle(), [40.0], 0.01)
    assert method.follows == "consistency"
    assert not any(p.requires_grad for p in method.frozen.parameters())
    assert list(method.learners()) == ["student"] and all(p.requires_grad for p in student.parameters())
    optimiser = torch.optim.SGD(student.parameters(), lr=0.1)
    method.loss("student", Batch(oracle().draw(16), {}))["loss"].backward()
    optimiser.step()
    assert float(method.frozen.gain) == 0.5 != float(student.gain.detach())
    resumed = TCM(Gain().requires_grad_(True), oracle(), [40.0], 0.01)
    torch.nn.init.ones_(resumed.frozen.gain)
    resumed.load_state_dict(method.state_dict())
    assert float(resumed.frozen.gain) == 0.5


@pytest.mark.parametrize(("mixing", "heun", "calls"), [(0.0, True, 2), (0.0, False, 1), (1.0, True, 0)])
def test_teacher_is_called_for_its_steps_alone(mixing, heun, calls):
    teacher = Gain()
    method = TCM(Gain(), teacher, [40.0], 0.01, heun=heun, mixing=mixing)
    value(method)
    assert len(teacher.calls) == calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigmas": [40.0, 0.5]}, r"method\.sigmas.*at method\.transition"),
        ({"transition": 50.0, "sigmas": [40.0]}, r"method\.transition"),
        ({"transition": 0.005}, r"method\.transition"),
        ({"share": 1.0}, r"method\.share"),
        ({"weight": -1.0}, r"method\.weight"),
        ({"ratio": 1.0}, "between 0 and 1"),
        ({"mixing": 2.0}, "mixing"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    sigmas = options.pop("sigmas", [40.0, 2.0])
    with pytest.raises(UserError, match=message):
        TCM(Gain(), oracle(), sigmas, 0.01, **options)
