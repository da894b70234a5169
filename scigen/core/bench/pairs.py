"""Pairs of the teacher for methods that train on them: noise, end point, and the states on the way."""

from collections.abc import Sequence

import torch
from torch import Tensor

from scigen.core.bench.task import Task
from scigen.core.methods.base import Batch
from scigen.core.noise import karras_sigmas
from scigen.core.sample import dpm_solver
from scigen.core.trace import through, trace

CHUNK = 4096


@torch.no_grad()
def teacher_pairs(task: Task, count: int, calls: int, levels: Sequence[float], seed: int) -> Batch:
    """Noise and the end points of the teacher's ODE, as many of them, by DPM-Solver++(2M).

    Args:
        task: whose law is the teacher.
        count: number of pairs.
        calls: of the teacher for each, beside those at the student's own levels.
        levels: the student's; the states at those below the first are kept as `Batch.path`.
        seed: of conditions and noise.

    Returns:
        All pairs as one batch, float32.
    """
    generator = torch.Generator().manual_seed(seed)
    condition = task.draw(count, generator).condition
    noise = torch.randn(count, *task.shape, generator=generator)
    grid = through(karras_sigmas(calls, task.sigma_min, task.sigma_max).tolist(), levels[1:])
    ends, paths = [], []
    for rows in torch.arange(count).split(CHUNK):
        own = {k: v[rows] for k, v in condition.items()}
        end, states = trace(dpm_solver, task.law, grid[0] * noise[rows], grid, own, levels[1:])
        ends.append(end)
        paths.append(torch.stack(states, 1) if states else noise.new_zeros(len(rows), 0, *task.shape))
    return Batch(torch.cat(ends), condition, noise, torch.cat(paths))


def select(pairs: Batch, rows: Tensor) -> Batch:
    """Some rows of a batch of pairs."""
    assert pairs.noise is not None and pairs.path is not None
    condition = {k: v[rows] for k, v in pairs.condition.items()}
    return Batch(pairs.x[rows], condition, pairs.noise[rows], pairs.path[rows])
