"""Flow maps: a student of two times that jumps from any level to any lower one, and better the more steps it takes.

Three equations hold for X(x; σ → s) = (s/σ) x + (1 − s/σ) G(x; σ, s) and no other map; each gives a residual R, and G
moves towards sg(G − R):

    eulerian    R = (s/σ) (G − D) + (1 − s/σ) dG/dlnσ               where a path starts does not matter
    lagrangian  R = G − D(X; s) − (1 − s/σ) ∂G/∂ln s                the end point moves as the ODE says
    shortcut    R = G − G(σ → m → s)                                two half steps are a whole one, m = √(σ s)

With a teacher's D these are the Eulerian and Lagrangian map distillation of Align Your Flow (Sabour et al. 2025,
arXiv:2506.14603; Boffi et al. 2024, arXiv:2406.07507); with x₀ for D the first is MeanFlow (Geng et al. 2025,
arXiv:2505.13447) exactly. The third needs no derivative (Frans et al. 2024, arXiv:2410.12557) and settles in fewer
steps: what is right over a distance in ln σ makes twice that distance right, where by the others it travels.

At s = σ all are denoising: a share of the samples learns only that, without derivatives. The levels end at σ_min and
the last jump from there to s = 0 is Euler's, G(x; σ_min, 0) = D, as a solver's.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from scigen.core.denoise import DenoiserLike, DenoiserModule, expand
from scigen.core.methods.base import Batch, Distiller, rewound
from scigen.core.methods.tangent import (
    Derivative,
    Points,
    Residual,
    Student,
    along_end,
    check_continuous,
    counts,
    destination,
    eulerian,
    residual_loss,
    to_denoised,
)
from scigen.core.noise import LogUniform
from scigen.errors import UserError

Objective = Literal["eulerian", "lagrangian", "shortcut"]


def carried(x: Tensor, output: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    """X = (s/σ) x + (1 − s/σ) G: states (B, C, *S) at level σ (B,), carried to level s (B,)."""
    return output + expand(to / sigma, x) * (x - output)


def lagrangian(
    student: Student,
    teacher: DenoiserLike,
    output: Tensor,
    points: Points,
    warm: float = 1.0,
    how: Derivative = "forward",
) -> Tensor:
    """R of points with 0 < s < σ, (B, C, *S), without gradient.

    Args:
        student: G.
        teacher: D.
        output: G at the points.
        points: with `to`.
        warm: share of the derivative: at 0 it is not computed and G = D(X; s), an implicit Euler step.
        how: "forward" or "finite".
    """
    assert points.to is not None
    change = along_end(student, points, how)[1] if warm > 0 else torch.zeros_like(output)
    with torch.no_grad():
        there = carried(points.x, output, points.sigma, points.to)
        denoised = teacher(there, points.to, points.condition)
    return output - denoised - warm * expand(1 - points.to / points.sigma, output) * change


def last_jump(student: Student, teacher: DenoiserLike, output: Tensor, points: Points, sigma_min: float) -> Tensor:
    """R of points with s = 0, (B, C, *S): G − D(X; σ_min), X the student's own state at σ_min."""
    low = torch.full_like(points.sigma, sigma_min)
    with torch.no_grad():
        with rewound(points.x.device):
            near = student(points.x, points.sigma, points.condition, to=low)
        return output - teacher(carried(points.x, near, points.sigma, low), low, points.condition)


def shortcut(student: Student, output: Tensor, points: Points, sigma_min: float) -> Tensor:
    """R of points with s = 0 or s ≥ σ_min, (B, C, *S): over m = √(σ max(s, σ_min)), with the dropout masks of G.

    Two maps make one with G = (1 − v) G(x; σ, m) + v G(X_m; m, s), v = (1 − s/m)/(1 − s/σ) = 1/(1 + √(s/σ)).
    """
    assert points.to is not None
    middle = (points.sigma * points.to.clamp_min(sigma_min)).sqrt()
    share = expand(1 / (1 + (points.to / points.sigma).sqrt()), output)
    with torch.no_grad():
        with rewound(points.x.device):
            first = student(points.x, points.sigma, points.condition, to=middle)
        half = carried(points.x, first, points.sigma, middle)
        with rewound(points.x.device):
            second = student(half, middle, points.condition, to=points.to)
    return output - first - share * (second - first)


class FlowMapMatching(Distiller):
    """Distils, or trains on data, a flow map."""

    sampler, two_times = "flow_map", True

    def __init__(
        self,
        student: DenoiserModule,
        teacher: nn.Module,
        sigmas: Sequence[float],
        sigma_min: float,
        objective: Objective = "eulerian",
        mixing: float = 0.0,
        warmup_tangent: float = 0.2,
        instant: float = 0.25,
        ends: float = 0.25,
        anchor: float = 0.05,
        softening: float = 0.1,
        jvp: Derivative = "forward",
    ) -> None:
        """Set student, teacher and equation.

        Args:
            student: G, of two times.
            teacher: frozen; not called where mixing = 1.
            sigmas: the student's sampling levels; the first is σ_max.
            sigma_min: the lowest level above 0.
            objective: "eulerian", "lagrangian" or "shortcut".
            mixing: share of the samples whose path comes from the data: 0 distils, 1 is MeanFlow.
            warmup_tangent: share of the training over which the derivative comes in.
            instant: share of the samples with s = σ.
            ends: share with s = 0; for the others ln s is uniform on [ln σ_min, ln σ], ln σ for all but the anchor's.
            anchor: share with σ = σ_min and s = 0.
            softening: c of R / (‖R‖ + c).
            jvp: how derivatives are made, "forward" or "finite".

        Raises:
            UserError: for shares outside [0, 1], unknown options, or a Lagrangian without its teacher.
        """
        super().__init__(student, teacher, sigmas)
        check_continuous("flow_map", warmup_tangent, mixing, softening, jvp, instant, ends, anchor)
        if objective not in ("eulerian", "lagrangian", "shortcut"):
            raise UserError(f"method.objective={objective}: it is 'eulerian', 'lagrangian' or 'shortcut'.")
        if objective == "lagrangian" and mixing > 0:
            raise UserError(
                f"method.mixing={mixing}: the Lagrangian equation asks the teacher at the student's own states, where"
                " there are no data. Use method.objective=eulerian or shortcut."
            )
        self.law = LogUniform(sigma_min, sigmas[0])
        self.objective, self.mixing, self.warmup_tangent = objective, mixing, warmup_tangent
        self.shares = (anchor, instant, ends)
        self.softening, self.jvp = softening, jvp
        self.at(0.0)

    def at(self, progress: float) -> None:
        """Warm the derivative up."""
        self.warm = min(1.0, progress / self.warmup_tangent) if self.warmup_tangent else 1.0

    def levels(self, n: int, device: torch.device) -> tuple[Tensor, Tensor, int, int]:
        """Draw σ and s.

        Returns:
            σ and s (n,) in float64, in this order: σ = σ_min and s = 0, s = σ, s = 0, all others; and how many
            samples of the first two and of the first three kinds there are.
        """
        anchored, instant, ends, others = counts(n, *self.shares)
        low = self.law.sigma_min
        sigma = [torch.full((anchored,), low, dtype=torch.float64, device=device)]
        sigma += [self.law.draw(k, device=device).double() for k in (instant, ends, others)]
        u = (torch.randperm(others, device=device) + torch.rand(others, device=device).double()) / max(others, 1)
        to = [torch.zeros_like(sigma[0]), sigma[1], torch.zeros_like(sigma[2]), low * (sigma[3] / low) ** u]
        return torch.cat(sigma), torch.cat(to), anchored + instant, anchored + instant + ends

    def parts(self, points: Points, still: int, ended: int) -> list[tuple[Points, Residual]]:
        """The points with the residual of each, see `levels`."""
        student, teacher, sigma_min = self.student, self.teacher, self.law.sigma_min
        first = (points[:still], to_denoised)
        if self.objective == "eulerian":
            move = lambda g, p: eulerian(student, g, p, student.sigma_data, self.warm, self.jvp)  # noqa: E731
            return [first, (points[still:], move)]
        if self.objective == "shortcut":
            return [first, (points[still:], lambda g, p: shortcut(student, g, p, sigma_min))]
        return [
            first,
            (points[still:ended], lambda g, p: last_jump(student, teacher, g, p, sigma_min)),
            (points[ended:], lambda g, p: lagrangian(student, teacher, g, p, self.warm, self.jvp)),
        ]

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Mean loss; `residual` is the mean of ‖R‖ before normalisation, in units of the network's output."""
        sigma, to, still, ended = self.levels(len(batch.x), batch.x.device)
        x = batch.x + expand(sigma, batch.x) * torch.randn_like(batch.x)
        points = Points(x, sigma, batch.condition, to)
        needing = points if self.objective == "eulerian" else points[:still]
        toward = destination(
            self.teacher, needing.x, batch.x[: len(needing)], needing.sigma, needing.condition, self.mixing
        )
        points = Points(x, sigma, batch.condition, to, toward)
        parts = self.parts(points, still, ended)
        each, size = residual_loss(self.student, parts, self.student.sigma_data, self.softening, self.mixing > 0)
        return {"loss": each.mean(), "residual": size.mean(), "warm": torch.tensor(self.warm)}
