"""Teleporting: where noise is large the score is nearly that of a Gaussian, whose flow map is known in closed form.

The Gaussian is fitted to training samples; the level down to which it may stand in for the denoiser is measured (Wang &
Vastola 2024, arXiv:2412.09726). `Segmented([(σ_max, σ_s, gaussian), (σ_s, 0, denoiser)])` then samples with it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scigen.core.denoise import Condition, DenoiserLike, expand
from scigen.core.noise import check_levels
from scigen.core.oracle import Gaussian
from scigen.errors import UserError


def fit_gaussian(x: Tensor) -> Gaussian:
    """The Gaussian with the samples' mean field and their variance in every mode of the DCT-II, channels independent.

    The DCT stands for a field that is stationary but for its reflecting borders. The mean field costs one degree of
    freedom; each variance has a relative standard error of √(2/(N − 1)).

    Args:
        x: training samples, normalised, (N, C, *S), N ≥ 2.

    Raises:
        UserError: for fewer than two samples.

    Returns:
        The law in float64, on x's device.
    """
    if len(x) < 2:
        raise UserError(f"A Gaussian is fitted to two samples at least, not {len(x)}.")
    x = x.double()
    mean, shape = x.mean(0), x.shape[2:]
    bases = [_dct(n).to(x.device) for n in shape]
    variance = _along(x - mean, bases).square().sum(0) / (len(x) - 1)
    inverses = [b.mT for b in bases]
    return Gaussian(mean, variance, lambda v: _along(v, bases), lambda m: _along(m, inverses))


def _dct(n: int) -> Tensor:
    """The orthonormal DCT-II as a matrix (n modes, n points), float64."""
    points = torch.arange(n, dtype=torch.float64) + 0.5
    basis = (2 / n) ** 0.5 * torch.cos(math.pi / n * points * torch.arange(n, dtype=torch.float64)[:, None])
    basis[0] /= 2**0.5
    return basis


def _along(x: Tensor, bases: Sequence[Tensor]) -> Tensor:
    """x (B, C, *S) with a matrix applied along each axis of space."""
    for axis, basis in enumerate(bases, start=2):
        x = (x.movedim(axis, -1) @ basis.to(x).mT).movedim(-1, axis)
    return x


def score_gap(
    denoiser: DenoiserLike, gaussian: Gaussian, x: Tensor, sigma: Tensor, condition: Condition | None = None
) -> float:
    """‖D − D_Gauss‖ / ‖D‖ over noised samples: how wrong the Gaussian is at a level.

    Args:
        denoiser: D.
        gaussian: the law that would stand in for it.
        x: clean samples, (B, C, *S); the noise comes from the global generator.
        sigma: (B,).
        condition: of the samples, batch first.
    """
    noisy = x + expand(sigma, x) * torch.randn_like(x)
    with torch.no_grad():
        own = denoiser(noisy, sigma, condition)
        return float((own - gaussian(noisy, sigma, condition)).norm() / own.norm())


def teleport_level(
    denoiser: DenoiserLike,
    gaussian: Gaussian,
    x: Tensor,
    sigmas: Sequence[float],
    tolerance: float = 0.01,
    condition: Condition | None = None,
) -> float:
    """σ_s: the lowest level such that there, and at all levels above, the score gap is within the tolerance.

    Args:
        denoiser: D.
        gaussian: see `fit_gaussian`.
        x: clean samples to measure on, (B, C, *S), best not those that the Gaussian was fitted to.
        sigmas: decreasing levels to choose from.
        tolerance: largest gap.
        condition: of the samples, batch first.

    Raises:
        UserError: if the gap is larger at the first level already.
    """
    chosen, gap = math.nan, math.nan
    for sigma in check_levels(sigmas):
        gap = score_gap(denoiser, gaussian, x, torch.full((len(x),), sigma, device=x.device), condition)
        if not gap <= tolerance:
            break
        chosen = sigma
    if math.isnan(chosen):
        raise UserError(
            f"At σ = {float(sigmas[0]):g} the score is off a Gaussian's by {gap:.2g} of its size, more than"
            f" tolerance={tolerance:g}: raise the tolerance or σ_max, or do not teleport."
        )
    return chosen
