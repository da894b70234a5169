"""Derivatives along the flow, the Eulerian residual, and the loss that moves by it."""

import math
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from scigen.core.denoise import Denoiser, FlowMap, expand, loss_weight, preconditioning
from scigen.core.methods import tangent
from scigen.core.methods.tangent import (
    Points,
    along_end,
    along_flow,
    check_continuous,
    counts,
    derivative,
    destination,
    eulerian,
    moved_loss,
    normalised,
    residual_loss,
    to_denoised,
)
from scigen.core.networks.unet import UNet
from scigen.core.oracle import Gaussian, RotatedProduct
from scigen.errors import UserError

F64 = torch.float64
LAMBDA = torch.tensor([0.02, 1.0, 30.0], dtype=F64)
SIGMA = torch.tensor([0.05, 0.4, 3.0, 50.0], dtype=F64)


def oracle() -> Gaussian:
    return Gaussian.dense(torch.zeros(3, dtype=F64), torch.diag(LAMBDA), (3,))


def states(n: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, dtype=F64, generator=torch.Generator().manual_seed(seed)) * 3


def exact_map(law, x, sigma, condition=None, to=None):
    """G of the exact flow map of a law; D where it has no length."""
    to = torch.zeros_like(sigma) if to is None else to
    ratio = expand(to / sigma, x)
    carried = law.flow_map(x, sigma, to)
    return torch.where(ratio == 1, law(x, sigma), (carried - ratio * x) / (1 - ratio).clamp_min(1e-300))


def skewed() -> RotatedProduct:
    """Two coefficients, turned by 0.6 rad: many small values and few large ones."""
    c, s = math.cos(0.6), math.sin(0.6)
    two = lambda *v: torch.tensor([v, v], dtype=F64)  # noqa: E731
    return RotatedProduct(torch.tensor([[c, -s], [s, c]], dtype=F64), two(0.8, 0.2), two(-0.5, 2.0), two(0.3, 0.5))


class Network(nn.Module):
    """Anything: x and σ with their products, and dropout."""

    sigma_data = 1.0

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([0.3, -0.2, 0.7], dtype=F64))
        self.dropout = dropout

    def forward(self, x, sigma, condition=None, to=None):
        late = 0 if to is None else expand((1 + to).log(), x)
        out = self.gain * x / (1 + expand(sigma, x)) + (0.1 * x).sin() * expand(sigma.log(), x) + late * x
        return functional.dropout(out, self.dropout, self.training)


# ------------------------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("how", ["forward", "finite"])
def test_total_derivative_of_the_gaussian_denoiser(how):
    """D = d x with d = λ/(λ + σ²): dD/dlnσ = (1 − d) d x + d′ x = −d σ²/(λ + σ²) x."""
    law, x = oracle(), states()
    value, change = along_flow(law, Points(x, SIGMA, toward=law(x, SIGMA)), how)
    s2 = SIGMA[:, None] ** 2
    d = LAMBDA / (LAMBDA + s2)
    torch.testing.assert_close(value, d * x, rtol=1e-12, atol=0)
    exact = how == "forward"
    torch.testing.assert_close(change, -d * s2 / (LAMBDA + s2) * x, rtol=1e-10 if exact else 3e-4, atol=0)


def test_central_differences_are_of_second_order(monkeypatch):
    law, x = oracle(), states()
    points = Points(x, SIGMA, toward=law(x, SIGMA))
    exact, errors = along_flow(law, points)[1], []
    for step in (4e-2, 2e-2):
        monkeypatch.setattr(tangent, "STEP", step)
        errors.append((along_flow(law, points, "finite")[1] - exact).norm())
    assert float(errors[0] / errors[1]) == pytest.approx(4, rel=0.02)


def network(space: int, two_times: bool, dtype=F64, periodic: bool = False) -> nn.Module:
    torch.manual_seed(1)
    scalars = FlowMap.FEATURES if two_times else 0
    net = UNet(2, condition_scalars=scalars, space=space, widths=(8, 8), embedding=8, periodic=periodic)
    for p in net.parameters():
        nn.init.normal_(p, std=0.2)
    return (FlowMap if two_times else Denoiser)(net.to(dtype), 0.8)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("space", [1, 2, 3])
@pytest.mark.parametrize("two_times", [False, True])
def test_forward_mode_agrees_with_differences_through_the_network(space, two_times, periodic, monkeypatch):
    monkeypatch.setattr(tangent, "STEP", 1e-5)
    student = network(space, two_times, periodic=periodic)
    x = torch.randn(3, 2, *[4] * space, dtype=F64)
    sigma = torch.tensor([0.1, 1.0, 20.0], dtype=F64)
    points = Points(x, sigma, to=0.4 * sigma if two_times else None, toward=torch.randn_like(x))
    torch.testing.assert_close(
        along_flow(student, points)[1], along_flow(student, points, "finite")[1], rtol=1e-6, atol=1e-7
    )
    if two_times:
        torch.testing.assert_close(
            along_end(student, points)[1], along_end(student, points, "finite")[1], rtol=1e-6, atol=1e-7
        )


def test_single_precision_agrees_with_double_whatever_the_dtype_of_the_levels():
    """σ counts in float64 inside the denoiser; tangents follow the dtype of what they are tangent to."""
    x, sigma = torch.randn(3, 2, 8, dtype=F64), torch.tensor([0.1, 1.0, 20.0], dtype=F64)
    toward = torch.randn_like(x)
    expected = along_flow(network(1, True), Points(x, sigma, to=0.5 * sigma, toward=toward))[1]
    for dtype in (torch.float32, F64):
        points = Points(x.float(), sigma.to(dtype), to=0.5 * sigma.to(dtype), toward=toward.float())
        value, change = along_flow(network(1, True, torch.float32), points)
        assert value.dtype == change.dtype == torch.float32
        torch.testing.assert_close(change.double(), expected, rtol=1e-3, atol=1e-4)


class Attention(nn.Module):
    def forward(self, x, sigma, condition=None):
        q = x[:, None]
        return functional.scaled_dot_product_attention(q, q, q)[:, 0] * expand(sigma, x)


def test_attention_is_differentiated_by_its_plain_kernel():
    x, sigma = torch.randn(2, 8, 4), torch.ones(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(NotImplementedError):  # what happens otherwise
            torch.func.jvp(lambda x: Attention()(x, sigma), (x,), (x,))
    points = Points(x, sigma, toward=torch.zeros_like(x))
    torch.testing.assert_close(
        along_flow(Attention(), points)[1], along_flow(Attention(), points, "finite")[1], rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("how", ["forward", "finite"])
def test_derivatives_are_in_full_precision_under_autocast(how):
    student = network(2, False, torch.float32)
    x, sigma = torch.randn(2, 2, 8, 8), torch.tensor([0.3, 2.0])
    points = Points(x, sigma, toward=torch.zeros_like(x))
    expected = along_flow(student, points, how)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(along_flow(student, points, how)[1], expected)
        assert (points.through(student) - along_flow(student, points, how)[0]).abs().max() > 1e-3
    assert not expected.requires_grad


@pytest.mark.parametrize("how", ["forward", "finite"])
def test_derivative_meets_the_dropout_masks_of_the_pass_with_gradient(how):
    """A dropped output has no derivative, and the value is that of the pass before, bit by bit."""
    student, x = Network(dropout=0.5).train(), states(4).repeat(8, 1)
    points = Points(x, SIGMA.repeat(8), toward=torch.zeros_like(x))
    seen = {}

    def residual(output, points):
        seen["pass"] = output
        seen["value"], seen["change"] = along_flow(student, points, how)
        return seen["change"]

    torch.manual_seed(3)
    residual_loss(student, [(points, residual)], 1.0, 0.1, False)
    assert torch.equal(seen["pass"], seen["value"])
    assert torch.equal(seen["pass"] == 0, seen["change"] == 0)
    assert 0.2 < float((seen["pass"] == 0).double().mean()) < 0.8
    torch.manual_seed(3)
    plain = points.through(student)
    again, _ = along_flow(student, points, how)  # not rewound between: another mask
    assert not torch.equal(plain == 0, again == 0)


def test_dropout_masks_differ_between_steps():
    student, points = Network(dropout=0.5).train(), Points(states(), SIGMA, toward=states(seed=1))
    torch.manual_seed(0)
    passes = []
    for _ in range(2):
        residual_loss(student, [(points, lambda g, p: passes.append(g) or along_flow(student, p)[1])], 1.0, 0.1, False)
        torch.rand(())  # as the noise of the next batch
    assert not torch.equal(passes[0], passes[1])


# ----------------------------------------------------------------------------------------------------------- residual


@pytest.mark.parametrize("share", [None, 0.0, 0.02, 0.5, 0.97])
def test_exact_flow_map_of_a_gaussian_has_no_residual(share):
    law, x = oracle(), states()
    student = partial(exact_map, law)
    to = None if share is None else share * SIGMA
    points = Points(x, SIGMA, to=to, toward=law(x, SIGMA))
    residual = eulerian(student, points.through(student), points, 1.0)
    torch.testing.assert_close(residual, torch.zeros_like(x), rtol=0, atol=1e-8)


@pytest.mark.parametrize("share", [None, 0.2, 0.8])
def test_exact_flow_map_of_another_law_has_no_residual(share, monkeypatch):
    monkeypatch.setattr(tangent, "STEP", 1e-4)  # the quantile map has no forward mode
    law, sigma = skewed(), torch.tensor([0.3, 1.0, 4.0], dtype=F64)
    x = law.draw(3, torch.Generator().manual_seed(0)) + sigma[:, None] * torch.ones(3, 2, dtype=F64)
    student = partial(exact_map, law)
    points = Points(x, sigma, to=None if share is None else share * sigma, toward=law(x, sigma))
    residual = eulerian(student, points.through(student), points, 1.0, how="finite")
    torch.testing.assert_close(residual, torch.zeros_like(x), rtol=0, atol=2e-7)


@pytest.mark.parametrize("broken", ["still", "backwards", "one time", "no gap"])
def test_no_residual_fails_when_a_term_is_broken(broken):
    """A tangent along σ alone, against the flow, a map that forgets s, and R without (s/σ)(G − D)."""
    law, x = oracle(), states()
    student, to = partial(exact_map, law), 0.5 * SIGMA
    output, denoised = student(x, SIGMA, to=to), law(x, SIGMA)
    toward = {"still": x, "backwards": 2 * x - denoised}.get(broken, denoised)
    points = Points(x, SIGMA, to=to, toward=toward)
    residual = 0.5 * (output - denoised) + 0.5 * along_flow(student, points)[1]
    if broken == "one time":
        residual = eulerian(lambda x, s, c, to: student(x, s), student(x, SIGMA), points, 1.0)
    if broken == "no gap":
        residual = 0.5 * along_flow(student, points)[1]
    assert float((residual.norm(dim=1) / x.norm(dim=1)).max()) > 0.02


@pytest.mark.parametrize("share", [None, 0.0, 0.3, 0.9])
def test_with_data_the_residual_of_the_exact_map_is_zero_on_average(share):
    """Rows (√λ, 0) and (0, 1) of (x₀, ε) carry the expectation of what is linear: E[R x] = 0, though R is not."""
    law, n = oracle(), len(SIGMA)
    sigma = SIGMA.repeat(2)
    x0 = torch.cat([LAMBDA.sqrt().expand(n, 3), torch.zeros(n, 3, dtype=F64)])
    x = x0 + sigma[:, None] * torch.cat([torch.zeros(n, 3, dtype=F64), torch.ones(n, 3, dtype=F64)])
    student = partial(exact_map, law)
    points = Points(x, sigma, to=None if share is None else share * sigma, toward=x0)
    residual = eulerian(student, points.through(student), points, 1.0)
    assert float(residual.norm()) > 0.1
    torch.testing.assert_close((residual * x).reshape(2, n, 3).sum(0), torch.zeros(n, 3, dtype=F64), rtol=0, atol=1e-8)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.9])
def test_with_data_the_target_is_meanflows(ratio):
    """u = (x − G)/σ with the slope v = ε: u* = v − (σ − s) du/dσ (arXiv:2505.13447, equation 10) is G − R."""
    student, x0, noise = Network(), states(seed=1), states(seed=2)
    x = x0 + SIGMA[:, None] * noise
    points = Points(x, SIGMA, to=ratio * SIGMA, toward=x0)
    output = points.through(student).detach()

    def average(x, sigma):
        return (x - student(x, sigma, None, ratio * SIGMA)) / sigma[:, None]

    du = derivative(average, (x, SIGMA), (noise, torch.ones_like(SIGMA)))[1]  # along dx/dσ = ε
    u = noise - (1 - ratio) * SIGMA[:, None] * du
    torch.testing.assert_close(
        x - SIGMA[:, None] * u, output - eulerian(student, output, points, 1.0), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("ratio", [None, 0.0, 0.5])
def test_cold_residual_is_that_of_denoising_and_needs_no_derivative(ratio, monkeypatch):
    def never(*_):
        raise AssertionError("a derivative was computed")

    monkeypatch.setattr(torch.func, "jvp", never)
    student, x = Network(), states()
    points = Points(x, SIGMA, to=None if ratio is None else ratio * SIGMA, toward=states(seed=1))
    output = points.through(student)
    c2 = preconditioning(SIGMA, 0.8)[0][:, None]
    share = c2 if ratio is None else ratio + (1 - ratio) * c2
    expected = share * (output - points.toward)
    torch.testing.assert_close(eulerian(student, output, points, 0.8, warm=0.0), expected.detach(), rtol=1e-12, atol=0)


def test_warm_up_is_linear():
    student, points = Network(), Points(states(), SIGMA, to=0.5 * SIGMA, toward=states(seed=1))
    output = points.through(student)
    cold, half, hot = (eulerian(student, output, points, 1.0, warm) for warm in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, 0.5 * (cold + hot), rtol=1e-12, atol=1e-12)
    assert float((hot - cold).norm()) > 0.1


def test_where_the_map_has_no_length_the_residual_is_the_distance_to_the_denoiser():
    points = Points(states(), SIGMA, to=SIGMA, toward=states(seed=1))
    output = points.through(Network()).detach()
    torch.testing.assert_close(eulerian(Network(), output, points, 1.0), to_denoised(output, points), rtol=0, atol=0)


# ------------------------------------------------------------------------------------------------ normalisation, loss


def test_normalised_residual_keeps_its_direction_and_is_bounded():
    r = states(50) * torch.logspace(-6, 6, 50, dtype=F64)[:, None]
    n = normalised(r, 0.1)
    torch.testing.assert_close(functional.cosine_similarity(r, n), torch.ones(50, dtype=F64), rtol=1e-12, atol=0)
    rms = r.square().mean(1).sqrt()
    torch.testing.assert_close(n.square().mean(1).sqrt(), rms / (rms + 0.1), rtol=1e-12, atol=0)


def test_neighbours_norm_depends_on_those_next_in_level_and_not_on_the_sample_itself():
    sigma = torch.tensor([3.0, 0.1, 7.0, 1.0], dtype=F64)  # in order: 1, 3, 0, 2
    r = torch.tensor([3.0, 1.0, 7.0, 2.0], dtype=F64)[:, None]
    square = torch.tensor([(4 + 49) / 2, 4, 9, (1 + 9) / 2], dtype=F64)
    torch.testing.assert_close(normalised(r, 0.5, sigma), r / (square.sqrt()[:, None] + 0.5), rtol=1e-12, atol=0)
    torch.testing.assert_close(normalised(r[:1], 0.5, sigma[:1]), r[:1] / 1.5, rtol=0, atol=0)


def bias(by_neighbours: bool) -> torch.Tensor:
    """Mean of R̂ over posterior draws at one state, in its standard errors, at the truth of a skewed law, s = σ."""
    n, generator = 40000, torch.Generator().manual_seed(0)
    x0 = torch.where(torch.rand(n, 1, dtype=F64, generator=generator) < 0.1, 3.0, -1 / 3)  # mean 0: D = 0
    sigma = torch.rand(n, dtype=F64, generator=generator)
    r = normalised(-x0, 0.1, sigma if by_neighbours else None)
    return r.mean(0).abs() / (r.std(0) / n**0.5)


def test_neighbours_norm_keeps_the_optimum_of_noisy_residuals():
    assert float(bias(True)) < 4


def test_optimum_moves_when_noisy_residuals_are_normalised_by_themselves():
    assert float(bias(False)) > 100


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 3.0])
def test_loss_moves_the_output_of_the_network_by_the_residual(sigma_data):
    """∂L/∂G = 2 R̂/(n c_out): in G's units a step along c_out R̂ with the weight λ = 1/c_out². Its value is ‖R̂‖²."""
    output, move = states().requires_grad_(), states(seed=1)
    each = moved_loss(output, move, SIGMA, sigma_data)
    torch.testing.assert_close(each.detach(), move.square().mean(1), rtol=1e-12, atol=0)
    (slope,) = torch.autograd.grad(each.sum(), output)
    torch.testing.assert_close(slope, 2 * move * loss_weight(SIGMA, sigma_data)[:, None].sqrt() / 3, rtol=1e-12, atol=0)


def test_parts_have_a_pass_each_and_their_losses_come_in_order():
    student, points = Network(), Points(states(), SIGMA, {"a": torch.arange(4.0)}, to=SIGMA, toward=states(seed=1))
    sizes = []

    def residual(output, points):
        sizes.append(points.condition["a"].tolist())
        return output * 0 + len(points)

    each, size = residual_loss(
        student, [(points[:1], residual), (points[1:1], residual), (points[1:], residual)], 1, 1, False
    )
    assert sizes == [[0.0], [1.0, 2.0, 3.0]]
    expected = torch.tensor([1.0, 3.0, 3.0, 3.0], dtype=F64) / preconditioning(SIGMA, 1.0)[1]
    torch.testing.assert_close(size, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(each.detach(), (expected / (expected + 1)) ** 2, rtol=1e-12, atol=0)


# -------------------------------------------------------------------------------------------------------- small parts


def test_all_points_keep_the_condition_itself_and_some_have_their_rows():
    condition = {"a": torch.arange(4.0)}
    points = Points(states(), SIGMA, condition, to=SIGMA, toward=states())
    assert points[0:].condition is condition and points[:4] is points
    some = points[1:3]
    assert len(some) == 2 and some.condition["a"].tolist() == [1.0, 2.0]
    assert torch.equal(some.to, SIGMA[1:3]) and torch.equal(some.toward, points.toward[1:3])


@pytest.mark.parametrize(("mixing", "share"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
def test_the_flow_heads_for_data_as_often_as_asked(mixing, share):
    calls = []

    def teacher(x, sigma, condition):
        calls.append(condition)
        return torch.zeros_like(x)

    torch.manual_seed(0)
    x, condition = torch.ones(4000, 1), {}
    out = destination(teacher, 5 * x, x, torch.ones(4000), condition, mixing)
    assert float(out.mean()) == pytest.approx(share, abs=4 * 0.5 / 4000**0.5 * (0 < share < 1))
    assert len(calls) == (mixing < 1) and all(c is condition for c in calls)


@pytest.mark.parametrize("n", [1, 2, 7, 32])
def test_counts_sum_up_and_are_right_on_average(n):
    torch.manual_seed(0)
    drawn = torch.tensor([counts(n, 0.05, 0.25, 0.3) for _ in range(4000)], dtype=F64)
    assert (drawn.sum(1) == n).all() and (drawn >= 0).all()
    expected = n * torch.tensor([0.05, 0.25, 0.3, 0.4], dtype=F64)
    assert ((drawn - expected).abs() < 1 + 1e-9).all()
    torch.testing.assert_close(drawn.mean(0), expected, rtol=0, atol=0.035)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((1.5, 0.0, 0.1, "forward", 0.1), "warmup_tangent"),
        ((0.1, -0.1, 0.1, "forward", 0.1), "mixing"),
        ((0.1, 0.0, 0.0, "forward", 0.1), "softening"),
        ((0.1, 0.0, 0.1, "backward", 0.1), "method.jvp"),
        ((0.1, 0.0, 0.1, "finite", 0.5, 0.5), "must leave some"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, named):
    with pytest.raises(UserError, match=named):
        check_continuous("scm", *options)
