"""From what another model predicts, on its own schedule, to D(x; σ) in EDM's variables: exact, affine, level by level.

Every prediction P is linear in x₀ and ε, so that D = skip · x + out · P(scale · x, time).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from scigen.core.denoise import preconditioning
from scigen.core.teachers.schedule import Schedule
from scigen.errors import UserError

PREDICTIONS = ("x0", "epsilon", "v", "score", "velocity", "edm")
"""x₀; ε; v = α ε − s x₀; ∇ log p(y); dy/dt; the network of EDM's preconditioning."""


class Affine(NamedTuple):
    """D = skip · x + out · P(scale · x, time): each (B,), or (B, C) where channels differ, float64; time (B,)."""

    skip: Tensor
    out: Tensor
    scale: Tensor
    time: Tensor


def affine(own: Schedule, predicts: str, sigma: Tensor, sigma_data: float = 1.0) -> Affine:
    """How D follows from a prediction, at σ (B,) float64.

    Args:
        own: the schedule of the network.
        predicts: one of PREDICTIONS.
        sigma: levels of x = x₀ + σ ε.
        sigma_data: of EDM's preconditioning, where that is what is predicted.

    Raises:
        UserError: for an unknown prediction, or a velocity on a table.
    """
    alpha, time, one = own.alpha(sigma), own.time(sigma), torch.ones_like(sigma)
    s, scale = alpha * sigma, alpha / own.unit
    if predicts == "x0":
        return Affine(0 * one, one, scale, time)
    if predicts == "epsilon":
        return Affine(one, -sigma, scale, time)
    if predicts == "v":  # x₀ = (α y − s v)/(α² + s²)
        total = alpha**2 + s**2
        return Affine(alpha**2 / total, -s / total, scale, time)
    if predicts == "score":  # of y: −ε/s
        return Affine(one, s**2 / alpha, scale, time)
    if predicts == "velocity":  # x₀ = (s' y − s u)/(s' α − s α')
        d_alpha, d_s = own.speed(sigma)
        total = d_s * alpha - s * d_alpha
        return Affine(d_s * alpha / total, -s * own.unit / total, scale, time)
    if predicts == "edm":
        skip, out, c_in, _ = preconditioning(sigma, sigma_data)
        return Affine(skip, out, c_in, time)
    raise UserError(f"predicts={predicts}: unknown; use one of {', '.join(PREDICTIONS)}.")
