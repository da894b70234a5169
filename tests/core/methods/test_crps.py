"""Proper scores: their closed forms, what is optimal for them, what each is blind to, and the method around them."""

import math

import numpy as np
import pytest
import scoringrules
import torch
from scipy import fft

from scigen.core.denoise import DenoiserModule
from scigen.core.methods.base import Batch
from scigen.core.methods.crps import CRPS, almost_fair_crps, bands, energy_score, rollout
from scigen.core.sample import few_step
from scigen.errors import UserError

F64 = torch.float64


def normal(n: int, dims: int) -> torch.Tensor:
    """n = 2^k points whose averages are those of independent unit normals to about 1e-4: Sobol's, (n, dims)."""
    points = torch.quasirandom.SobolEngine(dims, scramble=True, seed=1).draw(n, dtype=F64)
    return torch.special.ndtri(points.clamp(1e-12, 1 - 1e-12))


def scored(members: int, s: float, tau: float = 1.0, bias: float = 0.0, alpha: float = 1.0) -> torch.Tensor:
    """Expected score of members N(bias, s²) against truths N(0, τ²)."""
    z = normal(2**15, members + 1)
    return almost_fair_crps(bias + s * z[:, 1:], tau * z[:, 0], alpha).mean()


def share(members: int, alpha: float) -> float:
    """1 − ε, what is left of the pair term: 1 when fair, 1 − 1/M when plain."""
    return 1 - (1 - alpha) / members


@pytest.mark.parametrize("members", [2, 3, 4, 8])
@pytest.mark.parametrize("s", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [1.0, 0.95, 0.0])
def test_expected_crps_of_a_gaussian_forecast(members, s, alpha):
    """√(2(s² + τ²)/π) − (1 − ε) s/√π: of every M the same when fair."""
    tau = 1.3
    expected = math.sqrt(2 * (s**2 + tau**2) / math.pi) - share(members, alpha) * s / math.sqrt(math.pi)
    assert float(scored(members, s, tau, alpha=alpha)) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("bias", [0.5, 2.0])
def test_expected_crps_of_a_biased_forecast(bias):
    """E|X − y| is that of a folded normal: s √(2/π) e^{−b²/2s²} + b erf(b/√2s) with s² = s² + τ²."""
    total = math.sqrt(0.8**2 + 1)
    folded = total * math.sqrt(2 / math.pi) * math.exp(-((bias / total) ** 2) / 2)
    folded += bias * math.erf(bias / total / math.sqrt(2))
    expected = folded - 0.8 / math.sqrt(math.pi)
    assert float(scored(4, 0.8, 1.0, bias)) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("members", [2, 4, 8])
@pytest.mark.parametrize("alpha", [1.0, 0.95, 0.0])
def test_optimal_spread_is_the_truths_when_fair_and_short_by_a_known_share_else(members, alpha):
    """s*/τ = (1 − ε)/√(2 − (1 − ε)²): zero slope there, and the score falls towards it from both sides."""
    q = share(members, alpha)
    best = q / math.sqrt(2 - q**2)
    assert (best == 1) == (alpha == 1)
    slopes = []
    for factor in (0.95, 1.0, 1.05):
        s = torch.tensor(best * factor, dtype=F64, requires_grad=True)
        slopes.append(float(torch.autograd.grad(scored(members, s, alpha=alpha), s)[0]))
    curvature = (slopes[2] - slopes[0]) / (0.1 * best)
    assert abs(slopes[1]) < 0.006 * curvature * best  # the optimum within 0.6 %
    assert slopes[0] < 0 < slopes[2]


def test_plain_crps_is_far_from_calibrated_with_few_members():
    """The optimum of the law above with M = 2, α = 0 is a spread of 0.38: training on it would show."""
    s = torch.tensor(1.0, dtype=F64, requires_grad=True)
    assert float(torch.autograd.grad(scored(2, s, alpha=0.0), s)[0]) > 0.2


@pytest.mark.parametrize("members", [2, 3, 5])
@pytest.mark.parametrize("estimator", ["fair", "nrg"])
def test_agrees_with_scoringrules(members, estimator):
    g = torch.Generator().manual_seed(members)
    x, y = torch.randn(6, members, 7, dtype=F64, generator=g), torch.randn(6, 7, dtype=F64, generator=g)
    alpha = 1.0 if estimator == "fair" else 0.0
    theirs = scoringrules.crps_ensemble(y.numpy(), x.numpy(), m_axis=1, estimator=estimator)
    torch.testing.assert_close(almost_fair_crps(x, y, alpha), torch.from_numpy(theirs), rtol=1e-10, atol=1e-12)
    es = scoringrules.es_ensemble(y.numpy(), x.numpy(), m_axis=1, v_axis=2, estimator=estimator)
    torch.testing.assert_close(energy_score(x, y, 1.0, alpha), torch.from_numpy(es), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.95, 0.5])
def test_almost_fair_mixes_fair_and_plain(alpha):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 4, 7, dtype=F64, generator=g), torch.randn(6, 7, dtype=F64, generator=g)
    for score in (almost_fair_crps, lambda x, y, a: energy_score(x, y, 1.3, a)):
        torch.testing.assert_close(score(x, y, alpha), alpha * score(x, y, 1.0) + (1 - alpha) * score(x, y, 0.0))


def test_energy_score_of_one_element_is_the_crps():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 4, 1, dtype=F64, generator=g), torch.randn(6, 1, dtype=F64, generator=g)
    torch.testing.assert_close(energy_score(x, y), almost_fair_crps(x, y)[:, 0])
    torch.testing.assert_close(energy_score(x[..., 0], y[..., 0]), almost_fair_crps(x, y)[:, 0])


@pytest.mark.parametrize("alpha", [1.0, 0.95])
def test_scores_and_gradients_do_not_depend_on_the_order_of_the_members(alpha):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 5, 4, dtype=F64, generator=g), torch.randn(3, 4, dtype=F64, generator=g)
    order = torch.tensor([3, 0, 4, 2, 1])
    for score in (almost_fair_crps, energy_score):
        gradients = []
        for members in (x, x[:, order]):
            own = members.clone().requires_grad_(True)
            gradients.append(torch.autograd.grad(score(own, y, alpha=alpha).sum(), own)[0])
        torch.testing.assert_close(gradients[0][:, order], gradients[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("alpha", [1.0, 0.95, 0.0])
def test_scores_move_with_shifts_and_scales(alpha):
    """Both are of the units of the field: shifted by nothing, scaled by |c| (by |c|^β)."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 4, 6, dtype=F64, generator=g), torch.randn(3, 6, dtype=F64, generator=g)
    crps = almost_fair_crps(x, y, alpha)
    torch.testing.assert_close(almost_fair_crps(5 - 3 * x, 5 - 3 * y, alpha), 3 * crps)
    energy = energy_score(x, y, 0.7, alpha)
    torch.testing.assert_close(energy_score(5 - 3 * x, 5 - 3 * y, 0.7, alpha), 3**0.7 * energy)
    q = torch.linalg.qr(torch.randn(6, 6, dtype=F64, generator=g))[0]
    torch.testing.assert_close(energy_score(x @ q, y @ q, 0.7, alpha), energy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("members", [2, 3, 4])
def test_almost_fair_scores_are_never_negative_and_stay_exact_far_from_zero(dtype, members):
    """Every pair's term is at least 0, so nothing is left of a cancellation: 1e4 times the spread away, too."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(500, members, dtype=F64, generator=g), torch.randn(500, dtype=F64, generator=g)
    exact = almost_fair_crps(x + 1e4, y + 1e4, 0.95)
    assert (exact > 0).all()
    found = almost_fair_crps((x + 1e4).to(dtype), (y + 1e4).to(dtype), 0.95)
    assert (found >= 0).all()
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-3 if dtype == torch.float32 else 1e-9)


def test_two_fair_members_around_the_truth_are_free_and_almost_fair_ones_are_not():
    """The degeneracy that α < 1 removes: |x₁ − y| + |x₂ − y| − |x₁ − x₂| = 0 for all x₁ < y < x₂."""
    x = torch.tensor([[-1.0, 7.0]], dtype=F64, requires_grad=True)
    y = torch.zeros(1, dtype=F64)
    fair = almost_fair_crps(x, y, 1.0).sum()
    assert float(fair.detach()) == 0 and not torch.autograd.grad(fair, x)[0].any()
    slope = torch.autograd.grad(almost_fair_crps(x, y, 0.95).sum(), x)[0]
    assert slope[0, 0] < 0 < slope[0, 1]


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.9])
def test_gradient_is_finite_where_members_and_truth_meet(beta):
    x = torch.zeros(2, 3, 4, dtype=torch.float32, requires_grad=True)
    (slope,) = torch.autograd.grad(energy_score(x, torch.zeros(2, 4), beta).sum(), x)
    assert torch.isfinite(slope).all()


# ------------------------------------------------------------------------------------------------------- what is proper


def correlated(rho: float) -> torch.Tensor:
    """Lower root of [[1, ρ], [ρ, 1]]."""
    return torch.linalg.cholesky(torch.tensor([[1.0, rho], [rho, 1.0]], dtype=F64))


def energy(root: torch.Tensor, truth: torch.Tensor, beta: float = 1.0, members: int = 2) -> torch.Tensor:
    """Expected energy score of members root z against truths of another root, in two dimensions."""
    z = normal(2**14, 2 * (members + 1)).reshape(-1, members + 1, 2)
    return energy_score(z[:, 1:] @ root.mT, z[:, 0] @ truth.mT, beta).mean()


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("members", [2, 3])
def test_energy_score_of_a_linear_student_is_stationary_at_the_truth(beta, members):
    truth = correlated(0.8)
    root = truth.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(energy(root, truth, beta, members), root)
    wrong = (1.2 * truth).requires_grad_(True)
    (away,) = torch.autograd.grad(energy(wrong, truth, beta, members), wrong)
    assert float(slope.abs().max()) < 3e-3 < 0.015 < float(away.abs().max())


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5])
@pytest.mark.parametrize(
    "change",
    [
        lambda r: 0.8 * r,
        lambda r: 1.25 * r,
        lambda r: torch.eye(2, dtype=F64),
        lambda r: correlated(0.95),
        lambda r: r * torch.tensor([[1.0], [-1.0]], dtype=F64),
    ],
    ids=["narrow", "wide", "uncorrelated", "too correlated", "anticorrelated"],
)
def test_energy_score_is_strictly_proper_below_two(beta, change):
    truth = correlated(0.8)
    assert float(energy(change(truth), truth, beta)) > float(energy(truth, truth, beta)) + 1e-3


def test_energy_score_of_exponent_two_sees_the_mean_alone():
    """‖x̄ − y‖² − s²/M, sample by sample: in expectation the members' covariance drops out, collapse or not."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(5, 4, 3, dtype=F64, generator=g), torch.randn(5, 3, dtype=F64, generator=g)
    expected = (x.mean(1) - y).square().sum(1) - x.var(1).sum(1) / 4
    torch.testing.assert_close(energy_score(x, y, 2.0), expected)
    truth = correlated(0.8)
    costs = [float(energy(s * truth, truth, 2.0)) for s in (0.0, 0.5, 1.0, 2.0)]
    assert costs == pytest.approx([2.0] * 4, rel=5e-3)


@pytest.mark.parametrize("members", [2, 3, 5])
def test_fair_scores_do_not_depend_on_the_number_of_members(members):
    truth, root = correlated(0.8), correlated(0.3)
    reference = float(energy(root, truth, 1.0, 2))
    assert float(energy(root, truth, 1.0, members)) == pytest.approx(reference, rel=2e-3)
    plain = energy_score(torch.zeros(1, members, 2, dtype=F64), torch.ones(1, 2, dtype=F64), 1.0, 0.0)
    assert float(plain) == pytest.approx(math.sqrt(2))


RHO = 0.8


def multiscale(rho: float, crps: float, energy: float, octave: int) -> float:
    """Expected loss of a student with unit marginals and correlation ρ, for a truth of correlation 0.8."""
    z = normal(2**14, 6).reshape(-1, 3, 1, 2)
    y, x = z[:, 0] @ correlated(RHO).mT, (z[:, 1:] @ correlated(rho).mT).flatten(0, 1)
    total = 0.0
    for field, truth in zip(bands(x, octave), bands(y, octave), strict=True):
        ensemble = field.unflatten(0, (-1, 2))
        total += crps * float(almost_fair_crps(ensemble, truth).mean())
        total += energy * float(energy_score(ensemble, truth).mean())
    return total


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5])
def test_crps_of_pixels_is_blind_to_correlation_and_the_energy_score_is_not(rho):
    assert multiscale(rho, 1, 0, 0) == pytest.approx(multiscale(RHO, 1, 0, 0), rel=1e-3)
    assert multiscale(rho, 0, 1, 0) > 1.005 * multiscale(RHO, 0, 1, 0)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5])
def test_crps_of_bands_sees_correlation_as_the_closed_form_says(rho):
    """The two coefficients, mean and difference, have variances 1 + ρ and 1 − ρ."""

    def crps(s2: float, t2: float) -> float:
        return math.sqrt(2 * (s2 + t2) / math.pi) - math.sqrt(s2 / math.pi)

    expected = sum(crps(s2, t2) for s2, t2 in [(1, 1), (1 + rho, 1 + RHO), (1 - rho, 1 - RHO)])
    assert multiscale(rho, 1, 0, 1) == pytest.approx(expected, rel=1e-3)
    assert multiscale(rho, 1, 0, 1) > 1.005 * multiscale(RHO, 1, 0, 1)


def test_bands_make_a_small_scale_that_the_field_hardly_feels_count():
    """A mode of 1 % of the variance, missing: of the field's energy score a fraction of that, of its own band all."""
    z = normal(2**13, 6).reshape(-1, 3, 2)
    haar = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=F64) / math.sqrt(2)
    make = lambda small: z * torch.tensor([1.0, small], dtype=F64) @ haar  # noqa: E731
    ratios = []
    for octave in (0, 1):
        costs = []
        for small in (0.0, 0.1):
            y, x = make(0.1)[:, :1], make(small)[:, 1:]
            fields = zip(bands(x.flatten(0, 1)[:, None], octave), bands(y, octave), strict=True)
            costs.append([float(energy_score(f.unflatten(0, (-1, 2)), t).mean()) for f, t in fields])
        ratios.append([a / b for a, b in zip(*costs, strict=True)])
    assert 1 < ratios[0][0] < 1.02
    assert ratios[1][2] == pytest.approx(math.sqrt(2), rel=5e-3)  # E|y| = √(2/π) over the truth's own √(1/π)
    assert ratios[1][0] == pytest.approx(ratios[0][0]) and ratios[1][1] == pytest.approx(1, rel=1e-9)


# ---------------------------------------------------------------------------------------------------------------- bands


@pytest.mark.parametrize("space", [(8,), (8, 12), (5, 7), (4, 8, 8), (1, 4)])
@pytest.mark.parametrize("octave", [1, 2])
def test_bands_are_the_cosine_transform_each_mode_once(space, octave):
    x = torch.randn(2, 3, *space, dtype=F64, generator=torch.Generator().manual_seed(0))
    field, *parts = bands(x, octave)
    assert torch.equal(field, x) and all(p.shape[:2] == (2, 3) for p in parts)
    waves = fft.dctn(x.numpy(), axes=range(2, x.ndim), norm="ortho").reshape(2, 3, -1)
    ordered = torch.cat(parts, 2).numpy()
    assert ordered.shape == waves.shape
    np.testing.assert_allclose(np.sort(ordered, -1), np.sort(waves, -1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(parts[0][..., 0], waves[..., 0], rtol=0, atol=1e-12)  # the mean by itself


@pytest.mark.parametrize(("half_waves", "band"), [(0, 0), (1, 1), (2, 3), (3, 4), (4, 5), (6, 6), (8, 7), (15, 8)])
def test_a_wave_lies_in_the_band_of_its_length_alone(half_waves, band):
    """Two bands an octave of k: edges at 1, 1.41, 2, 2.83, 4, …; along either axis."""
    wave = torch.cos(math.pi * half_waves * (torch.arange(16, dtype=F64) + 0.5) / 16)
    for x in (wave[:, None].expand(16, 16), wave[None].expand(16, 16)):
        power = [float(p.square().sum()) for p in bands(x[None, None], 2)[1:]]
        assert power[band] == pytest.approx(sum(power), rel=1e-12) and power[band] > 1


def test_without_space_or_bands_the_field_is_all_there_is():
    x = torch.randn(4, 3)
    assert len(bands(x, 2)) == len(bands(x[..., None], 0)) == 1


def test_relative_scores_do_not_feel_how_little_a_band_holds():
    """The small scale damped a hundredfold, in members and truth: its band's share of the loss stays, field apart."""

    def gradient(damping: float, relative: bool) -> float:
        torch.manual_seed(0)
        size = torch.tensor([1.0, damping], dtype=F64)
        haar = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=F64) / math.sqrt(2)
        gains = torch.ones(2, dtype=F64, requires_grad=True)
        student = lambda x, s, c: ((x[:, 0] * 0.15 * size * gains) @ haar)[:, None]  # noqa: E731
        method = CRPS(Gains([10.0]), torch.nn.Identity(), [10.0], 4, crps=0.0, octave=1, relative=relative)
        object.__setattr__(method, "student", student)
        truth = (torch.randn(2000, 2, dtype=F64) * size) @ haar
        (slope,) = torch.autograd.grad(method.loss("student", Batch(truth[:, None], {}))["loss"], gains)
        return float(slope[1])

    assert gradient(0.01, False) == pytest.approx(0.01 * gradient(1.0, False), rel=0.5)
    assert gradient(0.01, True) > 0.4 * gradient(1.0, True) > 0


@pytest.mark.parametrize("relative", [False, True])
def test_the_truth_is_stationary_for_the_whole_loss(relative):
    """Gains of a white student on a white truth: the expected slope vanishes at 1 and not at 0.9 or 1.1."""
    slopes = []
    for gain in (0.9, 1.0, 1.1):
        method = CRPS(Gains([10.0]), torch.nn.Identity(), [10.0], 4, octave=2, relative=relative, alpha=1.0)
        method.student.gain.data.fill_(gain / 10)
        torch.manual_seed(0)
        loss = method.loss("student", Batch(torch.randn(4096, 1, 4, 4, dtype=F64), {}))["loss"]
        slopes.append(float(torch.autograd.grad(loss, method.student.gain)[0]))
    assert abs(slopes[1]) < 0.05 * min(-slopes[0], slopes[2])


# ----------------------------------------------------------------------------------------------------------- the method


class Echo(torch.nn.Module):
    """A student that answers what its condition says, and notes what it was given."""

    sigma_data = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def forward(self, x, sigma, condition=None):
        self.calls.append((x, sigma))
        return condition["answer"]


class Gains(torch.nn.Module):
    """A linear student of one gain per level."""

    sigma_data = 1.0

    def __init__(self, levels) -> None:
        super().__init__()
        self.levels = torch.tensor(levels, dtype=F64)
        self.gain = torch.nn.Parameter(torch.full((len(levels),), 0.1, dtype=F64))

    def forward(self, x, sigma, condition=None):
        i = (self.levels[None] - sigma[:, None]).abs().argmin(1)
        return self.gain[i].reshape(-1, *[1] * (x.ndim - 1)) * x


@pytest.mark.parametrize("shape", [(3,), (2, 8), (1, 8, 8), (1, 4, 4, 4)])
def test_members_are_scored_against_the_truth_of_their_own_condition(shape):
    """A student that knows the answer has no loss; members of another sample's condition would have one."""
    x = torch.randn(5, *shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    method = CRPS(Echo(), torch.nn.Identity(), [10.0], members=3)
    assert float(method.loss("student", Batch(x, {"answer": x}))["loss"]) == pytest.approx(0, abs=1e-12)
    assert float(method.loss("student", Batch(x, {"answer": x.roll(1, 0)}))["loss"]) > 0.1


def test_every_member_has_noise_of_its_own_at_the_first_level():
    method = CRPS(Echo(), torch.nn.Identity(), [10.0], members=4)
    x = torch.zeros(500, 1, 16, dtype=F64)
    method.loss("student", Batch(x, {"answer": x}))
    ((given, sigma),) = method.student.calls
    assert given.shape == (2000, 1, 16) and bool((sigma == 10).all())
    assert float(given.std()) == pytest.approx(10, rel=0.02)
    members = given.reshape(500, 4, 16)
    assert abs(float((members[:, 0] * members[:, 1]).mean())) < 4 * 100 / math.sqrt(500 * 16)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_rollout_is_the_few_step_samplers(count):
    levels = [10.0, 3.0, 0.5][:count]
    student = Gains(levels)
    noises = [torch.randn(4, 1, 6, dtype=F64) for _ in levels]
    outputs = rollout(student, noises, levels, None)
    for k in range(1, count + 1):
        sampled = few_step(student, levels[0] * noises[0], levels[:k], None, noises[1:k])
        torch.testing.assert_close(outputs[k - 1], sampled)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_call_learns_and_the_first_also_from_the_last(count):
    levels = [10.0, 3.0, 0.5][:count]
    student = Gains(levels)
    noises = [torch.randn(4, 1, 6, dtype=F64, generator=torch.Generator().manual_seed(i)) for i in range(count)]
    (slope,) = torch.autograd.grad(rollout(student, noises, levels, None)[-1].square().sum(), student.gain)
    assert (slope != 0).all()


def expected_gains(levels, variance: float, alpha: float, members: int) -> list[float]:
    """Where CRPS of every call leaves a linear student: each output's spread is s* of the truth's."""
    q = share(members, alpha)
    best, gains, spread = q / math.sqrt(2 - q**2), [], 0.0
    for sigma in levels:
        gains.append(best * math.sqrt(variance / (spread + sigma**2)))
        spread = best**2 * variance
    return gains


@pytest.mark.parametrize("levels", [[10.0], [10.0, 1.5]])
@pytest.mark.parametrize(("alpha", "members"), [(1.0, 2), (0.0, 4)])
def test_a_linear_student_lands_on_the_optimal_gain_of_every_call(levels, alpha, members):
    """√(λ/(λ+σ²)) of the flow map when fair, to the order of λ/σ_max²; of the known shortfall when plain."""
    variance = 2.0
    student = Gains(levels)
    student.gain.data.copy_(torch.tensor([0.2, 0.5], dtype=F64)[: len(levels)])
    method = CRPS(
        student, torch.nn.Identity(), levels, members, crps=1.0, energy=0.0, octave=0, relative=False, alpha=alpha
    )
    optimiser = torch.optim.Adam(student.parameters(), lr=0.01)
    for step in range(100):
        torch.manual_seed(step)
        optimiser.param_groups[0]["lr"] = 0.01 * (1 - step / 100)
        optimiser.zero_grad()
        method.loss("student", Batch(variance**0.5 * torch.randn(1024, 1, dtype=F64), {}))["loss"].backward()
        optimiser.step()
    expected = torch.tensor(expected_gains(levels, variance, alpha, members), dtype=F64)
    torch.testing.assert_close(student.gain.detach(), expected, rtol=0.03, atol=0)


@pytest.mark.parametrize("noisy", [True, False])
def test_members_are_made_from_perturbed_measurements_as_they_are_sampled(noisy):
    """Perturb and project, x = u + K (y + r n' − u) with u = g z: an exact posterior draw at g = 1, and the optimum.

    Of members that all took the one measurement the optimum would be g = 1/√(1 − K), too much spread once each has its
    own noise when it is sampled.
    """
    r = 1.0
    k = 1 / (1 + r**2)

    class Projected(DenoiserModule):
        sigma_data = 1.0

        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(0.5, dtype=F64))

        def forward(self, x, sigma, condition=None):
            u = self.gain * x / sigma[:, None]
            return u + k * (condition["y"] - u)

        def perturbed(self, condition):
            y = condition["y"]
            return {"y": y + r * torch.randn_like(y)} if noisy else condition

    method = CRPS(Projected(), torch.nn.Identity(), [10.0], 2, crps=1.0, energy=0.0, octave=0, relative=False, alpha=1)
    optimiser = torch.optim.Adam(method.student.parameters(), lr=0.03)
    for step in range(150):
        torch.manual_seed(step)
        optimiser.param_groups[0]["lr"] = 0.03 * (1 - step / 150)
        optimiser.zero_grad()
        x = torch.randn(1024, 1, dtype=F64)
        method.loss("student", Batch(x, {"y": x + r * torch.randn_like(x)}))["loss"].backward()
        optimiser.step()
    assert float(method.student.gain.detach()) == pytest.approx(1 if noisy else (1 - k) ** -0.5, rel=0.03)


def test_loss_is_the_weighted_sum_and_of_the_units_of_the_field_or_of_none():
    batch = Batch(torch.randn(6, 2, 8, dtype=F64, generator=torch.Generator().manual_seed(0)), {})

    def loss(unit: float = 1.0, **settings) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        method = CRPS(Gains([10.0]), torch.nn.Identity(), [unit * 10.0], 3, **settings)
        return method.loss("student", Batch(unit * batch.x, {}))

    both, crps, energy = loss(crps=0.3, energy=2.0), loss(crps=1.0, energy=0.0), loss(crps=0.0, energy=1.0)
    torch.testing.assert_close(both["loss"], 0.3 * crps["loss"] + 2.0 * energy["loss"])
    torch.testing.assert_close(both["crps"], crps["loss"])
    torch.testing.assert_close(both["energy"], energy["loss"])
    torch.testing.assert_close(loss(7.0, relative=False)["loss"], 7 * loss(relative=False)["loss"])
    torch.testing.assert_close(loss(7.0)["loss"], loss()["loss"])


def test_energy_of_a_larger_field_weighs_as_much_as_the_crps():
    """Per element: for white members and no truth ‖z‖/√n − ½ ‖z − z'‖/√n → 1 − √2/2, whatever n."""
    x = torch.zeros(64, 1, 32, 32, dtype=F64)
    for size in (8, 32):
        method = CRPS(Gains([1.0]), torch.nn.Identity(), [1.0], 4, crps=0.0, octave=0, relative=False, alpha=1.0)
        method.student.gain.data.fill_(1.0)
        torch.manual_seed(0)
        found = float(method.loss("student", Batch(x[..., :size, :size], {}))["loss"].detach())
        assert found == pytest.approx(1 - math.sqrt(2) / 2, rel=0.02)


def test_the_teacher_is_never_called():
    class Loud(torch.nn.Module):
        def forward(self, *_):
            raise AssertionError("called")

    method = CRPS(Gains([10.0]), Loud(), [10.0])
    assert method.pairs == 0
    assert float(method.loss("student", Batch(torch.randn(4, 1, 8, dtype=F64), {}))["loss"].detach()) > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": 1}, "two members"),
        ({"crps": 0.0, "energy": 0.0}, "one of them positive"),
        ({"crps": -1.0}, "at least 0"),
        ({"octave": -1}, "octave=-1"),
        ({"alpha": 1.5}, "alpha"),
        ({"beta": 2.0}, "beta"),
        ({"beta": 0.0}, "beta"),
    ],
)
def test_settings_that_make_no_score_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        CRPS(Gains([10.0]), torch.nn.Identity(), [10.0], **settings)


def test_a_single_member_has_no_score():
    with pytest.raises(UserError, match="two members"):
        almost_fair_crps(torch.zeros(3, 1, 2), torch.zeros(3, 2))
    with pytest.raises(UserError, match="two members"):
        energy_score(torch.zeros(3, 1, 2), torch.zeros(3, 2))
