"""A small task and small students."""

import pytest
import torch

from scigen.core.bench.contender import Effort
from scigen.core.bench.task import Task
from scigen.core.posterior import MeasuredGaussian

SMALL = {"width": 16, "blocks": 1, "embedding": 8}


@pytest.fixture
def task() -> Task:
    """A Gaussian in four dimensions of which two sums are measured."""
    law = MeasuredGaussian(
        torch.diag(torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64)),
        torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.float64),
        noise=0.5,
    )
    return Task("small", "four numbers", law, 0.02, 15.0)


@pytest.fixture
def effort() -> Effort:
    """A budget for nothing but a look."""
    return Effort(budget=12, start=3, batch=8, calls=6, pairs=64, network=SMALL)
