"""The bench's tasks against independent formulas, and against themselves."""

import pytest
import torch
from torch.nn import functional

from scigen.core.bench.tasks import TASKS, block_means, hartley, named, spectrum
from scigen.core.oracle import Gaussian, Mixture
from scigen.core.sample import heun
from scigen.errors import UserError

F64 = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def level(sigma: float, n: int) -> torch.Tensor:
    return torch.full((n,), sigma, dtype=F64)


@pytest.fixture(scope="module", params=TASKS)
def task(request):
    return TASKS[request.param]()


@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_the_oracles_error_is_orthogonal_to_whatever_is_known(task, sigma):
    """E[(D − x₀) f(x_σ, y)] = 0 for every f, which only the posterior mean obeys: each coefficient, three f."""
    n = 8000
    truth = task.truth(n, rng(1))
    x = truth.x + sigma * torch.randn(truth.x.shape, dtype=F64, generator=rng(2))
    error = (task.law(x, level(sigma, n), truth.condition) - truth.x) @ task.law.rotation
    u = x @ task.law.rotation
    known = [u, (3 * u).tanh()] + [v[:, :1] for v in truth.condition.values()]
    for f in known:
        product = error * f
        assert float((product.mean(0) / product.std(0)).abs().max()) * n**0.5 < 4.7


def test_the_oracle_is_missed_when_its_measurement_is_another_ones():
    task = TASKS["inverse"]()
    truth, n = task.truth(8000, rng(1)), 8000
    x = truth.x + torch.randn(truth.x.shape, dtype=F64, generator=rng(2))
    other = {k: v.roll(1, 0) for k, v in truth.condition.items()}
    error = (task.law(x, level(1.0, n), other) - truth.x) @ task.law.rotation
    product = error * (x @ task.law.rotation)
    assert float((product.mean(0) / product.std(0)).abs().max()) * n**0.5 > 10


def test_flow_map_follows_the_oracles_ode(task):
    truth = task.truth(3, rng(3))
    x = truth.x + 4.0 * torch.randn(truth.x.shape, dtype=F64, generator=rng(4))
    fine = heun(task.law, x, (4.0 * 0.98 ** torch.arange(400, dtype=F64)).tolist(), truth.condition)
    exact = task.law.flow_map(x, level(4.0, 3), level(0.0, 3), truth.condition)
    torch.testing.assert_close(fine, exact, rtol=0, atol=4e-3)


def test_draws_are_what_the_task_says(task):
    """Unit mean variance but for `modes`, σ_max ten times the largest spread, and truths ranked by their posterior."""
    n = 4000
    truth = task.truth(n, rng(5))
    values = torch.linalg.eigvalsh(torch.cov(truth.x.mT))
    assert float(values.mean()) ** 0.5 == pytest.approx(task.law.sigma_data, rel=0.02)
    assert 9.5 < task.sigma_max / float(values.max()) ** 0.5 < 12.5
    rank = task.law.distribution(truth.x @ task.law.rotation, torch.zeros(n), truth.condition)
    assert float((rank.mean(0) - 0.5).abs().max()) < 4.5 * (1 / 12 / n) ** 0.5
    assert float((rank.var(0) - 1 / 12).abs().max()) < 4.5 * (1 / 180 / n) ** 0.5
    batch = task.draw(4, rng(5))
    assert batch.x.dtype == torch.float32 and batch.x.shape == (4, *task.shape)
    assert sum(v.shape[1] for v in batch.condition.values()) == task.scalars


def test_exact_answers_have_the_law_though_the_noise_stops_at_sigma_max(task):
    """From white noise every coefficient becomes uniform under its own distribution function, exactly: F(x) = Φ(ε)."""
    truth = task.truth(50, rng(6))
    noise = torch.randn(50, *task.shape, generator=rng(7))
    x = task.exact(noise, truth.condition)
    rank = task.law.distribution(x @ task.law.rotation, torch.zeros(50), truth.condition)
    torch.testing.assert_close(rank, torch.special.ndtr(noise.double() @ task.law.rotation), rtol=0, atol=2e-4)


def test_starting_at_sigma_max_would_lose_a_share_of_the_variance():
    """λ/(λ + σ_max²) of it, a hundredth for the largest mode: what FAR is for."""
    task = TASKS["gaussian"]()
    noise = torch.randn(4, 64, dtype=F64, generator=rng(8))
    near = task.law.flow_map(task.sigma_max * noise, level(task.sigma_max, 4), level(0.0, 4)) @ task.law.rotation
    ratio = near / (task.exact(noise.float()) @ task.law.rotation)
    expected = (task.sigma_max**2 / (task.law.stds[:, 0] ** 2 + task.sigma_max**2)).sqrt()
    torch.testing.assert_close(ratio, expected.expand(4, -1), rtol=1e-4, atol=0)


def test_gaussian_is_the_stationary_field():
    task, x = TASKS["gaussian"](), torch.randn(3, 64, dtype=F64, generator=rng(9))
    field = Gaussian.stationary(spectrum(8)[None])
    expected = field(x.reshape(3, 1, 8, 8), level(0.7, 3)).reshape(3, 64)
    torch.testing.assert_close(task.law(x, level(0.7, 3)), expected, rtol=1e-10, atol=1e-12)


def test_modes_is_the_mixture_of_two():
    task, x = TASKS["modes"](), torch.randn(3, 16, dtype=F64, generator=rng(10))
    two = Mixture(
        torch.tensor([0.7, 0.3], dtype=F64),
        torch.stack([-task.split, task.split]),
        torch.tensor([0.25, 0.25], dtype=F64),
    )
    for sigma in (0.1, 0.6, 3.0):
        torch.testing.assert_close(task.law(x, level(sigma, 3)), two(x, level(sigma, 3)), rtol=1e-9, atol=1e-10)
    share = float((task.truth(20000, rng(11)).x @ task.split > 0).double().mean())
    assert share == pytest.approx(0.3, abs=4.5 * (0.21 / 20000) ** 0.5)


def test_downscaling_is_conditioned_on_block_means():
    """Posterior mean at large σ: kriging of the field from y alone, and its block means are nearly y."""
    task = TASKS["downscaling"]()
    truth = task.truth(5, rng(12))
    y = truth.condition["scalars"]
    mean = task.law(torch.zeros(5, 64, dtype=F64), level(1e6, 5), truth.condition)
    basis, variance = hartley(8), spectrum(8).flatten()
    prior, a = (basis * variance) @ basis.mT, block_means(8, 2)
    expected = y @ torch.linalg.solve(a @ prior @ a.mT + 0.01 * torch.eye(16, dtype=F64), a @ prior)
    torch.testing.assert_close(mean, expected, rtol=1e-8, atol=1e-9)
    assert float((mean @ a.mT - y).abs().max()) < 0.15


def test_hartley_modes_are_orthonormal_and_carry_a_stationary_law():
    basis = hartley(8)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(64, dtype=F64), rtol=0, atol=1e-12)
    covariance = ((basis * spectrum(8).flatten()) @ basis.mT).reshape(8, 8, 8, 8)
    shifted = covariance.roll((3, 1, 3, 1), (0, 1, 2, 3))
    torch.testing.assert_close(shifted, covariance, rtol=0, atol=1e-12)
    torch.testing.assert_close(covariance[0, 0, 0, 0], torch.ones((), dtype=F64))


@pytest.mark.parametrize("block", [2, 4])
def test_block_means_are_an_average_pooling(block):
    x = torch.randn(3, 1, 8, 8, dtype=F64, generator=rng(13))
    expected = functional.avg_pool2d(x, block).flatten(1)
    torch.testing.assert_close(x.flatten(1) @ block_means(8, block).mT, expected)


@pytest.mark.parametrize("names", [[], ["modes", "gausian"]])
def test_tasks_that_there_are_not_are_refused(names):
    with pytest.raises(UserError, match="they are gaussian, rotated"):
        named(names)
