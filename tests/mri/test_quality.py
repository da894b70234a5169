"""PSNR, SSIM, NMSE: scikit-image is the oracle, with fastMRI's data range."""

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from scigen.errors import UserError
from scigen.mri import quality


@pytest.fixture
def volumes():
    rng = np.random.default_rng(0)
    truth = rng.gamma(2.0, 1.0, (3, 24, 31)) * np.array([1.0, 0.5, 2.0])[:, None, None]
    return truth, truth + 0.2 * rng.normal(size=truth.shape)


def test_volumes_agree_with_the_oracle(volumes):
    truth, image = volumes
    top = truth.max()
    assert quality.psnr(truth, image) == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=top))
    each = [structural_similarity(t, i, data_range=top) for t, i in zip(truth, image, strict=True)]
    assert quality.ssim(truth, image) == pytest.approx(np.mean(each), abs=1e-12)
    assert quality.nmse(truth, image) == pytest.approx(np.linalg.norm(image - truth) ** 2 / np.linalg.norm(truth) ** 2)


def test_a_slice_has_its_own_range_unless_told(volumes):
    truth, image = volumes[0][1], volumes[1][1]
    assert quality.psnr(truth, image) == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=truth.max()))
    assert quality.ssim(truth, image, 5.0) == pytest.approx(structural_similarity(truth, image, data_range=5.0))


def test_single_precision_loses_nothing(volumes):
    truth, image = (1e-5 * v.astype(np.float32) for v in volumes)
    exact = np.float64(truth), np.float64(image)
    assert quality.ssim(truth, image) == pytest.approx(quality.ssim(*exact), rel=1e-12)


def test_perfect_and_blank(volumes):
    truth, _ = volumes
    assert quality.psnr(truth, truth) == math.inf and quality.ssim(truth, truth) == pytest.approx(1)
    assert quality.nmse(truth, truth) == 0
    blank = np.zeros((8, 8))
    assert all(math.isnan(f(blank, blank + 1)) for f in (quality.psnr, quality.ssim, quality.nmse))


def test_the_centre_is_that_of_fastmri():
    grid = np.arange(6 * 4).reshape(6, 4)
    np.testing.assert_array_equal(quality.centre_crop(grid), grid[1:5])
    np.testing.assert_array_equal(quality.centre_crop(grid[None], (3, 2)), grid[None, 1:4, 1:3])
    with pytest.raises(UserError, match="6 × 4"):
        quality.centre_crop(grid, (7, 4))


def test_shapes_must_agree():
    with pytest.raises(UserError, match="one shape"):
        quality.psnr(np.ones((4, 4)), np.ones((4, 5)))
    with pytest.raises(UserError, match="7 × 7"):
        quality.ssim(np.ones((6, 9)), np.ones((6, 9)))
