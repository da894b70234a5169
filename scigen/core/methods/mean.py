"""Regression of the conditional mean: a stage before the teacher, or a baseline, not a method of its own.

L = E ‖m(c) − x‖², minimised by m(c) = E[x | c]. The residual x − m(c) of a sample that m was trained on is too small:
of p free parameters and n samples a least-squares fit leaves (1 − p/n) of the variance, while a new sample shows about
(1 + p/n). A generative model of such residuals would be under-dispersed, so residuals come from `folds`: each sample's
from a network that has not seen it.
"""

import numpy as np
import torch
from torch import Tensor

from scigen.core.denoise import DenoiserModule, squared_error
from scigen.core.mean import ConditionalMean
from scigen.core.methods.base import Batch, Method
from scigen.errors import UserError


class MeanRegression(Method):
    """Trains a conditional mean on data with squared error."""

    student: ConditionalMean

    def __init__(self, student: ConditionalMean) -> None:
        """Set what is trained."""
        super().__init__()
        self.student = student

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error."""
        return {"loss": (self.student(batch.x, condition=batch.condition) - batch.x).square().mean()}


class DirectMean(Method):
    """Trains a denoiser that is given no sample, at one level: its output is the mean E[x | c], with all that holds it.

    L = E ‖D(0; σ, c) − x‖²
    """

    student: DenoiserModule

    def __init__(self, student: DenoiserModule, sigma: float) -> None:
        """Set what is trained, and the level."""
        super().__init__()
        self.student, self.sigma = student, sigma

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error of all that the denoiser predicts."""
        x = batch.x
        level = x.new_full((len(x),), self.sigma)
        return {"loss": squared_error(self.student, torch.zeros_like(x), level, batch.condition, x).mean()}


def folds(count: int, number: int) -> list[np.ndarray]:
    """Positions 0 … count − 1 in contiguous parts of equal size, so that neighbours in time stay together.

    Raises:
        UserError: for fewer than two folds, or more folds than samples.
    """
    if not 2 <= number <= count:
        raise UserError(f"mean.folds={number}: at least 2, and at most one a sample ({count}).")
    return np.array_split(np.arange(count), number)
