"""sCM: its fixed point, the paper's own formula, the lowest level, and the learned weight."""

import math

import pytest
import torch
from torch import nn

from scigen.core.denoise import Denoiser, DenoiserModule, expand, preconditioning
from scigen.core.guide import Consistent
from scigen.core.methods.base import Batch
from scigen.core.methods.scm import SCM, LogVariance
from scigen.core.methods.tangent import Points, derivative, eulerian, moved_loss, to_denoised
from scigen.core.networks.unet import UNet
from scigen.core.operator import Operator
from scigen.core.oracle import Gaussian
from scigen.errors import UserError

F64 = torch.float64
LAMBDA = torch.tensor([0.02, 1.0, 30.0], dtype=F64)
LOW, HIGH = 0.01, 60.0
N = 80


def oracle() -> Gaussian:
    return Gaussian.dense(torch.zeros(3, dtype=F64), torch.diag(LAMBDA), (3,))


class Polynomial(nn.Module):
    """A linear student: gain c_skip + c_out c_in f(ln σ), f a polynomial (of Chebyshev) for each mode."""

    sigma_data = 1.0

    def __init__(self, terms: int = 20) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(terms, 3, dtype=F64))

    def forward(self, x, sigma, condition=None):
        u = (2 * (sigma / LOW).log() / math.log(HIGH / LOW) - 1)[:, None]
        waves = [torch.ones_like(u), u]
        for _ in range(len(self.theta) - 2):
            waves.append(2 * u * waves[-1] - waves[-2])
        f = torch.cat(waves, 1) @ self.theta
        return (1 + sigma[:, None] * f) / (1 + sigma[:, None] ** 2) * x


def rows(sigma: torch.Tensor, tuning: bool) -> Points:
    """Rows (√λ, 0) and (0, 1) of (x₀, ε) for every level, which carry the expectation of a linear student."""
    n = len(sigma)
    x0 = torch.cat([LAMBDA.sqrt().expand(n, 3), torch.zeros(n, 3, dtype=F64)])
    x = x0 + sigma.repeat(2)[:, None] * torch.cat([torch.zeros(n, 3, dtype=F64), torch.ones(n, 3, dtype=F64)])
    return Points(x, sigma.repeat(2), toward=x0 if tuning else oracle()(x, sigma.repeat(2)))


def slope_of_the_loss(student: nn.Module, tuning: bool, anchored: bool, warm: float, flip: float = 1.0):
    """Expected gradient by θ over levels log-uniform in [σ_min, σ_max] and, a tenth as many, at σ_min."""
    total = torch.zeros((), dtype=F64)
    spread = LOW * (HIGH / LOW) ** torch.linspace(0, 1, N, dtype=F64)
    for sigma in (spread, torch.full((N // 10,), LOW, dtype=F64))[: 2 if anchored else 1]:
        points = rows(sigma, tuning)
        output = points.through(student)
        if sigma is spread:
            r = flip * eulerian(student, output, points, 1.0, warm)
        else:
            r = to_denoised(output.detach(), points)
        r = r / expand(preconditioning(points.sigma, 1.0)[1], r)
        total = total + moved_loss(output, r, points.sigma, 1.0).sum()
    (slope,) = torch.autograd.grad(total, student.theta)
    return slope


def operator_of_the_loss(student: nn.Module, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """The expected gradient is A θ + b: A (modes, terms, terms) and b (modes, terms), one column at a time."""
    student.theta.data.zero_()
    b = slope_of_the_loss(student, **options)
    columns = []
    for i in range(len(student.theta)):
        student.theta.data.zero_()[i] = 1
        columns.append(slope_of_the_loss(student, **options) - b)
    return torch.stack(columns).permute(2, 1, 0), b.T


def fixed_gain(sigma: torch.Tensor, **options) -> torch.Tensor:
    """Gain (levels, modes) of the student that the loss does not move."""
    student = Polynomial()
    a, b = operator_of_the_loss(student, **options)
    student.theta.data = torch.linalg.solve(a, -b).T.contiguous()
    with torch.no_grad():
        return student(torch.ones(len(sigma), 3, dtype=F64), sigma)


LEVELS = torch.tensor([0.1, 0.5, 2.0, 10.0, 60.0], dtype=F64)
CONSISTENT = (LAMBDA / (LAMBDA + LEVELS[:, None] ** 2)).sqrt()
LAST = (LAMBDA / (LAMBDA + LOW**2)).sqrt()  # what the solver's own last step, Euler's from σ_min, costs


@pytest.mark.parametrize("tuning", [False, True])
def test_fixed_point_is_the_exact_flow_map(tuning):
    """√(λ/(λ + σ²)) within 1 % in every mode, and closer still with the last step: no √ρ."""
    gain = fixed_gain(LEVELS, tuning=tuning, anchored=True, warm=1.0)
    torch.testing.assert_close(gain, CONSISTENT, rtol=1e-2, atol=0)
    torch.testing.assert_close(gain, CONSISTENT * LAST, rtol=1e-3, atol=0)


@pytest.mark.parametrize("tuning", [False, True])
def test_fixed_point_without_warmth_is_the_denoiser(tuning):
    gain = fixed_gain(LEVELS, tuning=tuning, anchored=True, warm=0.0)
    torch.testing.assert_close(gain, LAMBDA / (LAMBDA + LEVELS[:, None] ** 2), rtol=0, atol=2e-3)


def test_exact_map_is_no_fixed_point_when_the_flow_is_followed_the_wrong_way():
    """dx/dlnσ = D − x instead of x − D."""
    points = rows(LEVELS, False)
    exact = lambda x, s, c=None: oracle().flow_map(x, s, torch.zeros_like(s))  # noqa: E731
    backwards = Points(points.x, points.sigma, toward=2 * points.x - points.toward)
    right, wrong = (eulerian(exact, p.through(exact), p, 1.0) for p in (points, backwards))
    assert float(right.norm()) < 1e-8 and float(wrong.norm()) > 1


def test_descent_towards_the_fixed_point_is_stable_and_climbs_when_the_sign_is_wrong():
    """Every eigenvalue of A has a positive real part, so that every perturbation decays; −R makes some grow."""
    good = operator_of_the_loss(Polynomial(12), tuning=False, anchored=True, warm=1.0)[0]
    bad = operator_of_the_loss(Polynomial(12), tuning=False, anchored=True, warm=1.0, flip=-1.0)[0]
    assert (torch.linalg.eigvals(good).real > 0).all()
    assert (torch.linalg.eigvals(bad).real < 0).any(-1).all()


def test_residual_is_blind_to_a_factor_and_the_lowest_level_is_not():
    """R is linear, so K times the exact map has none either for any K; G − D at σ_min tells."""
    points, low = rows(LEVELS, False), rows(torch.tensor([LOW], dtype=F64), False)
    for factor in (1.0, 1.3):
        student = lambda x, s, c=None, k=factor: k * oracle().flow_map(x, s, torch.zeros_like(s))  # noqa: E731
        r = eulerian(student, points.through(student), points, 1.0)
        torch.testing.assert_close(r, torch.zeros_like(r), rtol=0, atol=1e-8)
        gap = to_denoised(low.through(student), low).norm() / low.x.norm()
        assert (float(gap) > 0.2) == (factor > 1)


# ------------------------------------------------------------------------------------------------- the paper's formula


def unet(two: float = 0.2) -> Denoiser:
    torch.manual_seed(0)
    network = UNet(1, space=1, widths=(8, 8), embedding=8).double()
    for p in network.parameters():
        nn.init.normal_(p, std=two)
    return Denoiser(network, 0.7)


@pytest.mark.parametrize("warm", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("tuning", [False, True])
def test_residual_is_the_tangent_of_trigflow(warm, tuning):
    """g = −cos²t (σ_d F⁻ − dx/dt) − r cos t sin t (x + σ_d dF⁻/dt), derived in t; R = c_out g / σ_d."""
    student, teacher, d = unet(), unet(0.1), 0.7
    x0, z = torch.randn(5, 1, 8, dtype=F64), d * torch.randn(5, 1, 8, dtype=F64)
    t = torch.tensor([0.05, 0.4, 0.8, 1.2, 1.5], dtype=F64)
    cos, sin = t.cos()[:, None, None], t.sin()[:, None, None]
    x = cos * x0 + sin * z

    def trig(model, x, t):  # F of the paper: f = cos t x − sin t σ_d F
        cos, sin = t.cos()[:, None, None], t.sin()[:, None, None]
        return (cos * x - model(x / cos, d * t.tan())) / (sin * d)

    dx = cos * z - sin * x0 if tuning else d * trig(teacher, x, t)
    f, df = derivative(lambda x, t: trig(student, x, t), (x, t), (dx, torch.ones_like(t)))
    g = -(cos**2) * (d * f - dx) - warm * cos * sin * (x + d * df)
    points = Points(x / cos, d * t.tan(), toward=x0 if tuning else teacher(x / cos, d * t.tan()).detach())
    residual = eulerian(student, points.through(student), points, d, warm)
    c_out = preconditioning(points.sigma, d)[1][:, None, None]
    torch.testing.assert_close(residual, c_out * g.detach() / d, rtol=1e-8, atol=1e-10)


class Pairs(Operator):
    """Means of two neighbours."""

    def forward(self, x):
        return 0.5 * (x[..., ::2] + x[..., 1::2])

    def adjoint(self, y):
        return 0.5 * y.repeat_interleave(2, -1)

    def inverse(self, y):
        return y.repeat_interleave(2, -1)


def test_a_student_held_to_a_measurement_moves_only_where_it_is_free():
    """A D = y at all levels, so A R = 0."""
    student, operator = Consistent(unet(), Pairs()), Pairs()
    x, sigma = torch.randn(3, 1, 8, dtype=F64), torch.tensor([0.1, 1.0, 9.0], dtype=F64)
    condition = {"measurement": torch.randn(3, 1, 4, dtype=F64)}

    class Free(DenoiserModule):
        def forward(self, x, sigma, condition=None):
            return student.denoiser(x, sigma)

    points = Points(x, sigma, condition, toward=student(x, sigma, condition).detach() * 0.5)
    held, free = (eulerian(m, points.through(m), points, 0.7, 1.0) for m in (student, Free()))
    own = points.through(student).detach()
    gap = preconditioning(sigma, 0.7)[0][:, None, None] * (own - points.toward)
    assert float(operator(held).norm()) < 1e-10 * float(held.norm()) + 1e-10
    assert float(operator(free).norm()) > 0.1 and float(operator(gap).norm()) > 0.1


# ---------------------------------------------------------------------------------------------------------- the method


class Silent(nn.Module):
    """D = θ, noting the levels it is given."""

    sigma_data = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.theta, self.levels = nn.Parameter(torch.zeros(())), []

    def forward(self, x, sigma, condition=None):
        self.levels.append(sigma.detach().clone())
        return self.theta + 0 * x


def test_levels_are_log_uniform_with_a_share_at_the_lowest():
    method = SCM(Silent(), Silent(), [50.0], 0.02, anchor=0.25, warmup_tangent=0.5)
    torch.manual_seed(0)
    method.loss("student", Batch(torch.randn(400, 2), {}))
    (at_low, spread), (all_of_them,) = method.student.levels, method.teacher.levels
    assert len(at_low) == 100 and (at_low == 0.02).all()
    place = (spread.log() - math.log(0.02)) / math.log(50 / 0.02)
    torch.testing.assert_close(place.sort().values, (torch.arange(300, dtype=F64) + 0.5) / 300, rtol=0, atol=0.51 / 300)
    assert torch.equal(all_of_them, torch.cat([at_low, spread]))  # the teacher is called once


def test_derivative_is_computed_for_the_others_only_and_when_it_counts(monkeypatch):
    sizes, jvp = [], torch.func.jvp
    monkeypatch.setattr(torch.func, "jvp", lambda f, p, t: sizes.append(len(p[0])) or jvp(f, p, t))
    method = SCM(Silent(), Silent(), [50.0], 0.02, anchor=0.25)
    for progress, expected in ((0.0, []), (0.1, [30])):
        method.at(progress)
        method.loss("student", Batch(torch.randn(40, 2), {}))
        assert sizes == expected


def test_warm_up_takes_its_share_of_the_training():
    method = SCM(Silent(), Silent(), [50.0], 0.02, warmup_tangent=0.2)
    seen = []
    for progress in (0.0, 0.05, 0.2, 0.9):
        method.at(progress)
        seen.append(method.warm)
    assert seen == pytest.approx([0, 0.25, 1, 1])
    assert SCM(Silent(), Silent(), [50.0], 0.02, warmup_tangent=0).warm == 1


@pytest.mark.parametrize("mixing", [0.0, 1.0])
def test_teacher_is_asked_only_when_distilling(mixing):
    method = SCM(Silent(), Silent(), [50.0], 0.02, mixing=mixing)
    method.loss("student", Batch(torch.randn(8, 2), {}))
    assert len(method.teacher.levels) == (mixing == 0)


def test_cold_loss_moves_towards_the_data_where_they_lead():
    """Tuning at the lowest level and without warmth: with D = θ the slope has the sign of θ − mean(x₀)."""
    method = SCM(Silent().double(), Silent(), [50.0], 0.02, mixing=1.0)
    for mean, sign in ((2.0, -1), (-2.0, 1)):
        torch.manual_seed(0)
        loss = method.loss("student", Batch(mean + 0.1 * torch.randn(64, 4, dtype=F64), {}))["loss"]
        assert float(torch.autograd.grad(loss, method.student.theta)[0]) * sign > 0


def test_learned_weight_learns_with_the_student_and_is_no_part_of_it():
    student = Silent()
    plain, weighted = (SCM(student, Silent(), [50.0], 0.02, log_variance=v) for v in (False, True))
    assert plain.learners()["student"] is student
    own = {id(p) for p in weighted.learners()["student"].parameters()}
    assert own == {id(p) for p in (student.theta, *weighted.weight.parameters())}
    assert len(list(weighted.student.parameters())) == 1


def test_learned_weight_starts_at_none_and_pulls_to_the_logarithm_of_the_loss():
    """∂/∂w (e^{−w} L + w) = 1 − e^{−w} L: at w = 0 it is 1 − L, and zero where w = ln L."""
    torch.manual_seed(0)
    weighted = SCM(Silent(), Silent(), [50.0], 0.02, mixing=1.0, log_variance=True)
    plain = SCM(weighted.student, Silent(), [50.0], 0.02, mixing=1.0)
    batch, losses = Batch(torch.randn(16, 3), {}), []
    for method in (plain, weighted):
        torch.manual_seed(1)
        losses.append(method.loss("student", batch)["loss"])
    torch.testing.assert_close(losses[0], losses[1])
    last = weighted.weight.layers[-1]
    (slope,) = torch.autograd.grad(losses[1], last.bias)
    torch.testing.assert_close(slope[0], (1 - losses[0]).to(slope[0]), rtol=1e-5, atol=1e-6)
    last.bias.data.fill_(float(losses[0].detach().log()))
    torch.manual_seed(1)
    (slope,) = torch.autograd.grad(weighted.loss("student", batch)["loss"], last.bias)
    assert abs(float(slope)) < 1e-5


def test_learned_weight_tells_levels_apart():
    weight = LogVariance()
    nn.init.normal_(weight.layers[-1].weight, generator=torch.Generator().manual_seed(0))
    out = weight(torch.logspace(-2, 2, 9, dtype=F64))
    assert out.shape == (9,) and out.dtype == torch.float32 and float(out.detach().std()) > 0.05


def test_options_are_checked():
    with pytest.raises(UserError, match="method=scm"):
        SCM(Silent(), Silent(), [50.0], 0.02, anchor=1.0)
    with pytest.raises(UserError, match=r"method.jvp=exact"):
        SCM(Silent(), Silent(), [50.0], 0.02, jvp="exact")
