"""PSNR, SSIM and NMSE of volumes of magnitudes, as the fastMRI challenge defines them.

The data range of a volume is the maximum of its target, over all slices; papers on single slices take each slice's own
maximum instead, which gives other numbers. Compare like with like.

References:
    Zbontar et al. (2018), fastMRI: an open dataset and benchmarks for accelerated MRI, arXiv:1811.08839, section 5.
    Wang et al. (2004), Image quality assessment: from error visibility to structural similarity, IEEE TIP 13.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter

from scigen.errors import UserError

Array = NDArray[np.float64]

WINDOW = 7
"""Pixels a side of the window of SSIM."""
K1, K2 = 0.01, 0.03
"""Constants of SSIM, shares of the data range."""


def centre_crop(images: np.ndarray, shape: tuple[int, int] | None = None) -> np.ndarray:
    """The centre of images, (…, Y, X) to (…, *shape).

    Args:
        images: (…, Y, X).
        shape: wanted (Y, X); None is the square of width X, as fastMRI's evaluation crops.

    Raises:
        UserError: if the images are smaller than that.
    """
    size = images.shape[-2:]
    shape = (size[1], size[1]) if shape is None else shape
    if not all(0 < want <= have for want, have in zip(shape, size, strict=True)):
        raise UserError(f"Images of {size[0]} × {size[1]} pixels have no centre of {shape[0]} × {shape[1]} to crop.")
    top, left = ((have - want) // 2 for want, have in zip(shape, size, strict=True))
    return images[..., top : top + shape[0], left : left + shape[1]]


def psnr(truth: ArrayLike, image: ArrayLike, data_range: float | None = None) -> float:
    """Peak signal-to-noise ratio 10 log₁₀(range²/mean squared error) [dB], of a volume or a slice.

    Args:
        truth: (…) magnitudes.
        image: (…) likewise.
        data_range: None takes the maximum of the truth.

    Returns:
        dB; infinite for a perfect answer, NaN for a blank truth.
    """
    truth, image = _pair(truth, image)
    top = float(truth.max()) if data_range is None else data_range
    return float(decibels(np.asarray(((truth - image) ** 2).mean()), top))


def decibels(squared_error: ArrayLike, data_range: ArrayLike) -> Array:
    """PSNR [dB] of mean squared errors; infinite where they are 0, NaN where the data range is."""
    error, top = np.asarray(squared_error, np.float64), np.asarray(data_range, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(top > 0, 10 * np.log10(top**2 / error), np.nan)


def nmse(truth: ArrayLike, image: ArrayLike) -> float:
    """‖image − truth‖²/‖truth‖² over a volume or a slice; NaN for a blank truth."""
    truth, image = _pair(truth, image)
    power = float((truth**2).sum())
    return float(((truth - image) ** 2).sum()) / power if power > 0 else float("nan")


def ssim(truth: ArrayLike, image: ArrayLike, data_range: float | None = None) -> float:
    """Structural similarity, mean over slices: windows of 7 × 7 alike weights, sample covariances.

    Args:
        truth: (…, Y, X) magnitudes, at least 7 pixels a side.
        image: (…, Y, X) likewise.
        data_range: None takes the maximum of the truth.

    Returns:
        1 for a perfect answer; NaN for a blank truth.

    Raises:
        UserError: if shapes differ or the images are smaller than the window.
    """
    truth, image = _pair(truth, image)
    if min(truth.shape[-2:]) < WINDOW:
        raise UserError(f"SSIM needs images of at least {WINDOW} × {WINDOW} pixels, got {truth.shape[-2:]}.")
    top = float(truth.max()) if data_range is None else data_range
    if not top > 0:
        return float("nan")
    size = (1,) * (truth.ndim - 2) + (WINDOW, WINDOW)

    def mean(values: Array) -> Array:
        return uniform_filter(values, size)

    edge = WINDOW // 2  # windows that lie inside the image alone count
    mx, my = mean(truth), mean(image)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    vx, vy = sample * (mean(truth**2) - mx**2), sample * (mean(image**2) - my**2)
    vxy = sample * (mean(truth * image) - mx * my)
    c1, c2 = (K1 * top) ** 2, (K2 * top) ** 2
    value = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(value[..., edge:-edge, edge:-edge].mean())


def _pair(truth: ArrayLike, image: ArrayLike) -> tuple[Array, Array]:
    """Both in double precision, of one shape."""
    truth, image = np.asarray(truth, np.float64), np.asarray(image, np.float64)
    if truth.shape != image.shape or not truth.size:
        raise UserError(f"Quality is of images of one shape, got truth {truth.shape} and image {image.shape}.")
    return truth, image
