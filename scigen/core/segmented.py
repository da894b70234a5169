"""Segmented: one model above a noise level and another below it.

One mechanism for three things: teleporting (a Gaussian in closed form from σ_max to σ_s, then the model; Wang & Vastola
2024, arXiv:2412.09726), stitching a small model and a large one (T-Stitch, Pan et al. 2024, arXiv:2402.14167), and a
student that starts late. A segment of an oracle at the top costs no network call.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from scigen.core.denoise import Condition, DenoiserLike
from scigen.core.noise import check_levels
from scigen.core.oracle import Oracle
from scigen.core.sample import Sampler, dpm_solver
from scigen.errors import UserError

Segment = tuple[float, float, DenoiserLike]
SAME = 1e-6  # relative difference of levels that count as one


class Segmented:
    """Models for consecutive ranges of σ, together a denoiser: at σ it is the model whose segment has σ ∈ (σ_lo, σ_hi].

    So any sampler walks through all segments in one run, and what it remembers (multistep solvers) crosses their ends.
    `sample` goes through the leading segments that belong to an `Oracle` in one jump each.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        """Set the segments.

        Args:
            segments: (σ_hi, σ_lo, model) from the top down, each starting where the one before ends, the last one at 0.
                A teleport's first σ_hi may be far above the model's σ_max: sampling from N(0, σ_hi²) then no longer
                costs a mode of variance λ its share λ/(λ + σ_hi²).

        Raises:
            UserError: if the segments leave a gap, overlap, or do not end at 0.
        """
        self.segments = [(float(high), float(low), model) for high, low, model in segments]
        ends = [f"({high:g}, {low:g})" for high, low, _ in self.segments]
        whole = bool(self.segments) and self.segments[-1][1] == 0
        if not whole or any(a[1] != b[0] for a, b in pairwise(self.segments)):
            raise UserError(
                f"Segments must each start where the one before ends, and the last one must end at σ = 0, not"
                f" {', '.join(ends) or 'none at all'}."
            )
        check_levels([high for high, _, _ in self.segments], "The upper ends of segments")

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition | None = None, **to: Tensor) -> Tensor:
        """Denoise each sample by its level's model (a level above the first segment belongs to it).

        Args:
            x: (B, C, *S).
            sigma: (B,) or a scalar.
            condition: batch first.
            to: `to=`, (B,), for flow maps.

        Returns:
            (B, C, *S).
        """
        sigma = torch.as_tensor(sigma, device=x.device).expand(x.shape[0])
        place = sum((sigma <= low).long() for _, low, _ in self.segments[:-1]) + torch.zeros_like(sigma).long()
        used = place.unique().tolist()
        if len(used) == 1:
            return self.segments[used[0]][2](x, sigma, condition, **to)
        out = torch.empty_like(x)
        for i in used:
            rows = place == i
            own = None if condition is None else {k: v[rows] for k, v in condition.items()}
            out[rows] = self.segments[i][2](x[rows], sigma[rows], own, **{k: v[rows] for k, v in to.items()})
        return out

    def sample(
        self,
        x: Tensor,
        sigmas: Sequence[float],
        condition: Condition | None = None,
        solver: Sampler = dpm_solver,
        noises: Sequence[Tensor] = (),
    ) -> Tensor:
        """Jump through the leading oracles, then solve the rest on one grid.

        Args:
            x: start, (B, C, *S), noise of standard deviation σ_hi of the first segment.
            sigmas: decreasing levels. If there are jumps, the solver starts from their end σ_s, which is put first, and
                what is above it is not needed.
            condition: batch first.
            solver: function of `scigen.core.sample`: a solver, or a student's sampler.
            noises: fresh noises for the solver: as many as it takes on the levels that are left.

        Returns:
            Samples, (B, C, *S).
        """
        grid = check_levels(sigmas)
        for high, low, model in self.segments:
            if not isinstance(model, Oracle):
                break
            x = model.flow_map(x, x.new_tensor(high), x.new_tensor(low), condition)
            if low == 0:
                return x
            grid = [low, *(s for s in grid if s < low * (1 - SAME))]
        return solver(self, x, grid, condition, noises)
