"""Scores of generated samples against a task's exact law, in its own coefficients, standardised.

z = (Qᵀx − E[Qᵀx | c]) / std[Qᵀx | c], coefficient by coefficient: the exact law has mean 0 and variance 1 in each of
them whatever the condition, and a distance of 0.02 is 2 % of a standard deviation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scigen.core.bench.task import Task
from scigen.core.denoise import Condition
from scigen.core.methods.base import repeat
from scigen.metrics.distance import energy_score, wasserstein
from scigen.metrics.ensemble import coverage, fair_crps, ranks

LEVEL = 0.9
"""Nominal coverage that is asked for."""
GRID = np.linspace(-10.0, 10.0, 1001)
"""Where distribution functions are tabulated for their quantiles [standard deviations]."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TestSet:
    """Conditions, their truths, and the noise that all contenders start from.

    Attributes:
        task: what is known.
        condition: of S test cases, float64; empty without conditions.
        truth: a draw of each, (S, n).
        noise: unit variance, (S, M, n) float32.
        exact: where the exact flow leads that noise, (S, M, n).
    """

    __test__ = False

    task: Task
    condition: Condition
    truth: Tensor
    noise: Tensor
    exact: Tensor

    @classmethod
    def make(cls, task: Task, cases: int, members: int, seed: int) -> "TestSet":
        """Draw one; apart from everything that training draws."""
        generator = torch.Generator().manual_seed(seed)
        truth = task.truth(cases, generator)
        noise = torch.randn(cases, members, *task.shape, generator=generator)
        exact = task.exact(noise.flatten(0, 1), repeat(truth.condition, members)).reshape(noise.shape)
        return cls(task, truth.condition, truth.x, noise, exact)

    def standardised(self, x: Tensor) -> Array:
        """z of samples (S, …, n): the same shape."""
        mean, std = self.task.law.moments(self.condition)
        shape = (-1, *[1] * (x.ndim - 2), x.shape[-1])
        return ((x.double() @ self.task.law.rotation - mean.reshape(shape)) / std.reshape(shape)).numpy()

    def quantiles(self, count: int) -> Array:
        """Of z under the exact law, pooled over the conditions, at (i + ½)/count: (count, n)."""
        mean, std = self.task.law.moments(self.condition)
        mean, std = mean.reshape(-1, mean.shape[-1]), std.reshape(-1, std.shape[-1])
        zero = torch.zeros(len(mean), dtype=mean.dtype)
        table = [self.task.law.distribution(mean + std * z, zero, self.condition).mean(0) for z in GRID]
        levels = (np.arange(count) + 0.5) / count
        return np.stack([np.interp(levels, column, GRID) for column in torch.stack(table).numpy().T], 1)


class Scorer:
    """Scores of any samples for a test set; what is the same for all is computed once."""

    def __init__(self, test: TestSet) -> None:
        """Set the test."""
        self.test = test
        self.z_truth = test.standardised(test.truth)
        exact = np.moveaxis(test.standardised(test.exact), 1, 0)
        self.crps = float(fair_crps(exact, self.z_truth).mean())
        self.energy = float(energy_score(np.moveaxis(test.exact.numpy(), 1, 0), test.truth.numpy()).mean())
        self.quantiles = test.quantiles(exact.shape[0] * exact.shape[1])

    def score(self, samples: Tensor) -> dict[str, float]:
        """Scores of samples (S, M, n) that start from the test's noise.

        Returns:
            `w1`: mean over coefficients of the Wasserstein-1 distance of z, pooled over conditions; `w1_worst`: the
            largest; `variance`: mean over coefficients of the variance between the members of a condition, 1 for the
            exact law; `variance_worst`: that of the coefficient farthest from 1, by the logarithm; `coverage`: share of
            truths in the central interval that should hold `nominal`; `crps`, `energy`: fair scores over those of the
            exact law with the same noise; `minor_mode`: share of samples in the rarer of two modes, for tasks that
            have them.
        """
        z = self.test.standardised(samples)
        members = np.moveaxis(z, 1, 0)
        count = len(members)
        variance = members.var(0, ddof=1).mean(0)
        rank = ranks(members, self.z_truth, np.random.default_rng(0))
        share, nominal = coverage(np.bincount(rank.ravel(), minlength=count + 1), LEVEL)
        distance = wasserstein(z.reshape(-1, z.shape[-1]), self.quantiles)
        energy = energy_score(np.moveaxis(samples.double().numpy(), 1, 0), self.test.truth.numpy())
        found = {
            "w1": float(distance.mean()),
            "w1_worst": float(distance.max()),
            "variance": float(variance.mean()),
            "variance_worst": float(variance[np.abs(np.log(np.maximum(variance, 1e-300))).argmax()]),
            "coverage": float(share),
            "nominal": nominal,
            "crps": float(fair_crps(members, self.z_truth).mean()) / self.crps,
            "energy": float(energy.mean()) / self.energy,
        }
        split = self.test.task.split
        if split is not None:
            found["minor_mode"] = float((samples.double() @ split > 0).double().mean())
        return found
