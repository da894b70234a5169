"""Distribution matching: the gradient is the divergence's, its collapses are the known ones, the critic learns."""

import copy
import functools
import math

import lightning
import pytest
import torch
from torch import nn

from scigen.core.datamodule import SampleStream
from scigen.core.denoise import Denoiser, loss_weight
from scigen.core.driver import Schedule
from scigen.core.ema import PowerEMA
from scigen.core.methods.base import Batch
from scigen.core.methods.denoising import denoising_loss
from scigen.core.methods.divergence import DIVERGENCES
from scigen.core.methods.dmd import DMD, dmd_direction, matching_loss, surrogate_loss
from scigen.core.methods.regression import regression_loss
from scigen.core.networks.unet import UNet
from scigen.core.oracle import Gaussian, Mixture
from scigen.core.train import train
from scigen.errors import UserError

F64 = torch.float64


def normal(covariance: torch.Tensor, mean: float = 0.0) -> Gaussian:
    n = len(covariance)
    return Gaussian.dense(torch.full((n,), mean, dtype=F64), covariance, (n,))


def points(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes and weights of N(0, I) in n dims: an even grid, exact to rounding for smooth integrands."""
    x = torch.linspace(-9, 9, 1201 if n == 1 else 91, dtype=F64)
    w = torch.exp(-0.5 * x**2)
    grid = torch.cartesian_prod(*[x] * n).reshape(-1, n)
    return grid, torch.cartesian_prod(*[w / w.sum()] * n).reshape(-1, n).prod(1)


def slope(a: float, sigma: float, teacher, n: int = 1, divergence: str = "reverse_kl", log_p=None, mean=None):
    """Expected gradient of the unnormalised surrogate in the student's x = m + a z: (d/da, d/dm); exact critics.

    Given x_σ the gradient needs z by its mean alone, a (x_σ − m)/(a² + σ²); so the nodes are of x_σ.
    """
    scale = torch.tensor(a, dtype=F64, requires_grad=True)
    shift = torch.tensor(mean or 0.0, dtype=F64, requires_grad=True)
    white, weights = points(n)
    s2 = a**2 + sigma**2
    x_sigma = shift.detach() + s2**0.5 * white
    x = shift + scale * (a / s2**0.5) * white
    fake = normal(a**2 * torch.eye(n, dtype=F64), mean or 0.0)
    level = torch.full((len(x),), sigma, dtype=F64)

    def importance(y, s):
        log_q = -0.5 * white.square().sum(1) - 0.5 * n * math.log(s2)
        return DIVERGENCES[divergence]((log_p(y) - log_q).exp())

    each = matching_loss(x, x_sigma, level, teacher, fake, None, importance if log_p else None, normalise=False)
    return [float(g) for g in torch.autograd.grad((weights * each).sum() * n, [scale, shift])]


def root(f, low: float, high: float) -> float:
    """Where an increasing function changes its sign."""
    assert f(low) < 0 < f(high)
    for _ in range(60):
        mid = 0.5 * (low + high)
        low, high = (mid, high) if f(mid) < 0 else (low, mid)
    return 0.5 * (low + high)


# ------------------------------------------------------------------------------------------------------- the gradient


@pytest.mark.parametrize("a", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("variance", [0.25, 4.0])
@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
def test_gradient_is_that_of_the_kl_times_the_squared_noise(a, variance, sigma):
    kl = a * (1 / (variance + sigma**2) - 1 / (a**2 + sigma**2))
    found, _ = slope(a, sigma, normal(torch.tensor([[variance]], dtype=F64)))
    assert found == pytest.approx(sigma**2 * kl, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("sigma", [0.3, 3.0])
def test_gradient_in_the_mean_is_that_of_the_kl(sigma):
    teacher = normal(torch.tensor([[2.0]], dtype=F64), mean=1.5)
    _, found = slope(0.7, sigma, teacher, mean=0.2)
    assert found == pytest.approx(sigma**2 * (0.2 - 1.5) / (2.0 + sigma**2), rel=1e-9)


def matrix_slope(student: torch.Tensor, covariance: torch.Tensor, sigma: float, loss=matching_loss) -> torch.Tensor:
    """Expected gradient in A of x = A z: on the rows of the identity, of (z, ε), which carry all second moments."""
    n = len(covariance)
    a = student.clone().requires_grad_()
    z = torch.cat([torch.eye(n, dtype=F64), torch.zeros(n, n, dtype=F64)])
    x = z @ a.mT
    x_sigma = x + sigma * z.flip(0)
    fake, teacher = normal(student @ student.mT), normal(covariance)
    each = loss(x, x_sigma, torch.full((2 * n,), sigma, dtype=F64), teacher, fake, None, normalise=False)
    return torch.autograd.grad(each.sum() * n, a)[0]


def matrices() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 3, dtype=F64, generator=generator) for _ in range(2))
    return a, b @ b.mT + 0.1 * torch.eye(3, dtype=F64)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
def test_gradient_of_a_matrix_is_that_of_the_kl(sigma):
    a, covariance = matrices()
    leaf, noise = a.clone().requires_grad_(), sigma**2 * torch.eye(3, dtype=F64)
    q, p = leaf @ leaf.mT + noise, covariance + noise
    kl = 0.5 * (torch.linalg.solve(p, q).trace() - q.logdet() + p.logdet() - 3)
    (exact,) = torch.autograd.grad(kl, leaf)
    torch.testing.assert_close(matrix_slope(a, covariance, sigma), sigma**2 * exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
def test_every_square_root_of_the_covariance_is_stationary(sigma):
    _, covariance = matrices()
    rotation = torch.linalg.qr(matrices()[0])[0]
    exact = torch.linalg.cholesky(covariance) @ rotation
    assert float(matrix_slope(exact, covariance, sigma).abs().max()) < 1e-12
    assert float(matrix_slope(1.1 * exact, covariance, sigma).abs().max()) > 1e-4


def test_gradient_law_fails_when_the_critics_are_swapped():
    swapped = lambda x, y, s, teacher, fake, c, normalise: matching_loss(x, y, s, fake, teacher, c, None, normalise)  # noqa: E731
    a, covariance = matrices()
    torch.testing.assert_close(matrix_slope(a, covariance, 1.0, swapped), -matrix_slope(a, covariance, 1.0))


def test_gradient_law_fails_when_the_critics_pass_gradients():
    """What an undetached direction would give: another gradient, through the scores' own inputs."""

    def attached(x, x_sigma, sigma, teacher, fake, condition, normalise):
        x_sigma = x + (x_sigma - x).detach()
        direction = fake(x_sigma, sigma) - teacher(x_sigma, sigma)
        return 0.5 * (x - (x.detach() - direction)).square().mean(1)

    a, covariance = matrices()
    right = matrix_slope(a, covariance, 1.0)
    assert float((matrix_slope(a, covariance, 1.0, attached) - right).abs().max()) > 0.1 * float(right.abs().max())


# ---------------------------------------------------------------------------------------------------------- direction


def test_surrogates_gradient_is_the_direction_over_the_number_of_values():
    generator = torch.Generator().manual_seed(1)
    x, d = (torch.randn(4, 2, 3, dtype=F64, generator=generator) for _ in range(2))
    x.requires_grad_()
    (found,) = torch.autograd.grad(surrogate_loss(x, d).sum(), x)
    torch.testing.assert_close(found, d / 6, rtol=1e-12, atol=1e-15)


def test_direction_is_normalised_sample_by_sample_and_knows_no_units():
    generator = torch.Generator().manual_seed(2)
    x, real, fake = (torch.randn(5, 2, 4, dtype=F64, generator=generator) for _ in range(3))
    found = dmd_direction(x, real, fake)
    for i in range(5):
        torch.testing.assert_close(found[i], (fake[i] - real[i]) / (x[i] - real[i]).abs().mean())
    units = torch.logspace(-3, 3, 5, dtype=F64)[:, None, None]
    torch.testing.assert_close(dmd_direction(units * x, units * real, units * fake), found, rtol=1e-12, atol=0)


@pytest.mark.parametrize("sigma", [1e-3, 1e-2, 1.0, 1e2, 1e3])
def test_direction_is_of_order_one_at_every_level_and_largest_where_noise_meets_signal(sigma):
    """Student of variance 2, teacher of 1, a large sample: size ~ σ below the signal, ~ 1/σ above, never over 1."""
    z, eps = torch.randn(2, 1, 20000, dtype=F64, generator=torch.Generator().manual_seed(3))
    x = 2**0.5 * z
    y = x + sigma * eps
    size = float(dmd_direction(x, y / (1 + sigma**2), 2 * y / (2 + sigma**2)).abs().mean())
    share = sigma / (1 + sigma**2)
    assert 0.2 * share < size < 1.2 * share


def test_a_perfect_sample_gives_no_infinity():
    x = torch.ones(2, 3)
    assert torch.isfinite(dmd_direction(x, x, x + 1e-3)).all()


# ------------------------------------------------------------------------------------------------------------ collapse

CORRELATED = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=F64)


@pytest.mark.parametrize(("sigma", "variance"), [(0.01, 0.190), (0.3, 0.257), (1.0, 0.595), (2.0, 0.838), (5.0, 0.969)])
def test_mean_field_collapse_of_reverse_kl(sigma, variance):
    """A student blind to a correlation of 0.9: a² = 1/[(Σ + σ²I)⁻¹]₁₁ − σ², far below 1 where the noise is small."""
    found = root(lambda a: slope(a, sigma, normal(CORRELATED), n=2)[0], 0.05, 3.0) ** 2
    exact = 1 / float(torch.linalg.inv(CORRELATED + sigma**2 * torch.eye(2, dtype=F64))[0, 0]) - sigma**2
    assert found == pytest.approx(exact, rel=1e-6)
    assert found == pytest.approx(variance, abs=6e-4)


def log_correlated(sigma: float):
    covariance = CORRELATED + sigma**2 * torch.eye(2, dtype=F64)
    inverse = torch.linalg.inv(covariance)
    return lambda y: -0.5 * ((y @ inverse) * y).sum(1) - 0.5 * covariance.logdet()


@functools.cache
def blind_variance(divergence: str, sigma: float = 1.0) -> float:
    f = functools.partial(slope, sigma=sigma, teacher=normal(CORRELATED), n=2, log_p=log_correlated(sigma))
    return root(lambda a: f(a, divergence=divergence)[0], 0.6, 1.5) ** 2


def test_forward_kl_keeps_the_marginal_variance():
    assert blind_variance("forward_kl") == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("divergence", ["hellinger", "jensen_shannon", "jeffreys"])
def test_divergences_between_the_kls_keep_more_spread_than_the_reverse_and_less_than_the_forward(divergence):
    low, high = blind_variance("reverse_kl"), blind_variance("forward_kl")
    assert low + 0.1 * (high - low) < blind_variance(divergence) < high - 0.1 * (high - low)


def bimodal(width: float = 0.2) -> Mixture:
    return Mixture(
        torch.tensor([0.5, 0.5], dtype=F64),
        torch.tensor([[-1.0], [1.0]], dtype=F64),
        torch.full((2,), width, dtype=F64),
    )


@pytest.mark.parametrize(("sigma", "a"), [(0.3, 0.8816), (0.6, 0.9430), (1.0, 0.9928)])
def test_affine_student_of_two_modes(sigma, a):
    """Where it covers both modes: the minimum of the KL, by quadrature of its own (the data's spread is 1.02)."""
    assert root(lambda v: slope(v, sigma, bimodal())[0], 0.5, 1.5) == pytest.approx(a, abs=1e-4)


@pytest.mark.parametrize(
    ("sigma", "mean", "a"), [(0.1, 1.0, 0.2), (0.2, 0.999, 0.2017), (0.6, 0.0, 0.943), (1.0, 0.0, 0.9928)]
)
def test_affine_student_picks_a_mode_where_the_noise_is_small(sigma, mean, a):
    """Gradient descent from half way: σ ≤ 0.2 d falls to one mode, larger σ sees both."""
    scale, shift = 0.5, 0.5
    for _ in range(150):
        da, dm = slope(scale, sigma, bimodal(), mean=shift)
        scale, shift = scale - da, shift - dm
    assert (shift, scale) == pytest.approx((mean, a), abs=2e-3)


# ------------------------------------------------------------------------------------------------------- the fake score


class Matrix(nn.Module):
    """D = M x at one level."""

    sigma_data = 1.0

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.clone())

    def forward(self, x, sigma, condition=None):
        return x @ self.matrix.mT


def newton(loss: torch.Tensor, matrix: nn.Parameter) -> torch.Tensor:
    """The minimum of a quadratic loss."""
    (gradient,) = torch.autograd.grad(loss, matrix, create_graph=True)
    rows = [torch.autograd.grad(g, matrix, retain_graph=True)[0].flatten() for g in gradient.flatten()]
    return (matrix - torch.linalg.solve(torch.stack(rows), gradient.flatten()).reshape(matrix.shape)).detach()


@pytest.mark.parametrize("sigma", [0.2, 1.0, 5.0])
def test_fake_score_of_a_linear_student_is_wieners(sigma):
    """argmin of the expected denoising loss on x = A z: S (S + σ²)⁻¹ with S = A Aᵀ."""
    a, _ = matrices()
    rows = torch.cat([torch.eye(3, dtype=F64), torch.zeros(3, 3, dtype=F64)])
    level = torch.full((6,), sigma, dtype=F64)
    fake = Matrix(torch.zeros(3, 3, dtype=F64))
    noise = torch.cat([torch.zeros(3, 3, dtype=F64), torch.eye(3, dtype=F64)])
    found = newton(denoising_loss(fake, rows @ a.mT, noise, level, None, 1.0).sum(), fake.matrix)
    s = a @ a.mT
    exact = s @ torch.linalg.inv(s + sigma**2 * torch.eye(3, dtype=F64))
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-10)


def method(student: nn.Module | None = None, sigmas=(10.0,), **settings) -> DMD:
    teacher = normal(torch.diag(torch.tensor([4.0, 1.0, 0.25], dtype=F64)))
    made = DMD(
        student or Matrix(0.1 * torch.eye(3, dtype=F64)),
        teacher,
        sigmas,
        **dict(match_min=1.0, match_max=1.0001) | settings,
    )
    made.prepare(data(4))
    return made


def data(n: int, pairs: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(4)
    x, noise = torch.randn(2, n, 3, dtype=F64, generator=generator)
    return Batch(x, {}, noise if pairs else None)


def test_fakes_turn_learns_the_students_samples():
    """The loss of a turn, minimised on a large batch: S/(S + 1) of a student of variances (10 · 0.1)² = 1."""
    m = method(members=50)
    torch.manual_seed(5)
    loss = m.loss("fake", data(1000))["loss"]
    found = newton(loss, m.fake.matrix)
    torch.testing.assert_close(found, 0.5 * torch.eye(3, dtype=F64), rtol=0, atol=5 * (0.5 / 50000) ** 0.5)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
def test_fakes_loss_has_karras_weight(sigma):
    m = method(match_min=sigma, match_max=1.0001 * sigma, members=20)
    m.fake = Matrix(torch.zeros(3, 3, dtype=F64))  # its error is the sample itself, of variance 1
    torch.manual_seed(6)
    found = float(m.loss("fake", data(1000))["loss"].detach())
    assert found == pytest.approx(float(loss_weight(torch.tensor(sigma, dtype=F64), 1.0)), rel=0.03)


def test_the_fake_is_the_teachers_copy_or_a_students_where_the_teacher_cannot_learn():
    student = Denoiser(UNet(1, space=1, widths=(4,), embedding=4))
    teacher = Denoiser(UNet(1, space=1, widths=(6,), embedding=4))
    made = DMD(student, teacher, [10.0], 0.1, 10.0)
    assert made.fake is not teacher and all(p.requires_grad for p in made.fake.parameters())
    for a, b in zip(made.fake.parameters(), teacher.parameters(), strict=True):
        assert torch.equal(a, b) and not b.requires_grad
    own = method()
    assert own.fake is not own.student and torch.equal(own.fake.matrix, own.student.matrix)


def test_fake_and_teacher_stay_without_dropout_when_the_student_trains():
    made = method().train()
    assert made.student.training and not made.fake.training and not made.teacher.training


# ------------------------------------------------------------------------------------------------------------ the class


@pytest.mark.parametrize("turn", ["student", "fake", "discriminator"])
def test_a_turns_loss_reaches_its_learner(turn):
    m = method(gan=0.1, divergence="jensen_shannon", r1=0.1)
    assert list(m.learners()) == ["student", "fake", "discriminator"]
    for head in m.discriminator.heads:
        nn.init.normal_(head.last.weight)
    m.loss(turn, data(8))["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in m.learners()[turn].parameters())
    for name in {"student", "fake", "discriminator"} - {turn}:
        reached = any(p.grad is not None for p in m.learners()[name].parameters())
        assert (
            not reached or turn == "student"
        )  # whose gradient passes through its judges, and the driver toggles those


@pytest.mark.parametrize("settings", [{}, dict(source="teacher"), dict(gan=0.1), dict(divergence="forward_kl")])
def test_there_is_a_discriminator_only_where_one_is_needed(settings):
    m = method(**settings)
    needed = "gan" in settings or "divergence" in settings
    assert ("discriminator" in m.learners()) == hasattr(m, "discriminator") == needed
    assert needed == ("discriminator" in {m.turn(i) for i in range(20)})


@pytest.mark.parametrize(("fakes", "judges", "gan"), [(1, 1, 0.0), (5, 1, 0.0), (5, 2, 0.1)])
def test_the_fake_has_its_own_clock(fakes, judges, gan):
    m = method(fake_steps=fakes, discriminator_steps=judges, gan=gan)
    length = 1 + fakes + (judges if gan else 0)
    turns = [m.turn(i) for i in range(3 * length)]
    assert turns[:length] == turns[length : 2 * length] and turns[0] == "student"
    assert [turns.count(k) for k in ("student", "fake", "discriminator")] == [3, 3 * fakes, 3 * judges if gan else 0]


def test_student_at_the_truth_with_a_right_fake_is_not_moved():
    """The gain √λ/σ_max, S/(S + σ²) of the fake: a zero direction for every sample, normalised or not."""
    variance = torch.tensor([4.0, 1.0, 0.25], dtype=F64)
    m = method(Matrix(torch.diag(variance.sqrt() / 10)))
    level = float(m.law.sigma_min)
    for factor, largest in ((1.0, 1e-3), (1.2, math.inf)):
        m.fake = Matrix(torch.diag(factor * variance / (factor * variance + level**2)))
        m.student.zero_grad()
        m.loss("student", data(64))["loss"].backward()
        size = float(m.student.matrix.grad.abs().max())
        assert size < largest and (factor == 1 or size > 1e-2)


def test_divergence_weighs_samples_by_the_ratio(monkeypatch):
    """With a discriminator that knows ln p/q the gradient is that of the weighted surrogate."""
    m = method(divergence="jensen_shannon")
    logits = torch.linspace(-1, 1, 8, dtype=F64)[:, None]
    monkeypatch.setattr(m.discriminator, "forward", lambda *_: logits)
    seen = []
    m.teacher.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    torch.manual_seed(7)
    x = m.generate(data(8), m.level())
    torch.manual_seed(7)
    m.loss("student", data(8))["loss"].backward()
    y, real = (v.detach() for v in seen[-1])
    r = logits[:, 0].exp() / logits[:, 0].exp().mean()
    m.fake.requires_grad_(False)
    direction = (r / (1 + r))[:, None] * dmd_direction(x.detach(), real, m.fake(y, None))
    (expected,) = torch.autograd.grad((x * direction).sum() / x.numel(), m.student.matrix)
    torch.testing.assert_close(m.student.matrix.grad, expected, rtol=1e-9, atol=1e-12)


def test_parts_add_up_with_their_weights():
    m = method(gan=0.2, anchor=3.0, pairs=8)
    assert m.pairs == 8
    batch = data(8, pairs=True)
    parts = {k: float(v.detach()) for k, v in m.loss("student", batch).items()}
    assert parts["loss"] == pytest.approx(parts["match"] + 0.2 * parts["gan"] + 3.0 * parts["anchor"], rel=1e-12)
    levels, ones = torch.full((8,), 10.0, dtype=F64), torch.ones(8, dtype=F64)
    each = regression_loss(m.student, 10 * batch.noise, batch.x, levels, {}, ones)
    assert parts["anchor"] == pytest.approx(float(each.mean().detach()), rel=1e-12)
    assert "anchor" not in m.loss("student", data(8))


@pytest.mark.parametrize("members", [1, 4])
def test_batches_too_small_for_density_ratios_are_refused(members):
    m = method(divergence="forward_kl", members=members)
    if members == 4:
        m.loss("student", data(1))
        return
    with pytest.raises(UserError, match="batch of 3 samples"):
        m.loss("student", data(3))
    method(members=1).loss("student", data(1))  # which reverse KL does not need


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(divergence="kl"), "kl"),
        (dict(source="student"), "source"),
        (dict(fake_steps=0), "fake_steps=0"),
        (dict(match_min=2.0), "sigma_min"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        method(**settings)


class Rows(SampleStream):
    """Samples that are a function of their position."""

    def get(self, indices):
        rows = [torch.randn(1, 8, generator=torch.Generator().manual_seed(int(i))) for i in indices]
        return Batch(torch.stack(rows), {})


def test_averages_follow_the_students_turns_alone(tmp_path):
    """Seven steps of a cycle of four (student, two of the fake, discriminator): the average moves twice."""
    torch.manual_seed(0)
    student = Denoiser(UNet(1, space=1, widths=(4, 4), embedding=4))
    teacher = copy.deepcopy(student)
    m = DMD(student, teacher, [10.0], 0.1, 10.0, fake_steps=2, gan=0.1)
    trainer = functools.partial(lightning.Trainer, accelerator="cpu", devices=1)
    folded, update = [], PowerEMA.update

    def count(self, module):
        folded.append(module)
        update(self, module)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PowerEMA, "update", count)
        train(m, Rows(10, 4, 7), Schedule(steps=7, batch=4, lr=1e-3), trainer, tmp_path)
    assert len(folded) == 2 and all(f is student for f in folded)
