"""Random numbers of a training step, of which every process and micro-batch takes the rows that are its own.

A method whose loss is a mean over rows, each with random numbers of its own, then trains in the same way on one device
and on many: what is drawn is drawn for the whole step, by everybody, from one seed, and cut. Outside `sharing` numbers
come from the global generator.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Share:
    """One of several equal parts of a step's rows.

    Attributes:
        seed: of the step.
        part: which one.
        parts: how many there are.
        generators: one a device, seeded.
    """

    seed: int
    part: int
    parts: int
    generators: dict[torch.device, torch.Generator] = field(default_factory=dict)

    def generator(self, device: torch.device) -> torch.Generator:
        """The step's generator on a device."""
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self.generators[device]


_SHARE: ContextVar[Share | None] = ContextVar("share", default=None)


@contextmanager
def sharing(seed: int, part: int, parts: int) -> Iterator[None]:
    """Within, what is drawn by this module is a part of what the step draws."""
    token = _SHARE.set(Share(seed, part, parts))
    try:
        yield
    finally:
        _SHARE.reset(token)


def normal_like(x: Tensor) -> Tensor:
    """Unit normal numbers of the shape, type and device of x (B, …), B being rows of a part."""
    share = _SHARE.get()
    if share is None:
        return torch.randn(x.shape, dtype=x.dtype, device=x.device)
    shape: Sequence[int] = (share.parts * len(x), *x.shape[1:])
    whole = torch.randn(shape, dtype=x.dtype, device=x.device, generator=share.generator(x.device))
    return whole[share.part * len(x) : (share.part + 1) * len(x)]


def strata(n: int, device: torch.device | str = "cpu") -> Tensor:
    """Numbers in [0, 1) for the n rows of a part: of the step's rows, one in each slice of equal length, shuffled."""
    device, share = torch.device(device), _SHARE.get()
    generator = None if share is None else share.generator(device)
    total = n if share is None else n * share.parts
    u = torch.randperm(total, device=device, generator=generator)
    u = (u + torch.rand(total, device=device, generator=generator)) / total
    return u if share is None else u[share.part * n : (share.part + 1) * n]
