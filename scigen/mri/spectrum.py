"""The radial power spectrum of images: all that the Gaussian prior knows."""

from collections.abc import Sequence

import numpy as np
import torch

from scigen.mri.operator import fft2c

BINS = 48
"""Of the radial power spectrum, up to the corner of k-space, √½ cycles a pixel."""
CHUNK = 64
"""Images that are transformed at once."""


def radii(shape: Sequence[int]) -> np.ndarray:
    """Length of the frequency of every centred k-space coefficient, cycles a pixel, (Y, X)."""
    axes = [(np.arange(n) - n // 2) / n for n in shape]
    return np.hypot(*np.meshgrid(*axes, indexing="ij"))


def radial_profile(images: np.ndarray) -> np.ndarray:
    """Power of one part of a k-space coefficient by frequency, averaged over images (N, Y, X) complex: (BINS,).

    Bins without a coefficient take from their neighbours; none falls below 1e-6 of the largest.
    """
    power = np.zeros(images.shape[-2:])
    for low in range(0, len(images), CHUNK):
        chunk = torch.from_numpy(np.ascontiguousarray(images[low : low + CHUNK], np.complex64))
        power += fft2c(chunk).abs().square().double().sum(0).numpy() / 2
    power /= len(images)
    where = np.minimum((radii(power.shape) / np.sqrt(0.5) * BINS).astype(int), BINS - 1)
    count = np.bincount(where.ravel(), minlength=BINS)
    mean = np.bincount(where.ravel(), power.ravel(), BINS) / np.maximum(count, 1)
    mean = np.interp(np.arange(BINS), np.flatnonzero(count), mean[count > 0])
    return np.maximum(mean, 1e-6 * mean.max())


def on_grid(profile: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The radial spectrum at every coefficient, (Y, X), its logarithm interpolated."""
    at = radii(shape) / np.sqrt(0.5) * len(profile) - 0.5
    return np.exp(np.interp(at, np.arange(len(profile)), np.log(profile)))
