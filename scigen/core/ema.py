"""Exponential moving average of weights, with its memory stated in optimiser steps."""

import copy

import torch
from torch import nn


class EMA(nn.Module):
    """θ̄ ← β θ̄ + (1 − β) θ after each step, β = ½^(1/half_life), shorter at the start so that it forgets the beginning.

    The half-life grows with the steps done until it reaches the one asked for (`ramp` of them at most), as in EDM's
    training. Parameters are averaged in the precision that they have; buffers are copied.
    """

    steps: torch.Tensor

    def __init__(self, module: nn.Module, half_life: float, ramp: float = 0.1) -> None:
        """Start from a copy of `module`.

        Args:
            module: what is averaged.
            half_life: steps after which a weight counts half; 0 keeps no memory.
            ramp: the half-life is at most this share of the steps done.
        """
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.half_life, self.ramp = float(half_life), float(ramp)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def decay(self) -> float:
        """β of the next update."""
        memory = min(self.half_life, self.ramp * int(self.steps))
        return 0.5 ** (1 / memory) if memory > 0 else 0.0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Fold in the present weights of `module`."""
        beta = self.decay()
        for mean, now in zip(self.module.parameters(), module.parameters(), strict=True):
            mean.lerp_(now.to(mean), 1 - beta)
        for kept, present in zip(self.module.buffers(), module.buffers(), strict=True):
            kept.copy_(present)
        self.steps += 1
