"""Samplers: from noise to a sample by walking down a grid of noise levels.

Each solves dx/dσ = (x − D(x; σ))/σ from σ_0 down to σ_{N-1} and then to 0, which is implied, and is one function of
the same signature: (denoiser, x, sigmas, condition) → sample, with x = σ_0 ε given, so that the caller owns the noise.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from scigen.core.denoise import Condition, DenoiserLike
from scigen.core.noise import check_levels
from scigen.errors import UserError

Sampler = Callable[[DenoiserLike, Tensor, Sequence[float], Condition | None], Tensor]


class Counted:
    """A denoiser that counts its calls: `nfe` is the number of network calls per sample so far."""

    def __init__(self, denoiser: DenoiserLike) -> None:
        """Wrap a denoiser."""
        self.denoiser, self.nfe = denoiser, 0

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition | None = None) -> Tensor:
        """Denoise and count."""
        self.nfe += 1
        return self.denoiser(x, sigma, condition)


def _denoise(denoiser: DenoiserLike, x: Tensor, sigma: float, condition: Condition | None) -> Tensor:
    return denoiser(x, torch.full((x.shape[0],), sigma, dtype=torch.float64, device=x.device), condition)


def euler(denoiser: DenoiserLike, x: Tensor, sigmas: Sequence[float], condition: Condition | None = None) -> Tensor:
    """Euler steps, N calls: first order (DDIM). Under-dispersive on every Gaussian mode.

    Args:
        denoiser: D(x, sigma (B,), condition).
        x: start, (B, C, *S), noise of standard deviation sigmas[0] (for large σ_max).
        sigmas: N decreasing levels.
        condition: batch first.

    Returns:
        Samples, (B, C, *S).
    """
    grid = check_levels(sigmas)
    for now, then in zip(grid, [*grid[1:], 0.0], strict=True):
        denoised = _denoise(denoiser, x, now, condition)
        x = denoised + (then / now) * (x - denoised)
    return x


def heun(denoiser: DenoiserLike, x: Tensor, sigmas: Sequence[float], condition: Condition | None = None) -> Tensor:
    """Heun steps, the last one Euler, 2N − 1 calls: second order (arXiv:2206.00364, algorithm 1 without churn)."""
    grid = check_levels(sigmas)
    for now, then in zip(grid, [*grid[1:], 0.0], strict=True):
        x = heun_step(denoiser, x, now, then, condition)
    return x


def heun_step(denoiser: DenoiserLike, x: Tensor, now: float, then: float, condition: Condition | None) -> Tensor:
    """One Heun step from level `now` to `then`, two calls; one Euler call where then = 0."""
    first = (x - _denoise(denoiser, x, now, condition)) / now
    ahead = x + (then - now) * first
    if then == 0:
        return ahead
    second = (ahead - _denoise(denoiser, ahead, then, condition)) / then
    return x + (then - now) * 0.5 * (first + second)


def dpm_solver(
    denoiser: DenoiserLike, x: Tensor, sigmas: Sequence[float], condition: Condition | None = None
) -> Tensor:
    """DPM-Solver++(2M), N calls: second-order multistep in λ = −ln σ, the first and last steps first order.

    Lu et al. 2022, arXiv:2211.01095, algorithm 2, for the variance-exploding process.
    """
    grid = check_levels(sigmas)
    before: Tensor | None = None
    h_before = math.nan
    for now, then in pairwise(grid):
        denoised = _denoise(denoiser, x, now, condition)
        h = math.log(now / then)
        ahead = denoised if before is None else denoised + (0.5 * h / h_before) * (denoised - before)
        x = (then / now) * x + (1 - then / now) * ahead
        before, h_before = denoised, h
    return _denoise(denoiser, x, grid[-1], condition)


def few_step(
    denoiser: DenoiserLike,
    x: Tensor,
    sigmas: Sequence[float],
    condition: Condition | None = None,
    noises: Sequence[Tensor] = (),
) -> Tensor:
    """Re-noising sampler of consistency-type students, N calls: x̂ ← D(x; σ_i), x ← x̂ + σ_{i+1} ε_i.

    Args:
        denoiser: the student; its output at any σ is a sample, not a mean.
        x: start, (B, C, *S).
        sigmas: N decreasing levels.
        condition: batch first.
        noises: the N − 1 fresh noises ε_i, unit variance, each (B, C, *S).

    Raises:
        UserError: if the number of noises is not N − 1.

    Returns:
        Samples, (B, C, *S) (Song et al. 2023, arXiv:2303.01469, algorithm 1).
    """
    grid = check_levels(sigmas)
    if len(noises) != len(grid) - 1:
        raise UserError(
            f"A few-step sampler over {len(grid)} levels needs {len(grid) - 1} fresh noises, not {len(noises)}."
        )
    x = _denoise(denoiser, x, grid[0], condition)
    for sigma, noise in zip(grid[1:], noises, strict=True):
        x = _denoise(denoiser, x + sigma * noise, sigma, condition)
    return x
