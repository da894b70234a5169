"""Scale and phase of a slice, from its own k-space, never from the target."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scigen.mri.operator import fft2c, ifft2c
from scigen.mri.spectrum import radii


def scales(aliased: Tensor) -> Tensor:
    """One number a slice that brings images to order 1: the 99th percentile of the smoothed zero-filled magnitude.

    It comes from the measured data alone, and hardly depends on the acceleration: low frequencies are all sampled.

    Args:
        aliased: Aᴴ y, (B, Y, X) complex.
    """
    smooth = ifft2c(low_pass(aliased.shape[-2:]).to(aliased.device) * fft2c(aliased))
    top = smooth.abs().flatten(1).quantile(0.99, dim=1)
    return torch.where(top > 0, top, torch.ones_like(top))


def smooth_phase(aliased: Tensor) -> Tensor:
    """e^{iφ} of the zero-filled image without its high frequencies, (B, Y, X) complex of modulus 1."""
    smooth = ifft2c(low_pass(aliased.shape[-2:]).to(aliased.device) * fft2c(aliased))
    size = smooth.abs()
    return torch.where(size > 0, smooth / size.clamp_min(torch.finfo(size.dtype).tiny), torch.ones_like(smooth))


def low_pass(shape: Sequence[int]) -> Tensor:
    """Gaussian in k-space, of 4 % of the sampling frequency, (Y, X)."""
    return torch.from_numpy(np.exp(-0.5 * (radii(shape) / 0.04) ** 2).astype(np.float32))
