"""f-divergences: the weights are what the theory derives from f, and their gradient is the divergence's."""

import math

import pytest
import torch

from scigen.core.methods.divergence import DIVERGENCES, LARGEST_LOG_RATIO, check_divergence, ratio
from scigen.errors import UserError

F64 = torch.float64
GENERATORS = {  # f of D_f(p‖q) = E_q f(p/q)
    "reverse_kl": lambda r: -r.log(),
    "jensen_shannon": lambda r: r * r.log() - (1 + r) * ((1 + r) / 2).log(),
    "hellinger": lambda r: 4 * (1 - r.sqrt()),
    "jeffreys": lambda r: (r - 1) * r.log(),
    "forward_kl": lambda r: r * r.log(),
}
EACH = pytest.mark.parametrize("name", sorted(GENERATORS))


def test_every_divergence_has_its_generator_here():
    assert set(DIVERGENCES) == set(GENERATORS)


@EACH
def test_weight_is_the_square_of_r_times_the_second_derivative_of_f(name):
    r = torch.logspace(-2, 2, 41, dtype=F64, requires_grad=True)
    (first,) = torch.autograd.grad(GENERATORS[name](r).sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), r)
    torch.testing.assert_close(DIVERGENCES[name](r), r**2 * second, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("reverse_kl", [1, 1, 1]),
        ("jensen_shannon", [0.2, 0.5, 0.8]),
        ("hellinger", [0.5, 1, 2]),
        ("jeffreys", [1.25, 2, 5]),
        ("forward_kl", [0.25, 1, 4]),
    ],
)
def test_table(name, values):
    got = DIVERGENCES[name](torch.tensor([0.25, 1.0, 4.0], dtype=F64))
    torch.testing.assert_close(got, torch.tensor(values, dtype=F64), rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("name", "nothing", "everything"),
    [
        ("reverse_kl", 1, 1),
        ("jensen_shannon", 0, 1),
        ("hellinger", 0, math.inf),
        ("jeffreys", 1, math.inf),
        ("forward_kl", 0, math.inf),
    ],
)
def test_limits_where_the_teacher_has_nothing_and_where_the_student_has_nothing(name, nothing, everything):
    low, high = DIVERGENCES[name](torch.tensor([1e-30, 1e30], dtype=F64)).tolist()
    assert low == pytest.approx(nothing, abs=1e-14)
    assert high == pytest.approx(1, rel=1e-14) if everything == 1 else high > 1e14


def divergence_and_gradient(name: str, a: float) -> tuple[float, float]:
    """d D_f(p‖q_a)/da on p = N(0, 1.7), q_a = N(0, a² + 0.6²): by autograd, and by E_q h (s_q − s_p) ∂x/∂a."""
    scale = torch.tensor(a, dtype=F64, requires_grad=True)
    x = torch.linspace(-12, 12, 20001, dtype=F64)
    step, v = float(x[1] - x[0]), 1.7
    s2 = scale**2 + 0.36

    def density(variance):
        return torch.exp(-0.5 * x**2 / variance) / (2 * math.pi * variance) ** 0.5

    p, q = density(torch.tensor(v, dtype=F64)), density(s2)
    total = (q * GENERATORS[name](p / q)).sum() * step
    (by_autograd,) = torch.autograd.grad(total, scale)
    q, s2 = q.detach(), float(s2.detach())
    moved = a * x / s2  # E[∂x/∂a | x_σ] = E[z | x_σ] of x_σ = a z + 0.6 ε
    return float(by_autograd), float((q * DIVERGENCES[name](p / q) * (x / v - x / s2) * moved).sum() * step)


@EACH
@pytest.mark.parametrize("a", [0.9, 1.4])
def test_weighted_score_difference_is_the_divergences_gradient(name, a):
    exact, weighted = divergence_and_gradient(name, a)
    assert weighted == pytest.approx(exact, rel=1e-7) and abs(exact) > 0.01


def test_gradient_law_fails_when_the_ratio_is_inverted(monkeypatch):
    monkeypatch.setitem(DIVERGENCES, "forward_kl", lambda r: 1 / r)  # q/p for p/q
    exact, weighted = divergence_and_gradient("forward_kl", 1.4)
    assert abs(weighted - exact) > 0.1 * abs(exact)


def test_ratio_is_the_exponential_of_the_mean_logit_at_mean_one():
    logits = torch.tensor([[0.5, 1.5], [-1.0, -1.0], [2.0, -2.0]], dtype=F64)
    r = torch.tensor([1.0, -1.0, 0.0], dtype=F64).exp()
    torch.testing.assert_close(ratio(logits), r / r.mean(), rtol=1e-14, atol=0)
    torch.testing.assert_close(ratio(logits + 0.7), ratio(logits), rtol=1e-14, atol=0)


def test_ratio_is_clamped():
    got = ratio(torch.tensor([[50.0], [0.0], [-50.0]], dtype=F64))
    limit = math.exp(LARGEST_LOG_RATIO)
    torch.testing.assert_close(got[0] / got[1], torch.tensor(limit, dtype=F64))
    torch.testing.assert_close(got[1] / got[2], torch.tensor(limit, dtype=F64))


def test_an_unknown_divergence_is_refused():
    assert check_divergence("jeffreys") == "jeffreys"
    with pytest.raises(UserError, match=r"'kl'.*forward_kl"):
        check_divergence("kl")
