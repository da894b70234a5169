"""Flow maps: the three equations at the truth and away from it, what lands where, and what is drawn."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from scigen.core.denoise import expand, preconditioning
from scigen.core.methods.base import Batch
from scigen.core.methods.flow_map import FlowMapMatching, carried, lagrangian, last_jump, shortcut
from scigen.core.methods.tangent import Points, eulerian, moved_loss, to_denoised
from scigen.core.noise import log_sigmas
from scigen.core.oracle import Gaussian, RotatedProduct
from scigen.core.sample import flow_map
from scigen.errors import UserError

F64 = torch.float64
LAMBDA = torch.tensor([0.02, 1.0, 30.0], dtype=F64)
LOW, HIGH = 0.01, 60.0
OBJECTIVES = ["eulerian", "lagrangian", "shortcut"]
TRUTH = torch.tensor([1.0, 0, 0, 0], dtype=F64)[:, None].expand(4, 3)


def oracle() -> Gaussian:
    return Gaussian.dense(torch.zeros(3, dtype=F64), torch.diag(LAMBDA), (3,))


def exact_map(law, x, sigma, condition=None, to=None):
    """G of the exact flow map of a law; D where it has no length."""
    ratio = expand(to / sigma, x)
    moved = law.flow_map(x, sigma, to)
    return torch.where(ratio == 1, law(x, sigma), (moved - ratio * x) / (1 - ratio).clamp_min(1e-300))


class Family(nn.Module):
    """A linear student of four shapes, of which the first is the exact map and the second the denoiser."""

    sigma_data = 1.0

    def __init__(self, theta: tuple[float, ...] = (0.0, 1.0, 0.0, 0.0)) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta, dtype=F64)[:, None].repeat(1, 3))

    def forward(self, x, sigma, condition=None, to=None):
        sigma, to = sigma.to(F64)[:, None], (torch.zeros_like(sigma) if to is None else to).to(F64)[:, None]
        short = ((sigma - to) / sigma) < 1e-12
        q = torch.where(short, 0.5, to / sigma)
        exact = (((LAMBDA + (q * sigma) ** 2) / (LAMBDA + sigma**2)).sqrt() - q) / (1 - q)
        denoiser = LAMBDA / (LAMBDA + sigma**2)
        exact = torch.where(short, denoiser, exact)
        low = 1 / (1 + sigma**2)
        shapes = torch.stack([exact, denoiser, (to / sigma) * exact, (1 - to / sigma) * low.expand_as(exact)])
        return (self.theta[:, None] * shapes).sum(0) * x


def rows(sigma, to, data: bool) -> Points:
    """Rows (√λ, 0) and (0, 1) of (x₀, ε) for every pair of levels, which carry a linear student's expectation."""
    n = len(sigma)
    x0 = torch.cat([LAMBDA.sqrt().expand(n, 3), torch.zeros(n, 3, dtype=F64)])
    x = x0 + sigma.repeat(2)[:, None] * torch.cat([torch.zeros(n, 3, dtype=F64), torch.ones(n, 3, dtype=F64)])
    toward = x0 if data else oracle()(x, sigma.repeat(2))
    return Points(x, sigma.repeat(2), to=to.repeat(2), toward=toward)


def residual(objective: str, student, output, points: Points) -> torch.Tensor:
    if objective == "eulerian":
        return eulerian(student, output, points, 1.0)
    if objective == "lagrangian":
        return lagrangian(student, oracle(), output, points)
    return shortcut(student, output, points, LOW)


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    sigma = torch.logspace(math.log10(0.03), math.log10(HIGH), 9, dtype=F64).repeat_interleave(3)
    return sigma, LOW * (sigma / LOW) ** torch.tensor([0.1, 0.5, 0.9], dtype=F64).repeat(9)


def slope(objective: str, student: Family, data: bool = False) -> torch.Tensor:
    """Expected gradient by θ over pairs of levels s < σ and denoising at the same σ."""
    sigma, to = pairs()
    total = torch.zeros((), dtype=F64)
    for points, instant in ((rows(sigma, to, data), False), (rows(sigma, sigma, data), True)):
        output = points.through(student)
        r = to_denoised(output.detach(), points) if instant else residual(objective, student, output.detach(), points)
        r = r / expand(preconditioning(points.sigma, 1.0)[1], r)
        total = total + moved_loss(output, r, points.sigma, 1.0).sum()
    (g,) = torch.autograd.grad(total, student.theta)
    return g


def jacobian(objective: str, student: Family, data: bool = False) -> torch.Tensor:
    """∂ slope / ∂θ, (modes, 4, 4), by central differences, which are exact for these (quadratic at most)."""
    here, columns = student.theta.data.clone(), []
    for i in range(4):
        side = []
        for h in (1.0, -1.0):
            student.theta.data = here.clone()
            student.theta.data[i] += h
            side.append(slope(objective, student, data))
        columns.append((side[0] - side[1]) / 2)
    student.theta.data = here
    return torch.stack(columns).permute(2, 1, 0)


CASES = [("eulerian", False), ("eulerian", True), ("lagrangian", False), ("shortcut", False), ("shortcut", True)]


@pytest.mark.parametrize(("objective", "data"), CASES)
def test_gradient_vanishes_at_the_truth_and_pulls_back_from_around_it(objective, data):
    """Every eigenvalue of the Jacobian has a positive real part: gradient descent contracts every perturbation."""
    student = Family((1.0, 0.0, 0.0, 0.0))
    scale = slope(objective, Family(), data).abs().max()
    assert float(slope(objective, student, data).abs().max() / scale) < 1e-9
    assert (torch.linalg.eigvals(jacobian(objective, student, data)).real > 0).all()


@pytest.mark.parametrize(("objective", "data"), CASES)
@pytest.mark.parametrize("start", [(0.0, 1.0, 0.0, 0.0), (0.7, 0.1, -0.1, 0.2)])
def test_fixed_point_is_the_exact_map_from_anywhere(objective, data, start):
    """Newton steps on the expected gradient; one where it is linear."""
    student = Family(start)
    for _ in range(7 if objective == "shortcut" else 1):
        step = torch.linalg.solve(jacobian(objective, student, data), slope(objective, student, data).T)
        student.theta.data = student.theta.data - step.T
    torch.testing.assert_close(student.theta.data, TRUTH, rtol=0, atol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 0.999])
def test_exact_map_has_no_residual(objective, fraction):
    sigma = torch.tensor([0.03, 0.4, 3.0, 50.0], dtype=F64)
    x = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(0)) * (LAMBDA + sigma[:, None] ** 2).sqrt()
    points = Points(x, sigma, to=LOW * (sigma / LOW) ** fraction, toward=oracle()(x, sigma))
    student = partial(exact_map, oracle())
    r = residual(objective, student, points.through(student), points)
    torch.testing.assert_close(r, torch.zeros_like(r), rtol=0, atol=1e-8)


@pytest.mark.parametrize("fraction", [0.2, 0.7])
def test_exact_map_of_another_law_has_no_residual(fraction):
    """Lagrangian (by differences) and shortcut on the quantile map of two turned mixtures."""
    c, s = math.cos(0.6), math.sin(0.6)
    two = lambda *v: torch.tensor([v, v], dtype=F64)  # noqa: E731
    law = RotatedProduct(torch.tensor([[c, -s], [s, c]], dtype=F64), two(0.8, 0.2), two(-0.5, 2.0), two(0.3, 0.5))
    sigma = torch.tensor([0.3, 1.0, 4.0], dtype=F64)
    x = law.draw(3, torch.Generator().manual_seed(1)) + sigma[:, None]
    points = Points(x, sigma, to=LOW * (sigma / LOW) ** fraction)
    student = partial(exact_map, law)
    output = points.through(student)
    r = shortcut(student, output, points, LOW)
    torch.testing.assert_close(r, torch.zeros_like(r), rtol=0, atol=1e-8)
    r = lagrangian(student, law, output, points, how="finite")
    torch.testing.assert_close(r, torch.zeros_like(r), rtol=0, atol=2e-4)  # of the differences


@pytest.mark.parametrize("broken", ["start", "sign", "factor", "halves"])
def test_residual_tells_when_an_equation_is_broken(broken):
    """The teacher at x instead of X; −∂G/∂ln s; without (1 − s/σ); halves swapped."""
    sigma, to = torch.tensor([0.4, 3.0], dtype=F64), torch.tensor([0.1, 1.0], dtype=F64)
    x = torch.randn(2, 3, dtype=F64, generator=torch.Generator().manual_seed(0)) * 3
    points, student = Points(x, sigma, to=to), partial(exact_map, oracle())
    output = points.through(student)
    if broken == "start":
        r = lagrangian(student, lambda *_: oracle()(x, sigma), output, points)
    elif broken == "sign":
        r = lagrangian(student, oracle(), output, points, warm=-1.0)
        cold = lagrangian(student, oracle(), output, points, warm=0.0)
        r = cold + (cold - lagrangian(student, oracle(), output, points))
    elif broken == "factor":
        cold, hot = (lagrangian(student, oracle(), output, points, w) for w in (0.0, 1.0))
        r = cold + (hot - cold) / (1 - to / sigma)[:, None]
    else:
        r = shortcut(lambda x, s, c, to: student(x, s, c, to.sqrt()), output, points, LOW)
    assert float(r.norm() / output.norm()) > 0.01


@pytest.mark.parametrize("name", ["last_jump", "shortcut"])
def test_the_end_is_reached_by_the_solvers_last_step(name):
    """With s = 0 the exact map to σ_min followed by D there: gain √((λ + σ_min²)/(λ + σ²)) · λ/(λ + σ_min²)."""
    sigma = torch.tensor([0.4, 3.0, 50.0], dtype=F64)
    x = torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(0)) * 3
    points = Points(x, sigma, to=torch.zeros_like(sigma))
    low = torch.full_like(sigma, LOW)
    jump = oracle()(oracle().flow_map(x, sigma, low), low)

    def student(x, s, c=None, to=None):
        here = torch.full_like(s, LOW)
        ended = oracle()(oracle().flow_map(x, s, here), here)
        return torch.where(to[:, None] == 0, ended, exact_map(oracle(), x, s, c, to))

    if name == "last_jump":
        r = last_jump(student, oracle(), jump, points, LOW)
    else:
        r = shortcut(student, jump, points, LOW)
    torch.testing.assert_close(r, torch.zeros_like(r), rtol=0, atol=1e-10)
    assert float(last_jump(student, oracle(), 1.1 * jump, points, LOW).norm() / jump.norm()) > 0.05


def test_shortcut_is_two_steps_of_the_sampler():
    """G* = (X* − (s/σ) x)/(1 − s/σ) with X* from two steps of the student, whatever student it is."""

    def student(x, sigma, condition=None, to=None):
        return (x * expand(0.3 + to, x)).sin() / expand(1 + sigma, x)

    sigma, to = torch.tensor([0.4, 3.0, 50.0], dtype=F64), torch.tensor([0.1, 0.0, 40.0], dtype=F64)
    x = torch.randn(3, 3, dtype=F64)
    points = Points(x, sigma, to=to)
    middle = (sigma * to.clamp_min(LOW)).sqrt()
    half = carried(x, student(x, sigma, None, middle), sigma, middle)
    end = carried(half, student(half, middle, None, to), middle, to)
    ratio = (to / sigma)[:, None]
    expected = points.through(student) - (end - ratio * x) / (1 - ratio)
    torch.testing.assert_close(shortcut(student, points.through(student), points, LOW), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_passes_of_one_step_share_their_dropout_masks(objective):
    """A student that drops outputs: with one mask everything that it says of a pixel it does not say is 0."""

    class Dropping(nn.Module):
        def forward(self, x, sigma, condition=None, to=None):
            seen.append(functional.dropout(torch.ones(8, 3, dtype=F64), 0.5))
            return seen[-1] * x * expand((to + 1) / sigma, x)

    seen = []
    method = FlowMapMatching(
        Dropping(), oracle(), [HIGH], LOW, objective=objective, instant=0.0, ends=0.0, anchor=0.0, warmup_tangent=0.0
    )
    method.student.sigma_data = 1.0
    torch.manual_seed(0)
    method.loss("student", Batch(torch.randn(8, 3, dtype=F64), {}))
    assert len(seen) == (3 if objective == "shortcut" else 2)
    assert all(torch.equal(mask, seen[0]) for mask in seen)


# ---------------------------------------------------------------------------------------------------------- the method


FIELDS = torch.tensor([0.25, 1.0, 4.0], dtype=F64)  # variances of the modes that students are trained on
RANGE = (0.05, 30.0)


def fields() -> Gaussian:
    return Gaussian.dense(torch.zeros(3, dtype=F64), torch.diag(FIELDS), (3,))


class Waves(nn.Module):
    """A linear student: gain c_skip + c_out c_in f with waves in u ~ ln σ and v ~ ln(1 + s/σ_min), short ones small."""

    sigma_data = 1.3

    def __init__(self) -> None:
        super().__init__()
        i, j = torch.meshgrid(torch.arange(8), torch.arange(6), indexing="ij")
        self.i, self.j, self.theta = i.flatten(), j.flatten(), nn.Parameter(torch.zeros(48, 3, dtype=F64))

    def forward(self, x, sigma, condition=None, to=None):
        u = (sigma / RANGE[0]).log() / math.log(RANGE[1] / RANGE[0])
        v = (1 + to / RANGE[0]).log() / math.log(1 + RANGE[1] / RANGE[0])
        waves = (math.pi * u[:, None] * self.i).cos() * (math.pi * v[:, None] * self.j).cos()
        f, s, d = (waves / (1 + self.i + self.j) ** 1.5) @ self.theta, sigma[:, None], self.sigma_data
        return (d**2 + s * d * f) / (s**2 + d**2) * x


def trained(steps: int = 400, n: int = 128, lr: float = 0.06, teacher: nn.Module | None = None, **options) -> Waves:
    method = FlowMapMatching(Waves(), teacher or fields(), [RANGE[1]], RANGE[0], **options)
    optimiser = torch.optim.Adam(method.student.parameters(), lr=lr, betas=(0.0, 0.99))
    for step in range(steps):
        torch.manual_seed(step)
        method.at(step / steps)
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimiser.zero_grad()
        method.loss("student", Batch(fields().draw(n), {}))["loss"].backward()
        optimiser.step()
    return method.student


def errors(student: Waves, steps: int) -> torch.Tensor:
    """Relative error of the sampler's gain in every mode."""
    with torch.no_grad():
        gain = flow_map(student, torch.ones(1, 3, dtype=F64), log_sigmas(steps, 0.2, RANGE[1]).tolist())[0]
    return gain / (FIELDS / (FIELDS + RANGE[1] ** 2)).sqrt() - 1


@pytest.mark.parametrize(("objective", "tolerance"), [("eulerian", 0.05), ("lagrangian", 0.04), ("shortcut", 0.08)])
def test_distilled_student_is_right_in_one_step_and_no_worse_in_more(objective, tolerance):
    """From nothing to the flow map's gain, by the method as it is, and then sampled with 1, 2, 4, 8 calls."""
    student = trained(objective=objective)
    worst = [float(errors(student, steps).abs().max()) for steps in (1, 2, 4, 8)]
    assert max(worst) < tolerance
    assert max(worst[1:]) < worst[0] + 0.02


def test_meanflow_lands_where_distillation_does():
    """No teacher; the noise of its residual leaves more."""
    student = trained(n=512, lr=0.03, teacher=no_teacher(), mixing=1.0)
    assert float(errors(student, 1).abs().max()) < 0.05


def no_teacher() -> nn.Module:
    class Never(nn.Module):
        def forward(self, *_):
            raise AssertionError("the teacher was called")

    return Never()


class Silent(nn.Module):
    """G = θ, noting levels."""

    sigma_data = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.theta, self.calls = nn.Parameter(torch.zeros((), dtype=F64)), []

    def forward(self, x, sigma, condition=None, to=None):
        if not torch._C._functorch.peek_interpreter_stack():  # not inside a derivative
            self.calls.append((sigma, to))
        return self.theta + 0 * x


def silent(**options) -> FlowMapMatching:
    return FlowMapMatching(Silent(), Silent(), [HIGH], LOW, **options)


def test_levels_come_in_four_kinds_and_cover_the_triangle():
    torch.manual_seed(0)
    n = 4000
    sigma, to, still, ended = silent(anchor=0.05, instant=0.25, ends=0.25).levels(n, torch.device("cpu"))
    assert (still, ended) == (1200, 2200) and len(sigma) == len(to) == n
    assert (sigma[:200] == LOW).all() and (to[:200] == 0).all()
    assert torch.equal(sigma[200:still], to[200:still])
    assert (to[still:ended] == 0).all() and (to[ended:] >= LOW).all() and (to[ended:] < sigma[ended:]).all()
    span = math.log(HIGH / LOW)
    for part in (slice(200, still), slice(still, ended), slice(ended, n)):
        place = ((sigma[part] / LOW).log() / span).sort().values
        even = (torch.arange(len(place), dtype=F64) + 0.5) / len(place)
        torch.testing.assert_close(place, even, rtol=0, atol=0.6 / len(place))
    share = (to[ended:] / LOW).log() / (sigma[ended:] / LOW).log()
    even = (torch.arange(len(share), dtype=F64) + 0.5) / len(share)
    torch.testing.assert_close(share.sort().values, even, rtol=0, atol=0.6 / len(share))
    assert abs(float(torch.corrcoef(torch.stack([share, sigma[ended:].log()]))[0, 1])) < 0.1


@pytest.mark.parametrize(("objective", "rows"), [("eulerian", 28), ("lagrangian", 18), ("shortcut", 0)])
def test_no_derivative_is_taken_where_it_does_not_count(objective, rows, monkeypatch):
    """12 of 40 samples have s = σ or stand at σ_min; of the other 28 Lagrangian leaves out the 10 that end at 0."""
    sizes, jvp = [], torch.func.jvp
    monkeypatch.setattr(torch.func, "jvp", lambda f, p, t: sizes.append(len(p[0])) or jvp(f, p, t))
    method = silent(objective=objective, anchor=0.05, instant=0.25, ends=0.25)
    batch = Batch(torch.randn(40, 3, dtype=F64), {})
    method.loss("student", batch)  # cold
    assert sizes == []
    method.at(1.0)
    method.loss("student", batch)
    assert sizes == ([rows] if rows else [])


@pytest.mark.parametrize(
    ("objective", "expected"), [("eulerian", [40]), ("lagrangian", [12, 10, 18]), ("shortcut", [12])]
)
def test_teacher_is_asked_once_for_every_sample_that_needs_it(objective, expected):
    method = silent(objective=objective, anchor=0.05, instant=0.25, ends=0.25)
    method.loss("student", Batch(torch.randn(40, 3, dtype=F64), {}))
    assert [len(sigma) for sigma, _ in method.teacher.calls] == expected


def test_cold_student_learns_to_denoise_only():
    """warm = 0: R ∝ G − D at all levels, so the slope of θ has the sign of θ − mean(x₀)."""
    method = FlowMapMatching(Silent(), no_teacher(), [HIGH], LOW, mixing=1.0)
    for mean, sign in ((2.0, -1), (-2.0, 1)):
        torch.manual_seed(0)
        loss = method.loss("student", Batch(mean + 0.1 * torch.randn(64, 4, dtype=F64), {}))["loss"]
        assert float(torch.autograd.grad(loss, method.student.theta)[0]) * sign > 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (dict(objective="euler"), "method.objective=euler"),
        (dict(objective="lagrangian", mixing=0.5), "method.mixing=0.5"),
        (dict(instant=0.6, ends=0.4), "method=flow_map"),
    ],
)
def test_options_are_checked(options, named):
    with pytest.raises(UserError, match=named):
        silent(**options)
