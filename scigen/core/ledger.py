"""The ledger of spread: which part of the making of an ensemble takes or adds how much of its variance.

On a Gaussian law everything that generates is linear: a mode of variance λ, started from σ₀ ε, ends with a variance
that is known before anything is trained. So the spread of a student is a product,

    measured / λ = prior × solver × teacher × law × student × precision,

whose factors are prior mismatch, λ σ₀²/(λ + σ₀²) over λ; the solver's discrete gains; what the trained teacher differs
from them by; the law of the student's method; what the trained student differs from that by (capacity, optimisation);
and arithmetic. Prior, solver and law are closed forms; the others are measured.

The laws: regression learns the solver's own map, E[end | state] on its path. Discrete consistency leaves the product of
one gain a step, Heun's or Euler's, so that tuning with a constant ratio ρ of neighbours leaves √ρ of the variance.
Methods in continuous time leave nothing behind.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scigen.core.denoise import Condition
from scigen.core.sampling import SAMPLERS, Sampling
from scigen.core.trace import through, trace
from scigen.errors import UserError

Array = NDArray[np.float64]
Gain = Callable[[float], Array]
"""From a level σ to what a denoiser, or student, multiplies each mode of x by: (n,)."""

PARTS = ("prior", "solver", "teacher", "law", "student", "precision")
"""Factors of a ledger, in the order of the making."""


def denoiser_gain(variance: Array) -> Gain:
    """λ/(λ + σ²): the exact denoiser."""
    return lambda sigma: variance / (variance + sigma**2)


def flow_gain(variance: Array) -> Gain:
    """√(λ/(λ + σ²)): the exact map from a level to the end of the probability-flow ODE."""
    return lambda sigma: np.sqrt(variance / (variance + sigma**2))


def prior_variance(variance: Array, sigma: float) -> Array:
    """λ σ²/(λ + σ²): what the exact ODE makes of a start of variance σ² where λ + σ² was due."""
    return variance * sigma**2 / (variance + sigma**2)


def sampled_variance(sampling: Sampling, gain: Gain, steps: int | None = None) -> Array:
    """Variance of modes that a sampler ends with, exactly, to rounding.

    Samplers are linear in their noises where the denoiser is, so the noises are sent through one by one.

    Args:
        sampling: sampler and levels; not a flow map's.
        gain: of the denoiser, or student.
        steps: number of levels; the default if None.

    Returns:
        Variance of each mode, (n,).

    Raises:
        UserError: for the sampler of a flow map.
    """
    if sampling.two_times:
        raise UserError(f"The sampler {sampling.sampler} has two times; the ledger follows denoisers.")
    grid = sampling.grid(steps)
    count = sampling.noises(len(grid))
    unit = torch.ones(1, len(gain(grid[0])), dtype=torch.float64)
    total = np.zeros(unit.shape[1])
    for which in range(count + 1):
        start = grid[0] * unit if which == 0 else 0 * unit
        fresh = [unit if which == i + 1 else 0 * unit for i in range(count)]
        end = sampling.run(_linear(gain), start, grid, None, fresh)
        total += end[0].numpy() ** 2
    return total


def regression_gain(teacher: Sampling, variance: Array, levels: Sequence[float]) -> Gain:
    """What regression on a solver's end points learns on each of its levels: end over state on the solver's path.

    Args:
        teacher: sampler and grid that made the pairs.
        variance: λ of every mode, positive, (n,).
        levels: the student's; the first is the teacher's.
    """
    # inner levels alone: the first is where the path starts
    grid = through(teacher.sigmas, levels[1:]) if len(levels) > 1 else list(teacher.sigmas)
    start = torch.full((1, len(variance)), grid[0], dtype=torch.float64)
    solver = SAMPLERS[teacher.sampler].run
    end, states = trace(solver, _linear(denoiser_gain(variance)), start, grid, None, list(levels[1:]))
    found = {float(level): (end / state)[0].numpy() for level, state in zip(levels, [start, *states], strict=True)}
    return lambda sigma: found[min(found, key=lambda level: abs(level - sigma))]


def step_gain(variance: Array, now: float, then: float, heun: bool = True, mixing: float = 0.0) -> Array:
    """What one step of consistency training multiplies modes by, from level `now` to `then`.

    (1 − w) m_teacher + w m_data, where the data's neighbours have Euler's gain, (λ + σσ')/(λ + σ²).

    Args:
        variance: λ, (n,).
        now: σ.
        then: σ', below it; 0 is an Euler step.
        heun: whether the teacher's step is Heun's, else Euler's.
        mixing: w, share of the samples whose neighbour comes from the data.
    """
    euler = (variance + now * then) / (variance + now**2)
    if not heun or then == 0:
        return euler
    slopes = now / (variance + now**2), then / (variance + then**2) * euler
    return (1 - mixing) * (1 + (then - now) * 0.5 * sum(slopes)) + mixing * euler


def consistency_gain(
    variance: Array, levels: Sequence[float], heun: bool = True, mixing: float = 0.0
) -> Gain:  # fmt: skip
    """The fixed point of discrete consistency: the product of all steps from a level down to 0.

    Between two levels, where the student interpolates, so does this, the logarithm in ln σ.

    Args:
        variance: λ, positive, (n,).
        levels: decreasing, above 0; the step from the last goes to 0.
        heun: see `step_gain`.
        mixing: see `step_gain`.
    """
    steps = [step_gain(variance, a, b, heun, mixing) for a, b in zip(levels, [*levels[1:], 0.0], strict=True)]
    logs = np.cumsum(np.log(np.abs(steps))[::-1], 0)  # from the lowest level up, (levels, n)
    at = np.log(np.asarray(levels, np.float64))[::-1]

    def gain(sigma: float) -> Array:
        place = np.clip(np.interp(np.log(sigma), at, np.arange(len(at))), 0, len(at) - 1)
        low = min(int(place), max(len(at) - 2, 0))
        high = min(low + 1, len(at) - 1)
        return np.exp(logs[low] + (place - low) * (logs[high] - logs[low]))

    return gain


def chain(top: float, neighbour: Callable[[float], float]) -> list[float]:
    """Levels from `top` down, each the neighbour of the one before, as consistency tuning has them; 0 is left out."""
    levels = [top]
    while (below := neighbour(levels[-1])) > 0:
        levels.append(below)
    return levels


def _linear(gain: Gain) -> Callable[[Tensor, Tensor, Condition | None], Tensor]:
    """A denoiser of modes, x (1, n)."""
    return lambda x, sigma, condition: torch.from_numpy(gain(float(sigma.flatten()[0]))) * x


@dataclass(frozen=True)
class Ledger:
    """Spread by wavenumber, part by part.

    Attributes:
        wavenumber: (K,).
        truth: variance of the exact law at each, (K,) [units²].
        factors: by part, in the order of `PARTS`: what it multiplies the variance by, (K,).
        predicted: variance foretold by the closed forms (prior, solver, law) alone, (K,) [units²].
        measured: variance of the student's ensembles, (K,) [units²].
        law: in words.
    """

    wavenumber: NDArray[np.int64]
    truth: Array
    factors: Mapping[str, Array]
    predicted: Array
    measured: Array
    law: str

    @property
    def total(self) -> dict[str, float]:
        """Factors of the whole variance, each part after the parts before it, and `predicted` and `measured`."""
        held, out = self.truth.copy(), {}
        whole = held.sum()
        for part, factor in self.factors.items():
            after = held * factor
            out[part] = float(after.sum() / held.sum())
            held = after
        return out | {"predicted": float(self.predicted.sum() / whole), "measured": float(self.measured.sum() / whole)}

    def to_json(self) -> dict[str, Any]:
        """All numbers as JSON types."""
        arrays = {"wavenumber": self.wavenumber, "truth": self.truth, "predicted": self.predicted}
        arrays |= {"measured": self.measured}
        lists = {k: v.tolist() for k, v in arrays.items()} | {f: v.tolist() for f, v in self.factors.items()}
        return {"law": self.law, "total": self.total, "by_wavenumber": lists}


def account(
    wavenumber: NDArray[np.int64],
    project: Callable[[Array], Array],
    variance: Array,
    teacher: Sampling,
    law: Array,
    *,
    solver: bool,
    teacher_measured: Array,
    student_measured: Array,
    reduced_measured: Array | None = None,
    words: str = "",
) -> Ledger:
    """Draw up the ledger of one student.

    Args:
        wavenumber: (K,).
        project: from variances of modes (n,) to variance by wavenumber (K,) [units²]; linear.
        variance: λ of the exact law's modes, (n,).
        teacher: its converged sampler.
        law: variance of every mode that the student's method ends with, (n,).
        solver: whether the student learns from the solver's path, so that the solver's share is passed on to it.
        teacher_measured: variance of the teacher's ensembles, (K,) [units²].
        student_measured: of the student's, in full precision, (K,) [units²].
        reduced_measured: of the student's as it is used, in another precision; None if that is the same.
        words: what the law is.
    """
    start = prior_variance(variance, teacher.sigmas[0])
    solved = sampled_variance(teacher, denoiser_gain(variance))
    truth, prior, own, due = (project(v) for v in (variance, start, solved, law))
    last = student_measured if reduced_measured is None else reduced_measured
    factors = {
        "prior": _over(prior, truth),
        "solver": _over(own, prior) if solver else np.ones_like(truth),
        "teacher": _over(teacher_measured, own),
        "law": _over(due, own if solver else prior),
        "student": _over(student_measured, due * _over(teacher_measured, own)),
        "precision": _over(last, student_measured),
    }
    return Ledger(wavenumber, truth, factors, due, last, words)


def _over(a: Array, b: Array) -> Array:
    """a / b, 1 where both vanish: what is not there has lost nothing."""
    return np.divide(a, b, out=np.ones_like(a), where=b > 0)
