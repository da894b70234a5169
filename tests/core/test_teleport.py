"""Teleport: the fitted Gaussian is the data's, and the level is where the score stops being its."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import fft

from scigen.core.oracle import Gaussian, RotatedProduct
from scigen.core.teleport import fit_gaussian, score_gap, teleport_level
from scigen.errors import UserError

F64 = torch.float64


def data(n, shape, seed=0):
    """Samples with a known mean and DCT variances: x (n, C, *S), μ, λ."""
    rng = np.random.default_rng(seed)
    k = sum(np.meshgrid(*[np.arange(s) ** 2 for s in shape[1:]], indexing="ij"))
    variance = np.stack([(c + 1) * 4 / (1 + k) for c in range(shape[0])])
    mean = rng.standard_normal(shape)
    axes = tuple(range(2, len(shape) + 1))
    x = mean + fft.idctn(np.sqrt(variance) * rng.standard_normal((n, *shape)), type=2, norm="ortho", axes=axes)
    return (torch.from_numpy(v) for v in (x, mean, variance))


@pytest.mark.parametrize("shape", [(1, 7), (2, 6, 5), (2, 3, 4, 5)])
def test_the_fit_recovers_mean_and_variances(shape):
    n = 4000
    x, mean, variance = data(n, shape)
    law = fit_gaussian(x)
    error = (2 / n) ** 0.5
    torch.testing.assert_close(law.variance, variance, rtol=4.5 * error, atol=0)
    standard = ((law.variance / variance - 1) / error).square().mean()
    assert float(standard) == pytest.approx(1, abs=5 * (2 / variance.numel()) ** 0.5)
    assert (law.mean - mean).abs().max() < 5 * x.std(0).max() / n**0.5


@pytest.mark.parametrize("shape", [(1, 7), (2, 6, 5), (2, 3, 4, 5)])
def test_its_modes_are_the_orthonormal_dct(shape):
    x = torch.randn(3, *shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    law = fit_gaussian(x)
    modes = fft.dctn(x.numpy(), type=2, norm="ortho", axes=tuple(range(2, len(shape) + 1)))
    torch.testing.assert_close(law.to_modes(x), torch.from_numpy(modes), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law.from_modes(law.to_modes(x)), x, rtol=1e-12, atol=1e-12)


def test_a_wrong_basis_is_seen():
    """A periodic field is not stationary in the DCT: fitted there, its denoiser is another."""
    k = torch.fft.fftfreq(8, 1 / 8, dtype=F64)
    law = Gaussian.stationary((8 / (1 + k**2) ** 2)[None])
    generator = torch.Generator().manual_seed(0)
    x, level = law.draw(4000, generator), torch.full((4000,), 1.0, dtype=F64)
    assert score_gap(law, fit_gaussian(x), x, level) > 0.05
    reflecting, _, _ = data(8000, (1, 8))
    own, fitted = fit_gaussian(reflecting[:4000]), fit_gaussian(reflecting[4000:])
    assert score_gap(own, fitted, reflecting[:4000], level) < 0.03


def test_the_fit_ignores_float32_and_keeps_the_input_dtype():
    x, _, _ = data(50, (2, 4, 4))
    law = fit_gaussian(x.float())
    out = law(x.float(), torch.ones(50))
    assert law.variance.dtype == F64 and out.dtype == torch.float32
    torch.testing.assert_close(out.double(), fit_gaussian(x)(x, torch.ones(50)), rtol=1e-4, atol=1e-4)


def test_two_samples_are_needed():
    with pytest.raises(UserError, match="two samples at least, not 1"):
        fit_gaussian(torch.zeros(1, 1, 4))


def bimodal() -> tuple[RotatedProduct, Gaussian]:
    """A law that is not Gaussian, and the Gaussian with its mean and covariance."""
    q = torch.linalg.qr(torch.randn(2, 2, dtype=F64, generator=torch.Generator().manual_seed(0)))[0]
    w, m, s = (
        torch.tensor(v, dtype=F64)
        for v in ([[0.5, 0.5], [0.3, 0.7]], [[-1.0, 1.0], [-0.7, 0.3]], [[0.3, 0.3], [0.6, 0.4]])
    )
    mean = (w * m).sum(1)
    variance = (w * (s**2 + m**2)).sum(1) - mean**2
    return RotatedProduct(q, w, m, s), Gaussian.dense(q @ mean, q @ torch.diag(variance) @ q.mT, (2,))


def gaps(levels):
    law, gaussian = bimodal()
    x = law.draw(4000, torch.Generator().manual_seed(1))
    out = []
    for s in levels:
        torch.manual_seed(0)
        out.append(score_gap(law, gaussian, x, torch.full((4000,), s, dtype=F64)))
    return out


def test_the_gap_falls_as_noise_grows():
    """From where noise hides the modes, as 1/σ: that is the third cumulant's share."""
    found = gaps([1.25, 2.5, 5.0, 10.0, 20.0, 40.0])
    assert all(a > 1.9 * b for a, b in pairwise(found)) and found[0] > 0.2
    assert found[-2] == pytest.approx(2 * found[-1], rel=0.05)


def test_the_gap_is_zero_for_the_gaussian_itself_and_relative():
    _, gaussian = bimodal()
    x, level = gaussian.draw(100, torch.Generator().manual_seed(0)), torch.full((100,), 1.0, dtype=F64)
    assert score_gap(gaussian, gaussian, x, level) == 0
    torch.manual_seed(0)
    assert score_gap(lambda x, s, c: 1.25 * gaussian(x, s), gaussian, x, level) == pytest.approx(0.2, rel=1e-12)


@pytest.mark.parametrize("tolerance", [0.2, 0.05, 0.01])
def test_the_level_is_the_lowest_within_tolerance(tolerance):
    law, gaussian = bimodal()
    levels = [40.0, 20.0, 10.0, 5.0, 2.5, 1.25, 0.6, 0.3]
    x = law.draw(4000, torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    chosen = teleport_level(law, gaussian, x, levels, tolerance)
    found = dict(zip(levels, gaps(levels), strict=True))
    assert found[chosen] <= tolerance < found[levels[levels.index(chosen) + 1]]


def test_a_level_below_a_bad_one_is_not_chosen():
    """The ODE passes through all levels above σ_s, so agreement at a low one alone is of no use."""
    _, gaussian = bimodal()
    x = gaussian.draw(50, torch.Generator().manual_seed(0))

    def bad_between(x, sigma, condition):
        wrong = ((sigma > 1) & (sigma < 3)).double()[:, None]
        return gaussian(x, sigma) * (1 + 0.1 * wrong)

    assert teleport_level(bad_between, gaussian, x, [10.0, 5.0, 3.0, 2.0, 1.0, 0.5]) == 3.0
    with pytest.raises(UserError, match=r"At σ = 2 .*0\.09"):
        teleport_level(bad_between, gaussian, x, [2.0, 0.5])


def test_the_condition_is_handed_on():
    condition, seen = {"scalars": torch.zeros(4, 1)}, []

    def denoiser(x, sigma, given):
        seen.append(given)
        return x

    teleport_level(denoiser, bimodal()[1], torch.ones(4, 2, dtype=F64), [10.0, 5.0], 10.0, condition)
    assert len(seen) == 2 and all(c is condition for c in seen)
