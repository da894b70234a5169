"""The residual of continuous-time methods: how far a student is from constant along the flow, and its derivatives.

A flow map X(x; σ → s) = (s/σ) x + (1 − s/σ) G(x; σ, s) ends where it ends wherever on a path it starts, so along
dx/dlnσ = x − D it does not change:

    R = dX/dlnσ = (s/σ) (G − D) + (1 − s/σ) dG/dlnσ = 0,   dG/dlnσ = ∂G/∂x · (x − D) + ∂G/∂lnσ

(the Eulerian equation: Boffi et al. 2024, arXiv:2406.07507; Sabour et al. 2025, arXiv:2506.14603). s = σ is denoising,
s = 0 the continuous consistency of sCM (Lu & Song 2024, arXiv:2410.11081), D = x₀ with data MeanFlow (Geng et al. 2025,
arXiv:2505.13447), since R is linear in D and E[x₀ | x] = D. A step moves G towards sg(G − R).

Where s = 0 that is transport in ln σ without friction: errors travel up and are damped by nothing. So momentum, which
answers late, drives oscillations: a linear student under Adam settles to 1 % with β₁ = 0 and to 35 % with β₁ = 0.9.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scigen.core.denoise import Condition, DenoiserLike, expand, preconditioning
from scigen.core.methods.base import rewound
from scigen.errors import UserError

Derivative = Literal["forward", "finite"]
"""Forward-mode automatic differentiation, or central differences for networks that have none."""

Student = Callable[..., Tensor]
"""A denoiser, or a flow map with its `to=`."""

STEP = 5e-3
"""Relative step of the central differences: where rounding in float32 and curvature cost about the same."""


@dataclass(frozen=True)
class Points:
    """States of a batch with what belongs to them.

    Attributes:
        x: states, (B, C, *S).
        sigma: their levels, (B,).
        condition: batch first.
        to: s of a two-time student, (B,); None for a student of one time, whose s is 0.
        toward: what the flow heads for, D of a teacher or x₀, (B, C, *S): dx/dlnσ = x − toward; None if not needed.
    """

    x: Tensor
    sigma: Tensor
    condition: Condition | None = None
    to: Tensor | None = None
    toward: Tensor | None = None

    def __len__(self) -> int:
        """Number of states."""
        return len(self.x)

    def __getitem__(self, rows: slice) -> "Points":
        """Some of them; all of them share the condition as it is."""
        if rows.indices(len(self)) == (0, len(self), 1):
            return self
        cut = {k: None if v is None else v[rows] for k, v in (("to", self.to), ("toward", self.toward))}
        condition = None if self.condition is None else {k: v[rows] for k, v in self.condition.items()}
        return replace(self, x=self.x[rows], sigma=self.sigma[rows], condition=condition, **cut)

    def through(self, student: Student) -> Tensor:
        """The student's output here, (B, C, *S)."""
        extra = {} if self.to is None else {"to": self.to}
        return student(self.x, self.sigma, self.condition, **extra)


def derivative(
    function: Callable[..., Tensor], at: Sequence[Tensor], along: Sequence[Tensor], how: Derivative = "forward"
) -> tuple[Tensor, Tensor]:
    """Value and directional derivative of a function, without gradient and outside autocast.

    The generators are put back, so that a pass before (inside `rewound`) or after has the same dropout masks.

    Args:
        function: of as many tensors as there are in `at`.
        at: where.
        along: the direction, of the same shapes.
        how: "forward" or "finite".
    """
    device = at[0].device
    along = [t.to(p) for p, t in zip(at, along, strict=True)]
    with torch.no_grad(), torch.autocast(device.type, enabled=False), rewound(device):
        if how == "forward":
            # the fused kernels of attention have no forward mode; torch warns of its own use of TorchScript
            with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
                value, change = torch.func.jvp(function, tuple(at), tuple(along))[:2]
                return value, change
        values = []
        for h in (0.0, STEP, -STEP):
            with rewound(device):
                values.append(function(*(p + h * t for p, t in zip(at, along, strict=True))))
    return values[0], (values[1] - values[2]) / (2 * STEP)


def along_flow(student: Student, points: Points, how: Derivative = "forward") -> tuple[Tensor, Tensor]:
    """G and dG/dlnσ along the flow, s fixed: (B, C, *S) each; the points need `toward`."""

    def function(x: Tensor, sigma: Tensor) -> Tensor:
        return replace(points, x=x, sigma=sigma).through(student)

    assert points.toward is not None
    return derivative(function, (points.x, points.sigma), (points.x - points.toward, points.sigma), how)


def along_end(student: Student, points: Points, how: Derivative = "forward") -> tuple[Tensor, Tensor]:
    """G and ∂G/∂ln s, where the map starts fixed: (B, C, *S) each; the points need `to`."""
    assert points.to is not None
    return derivative(lambda to: replace(points, to=to).through(student), (points.to,), (points.to,), how)


def eulerian(
    student: Student,
    output: Tensor,
    points: Points,
    sigma_data: float,
    warm: float = 1.0,
    how: Derivative = "forward",
) -> Tensor:
    """R of every point, (B, C, *S), without gradient.

    Early in training dG/dlnσ is replaced by c² (G − D) + warm (dG/dlnσ − c² (G − D)), c² = σ_d²/(σ² + σ_d²): at
    warm = 0 it is its stable part and R ∝ G − D, denoising (the tangent warm-up of arXiv:2410.11081, section 4).

    Args:
        student: G.
        output: G at the points, as the pass with gradient has it.
        points: with `toward`.
        sigma_data: σ_d.
        warm: share of the rest of the derivative; at 0 it is not computed.
        how: "forward" or "finite".
    """
    assert points.toward is not None
    gap = output.detach() - points.toward
    change = expand(preconditioning(points.sigma, sigma_data)[0], gap) * gap
    if warm > 0:
        change = change + warm * (along_flow(student, points, how)[1] - change)
    if points.to is None:
        return change
    ratio = expand(points.to / points.sigma, gap)
    return ratio * gap + (1 - ratio) * change


def normalised(residual: Tensor, softening: float, by: Tensor | None = None) -> Tensor:
    """R / (‖R‖ + c), ‖·‖ the root mean square of each sample: (B, C, *S) to the same.

    A positive factor keeps R = 0 where it is. With data R is noisy and only E[R | x] = 0, so a factor that depends on
    the sample's own noise would shift the optimum wherever the posterior is skewed. Then the norm is that of the two
    neighbours in σ, which are independent of it (1 in a batch of one).

    Args:
        residual: R, in units of the network's output.
        softening: c.
        by: σ (B,), to take the neighbours' norm; None for each one's own.
    """
    square = residual.square().flatten(1).mean(1)
    if by is not None and len(square) == 1:
        square = torch.ones_like(square)
    elif by is not None:
        order = by.argsort()
        sorted_ = square[order]
        before, after = torch.cat([sorted_[1:2], sorted_[:-1]]), torch.cat([sorted_[1:], sorted_[-2:-1]])
        square = torch.empty_like(square).index_copy(0, order, 0.5 * (before + after))
    return residual / expand(square.sqrt() + softening, residual)


def moved_loss(output: Tensor, move: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """‖F − sg(F − move)‖² of every sample, (B,): F the network's output, G/c_out up to what does not depend on it.

    Its gradient is that of 2 move · F. The value is ‖move‖² exactly, because F is subtracted from itself and not from
    another pass (with its own rounding).
    """
    c_out = expand(preconditioning(sigma, sigma_data)[1], output)
    return ((output - output.detach()) / c_out + move).square().flatten(1).mean(1)


Residual = Callable[[Tensor, Points], Tensor]
"""R from the student's output at points."""


def to_denoised(output: Tensor, points: Points) -> Tensor:
    """G − D: R where the map has no length, s = σ."""
    assert points.toward is not None
    return output - points.toward


def residual_loss(
    student: Student,
    parts: Sequence[tuple[Points, Residual]],
    sigma_data: float,
    softening: float,
    noisy: bool,
) -> tuple[Tensor, Tensor]:
    """Loss and size of R of every sample, (B,) each, both in units of the network's output.

    Args:
        student: G.
        parts: points with their residual; each has a pass of its own, which the derivatives of its residual share the
            dropout masks of.
        sigma_data: σ_d.
        softening: c of the normalisation.
        noisy: whether R contains data, see `normalised`.
    """
    outputs, residuals, levels = [], [], []
    for points, residual in parts:
        if len(points):
            with rewound(points.x.device):
                outputs.append(points.through(student))
            residuals.append(residual(outputs[-1].detach(), points))
            levels.append(points.sigma)
    output, sigma = torch.cat(outputs), torch.cat(levels)
    r = torch.cat(residuals) / expand(preconditioning(sigma, sigma_data)[1], output)
    move = normalised(r, softening, sigma if noisy else None)
    return moved_loss(output, move, sigma, sigma_data), r.square().flatten(1).mean(1).sqrt()


def destination(
    teacher: DenoiserLike,
    x: Tensor,
    clean: Tensor,
    sigma: Tensor,
    condition: Condition | None,
    mixing: float,
) -> Tensor:
    """What the flow heads for: x₀ for a random share `mixing` of the samples, else D of the teacher; (B, C, *S)."""
    if mixing == 1 or not len(x):
        return clean
    with torch.no_grad():
        denoised = teacher(x, sigma, condition)
    if mixing == 0:
        return denoised
    return torch.where(expand(torch.rand(len(x), device=x.device), x) < mixing, clean, denoised)


def counts(n: int, *shares: float) -> list[int]:
    """Whole numbers that sum to n, in expectation the shares of it (drawn) and what is left of them."""
    offset = float(torch.rand(()))
    edges = [0.0, *(sum(shares[: i + 1]) for i in range(len(shares)))]
    places = [*(int(n * e + offset) for e in edges), n]
    return [b - a for a, b in pairwise(places)]


def check_continuous(
    stem: str, warmup_tangent: float, mixing: float, softening: float, jvp: str, *shares: float
) -> None:
    """Raise UserError for options that mean nothing.

    Raises:
        UserError: unless warm-up and mixing are in [0, 1], softening is positive, jvp is known and the shares of the
            batch are in [0, 1) and leave something.
    """
    if not (0 <= warmup_tangent <= 1 and 0 <= mixing <= 1 and softening > 0):
        raise UserError(
            f"method={stem}: warmup_tangent={warmup_tangent} and mixing={mixing} are shares from 0 to 1, and"
            f" softening={softening} is positive."
        )
    if jvp not in ("forward", "finite"):
        raise UserError(f"method.jvp={jvp}: {stem} takes 'forward' (automatic) or 'finite' (central differences).")
    if min(shares) < 0 or sum(shares) >= 1:
        raise UserError(f"method={stem}: the special shares of a batch, {list(shares)}, must leave some of it.")
