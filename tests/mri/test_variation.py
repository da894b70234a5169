"""Total variation: the minimum of its objective, limits that are known."""

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.mri.fourier import fft2c, ifft2c
from scigen.mri.variation import divergence, gradient, total_variation


def phantom(size: tuple[int, int]) -> np.ndarray:
    """Two rectangles of different phase in a larger one."""
    image = np.zeros(size, np.complex64)
    image[4:-4, 5:-5] = 0.5
    image[8:14, 8:12] = 1.0j
    image[-12:-7, 9:-8] = 0.8 * np.exp(0.7j)
    return image


def problem(coils: int, sigma: float, full: bool = False, size: tuple[int, int] = (32, 29), seed: int = 0):
    """k-space, mask, maps, noise of one slice, with an absent coil more."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in size], indexing="ij")
    turn = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    maps = np.exp(np.cos(turn) * y + np.sin(turn) * x + 1j * (turn + x)) if coils > 1 else np.ones((1, *size))
    maps = np.concatenate([maps / np.sqrt((np.abs(maps) ** 2).sum(0)), np.zeros((1, *size))]).astype(np.complex64)
    columns = rng.random(size[1]) < 0.35
    columns[size[1] // 2 - 3 : size[1] // 2 + 3] = True
    mask = np.broadcast_to(columns | full, size).copy()
    noise = sigma * (rng.normal(size=maps.shape) + 1j * rng.normal(size=maps.shape))
    kspace = np.where(mask, fft2c(maps * phantom(size)) + noise, 0)
    kspace[-1] = 0
    return kspace.astype(np.complex64), mask, maps, sigma


def objective(image, kspace, mask, maps, weight) -> float:
    image = image.astype(complex)
    residual = np.where(mask, fft2c(maps * image), 0) - kspace
    return 0.5 * (np.abs(residual) ** 2).sum() + weight * np.sqrt((np.abs(gradient(image)) ** 2).sum(0)).sum()


def test_the_divergence_is_minus_the_adjoint():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 6)) + 1j * rng.normal(size=(2, 5, 6))
    p = rng.normal(size=(2, 2, 5, 6)) + 1j * rng.normal(size=(2, 2, 5, 6))
    np.testing.assert_allclose(np.vdot(p, gradient(x)), -np.vdot(divergence(p), x))


@pytest.mark.parametrize("coils", [1, 3])
def test_no_perturbation_lowers_the_objective(coils):
    kspace, mask, maps, _ = problem(coils, 0.05)
    weight = 0.05
    best = total_variation(kspace, mask, maps, 0.05, weight=weight, iterations=600)
    least = objective(best, kspace, mask, maps, weight)
    rng = np.random.default_rng(1)
    truth = phantom(mask.shape)
    aliased = (maps.conj() * ifft2c(kspace)).sum(0)
    smooth = ifft2c(fft2c(rng.normal(size=mask.shape)) * np.outer(np.hanning(32), np.hanning(29)))
    for direction in (rng.normal(size=mask.shape), smooth, 1j * smooth, truth - best, aliased - best, best, 1j * best):
        direction = direction / np.linalg.norm(direction)
        for step in (0.03, -0.03, 0.3, -0.3):
            assert objective(best + step * direction, kspace, mask, maps, weight) > least * (1 - 1e-5)


def test_far_from_the_minimum_a_perturbation_would_lower_it():
    kspace, mask, maps, _ = problem(1, 0.05)
    start = total_variation(kspace, mask, maps, 0.05, weight=0.05, iterations=0)
    better = total_variation(kspace, mask, maps, 0.05, weight=0.05, iterations=600)
    value = [objective(i, kspace, mask, maps, 0.05) for i in (start, start + 0.05 * (better - start))]
    assert value[1] < 0.98 * value[0]


@pytest.mark.parametrize("coils", [1, 3])
def test_full_data_without_noise_give_the_image(coils):
    kspace, mask, maps, _ = problem(coils, 0.0, full=True)
    found = total_variation(kspace, mask, maps, 0.0)
    np.testing.assert_allclose(found, phantom(mask.shape), atol=2e-5)


def test_a_huge_weight_leaves_a_constant():
    kspace, mask, maps, _ = problem(1, 0.01, full=True)
    found = total_variation(kspace, mask, maps, 0.01, weight=50.0, iterations=1500)
    np.testing.assert_allclose(found, phantom(mask.shape).mean(), atol=0.02)


@pytest.mark.parametrize("coils", [1, 3])
def test_piecewise_constant_images_come_out_better_than_zero_filled(coils):
    kspace, mask, maps, sigma = problem(coils, 0.02)
    found = total_variation(kspace, mask, maps, sigma)
    aliased = (maps.conj() * ifft2c(kspace)).sum(0)
    errors = [np.linalg.norm(i - phantom(mask.shape)) for i in (found, aliased)]
    assert errors[0] < 0.5 * errors[1]


def test_slices_do_not_touch_each_other():
    problems = [problem(c, s, seed=i) for i, (c, s) in enumerate([(2, 0.02), (1, 0.1), (2, 0.05)])]
    sizes = [3, 2, 3]
    kspace, maps = (np.zeros((3, 3, 32, 29), np.complex64) for _ in range(2))
    for i, (p, n) in enumerate(zip(problems, sizes, strict=True)):
        kspace[i, 3 - n :], maps[i, 3 - n :] = p[0], p[2]  # the absent coil comes first in one of them
    mask, noise = np.stack([p[1] for p in problems]), np.array([p[3] for p in problems])
    together = total_variation(kspace, mask, maps, noise, iterations=30)
    for i, p in enumerate(problems):
        np.testing.assert_allclose(together[i], total_variation(*p, iterations=30), atol=1e-6)


def test_unknown_noise_needs_a_weight():
    kspace, mask, maps, _ = problem(1, 0.02)
    with pytest.raises(UserError, match="give weight"):
        total_variation(kspace, mask, maps, np.nan)
    assert np.isfinite(total_variation(kspace, mask, maps, np.nan, weight=0.01, iterations=3)).all()
    with pytest.raises(UserError, match="negative"):
        total_variation(kspace, mask, maps, 0.02, weight=-1.0)
    with pytest.raises(UserError, match="mask"):
        total_variation(kspace, mask[:-1], maps, 0.02)
