"""How many calls a teacher's samples take: of each solver, from the same noise, until its ensemble stops changing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scigen.core.denoise import DenoiserLike
from scigen.core.sample import Counted
from scigen.core.sampling import Sampling

SOLVERS = ("euler", "heun", "dpm_solver")
CALLS = (5, 9, 17, 33, 65)
REFERENCE = ("heun", 72)
"""Solver and levels that count as converged; the spread of white data is then 0.3 % off on σ ∈ [0.002, 80]."""
SPREAD, PATHS = 0.01, 0.05
"""What counts as no change: of the spread, and of single members in units of it."""


@dataclass(frozen=True)
class Row:
    """One solver with so many calls, against the converged one.

    Attributes:
        solver: its name.
        calls: of the network, per member.
        spread: standard deviation over members, over that of the converged ensemble.
        apart: root mean square distance of members from where they converge to, over the converged spread.
    """

    solver: str
    calls: int
    spread: float
    apart: float

    @property
    def converged(self) -> bool:
        """Whether more calls would change the ensemble no more."""
        return abs(self.spread - 1) <= SPREAD and self.apart <= PATHS


def table(
    denoiser: DenoiserLike, noise: Tensor, condition: Mapping[str, Tensor], sigmas: tuple[float, float],
    calls: Sequence[int] = CALLS,
) -> list[Row]:  # fmt: skip
    """Rows for every solver and number of calls.

    Args:
        denoiser: the teacher.
        noise: of unit variance, (members, C, *S), shared by all.
        condition: the same for all members.
        sigmas: smallest and largest level.
        calls: numbers of calls; Heun's method takes the odd number up to each.
    """

    def sampled(solver: str, levels: int) -> tuple[Tensor, int]:
        sampling, counted = Sampling.solver(solver, levels, *sigmas), Counted(denoiser)
        with torch.inference_mode():
            x = sampling.run(counted, sampling.sigmas[0] * noise, sampling.sigmas, condition)
        return x.double(), counted.nfe

    truth, _ = sampled(*REFERENCE)
    spread = _spread(truth)
    rows = []
    for solver in SOLVERS:
        for most in calls:
            x, taken = sampled(solver, (most + 1) // 2 if solver == "heun" else most)
            apart = float((x - truth).square().mean().sqrt())
            rows.append(Row(solver, taken, _spread(x) / spread, apart / spread))
    return rows


def cheapest(rows: Sequence[Row]) -> Row | None:
    """The converged row of fewest calls; None if none has converged."""
    return min((r for r in rows if r.converged), key=lambda r: r.calls, default=None)


def _spread(x: Tensor) -> float:
    return math.sqrt(float(x.var(0).mean()))
