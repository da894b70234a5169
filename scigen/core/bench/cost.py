"""What training costs, counted in teacher steps: forward and backward of the student's network on one batch.

A pass forwards counts 1 and, where gradients of weights will follow, 2 more (1 more where only those of its input
will); a forward-mode derivative doubles the pass forwards. A teacher step is 3. Rows count in proportion: a call with
four members a sample costs four. An oracle in the teacher's place is charged as the network that it stands for.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import register_module_forward_pre_hook

from scigen.core.oracle import Oracle

TEACHER_STEP = 3.0
"""Passes of a teacher step."""


class Meter:
    """Counts passes; `passes` of one batch so far, `teacher_steps` the same in teacher steps."""

    def __init__(self, batch: int, network: nn.Module, others: Sequence[nn.Module] = ()) -> None:
        """Set what is counted.

        Args:
            batch: samples of a batch.
            network: the student's; every network of its class is counted, by its number of parameters over this one's.
            others: further modules that are counted so (a critic); what they hold of that class is counted once.
        """
        self.batch, self.kind, self.passes = batch, type(network), 0.0
        self.size = _size(network)
        self.others = {id(m): m for m in others if not any(isinstance(part, self.kind) for part in m.modules())}

    @property
    def teacher_steps(self) -> float:
        """Passes in teacher steps."""
        return self.passes / TEACHER_STEP

    def count(self, module: nn.Module, args: Sequence[Any]) -> None:
        """Add one call."""
        tensors = list(_tensors(args))
        oracle = isinstance(module, Oracle)
        trained = not oracle and any(p.requires_grad for p in module.parameters())
        passes = 2.0 if any(forward_ad.unpack_dual(t).tangent is not None for t in tensors) else 1.0
        if torch.is_grad_enabled():
            passes += 2.0 if trained else 1.0 if any(t.requires_grad for t in tensors) else 0.0
        self.passes += passes * len(tensors[0]) / self.batch * (1.0 if oracle else _size(module) / self.size)

    @contextmanager
    def running(self) -> Iterator["Meter"]:
        """Count every call within."""

        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if isinstance(module, (self.kind, Oracle)) or id(module) in self.others:
                self.count(module, args)

        handle = register_module_forward_pre_hook(hook)
        try:
            yield self
        finally:
            handle.remove()


def _size(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of nested arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
