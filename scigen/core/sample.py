"""Samplers: from noise to a sample by walking down a grid of noise levels.

Those of teachers solve dx/dσ = (x − D(x; σ))/σ from σ_0 down to σ_{N-1} and then to 0, which is implied; those of
students are in `few_step` and imported from here as well. Each is one function of the same signature, `Sampler`. The
caller owns the noise: x = σ_0 ε is given, and so is the fresh noise of the stochastic ones.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from torch import Tensor

from scigen.core.denoise import Condition, DenoiserLike
from scigen.core.few_step import check_noises, few_step, flow_map, per_sample
from scigen.core.noise import check_levels
from scigen.errors import UserError

__all__ = [
    "Counted",
    "Sampler",
    "churn",
    "dpm_solver",
    "euler",
    "few_step",
    "flow_map",
    "heun",
    "heun_step",
    "ipndm",
    "mean",
    "unipc",
]


class Sampler(Protocol):
    """What every sampler is."""

    def __call__(
        self,
        denoiser: DenoiserLike,
        x: Tensor,
        sigmas: Sequence[float],
        condition: Condition | None = None,
        noises: Sequence[Tensor] = (),
    ) -> Tensor:
        """Sample.

        Args:
            denoiser: D(x, sigma (B,), condition).
            x: start, (B, C, *S), noise of standard deviation sigmas[0] (for large σ_max).
            sigmas: N decreasing levels.
            condition: batch first.
            noises: fresh noise of unit variance, each (B, C, *S), for samplers that take some; not used by the others.

        Returns:
            Samples, (B, C, *S).
        """


class Counted:
    """A denoiser that counts its calls: `nfe` is the number of network calls per sample so far."""

    def __init__(self, denoiser: DenoiserLike) -> None:
        """Wrap a denoiser."""
        self.denoiser, self.nfe = denoiser, 0

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition | None = None, **to: Tensor) -> Tensor:
        """Denoise (a flow map: predict for the level `to=`) and count."""
        self.nfe += 1
        return self.denoiser(x, sigma, condition, **to)


def _denoise(denoiser: DenoiserLike, x: Tensor, sigma: float, condition: Condition | None) -> Tensor:
    return denoiser(x, per_sample(sigma, x), condition)


def mean(
    denoiser: DenoiserLike,
    x: Tensor,
    sigmas: Sequence[float],
    condition: Condition | None = None,
    noises: Sequence[Tensor] = (),
) -> Tensor:
    """One call without a sample, at the first level: E[x₀ | condition] of a network that was trained so.

    The start is not looked at: all members are one (`scigen.core.methods.mean.DirectMean`).
    """
    return _denoise(denoiser, x.new_zeros(x.shape), check_levels(sigmas)[0], condition)


def euler(
    denoiser: DenoiserLike,
    x: Tensor,
    sigmas: Sequence[float],
    condition: Condition | None = None,
    noises: Sequence[Tensor] = (),
) -> Tensor:
    """Euler steps, N calls: first order (DDIM). Under-dispersive on every Gaussian mode.

    Also the sampler of students of progressive distillation, whose D leads along the chord of each step.
    """
    grid = check_levels(sigmas)
    for now, then in zip(grid, [*grid[1:], 0.0], strict=True):
        denoised = _denoise(denoiser, x, now, condition)
        x = denoised + (then / now) * (x - denoised)
    return x


def heun(
    denoiser: DenoiserLike,
    x: Tensor,
    sigmas: Sequence[float],
    condition: Condition | None = None,
    noises: Sequence[Tensor] = (),
) -> Tensor:
    """Heun steps, the last one Euler, 2N − 1 calls: second order (arXiv:2206.00364, algorithm 1)."""
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


def churn(
    denoiser: DenoiserLike,
    x: Tensor,
    sigmas: Sequence[float],
    condition: Condition | None = None,
    noises: Sequence[Tensor] = (),
    *,
    s_churn: float = 40.0,
    s_noise: float = 1.0,
    s_min: float = 0.0,
    s_max: float = math.inf,
) -> Tensor:
    """Heun steps with churn, 2N − 1 calls: before each step, noise is added (arXiv:2206.00364, algorithm 2).

    Fresh noise lifts x from σ to σ̂ = (1 + γ) σ, γ = min(s_churn/N, √2 − 1), and lets errors made before be forgotten.
    With s_churn = 0 it is `heun`. At the first level σ̂ lies above σ_0: keep s_max below σ_0 if the denoiser was not
    trained there.

    Args:
        denoiser: D(x, sigma (B,), condition).
        x: start, (B, C, *S).
        sigmas: N decreasing levels.
        condition: batch first.
        noises: N fresh noises of unit variance, each (B, C, *S).
        s_churn: total amount of churn, spread over the levels.
        s_noise: standard deviation of the fresh noise; 1 keeps the law, a little more makes up for lost detail.
        s_min: lowest level with churn.
        s_max: highest level with churn.

    Raises:
        UserError: if the number of noises is not N or the amount of churn is negative.

    Returns:
        Samples, (B, C, *S).
    """
    grid = check_levels(sigmas)
    check_noises(noises, len(grid), f"The stochastic sampler churn over {len(grid)} levels")
    if s_churn < 0 or s_noise < 0:
        raise UserError(f"sampler.options: s_churn={s_churn} and s_noise={s_noise} must not be negative.")
    gamma = min(s_churn / len(grid), math.sqrt(2) - 1)
    for now, then, noise in zip(grid, [*grid[1:], 0.0], noises, strict=True):
        if s_min <= now <= s_max and gamma > 0:
            lifted = (1 + gamma) * now
            x = x + (s_noise * math.sqrt(lifted**2 - now**2)) * noise
            now = lifted
        x = heun_step(denoiser, x, now, then, condition)
    return x


def dpm_solver(
    denoiser: DenoiserLike,
    x: Tensor,
    sigmas: Sequence[float],
    condition: Condition | None = None,
    noises: Sequence[Tensor] = (),
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


def unipc(
    denoiser: DenoiserLike,
    x: Tensor,
    sigmas: Sequence[float],
    condition: Condition | None = None,
    noises: Sequence[Tensor] = (),
) -> Tensor:
    """UniPC of order 2, N calls: the predictor of DPM-Solver++(2M), each step corrected with the call that follows it.

    Zhao et al. 2023, arXiv:2302.04867: the multistep variant with data prediction and B₂, first and last steps of lower
    order. The corrector costs no call: D at the predicted state serves the correction and the next prediction.
    """
    grid = check_levels(sigmas)
    denoised = _denoise(denoiser, x, grid[0], condition)
    before: Tensor | None = None
    h_before = math.nan
    for now, then in pairwise(grid):
        h = math.log(now / then)
        bend = None if before is None else (h / h_before) * (denoised - before)
        ahead = denoised if bend is None else denoised + 0.5 * bend
        predicted = (then / now) * x + (1 - then / now) * ahead
        found = _denoise(denoiser, predicted, then, condition)
        rise = found - denoised
        if bend is None:
            ahead = denoised + 0.5 * rise
        else:
            past, new = _corrector(h, h_before)
            ahead = denoised + past * bend + new * rise
        x = (then / now) * x + (1 - then / now) * ahead
        before, denoised, h_before = denoised, found, h
    return denoised


def _corrector(h: float, h_before: float) -> tuple[float, float]:
    """UniC-2's weights of the bend and of the rise: with them the step is exact where D is a parabola in λ = −ln σ."""
    total = math.expm1(-h)  # B(−h); the moments of λ and λ² over the step, by it
    linear = -total / h - 1
    square = -linear / h - 0.5
    first, second = linear / total, 2 * square / total
    past = (first - second) / (1 + h_before / h)
    return past, first - past


def ipndm(
    denoiser: DenoiserLike,
    x: Tensor,
    sigmas: Sequence[float],
    condition: Condition | None = None,
    noises: Sequence[Tensor] = (),
) -> Tensor:
    """iPNDM, N calls: Adams–Bashforth of up to four slopes (x − D)/σ, the first steps of lower order, the last Euler.

    Zhang & Chen 2022, arXiv:2204.13902, section 3.3, for the variance-exploding process, where the transfer of a slope
    is exact. The weights are those of equal steps, as published: fourth order where levels are equally spaced.
    """
    grid = check_levels(sigmas)
    slopes: list[Tensor] = []
    for now, then in pairwise(grid):
        slopes = [(x - _denoise(denoiser, x, now, condition)) / now, *slopes[:3]]
        weights = ADAMS_BASHFORTH[len(slopes) - 1]
        x = x + (then - now) * sum(w * d for w, d in zip(weights, slopes, strict=True))
    return _denoise(denoiser, x, grid[-1], condition)


ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
