"""Teachers' samplers: exact discrete gains on Gaussian modes, orders of convergence, the law of the stochastic one."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from scigen.core import sample
from scigen.core.noise import karras_sigmas
from scigen.core.oracle import Gaussian, RotatedProduct
from scigen.core.sample import churn, dpm_solver, euler, few_step, flow_map, heun, heun_step, ipndm, unipc
from scigen.errors import UserError

F64 = torch.float64
LAMBDA = torch.tensor([0.01, 0.25, 1.0, 4.0, 100.0], dtype=F64)
DETERMINISTIC = [euler, heun, dpm_solver, unipc, ipndm]


def gaussian() -> Gaussian:
    return Gaussian.dense(torch.zeros(5, dtype=F64), torch.diag(LAMBDA), (5,))


def euler_gain(v, grid):
    g = torch.ones_like(v)
    for s, r in zip(grid, [*grid[1:], 0.0], strict=True):
        g = g * (v + s * r) / (v + s**2)
    return g


def heun_factor(v, s, r):
    a, h = s / (v + s**2), r - s
    b = r / (v + r**2)
    return 1 + 0.5 * h * (a + b * (1 + h * a)) if r else 1 + h * a


def heun_gain(v, grid):
    return math.prod(heun_factor(v, s, r) for s, r in zip(grid, [*grid[1:], 0.0], strict=True))


def dpm_gain(v, grid):
    """The scalar two-term recursion in (x, D of the step before), written from the algorithm in ln σ."""
    x, before, h_before = torch.ones_like(v), None, None
    for s, r in zip(grid, [*grid[1:], 0.0], strict=True):
        d = v / (v + s**2) * x
        if r == 0:
            return d
        h = math.log(s) - math.log(r)
        ratio = 1.0 if before is None else h_before / h
        mixed = d if before is None else (1 + 1 / (2 * ratio)) * d - 1 / (2 * ratio) * before
        x = math.exp(-h) * x - math.expm1(-h) * mixed
        before, h_before = d, h
    raise AssertionError


def unipc_gain(v, grid):
    """The paper's linear system: Σ_m a_m r_m^(n−1) = b_n for the corrector, a = ½ for the predictor of order 2."""
    x, last = torch.ones_like(v), len(grid) - 1
    logs = [-math.log(s) for s in grid]
    ds = [v / (v + grid[0] ** 2) * x]
    for i in range(last):
        h = logs[i + 1] - logs[i]
        base, weight = math.exp(-h) * x - math.expm1(-h) * ds[i], -math.expm1(-h)
        nodes = [] if i == 0 else [(logs[i - 1] - logs[i]) / h]
        differences = [] if i == 0 else [(ds[i - 1] - ds[i]) / nodes[0]]
        predicted = base + weight * sum(0.5 * d for d in differences)
        ds.append(v / (v + grid[i + 1] ** 2) * predicted)
        nodes.append(1.0)
        differences.append(ds[-1] - ds[i])
        if i == 0:
            a = [0.5]
        else:
            phi = [math.expm1(-h)]  # φ₁(−h)·(−h), then h φ₂ and h φ₃
            for n in (1, 2):
                phi.append(phi[-1] / -h - 1 / math.factorial(n))
            b = [math.factorial(n) * phi[n] / phi[0] for n in (1, 2)]
            a = np.linalg.solve([[1.0, 1.0], nodes], b).tolist()
        x = base + weight * sum(w * d for w, d in zip(a, differences, strict=True))
    return ds[-1]


def adams_bashforth(k):
    """Weights of the newest slope first: integrals over (0, 1) of Lagrange's polynomials through 0, −1, …, 1 − k."""
    out = []
    for j in range(k):
        others = [-m for m in range(k) if m != j]
        basis = np.polynomial.Polynomial.fromroots(others) if others else np.polynomial.Polynomial([1.0])
        out.append(basis.integ()(1.0) / basis(-j))
    return out


def ipndm_gain(v, grid):
    x, slopes = torch.ones_like(v), []
    for s, r in pairwise(grid):
        slopes.insert(0, s / (v + s**2) * x)
        k = min(len(slopes), 4)
        x = x + (r - s) * sum(w * d for w, d in zip(adams_bashforth(k), slopes[:k], strict=True))
    return v / (v + grid[-1] ** 2) * x


CASES = [(euler, euler_gain), (heun, heun_gain), (dpm_solver, dpm_gain), (unipc, unipc_gain), (ipndm, ipndm_gain)]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 18, 40])
@pytest.mark.parametrize(("sampler", "gain"), CASES)
def test_exact_discrete_gains(sampler, gain, n):
    grid = karras_sigmas(n, 0.002, 80).tolist()
    x = sampler(gaussian(), torch.full((1, 5), 80.0, dtype=F64), grid)
    torch.testing.assert_close(x[0] / 80, gain(LAMBDA, grid), rtol=1e-12, atol=1e-15)


TABLE = {  # methods' reference: variance ratios for σ ∈ [0.002, 80], ρ = 7, the prior's mismatch included
    (euler, 8): (0.341, 0.443, 0.479, 0.515, 0.583),
    (euler, 18): (0.657, 0.716, 0.739, 0.760, 0.794),
    (euler, 40): (0.832, 0.864, 0.876, 0.887, 0.896),
    (heun, 8): (2.675, 1.943, 1.689, 1.562, 1.291),
    (heun, 18): (1.189, 1.114, 1.092, 1.073, 1.029),
    (heun, 40): (1.031, 1.020, 1.016, 1.012, 0.993),
    (dpm_solver, 8): (0.948, 1.324, 1.395, 1.428, 1.329),
    (dpm_solver, 18): (1.169, 1.128, 1.105, 1.084, 1.033),
    (dpm_solver, 40): (1.033, 1.021, 1.017, 1.013, 0.993),
}


@pytest.mark.parametrize(("sampler", "n"), TABLE)
def test_reference_table_of_variance_ratios(sampler, n):
    grid = karras_sigmas(n, 0.002, 80).tolist()
    x = sampler(gaussian(), torch.full((1, 5), 80.0, dtype=F64), grid)[0]
    torch.testing.assert_close(x**2 / LAMBDA, torch.tensor(TABLE[sampler, n], dtype=F64), rtol=0, atol=1e-3)


def test_euler_is_always_under_dispersed():
    grid = karras_sigmas(18, 0.002, 80).tolist()
    exact = (LAMBDA / (LAMBDA + 80**2)).sqrt()
    assert (euler_gain(LAMBDA, grid) < exact).all()
    assert not (heun_gain(LAMBDA, grid) < exact).all()


def bimodal() -> RotatedProduct:
    q = torch.linalg.qr(torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(0)))[0]
    return RotatedProduct(
        q,
        torch.tensor([[0.5, 0.5], [0.3, 0.7], [0.8, 0.2]], dtype=F64),
        torch.tensor([[-1.0, 1.0], [0.0, 1.5], [-0.5, 2.0]], dtype=F64),
        torch.tensor([[0.4, 0.5], [0.6, 0.4], [0.5, 0.7]], dtype=F64),
    )


def observed_order(sampler, n=40):
    """log₂ of how much the error of the flow from 3 to 0.3 falls when the number of steps doubles."""
    law = bimodal()
    x = 3 * torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    end = torch.full((4,), 0.3, dtype=F64)
    exact = law(law.flow_map(x, torch.full((4,), 3.0, dtype=F64), end), end)

    def error(n):
        grid = torch.linspace(math.log(3), math.log(0.3), n + 1, dtype=F64).exp().tolist()
        if sampler is heun:  # stop on the last level with one denoising, as the others do
            y = x
            for a, b in pairwise(grid):
                y = heun_step(law, y, a, b, None)
            y = law(y, end)
        else:
            y = sampler(law, x, grid)
        return float((y - exact).norm())

    return math.log2(error(n) / error(2 * n))


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2), (dpm_solver, 2), (ipndm, 2), (unipc, 3)])
def test_order_on_a_law_that_is_not_gaussian(sampler, order):
    assert observed_order(sampler) == pytest.approx(order, abs=0.25)


def test_unipc_loses_an_order_when_its_corrector_forgets_the_past(monkeypatch):
    monkeypatch.setattr(sample, "_corrector", lambda h, h_before: (0.0, 0.5))
    assert observed_order(unipc) < 2.5


def test_unipc_corrects_exactly_where_the_denoiser_is_a_parabola_in_log_sigma():
    """x at λ_{i+1} is (σ_{i+1}/σ_i) x_i + σ_{i+1} ∫ e^λ D dλ, from the second step on, whatever the spacing."""
    grid = [5.0, 3.0, 2.5, 1.0, 0.7, 0.2]
    logs, seen = [-math.log(s) for s in grid], []

    def parabola(u):
        return 0.3 - 0.5 * u + 0.7 * u**2

    def primitive(u):  # of e^u times the parabola
        return math.exp(u) * (parabola(u) - (-0.5 + 1.4 * u) + 1.4)

    def denoiser(x, sigma, condition):
        seen.append(float(x))
        return torch.full_like(x, parabola(-math.log(float(sigma))))

    unipc(denoiser, torch.full((1, 1), 2.0, dtype=F64), grid)
    states = []  # corrected ones, recovered from the prediction that follows
    for i in range(1, len(grid) - 1):
        left = grid[i + 1] / grid[i]
        d, before = parabola(logs[i]), parabola(logs[i - 1])
        ahead = d + 0.5 * (logs[i + 1] - logs[i]) / (logs[i] - logs[i - 1]) * (d - before)
        states.append((seen[i + 1] - (1 - left) * ahead) / left)
    for i in range(1, len(states)):
        exact = grid[i + 1] / grid[i] * states[i - 1] + grid[i + 1] * (primitive(logs[i + 1]) - primitive(logs[i]))
        assert states[i] == pytest.approx(exact, rel=1e-12)


def test_ipndm_is_exact_for_cubic_slopes_on_equal_steps():
    """After three steps of warm-up, whose errors are known, no error is added where dx/dσ is a cubic in σ."""
    grid = np.linspace(4.0, 1.0, 13)
    slope = np.polynomial.Polynomial([0.2, -1.0, 0.3, 0.15])

    def denoiser(x, sigma, condition):  # its last call shows where x has come
        seen.append(float(x))
        return x - sigma[:, None] * float(slope(float(sigma)))

    seen: list[float] = []
    ipndm(denoiser, torch.full((1, 1), 2.0, dtype=F64), grid.tolist())
    for i in range(3, 12):
        assert seen[i + 1] - seen[i] == pytest.approx(slope.integ()(grid[i + 1]) - slope.integ()(grid[i]), abs=1e-13)
    assert abs(seen[1] - seen[0] - (slope.integ()(grid[1]) - slope.integ()(grid[0]))) > 1e-3


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_deterministic_samplers_take_no_noise_and_every_call_gets_the_condition(sampler):
    condition, seen = {"scalars": torch.zeros(2, 1)}, []

    def denoiser(x, sigma, given):
        seen.append((given, sigma.shape, sigma.dtype))
        return gaussian()(x, sigma)

    x, grid = torch.ones(2, 5, dtype=F64), [9.0, 3.0, 1.0, 0.5]
    first = sampler(denoiser, x, grid, condition)
    assert torch.equal(sampler(denoiser, x, grid, condition, [torch.ones(2, 5, dtype=F64)]), first)
    assert seen and all(c is condition and shape == (2,) and kind == F64 for c, shape, kind in seen)


@pytest.mark.parametrize("sampler", [*DETERMINISTIC, few_step, churn, flow_map])
@pytest.mark.parametrize("grid", [[], [1.0, 2.0], [1.0, 0.0], [1.0, 1.0]])
def test_bad_grids_are_refused(sampler, grid):
    with pytest.raises(UserError, match="strictly decreasing"):
        sampler(gaussian(), torch.zeros(1, 5, dtype=F64), grid)


# ------------------------------------------------------------------------------------------------------------- churn


def noises(n, rows, seed=0):
    return list(torch.randn(n, rows, 5, dtype=F64, generator=torch.Generator().manual_seed(seed)))


def churned_variance(grid, start=1.0, **options):
    """Variance of every mode, exactly: the sampler is linear, so one row a source of noise, added up in squares."""
    n = len(grid)
    x = torch.zeros(n + 1, 5, dtype=F64)
    x[0] = start * grid[0]
    fresh = []
    for i in range(n):
        one = torch.zeros(n + 1, 5, dtype=F64)
        one[i + 1] = 1
        fresh.append(one)
    return churn(gaussian(), x, grid, None, fresh, **options).square().sum(0)


@pytest.mark.parametrize("options", [{"s_churn": 0.0}, {"s_min": 100.0}, {"s_max": 0.001}])
def test_without_churn_it_is_heun_bit_for_bit(options):
    grid = karras_sigmas(9, 0.002, 80).tolist()
    x = 80 * noises(1, 3, seed=1)[0]
    assert torch.equal(churn(gaussian(), x, grid, None, noises(9, 3), **options), heun(gaussian(), x, grid))
    assert not torch.equal(churn(gaussian(), x, grid, None, noises(9, 3)), heun(gaussian(), x, grid))


@pytest.mark.parametrize(
    "options",
    [
        {"s_churn": 3.0},
        {"s_churn": 1000.0},  # held to γ = √2 − 1
        {"s_churn": 3.0, "s_noise": 1.1},
        {"s_churn": 3.0, "s_min": 0.05, "s_max": 50.0},
    ],
)
@pytest.mark.parametrize("n", [1, 5, 18])
def test_churn_has_exact_discrete_variances(n, options):
    """v ← m² (v + s² (σ̂² − σ²)) with Heun's factor m from σ̂ to the next level."""
    grid = karras_sigmas(n, 0.002, 80).tolist()
    o = {"s_noise": 1.0, "s_min": 0.0, "s_max": math.inf, **options}
    gamma = min(o["s_churn"] / n, 2**0.5 - 1)
    v = torch.full((5,), 80.0**2, dtype=F64)
    for s, r in zip(grid, [*grid[1:], 0.0], strict=True):
        lifted = s * (1 + gamma) if o["s_min"] <= s <= o["s_max"] else s
        v = (v + o["s_noise"] ** 2 * (lifted**2 - s**2)) * heun_factor(LAMBDA, lifted, r) ** 2
    torch.testing.assert_close(churned_variance(grid, **options), v, rtol=1e-12, atol=1e-14)


def test_churn_keeps_the_law_as_steps_get_small():
    """The variance tends to the truth, λ = 100 included, where the ODE keeps what the prior lacks: 1.5 %."""
    worst = []
    for n in (40, 160, 640):
        ratio = churned_variance(karras_sigmas(n, 0.002, 80).tolist(), s_churn=40.0) / LAMBDA
        worst.append(float((ratio - 1).abs().max()))
    assert worst[0] > 5 * worst[1] and worst[2] < 3e-3
    heuns = heun_gain(LAMBDA, karras_sigmas(640, 0.002, 80).tolist()) ** 2 * 80**2 / LAMBDA
    assert float(heuns[-1]) == pytest.approx(6400 / 6500, abs=1e-3)


def test_churn_forgets_a_wrong_start_and_the_ode_does_not():
    grid = karras_sigmas(160, 0.002, 80).tolist()
    ratio = churned_variance(grid, start=2.0, s_churn=40.0) / churned_variance(grid, s_churn=40.0)
    torch.testing.assert_close(ratio[:-1], torch.ones(4, dtype=F64), rtol=0, atol=1e-3)
    kept = churned_variance(grid, start=2.0, s_churn=0.0) / churned_variance(grid, s_churn=0.0)
    torch.testing.assert_close(kept, torch.full((5,), 4.0, dtype=F64))


def test_too_much_fresh_noise_shows_in_the_variance():
    """The law that s_noise = 1 keeps is broken by 1.1."""
    grid = karras_sigmas(640, 0.002, 80).tolist()
    assert ((churned_variance(grid, s_churn=40.0, s_noise=1.1) / LAMBDA - 1) > 0.1).all()


@pytest.mark.parametrize("count", [0, 2, 4])
def test_churn_needs_a_noise_a_level(count):
    with pytest.raises(UserError, match=f"3 fresh noises, not {count}"):
        churn(gaussian(), torch.zeros(1, 5, dtype=F64), [2.0, 1.0, 0.5], None, noises(count, 1))


@pytest.mark.parametrize("options", [{"s_churn": -1.0}, {"s_noise": -0.1}])
def test_negative_churn_is_refused(options):
    with pytest.raises(UserError, match="negative"):
        churn(gaussian(), torch.zeros(1, 5, dtype=F64), [2.0], None, noises(1, 1), **options)
