"""Method: what a way of training says about itself; the driver in core/driver.py knows nothing else.

A new method is one file with a final class and one YAML of the same stem.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from scigen.core.denoise import DenoiserModule
from scigen.core.noise import check_levels


@dataclass(frozen=True)
class Batch:
    """Training samples.

    Attributes:
        x: normalised samples, (B, C, *S): data, or a teacher's end points where `noise` is given.
        condition: batch first.
        noise: unit-variance noise (B, C, *S) from which the teacher's ODE leads to x; None for data.
        path: states of that ODE at the student's levels below the first, (B, K − 1, C, *S); None without noise.
        samples: what the samples are called (times, specimens, slices), for messages; as long as the batch, or empty.
    """

    x: Tensor
    condition: dict[str, Tensor]
    noise: Tensor | None = None
    path: Tensor | None = None
    samples: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        condition = {k: v.to(device, non_blocking=True) for k, v in self.condition.items()}
        noise, path = (None if v is None else v.to(device) for v in (self.noise, self.path))
        return replace(self, x=self.x.to(device), condition=condition, noise=noise, path=path)


def repeat(condition: Mapping[str, Tensor], members: int) -> dict[str, Tensor]:
    """A condition for several members each: (B, …) to (B · members, …), the members of a sample side by side."""
    return {k: v.repeat_interleave(members, 0) for k, v in condition.items()}


@contextmanager
def rewound(device: torch.device) -> Iterator[None]:
    """Put the global generators back at the end, so that what follows meets the same random numbers (dropout masks)."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


class Method(nn.Module, ABC):
    """A way of training a student.

    Attributes:
        student: what is kept: a denoiser (B, C, *S), sigma (B,), condition → (B, C, *S), but in the stages before a
            teacher.
        pairs: number of cached teacher pairs (noise, end point) that it trains on; 0 for data.
        by_row: whether the loss is a mean over rows, each with random numbers of its own that come from `core.draws`.
            It is then the same on one device, on many, and in micro-batches, dropout aside; otherwise each process and
            micro-batch draws numbers of its own, with the same law.
    """

    student: nn.Module
    pairs: int = 0
    by_row: bool = False

    def prepare(self, batch: Batch) -> None:
        """Called once, before the optimisers are made, with a first batch: builds what needs to know its shape."""

    def learners(self) -> dict[str, nn.Module]:
        """The modules that have an optimiser each."""
        return {"student": self.student}

    def turn(self, step: int) -> str:
        """Which learner's turn it is at this step."""
        return "student"

    def at(self, progress: float) -> None:
        """Called before each step with the share of training done, in [0, 1): for curricula."""

    @abstractmethod
    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Scalars to log; "loss" is minimised. Random numbers come from the global generator, or from `core.draws`."""


class Distiller(Method, ABC):
    """A method that trains a student from a frozen teacher.

    Attributes:
        teacher: D of the teacher, frozen, in evaluation mode.
        sigmas: the student's levels, decreasing: it will take len(sigmas) calls at most.
        sampler: function of `scigen.core.sample` that the student is sampled with.
        two_times: whether the student must be a `FlowMap`.
        follows: the method whose student it must start from (`init=`); None for any, the teacher included.
    """

    student: DenoiserModule
    sampler: str = "few_step"
    two_times: bool = False
    follows: str | None = None

    def __init__(self, student: DenoiserModule, teacher: nn.Module, sigmas: Sequence[float]) -> None:
        """Set student, teacher and the student's levels.

        Raises:
            UserError: if the levels are not positive and decreasing.
        """
        super().__init__()
        self.student, self.sigmas = student, tuple(check_levels(sigmas, "method.sigmas: a student's levels"))
        self.teacher = teacher.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Distiller":
        """Switch the mode of everything but the teacher."""
        super().train(mode)
        self.teacher.eval()
        return self
