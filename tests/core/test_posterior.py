"""Posteriors of linear inverse problems against brute force."""

import pytest
import torch

from scigen.core.oracle import RotatedProduct
from scigen.core.posterior import MeasuredGaussian, MeasuredProduct
from scigen.core.sample import heun
from scigen.errors import UserError

F64 = torch.float64
NOISE = 0.4


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def product() -> MeasuredProduct:
    q = torch.linalg.qr(torch.randn(4, 4, dtype=F64, generator=rng()))[0]
    w = torch.rand(4, 3, dtype=F64, generator=rng(1)) + 0.2
    means, stds = torch.randn(4, 3, dtype=F64, generator=rng(2)), 0.2 + torch.rand(4, 3, dtype=F64, generator=rng(3))
    measured = torch.tensor([True, False, True, True])
    return MeasuredProduct(q, w / w.sum(1, keepdim=True), means, stds, measured, NOISE)


def gaussian() -> MeasuredGaussian:
    a = torch.randn(5, 5, dtype=F64, generator=rng(4))
    return MeasuredGaussian(a @ a.mT / 5, torch.randn(2, 5, dtype=F64, generator=rng(5)), NOISE)


LAWS = {"product": product, "gaussian": gaussian}


def states(law, sigma: float, n: int = 6):
    """x_σ, its level and the condition."""
    x = law.draw(n, rng(6))
    condition = law.measure(x, rng(7))
    return x + sigma * torch.randn(x.shape, dtype=F64, generator=rng(8)), torch.full((n,), sigma, dtype=F64), condition


def by_quadrature(law: MeasuredProduct, x: torch.Tensor, sigma: float, condition) -> torch.Tensor:
    """E[x₀ | x_σ, y] coefficient by coefficient, from prior times likelihoods on a fine grid."""
    u, y = x @ law.rotation, condition["scalars"]
    grid = torch.linspace(-12, 12, 40001, dtype=F64)
    prior = (
        (law.weights / law.stds)[:, None]
        * torch.exp(-0.5 * ((grid[:, None] - law.means[:, None]) / law.stds[:, None]) ** 2)
    ).sum(-1)
    out, seen = torch.empty_like(u), 0
    for i in range(u.shape[1]):
        log = prior[i].log() - 0.5 * ((u[:, i, None] - grid) / sigma) ** 2
        if law.measured[i]:
            log = log - 0.5 * ((y[:, seen, None] - grid) / law.noise) ** 2
            seen += 1
        out[:, i] = (log.softmax(1) * grid).sum(1)
    return out @ law.rotation.mT


@pytest.mark.parametrize("sigma", [0.1, 0.7, 5.0])
def test_denoiser_of_a_measured_product_is_the_posterior_mean(sigma):
    law = product()
    x, level, condition = states(law, sigma)
    torch.testing.assert_close(law(x, level, condition), by_quadrature(law, x, sigma, condition), rtol=1e-7, atol=1e-8)


def test_the_posterior_mean_is_missed_when_the_weights_are_not_updated():
    law = product()
    x, level, condition = states(law, 0.7)
    right = law.mixture
    law.mixture = lambda c: (law.weights, *right(c)[1:])
    wrong = (law(x, level, condition) - by_quadrature(law, x, 0.7, condition)).abs().max()
    assert float(wrong) > 0.05


@pytest.mark.parametrize("sigma", [0.1, 0.7, 5.0])
def test_denoiser_of_a_measured_gaussian_is_that_of_two_measurements(sigma):
    """x_σ and y are two measurements of x₀: a dense solve with both must agree."""
    law = gaussian()
    x, level, condition = states(law, sigma)
    prior = law.root @ law.root.mT
    both = torch.cat([law.matrix, torch.eye(5, dtype=F64)])
    noise = torch.cat([torch.full((2,), NOISE**2, dtype=F64), torch.full((5,), sigma**2, dtype=F64)])
    data = torch.cat([condition["scalars"], x], 1)
    gain = torch.linalg.solve(both @ prior @ both.mT + torch.diag(noise), both @ prior).mT
    torch.testing.assert_close(law(x, level, condition), data @ gain.mT, rtol=1e-8, atol=1e-9)


def test_posterior_covariance_is_the_inverse_of_the_precisions():
    law = gaussian()
    prior = law.root @ law.root.mT
    precision = torch.linalg.inv(prior) + law.matrix.mT @ law.matrix / NOISE**2
    covariance = (law.rotation * law.stds[:, 0] ** 2) @ law.rotation.mT
    torch.testing.assert_close(covariance, torch.linalg.inv(precision), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", LAWS)
def test_flow_map_is_where_fine_heun_steps_lead(name):
    law = LAWS[name]()
    x, _, condition = states(law, 3.0)
    fine = heun(law, x, (3.0 * 0.985 ** torch.arange(900, dtype=F64)).tolist(), condition)
    level = torch.full((len(x),), 3.0, dtype=F64)
    torch.testing.assert_close(law.flow_map(x, level, 0 * level, condition), fine, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", LAWS)
def test_flow_map_composes_for_one_condition(name):
    law = LAWS[name]()
    x, level, condition = states(law, 3.0)
    half = law.flow_map(x, level, 0.3 * level, condition)
    whole = law.flow_map(x, level, 0.02 * level, condition)
    torch.testing.assert_close(law.flow_map(half, 0.3 * level, 0.02 * level, condition), whole, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", LAWS)
def test_draws_and_measurements_belong_together(name):
    """Truths are ranked uniformly by the posterior of their own measurement: the first two moments of the ranks."""
    law = LAWS[name]()
    n = 20000
    x = law.draw(n, rng(9))
    rank = law.distribution(x @ law.rotation, torch.zeros(n, dtype=F64), law.measure(x, rng(10)))
    assert float((rank.mean(0) - 0.5).abs().max()) < 4.5 * (1 / 12 / n) ** 0.5
    assert float((rank.var(0) - 1 / 12).abs().max()) < 4.5 * (1 / 180 / n) ** 0.5
    other = law.distribution(x @ law.rotation, torch.zeros(n, dtype=F64), law.measure(x.roll(1, 0), rng(10)))
    assert float((other.var(0) - 1 / 12).abs().max()) > 0.02


@pytest.mark.parametrize("name", LAWS)
def test_moments_are_those_of_the_distribution(name):
    law = LAWS[name]()
    _, _, condition = states(law, 1.0, n=2)
    mean, std = (v.expand(2, -1) for v in law.moments(condition))
    grid = torch.linspace(-15, 15, 1501, dtype=F64)
    cdf = torch.stack([law.distribution(torch.full_like(mean, float(g)), torch.zeros(2), condition) for g in grid])
    mass, mid = cdf.diff(dim=0), (0.5 * (grid[1:] + grid[:-1]))[:, None, None]
    first = (mass * mid).sum(0)
    torch.testing.assert_close(mean, first, rtol=0, atol=1e-6)
    torch.testing.assert_close(std**2, (mass * mid**2).sum(0) - first**2, rtol=0, atol=1e-4)


def test_what_is_not_measured_keeps_its_prior_and_noise_without_end_tells_nothing():
    law = product()
    _, _, condition = states(law, 1.0)
    for part, prior in zip(law.mixture(condition), (law.weights, law.means, law.stds), strict=True):
        assert torch.equal(part[:, 1], prior[1].expand(6, -1))
    deaf = MeasuredProduct(law.rotation, law.weights, law.means, law.stds, law.measured, 1e6)
    x, level, _ = states(law, 1.0)
    torch.testing.assert_close(
        deaf(x, level, condition), RotatedProduct.forward(plain(law), x, level), rtol=1e-6, atol=1e-8
    )


def plain(law: MeasuredProduct) -> RotatedProduct:
    return RotatedProduct(law.rotation, law.weights, law.means, law.stds)


def test_prior_draws_have_the_prior():
    law = gaussian()
    torch.testing.assert_close(torch.cov(law.draw(40000, rng(11)).mT), law.root @ law.root.mT, rtol=0, atol=0.06)


def test_mistakes_are_told():
    law = product()
    with pytest.raises(UserError, match="scalars"):
        law(torch.zeros(1, 4, dtype=F64), torch.ones(1))
    with pytest.raises(UserError, match="noise"):
        MeasuredProduct(law.rotation, law.weights, law.means, law.stds, law.measured, 0.0)
    with pytest.raises(UserError, match="at least one"):
        MeasuredProduct(law.rotation, law.weights, law.means, law.stds, torch.zeros(4, dtype=torch.bool), 1.0)
    with pytest.raises(UserError, match="noise"):
        MeasuredGaussian(torch.eye(2), torch.eye(2), -1.0)
