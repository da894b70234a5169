"""The moving average's memory."""

import pytest
import torch
from torch import nn

from scigen.core.ema import EMA


def test_a_constant_is_kept_and_a_jump_is_half_forgotten_after_a_half_life():
    weight = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(weight.weight)
    ema = EMA(weight, half_life=10, ramp=1e9)
    ema.steps += 1000  # long after the start
    ema.update(weight)
    assert float(ema.module.weight) == 0
    nn.init.ones_(weight.weight)
    for _ in range(10):
        ema.update(weight)
    assert float(ema.module.weight) == pytest.approx(0.5, rel=1e-5)


def test_the_beginning_is_forgotten():
    weight = nn.Linear(1, 1, bias=False)
    nn.init.constant_(weight.weight, 1e3)
    ema = EMA(weight, half_life=1e6)
    nn.init.ones_(weight.weight)
    for _ in range(2000):
        ema.update(weight)
    assert float(ema.module.weight) == pytest.approx(1.0, abs=0.2)


def test_buffers_are_copied_and_nothing_is_trained():
    norm = nn.BatchNorm1d(2)
    ema = EMA(norm, 10)
    norm.running_mean += 3
    ema.update(norm)
    assert torch.equal(ema.module.running_mean, norm.running_mean)
    assert not any(p.requires_grad for p in ema.module.parameters())
