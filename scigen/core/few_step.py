"""Samplers of students: few calls, each of which goes a long way.

They have the signature of every sampler (`scigen.core.sample`) and are imported from there.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from scigen.core.denoise import Condition, DenoiserLike
from scigen.core.noise import check_levels
from scigen.errors import UserError


class TwoTimes(Protocol):
    """Whatever gives G(x; σ, s) of a flow map, as `FlowMap` does."""

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition | None = None, *, to: Tensor) -> Tensor:
        """G of states x (B, C, *S) at levels sigma (B,) for levels `to` (B,)."""


def per_sample(sigma: float, x: Tensor) -> Tensor:
    """A level for every sample of x: (B,) float64."""
    return torch.full((x.shape[0],), sigma, dtype=torch.float64, device=x.device)


def check_noises(noises: Sequence[Tensor], expected: int, what: str) -> None:
    """Raise UserError unless a stochastic sampler has been given as many fresh noises as it takes."""
    if len(noises) != expected:
        raise UserError(f"{what} needs {expected} fresh noises, not {len(noises)}.")


def few_step(
    denoiser: DenoiserLike,
    x: Tensor,
    sigmas: Sequence[float],
    condition: Condition | None = None,
    noises: Sequence[Tensor] = (),
) -> Tensor:
    """Re-noising sampler of consistency-type students, N calls: x̂ ← D(x; σ_i), x ← x̂ + σ_{i+1} ε_i.

    A gain error e in every call is not healed by more of them: v ← (1 + e)² λ (v + σ²)/(λ + σ²).

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
    check_noises(noises, len(grid) - 1, f"A few-step sampler over {len(grid)} levels")
    x = denoiser(x, per_sample(grid[0], x), condition)
    for sigma, noise in zip(grid[1:], noises, strict=True):
        x = denoiser(x + sigma * noise, per_sample(sigma, x), condition)
    return x


def flow_map(
    denoiser: TwoTimes,
    x: Tensor,
    sigmas: Sequence[float],
    condition: Condition | None = None,
    noises: Sequence[Tensor] = (),
) -> Tensor:
    """Any-step sampler of flow maps, N calls: x ← (s/σ) x + (1 − s/σ) G(x; σ, s) from each level σ to the next, s.

    Deterministic: an exact map gives the same samples with any levels (Boffi et al. 2024, arXiv:2406.07507).

    Args:
        denoiser: G, called with `to=`, as `FlowMap` is.
        x: start, (B, C, *S), noise of standard deviation sigmas[0].
        sigmas: N decreasing levels.
        condition: batch first.
        noises: not used.

    Returns:
        Samples, (B, C, *S).
    """
    grid = check_levels(sigmas)
    for now, then in zip(grid, [*grid[1:], 0.0], strict=True):
        end = denoiser(x, per_sample(now, x), condition, to=per_sample(then, x))
        x = end + (then / now) * (x - end)
    return x
