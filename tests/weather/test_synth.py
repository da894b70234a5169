"""The synthetic climate and its exact conditional law."""

import numpy as np
import pytest
import torch
import xarray as xr

from scigen.errors import UserError
from scigen.weather.coarsen import coarsen
from scigen.weather.exact import Posterior
from scigen.weather.grid import Grid
from scigen.weather.physics import DownscalingCodec, Statistics
from scigen.weather.synth import VARIABLES, Law, make

LAW = Law(size=16, seed=3)


@pytest.fixture(scope="module")
def independent() -> np.ndarray:
    """Anomalies 30 days apart: practically independent."""
    return LAW.weather(3000, 720)


def test_covariance_is_that_of_the_fields(independent):
    """The closed form against the generator, by products with random vectors: within four standard errors."""
    flat = independent.reshape(len(independent), -1).astype(np.float64)
    rng = np.random.default_rng(0)
    for _ in range(10):
        a, b = rng.standard_normal((2, flat.shape[1]))
        product = (flat @ a) * (flat @ b)
        assert abs(product.mean() - a @ LAW.covariance @ b) < 4 * product.std() / len(flat) ** 0.5


def test_variances_are_the_ones_asked_for():
    spread = np.sqrt(np.diag(LAW.covariance)).reshape(3, -1)
    np.testing.assert_allclose(spread, np.array([3.0, 4.0, 4.0])[:, None] * np.ones(spread.shape), rtol=1e-10)


def test_wind_without_divergent_part_does_not_diverge():
    """∂u/∂x + ∂v/∂y of the stream function's wind is zero: seen in L(k)."""
    n = LAW.torus
    k = np.fft.fftfreq(n, 1 / n)
    inner = np.abs(k) < n // 2
    amplitude = Law(size=16, divergent=0.0).amplitude[:, :, inner][:, :, :, inner]
    ky, kx = np.meshgrid(k[inner], k[inner], indexing="ij")
    divergence = kx * amplitude[1] + ky * amplitude[2]
    assert np.abs(divergence).max() < 1e-12 * np.abs(amplitude).max()


def test_memory_in_time_has_the_stated_e_folding_time():
    """The largest scales decorrelate over `memory` hours, small ones faster."""
    fields = Law(size=16, seed=1).weather(6000, 12)[:, 0].astype(np.float64)
    large = fields.mean((1, 2))
    detail = fields[:, ::2, ::2] - fields[:, 1::2, ::2]
    corr = lambda x: np.corrcoef(x[:-1].ravel(), x[1:].ravel())[0, 1]  # noqa: E731
    assert corr(large) == pytest.approx(np.exp(-12 / 48), abs=0.05)
    assert corr(detail) < 0.65


def test_same_seed_same_archive():
    a, b, c = make(LAW, 20), make(LAW, 20), make(Law(size=16, seed=4), 20)
    assert a.identical(b)
    assert not np.allclose(a["t2m"], c["t2m"])
    assert Law.of(a) == LAW
    assert Law.of(xr.Dataset()) is None
    with pytest.raises(UserError):
        Law(size=2)
    with pytest.raises(UserError):
        make(LAW, 0)


def test_temperature_falls_with_height_and_follows_the_sun():
    time = np.array(["2020-07-01T15", "2020-07-01T03", "2020-01-01T15"], "datetime64[h]")
    mean = LAW.mean(time)[:, 0]
    top, sea = LAW.orography.argmax(), LAW.orography.argmin()
    for field in mean:
        assert field.flat[top] < field.flat[sea]
    assert mean[0].mean() > mean[1].mean() > 0 and mean[0].mean() > mean[2].mean()


@pytest.fixture(scope="module")
def posterior() -> tuple[Posterior, xr.Dataset]:
    """The law given block means over 4 × 4 cells, for two of the variables, and an archive of it."""
    ds = make(LAW, 400, step_hours=720)
    ds = ds[["t2m", "v10"]]
    codec = DownscalingCodec(
        Grid.of(ds), 4, {n: VARIABLES[n] for n in ds.data_vars}, {},
        Statistics(np.array([[280.0, 0.0], [5.0, 4.0]]), np.array([[-0.1, 0.3], [1.5, 2.0]])),
    )  # fmt: skip
    return Posterior(LAW, codec), ds


def test_exact_mean_is_the_best_linear_one(posterior):
    """Its error is uncorrelated with every block mean, and has the stated spread."""
    law, ds = posterior
    coarse = coarsen(ds, 4)
    error = np.stack([ds[v].values for v in ds.data_vars], 1) - law.mean(coarse, slice(None))
    standard = error / np.maximum(law.std, 1e-9)
    assert float((standard**2).mean()) == pytest.approx(1.0, abs=0.03)
    blocks = np.stack([coarse[v].values for v in ds.data_vars], 1).reshape(len(error), -1)
    blocks = (blocks - blocks.mean(0)) / blocks.std(0)
    correlation = np.einsum("tcyx,tb->cyxb", standard, blocks) / len(error)
    assert np.abs(correlation).max() < 5.5 / len(error) ** 0.5  # of 16 384 numbers


def test_exact_draws_keep_the_block_means_and_have_the_spread(posterior):
    law, ds = posterior
    coarse = coarsen(ds, 4)
    codec = law.codec
    mean = law.normalised_mean(coarse, slice(0, 1)).expand(2000, -1, -1, -1)
    draws = law.draw(mean, torch.randn(mean.shape, generator=torch.Generator().manual_seed(0)))
    condition = {k: v.expand(2000, *v.shape[1:]) for k, v in codec.condition(coarse, slice(0, 1)).items()}
    fields = codec.decode(draws, condition)
    wanted = torch.from_numpy(np.stack([coarse[v].values[:1] for v in codec.variables], axis=1)).expand(
        2000, -1, -1, -1
    )
    torch.testing.assert_close(codec.mean_operator(fields), wanted, rtol=0, atol=2e-4)
    ratio = fields.std(0).numpy() / law.std
    assert abs(ratio.mean() - 1) < 0.01
    np.testing.assert_allclose(fields.mean(0), law.mean(coarse, slice(0, 1))[0], atol=5 * law.std.max() / 2000**0.5)


def test_exact_denoiser_is_the_conditional_mean_at_large_noise(posterior):
    law, ds = posterior
    mean = law.normalised_mean(coarsen(ds, 4), slice(0, 3))
    noise = 1e5 * torch.randn(mean.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = law.oracle(mean + noise, torch.full((3,), 1e5, dtype=torch.float64), {"mean": mean})
    torch.testing.assert_close(out, mean, rtol=0, atol=0.02)


def test_rain_has_the_stated_marginal_law():
    """Quantiles and wet share of the generator against the closed form; other variables do not feel it."""
    law = Law(size=16, seed=5, wet=0.3, rain=2.0)
    rain = law.rainfall(4000, 240).astype(np.float64)
    assert (rain > 0).mean() == pytest.approx(0.3, rel=0.03)
    assert (rain >= 0.1).mean() == pytest.approx(law.wet_share(0.1), rel=0.03)
    for share in (0.8, 0.95, 0.999):
        assert np.quantile(rain, share) == pytest.approx(float(law.rain_quantile(share)), rel=0.05)
    assert law.rain_quantile(0.69) == 0
    one, other = make(law, 30), make(Law(size=16, seed=5), 30)
    assert one["t2m"].equals(other["t2m"]) and not one["tp"].equals(other["tp"])
