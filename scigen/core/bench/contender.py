"""Contender: one method, trained on a task at the bench's budget, and sampled."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scigen.core.bench.cost import TEACHER_STEP
from scigen.core.bench.pairs import select, teacher_pairs
from scigen.core.bench.scores import TestSet
from scigen.core.bench.task import Task
from scigen.core.bench.training import fit, schedule, trial
from scigen.core.denoise import Denoiser, DenoiserModule, FlowMap, expand, loss_weight
from scigen.core.driver import step_seed
from scigen.core.methods.base import Batch, Distiller, Method, repeat
from scigen.core.networks.mlp import MLP
from scigen.core.networks.widen import widen
from scigen.core.noise import LogUniform, karras_sigmas
from scigen.core.sampling import Sampling

ROWS = 4096
"""Rows that are sampled at once."""
Report = Callable[[float], None]
"""Told of teacher steps done."""


@dataclass(frozen=True)
class Recipe:
    """A method as the bench knows it.

    Attributes:
        name: of the method, the stem of its option.
        kind: its class.
        settings: arguments of the class, from a task's noise levels.
        training: its learning rate "lr" and "rates" of learners other than the student.
    """

    name: str
    kind: type[Distiller]
    settings: Callable[[float, float], Mapping[str, Any]]
    training: Mapping[str, Any]


@dataclass(frozen=True)
class Effort:
    """What every method gets.

    Attributes:
        budget: of each method beyond the common start [teacher steps].
        start: steps in which the network learns the oracle's denoiser, since an oracle has no weights to start from.
        batch: rows of a network call.
        calls: of the converged teacher, for pairs.
        pairs: at most so many; fewer where they would cost more than half of the budget.
        network: arguments of the MLP.
        lr: peak learning rate of the start.
        seed: of everything random in training.
    """

    budget: float = 3000
    start: int = 1500
    batch: int = 256
    calls: int = 40
    pairs: int = 32768
    network: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 2e-3
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """A student and what it took.

    Attributes:
        student: averaged, in evaluation mode.
        method: that it was trained with, for its sampler and levels.
        steps: of the optimiser, all learners together.
        per_step: cost of one [teacher steps].
        cost: of all, the common start left out, pairs and a method that it follows included [teacher steps].
    """

    student: DenoiserModule
    method: Distiller
    steps: int
    per_step: float
    cost: float


class ScoreFitting(Method):
    """The common start: E λ(σ) ‖D(x_σ; σ) − oracle‖², data drawn from the law."""

    student: DenoiserModule

    def __init__(self, student: DenoiserModule, task: Task) -> None:
        """Set student and oracle."""
        super().__init__()
        self.student, self.task, self.noise = student, task, LogUniform(task.sigma_min, task.sigma_max)

    def loss(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Mean loss."""
        sigma = self.noise.draw(len(batch.x))
        x = batch.x + expand(sigma, batch.x) * torch.randn_like(batch.x)
        with torch.no_grad():
            target = self.task.law(x, sigma, batch.condition)
        error = (self.student(x, sigma, batch.condition) - target).square().flatten(1).mean(1)
        return {"loss": (loss_weight(sigma, self.student.sigma_data) * error).mean()}


class Shared:
    """What contenders of one task share: the start, and pairs."""

    def __init__(self, task: Task, effort: Effort) -> None:
        """Set task and effort."""
        self.task, self.effort = task, effort
        self._start: Denoiser | None = None
        self._pairs: dict[tuple[int, tuple[float, ...]], Batch] = {}

    @property
    def started(self) -> bool:
        """Whether the start has been trained."""
        return self._start is not None

    def network(self, more: int = 0) -> MLP:
        """A fresh network with so many more scalars than the condition has."""
        torch.manual_seed(self.effort.seed)
        return MLP(self.task.shape[0], 0, self.task.scalars + more, **self.effort.network)

    def start(self, report: Report = lambda done: None) -> Denoiser:
        """The denoiser that all students start from, trained at the first call."""
        if self._start is None:
            fresh = Denoiser(self.network(), self.task.law.sigma_data)
            method, effort = ScoreFitting(fresh, self.task), self.effort
            data = self.data(effort.batch)
            plan = schedule(effort.start, effort.batch, {"lr": effort.lr})
            self._start = fit(method, data, plan, effort.seed, lambda: report((TEACHER_STEP + 1) / TEACHER_STEP))
        return copy.deepcopy(self._start)

    def student(self, kind: type[Distiller], report: Report = lambda done: None) -> DenoiserModule:
        """The start, widened to two times where a method needs them."""
        start = self.start(report)
        if not kind.two_times:
            return start.requires_grad_(True)
        wide = widen(start.network, self.network(FlowMap.FEATURES))
        return FlowMap(wide, self.task.law.sigma_data).requires_grad_(True)

    def data(self, batch: int, pairs: Batch | None = None) -> Callable[[int], Batch]:
        """Batches by their number: fresh draws of the law, or pairs in a new order every epoch."""
        seed = self.effort.seed

        def draws(step: int) -> Batch:
            return self.task.draw(batch, torch.Generator().manual_seed(step_seed(seed, step, 1)))

        def rows(step: int) -> Batch:
            assert pairs is not None
            places = torch.arange(step * batch, (step + 1) * batch)
            epochs = (places // len(pairs.x)).unique().tolist()
            orders = {e: torch.Generator().manual_seed(step_seed(seed, e, 2)) for e in epochs}
            order = torch.cat([torch.randperm(len(pairs.x), generator=g) for g in orders.values()])
            return select(pairs, order[places - epochs[0] * len(pairs.x)])

        return draws if pairs is None else rows

    def pairs(self, count: int, levels: Sequence[float]) -> Batch:
        """Pairs of the teacher, kept for other methods that ask for the same."""
        key = (count, tuple(levels))
        if key not in self._pairs:
            self._pairs[key] = teacher_pairs(self.task, count, self.effort.calls, levels, self.effort.seed + 1)
        return self._pairs[key]


def train(shared: Shared, recipe: Recipe, recipes: Mapping[str, Recipe], report: Report = lambda done: None) -> Trained:
    """Train one method within the budget; one that follows another leaves it half.

    Args:
        shared: what contenders of the task share.
        recipe: the method.
        recipes: all, by name, for the one that it follows.
        report: told of teacher steps done, the common start's included.

    Raises:
        Diverged: if a loss becomes something else than a number.
    """
    budget, spent = shared.effort.budget, 0.0
    if recipe.kind.follows:
        before = _train(shared, recipes[recipe.kind.follows], shared.student(recipe.kind, report), budget / 2, report)
        student, spent = copy.deepcopy(before.student).requires_grad_(True), before.cost
    else:
        student = shared.student(recipe.kind, report)
    done = _train(shared, recipe, student, budget - spent, report)
    return Trained(done.student, done.method, done.steps, done.per_step, spent + done.cost)


def _train(shared: Shared, recipe: Recipe, student: DenoiserModule, budget: float, report: Report) -> Trained:
    """Train one method from a student."""
    task, effort = shared.task, shared.effort
    settings = dict(recipe.settings(task.sigma_min, task.sigma_max))
    if settings.get("pairs"):
        settings["pairs"] = max(1, min(effort.pairs, int(0.5 * budget * TEACHER_STEP * effort.batch / effort.calls)))
    method = recipe.kind(student=student, teacher=copy.deepcopy(task.law), **settings)
    pairs = shared.pairs(method.pairs, method.sigmas) if method.pairs else None
    spent = method.pairs * (effort.calls + len(method.sigmas) - 1) / effort.batch / TEACHER_STEP
    report(spent)
    torch.manual_seed(effort.seed)
    method.train()
    method.prepare(shared.data(effort.batch, pairs)(0))
    batch = max(1, effort.batch // trial(method, shared.data(effort.batch, pairs), effort.batch)[1])
    data = shared.data(batch, pairs)
    per_step = trial(method, data, effort.batch)[0]
    plan = schedule(max(1, round((budget - spent) / per_step)), batch, recipe.training)
    averaged = fit(method, data, plan, effort.seed, lambda: report(per_step))
    return Trained(averaged, method, plan.steps, per_step, spent + plan.steps * per_step)


def grids(method: Distiller, wanted: Sequence[int], sigma_min: float) -> dict[int, list[float]]:
    """The levels of every number of steps that a student can be asked for: its own of those wanted, a flow map all."""
    first = method.sigmas[0]
    if method.two_times:
        return {n: karras_sigmas(n + 1, sigma_min, first)[:n].tolist() for n in wanted}
    own = Sampling(method.sampler, tuple(method.sigmas), trained=True)
    return {n: own.grid(n) for n in wanted if n in own.own_steps}


@torch.no_grad()
def generate(denoiser: Any, sampler: str, grid: Sequence[float], test: TestSet, seed: int) -> Tensor:
    """Samples (S, M, n) of a denoiser from the test's noise.

    Args:
        denoiser: student or teacher.
        sampler: its name.
        grid: the levels.
        test: conditions and noise.
        seed: of fresh noises.
    """
    members = test.noise.shape[1]
    noise = test.noise.flatten(0, 1)
    condition = {k: v.float() for k, v in repeat(test.condition, members).items()}
    sampling = Sampling(sampler, tuple(grid))
    generator = torch.Generator().manual_seed(seed)
    fresh = [torch.randn(noise.shape, generator=generator) for _ in range(sampling.noises(len(grid)))]
    parts = []
    for rows in torch.arange(len(noise)).split(ROWS):
        own = {k: v[rows] for k, v in condition.items()}
        parts.append(sampling.run(denoiser, grid[0] * noise[rows], grid, own, [f[rows] for f in fresh]))
    return torch.cat(parts).reshape(test.noise.shape)
