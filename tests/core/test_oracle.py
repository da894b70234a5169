"""Oracles against themselves: scores, flow maps, draws."""

import pytest
import torch

from scigen.core.oracle import Gaussian, Mixture, RotatedProduct
from scigen.errors import UserError

F64 = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense() -> Gaussian:
    a = torch.randn(6, 6, dtype=F64, generator=rng())
    return Gaussian.dense(torch.arange(6, dtype=F64).reshape(2, 3), a @ a.mT / 6, (2, 3))


def stationary() -> Gaussian:
    k = torch.fft.fftfreq(8, 1 / 8, dtype=F64)
    k2 = k[:, None] ** 2 + k[None] ** 2
    return Gaussian.stationary(torch.stack([5 / (1 + k2), 1 / (1 + k2) ** 2]))


def mixture() -> Mixture:
    return Mixture(
        torch.tensor([0.3, 0.7], dtype=F64),
        torch.tensor([[-2.0, 0.0], [1.0, 1.0]], dtype=F64),
        torch.tensor([0.3, 0.5], dtype=F64),
    )


def product(n: int = 4) -> RotatedProduct:
    q = torch.linalg.qr(torch.randn(n, n, dtype=F64, generator=rng()))[0]
    w = torch.rand(n, 3, dtype=F64, generator=rng(1)) + 0.2
    return RotatedProduct(
        q,
        w / w.sum(1, keepdim=True),
        torch.randn(n, 3, dtype=F64, generator=rng(2)),
        0.2 + torch.rand(n, 3, dtype=F64, generator=rng(3)),
    )


ORACLES = {"dense": dense, "stationary": stationary, "mixture": mixture, "product": product}


@pytest.mark.parametrize("name", ORACLES)
def test_denoiser_is_the_mean_of_the_posterior(name):
    """E‖D − x₀‖² is smallest at the denoiser: no scaling or shift of D − x_σ does better (orthogonality)."""
    oracle = ORACLES[name]()
    x0 = oracle.draw(20000, rng(4))
    sigma = torch.full((len(x0),), 0.8, dtype=F64)
    x = x0 + 0.8 * torch.randn(x0.shape, dtype=F64, generator=rng(5))
    error = (oracle(x, sigma) - x0).flatten(1)
    for direction in (x.flatten(1), (oracle(x, sigma)).flatten(1), torch.ones_like(error)):
        product = (error * direction).sum(1)
        assert abs(float(product.mean())) < 4.5 * float(product.std()) / len(x0) ** 0.5


@pytest.mark.parametrize("name", ORACLES)
def test_flow_map_solves_the_ode(name):
    """d/dσ of the flow map at its start is (x − D)/σ, checked by central differences."""
    oracle = ORACLES[name]()
    x = oracle.draw(5, rng(6)) + torch.randn(oracle.draw(5, rng(6)).shape, dtype=F64, generator=rng(7))
    one, h = torch.ones(5, dtype=F64), 1e-4
    kwargs = {"steps": 50} if name == "mixture" else {}
    ahead = oracle.flow_map(x, one, one * (1 + h), **kwargs)
    behind = oracle.flow_map(x, one, one * (1 - h), **kwargs)
    torch.testing.assert_close((ahead - behind) / (2 * h), x - oracle(x, one), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["dense", "stationary", "product"])
def test_flow_maps_compose_and_invert(name):
    oracle = ORACLES[name]()
    x = oracle.draw(6, rng(8)) + 3 * torch.randn(oracle.draw(6, rng(8)).shape, dtype=F64, generator=rng(9))
    level = lambda s: torch.full((6,), s, dtype=F64)  # noqa: E731
    direct = oracle.flow_map(x, level(3.0), level(0.2))
    torch.testing.assert_close(
        oracle.flow_map(oracle.flow_map(x, level(3.0), level(1.0)), level(1.0), level(0.2)),
        direct,
        rtol=1e-8,
        atol=1e-9,
    )
    torch.testing.assert_close(oracle.flow_map(direct, level(0.2), level(3.0)), x, rtol=1e-6, atol=1e-7)


def test_product_is_exact_far_in_both_tails():
    """One Gaussian component: the quantile map is the linear one, also twelve standard deviations out."""
    one = lambda v: torch.full((1, 1), v, dtype=F64)  # noqa: E731
    law = RotatedProduct(torch.eye(1, dtype=F64), one(1.0), one(0.5), one(0.7))
    x = torch.tensor([[-14.0], [-1.0], [0.5], [3.0], [15.0]], dtype=F64)
    got = law.flow_map(x, torch.ones(5, dtype=F64), torch.zeros(5, dtype=F64))
    torch.testing.assert_close(got, 0.5 + (x - 0.5) * 0.7 / (0.49 + 1) ** 0.5, rtol=1e-9, atol=1e-9)


def test_stationary_draws_have_the_spectrum():
    oracle = stationary()
    modes = torch.fft.fft2(oracle.draw(4000, rng(10)), norm="ortho").abs().square().mean(0)
    assert float((modes / oracle.variance - 1).abs().max()) < 0.15
    assert float((modes / oracle.variance - 1).mean().abs()) < 0.01


def test_dense_draws_have_the_covariance():
    oracle = dense()
    x = oracle.draw(40000, rng(11)).flatten(1)
    expected = oracle.from_modes(torch.diag(oracle.variance)).flatten(1)  # rows: √… of nothing, only U Λ
    basis = oracle.from_modes(torch.eye(6, dtype=F64)).flatten(1)
    covariance = basis.mT @ expected
    torch.testing.assert_close(torch.cov(x.mT), covariance, rtol=0, atol=0.05)
    torch.testing.assert_close(x.mean(0), torch.arange(6, dtype=F64), rtol=0, atol=0.05)


def test_mean_may_depend_on_the_condition():
    law = Gaussian.dense(lambda c: c["mean"], torch.eye(2, dtype=F64), (2,))
    x = torch.zeros(3, 2, dtype=F64)
    mean = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], dtype=F64)
    torch.testing.assert_close(law(x, torch.ones(3, dtype=F64), {"mean": mean}), mean / 2)


@pytest.mark.parametrize("make", [dense, stationary, mixture])
def test_draws_lie_where_the_law_does(make):
    """On the law's device: the device without memory stands for an accelerator."""
    assert make().to("meta").draw(3).device.type == "meta"


def test_bad_laws_are_refused():
    with pytest.raises(UserError):
        Gaussian.stationary(torch.arange(8, dtype=F64)[None])
    with pytest.raises(UserError):
        Mixture(torch.tensor([0.3, 0.3]), torch.zeros(2, 1), torch.ones(2))
    with pytest.raises(UserError):
        RotatedProduct(torch.ones(2, 2), torch.ones(2, 1), torch.zeros(2, 1), torch.ones(2, 1))
