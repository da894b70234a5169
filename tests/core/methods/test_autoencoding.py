"""Laws of the autoencoder's loss."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from scigen.core.methods.autoencoding import Autoencoding, cross_entropy, divergence
from scigen.core.methods.base import Batch
from scigen.core.networks.autoencoder import Autoencoder
from scigen.errors import UserError


def test_the_divergence_is_that_of_gaussians():
    mean, log_variance = torch.randn(50, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(divergence(mean, log_variance), expected)
    assert float(divergence(torch.zeros(1), torch.zeros(1))) == 0


def test_the_best_cross_entropy_is_the_entropy_of_the_phases():
    """Scores that know nothing but the fractions do best with their logarithms; others do worse."""
    share = torch.tensor([0.5, 0.25, 0.25])
    labels = torch.tensor([0, 0, 1, 2]).repeat(16)
    x = torch.nn.functional.one_hot(labels, 3).T[None].float()
    best = share.log()[None, :, None].expand_as(x)
    assert float(cross_entropy(best, x)) == pytest.approx(1.5 * math.log(2))
    assert float(cross_entropy(best + torch.randn(1, 3, 1), x)) > 1.5 * math.log(2)
    assert float(cross_entropy(50 * x, x)) == pytest.approx(0, abs=1e-6)


def test_the_loss_is_the_evidence_bound_a_cell():
    torch.manual_seed(0)
    net = Autoencoder(2, latent=3, widths=(8,), periodic=True)
    x = torch.nn.functional.one_hot(torch.randint(2, (2, 8, 8, 8)), 2).movedim(-1, 1).float()
    net.requires_grad_(False)
    mean, log_variance = net.moments(x)
    kl = float(divergence(mean, log_variance).sum() / (2 * 8**3))
    out = Autoencoding(net, kl=0.5).loss("student", Batch(x, {}))
    assert float(out["kl"]) == pytest.approx(kl, rel=1e-5)
    assert float(out["loss"]) == pytest.approx(float(out["cross_entropy"]) + 0.5 * kl, rel=1e-5)
    with torch.no_grad():
        sure = torch.full_like(log_variance, -40)
        net.moments = lambda _: (mean, sure)
        out = Autoencoding(net, kl=0.0).loss("student", Batch(x, {}))
        assert float(out["loss"]) == pytest.approx(float(cross_entropy(net.decode(mean), x)), rel=1e-5)


def test_a_few_volumes_are_learnt_by_heart():
    """Smooth blobs come back almost without a mistake after a few seconds of training."""
    torch.manual_seed(0)
    waves = torch.fft.ifftn(torch.fft.fftn(torch.randn(2, 16, 16, 16), dim=(1, 2, 3)) * _low(16), dim=(1, 2, 3)).real
    x = torch.stack([waves > 0, waves <= 0], dim=1).float()
    net = Autoencoder(2, latent=4, widths=(16, 24), periodic=True)
    method, adam = Autoencoding(net, kl=1e-3), torch.optim.Adam(net.parameters(), 5e-3)
    untrained = float((net(x).argmax(1) != x.argmax(1)).float().mean())
    for _ in range(150):
        adam.zero_grad()
        method.loss("student", Batch(x, {}))["loss"].backward()
        adam.step()
    wrong = float((net(x).argmax(1) != x.argmax(1)).float().mean())
    assert wrong < 0.02 < 0.2 < untrained


def test_a_negative_weight_is_refused():
    with pytest.raises(UserError, match=r"autoencoder\.kl=-1"):
        Autoencoding(Autoencoder(2), kl=-1)


def _low(n: int) -> torch.Tensor:
    """Wavenumbers up to 2."""
    k = torch.fft.fftfreq(n) * n
    return (k[:, None, None] ** 2 + k[None, :, None] ** 2 + k**2 <= 4).float()
