"""The bench's training: the driver's order of calls without Lightning, and what a step of it costs."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from scigen.core.bench.cost import Meter
from scigen.core.driver import Schedule, step_seed
from scigen.core.ema import PowerEMA
from scigen.core.methods.base import Batch, Method
from scigen.core.networks.mlp import MLP

PLACES = 12
"""Places along the training where the cost of a step is looked at."""


class Diverged(Exception):
    """A loss or gradient that is not a number."""


def trial(method: Method, data: Callable[[int], Batch], batch: int) -> tuple[float, int]:
    """What a step of a method costs, on the mean over its turns and its training, tried on a copy.

    Args:
        method: prepared.
        data: batches.
        batch: rows that count as one call.

    Returns:
        (teacher steps of a step, the most rows of a call of the student over `batch`, rounded).
    """
    method = copy.deepcopy(method)
    network = next(m for m in method.student.modules() if isinstance(m, MLP))
    meter = Meter(batch, network, list(method.learners().values()))
    widest, cost = 0, 0.0

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal widest
        widest = max(widest, len(args[0]))

    handle = network.register_forward_pre_hook(note)
    with torch.random.fork_rng(devices=[]), meter.running():
        for place in range(PLACES):
            method.at((place + 0.5) / PLACES)
            cycle, before = period([method.turn(i) for i in range(256)]), meter.teacher_steps
            for step in range(cycle):
                turn = method.turn(step)
                with alone(method, turn):
                    method.loss(turn, data(step))
            cost += (meter.teacher_steps - before) / cycle / PLACES
    handle.remove()
    return cost, max(1, round(widest / batch))


def period(turns: Sequence[str]) -> int:
    """After how many steps turns repeat; all of them if they do not."""
    return next((p for p in range(1, len(turns) // 2 + 1) if list(turns[p:]) == list(turns[:-p])), len(turns))


@contextmanager
def alone(method: Method, turn: str) -> Iterator[None]:
    """Gradients for the learner whose turn it is, and for no other, as the driver has it."""
    learners = method.learners()
    own = {id(p) for p in learners[turn].parameters()}
    others = [p for m in learners.values() for p in m.parameters() if p.requires_grad and id(p) not in own]
    for p in others:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in others:
            p.requires_grad_(True)


def fit(method: Method, data: Callable[[int], Batch], plan: Schedule, seed: int, report: Callable[[], None]) -> Any:
    """Train in the driver's order, without Lightning; returns the averaged student in evaluation mode.

    Raises:
        Diverged: if a loss or gradient is no number.
    """
    method.train()
    optimisers = {
        name: torch.optim.AdamW(m.parameters(), lr=plan.lr, betas=plan.betas, weight_decay=0.0)
        for name, m in method.learners().items()
    }
    average = PowerEMA(method.student)
    for step in range(plan.steps):
        torch.manual_seed(step_seed(seed, step))
        method.at(step / plan.steps)
        turn = method.turn(step)
        learner, optimiser = method.learners()[turn], optimisers[turn]
        with alone(method, turn):
            loss = method.loss(turn, data(step))["loss"]
            loss.backward()
        norm = nn.utils.clip_grad_norm_(learner.parameters(), plan.clip)
        if not torch.isfinite(loss.detach() + norm):
            raise Diverged(f"{turn}'s loss {float(loss.detach()):g} at step {step} of {plan.steps}")
        for group in optimiser.param_groups:
            group["lr"] = plan.rate(step, turn)
        optimiser.step()
        optimiser.zero_grad()
        if turn == "student":
            average.update(method.student)
        report()
    return average.average().eval()


def schedule(steps: int, batch: int, training: Mapping[str, Any]) -> Schedule:
    """The bench's schedule with a method's own learning rates."""
    own = {k: v for k, v in training.items() if k in ("lr", "rates", "clip", "betas")}
    return Schedule(steps=steps, batch=batch, warmup=max(1, steps // 20), **own)
