"""The verb benchmark: every method at one budget on tasks with known answers."""

import functools
import importlib
import inspect
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from scigen import __version__
from scigen.core.bench import contender, external
from scigen.core.bench.contender import Effort, Recipe, Shared
from scigen.core.bench.cost import TEACHER_STEP
from scigen.core.bench.scores import Scorer, TestSet
from scigen.core.bench.task import Task
from scigen.core.bench.tasks import named
from scigen.core.bench.training import Diverged
from scigen.core.methods.base import Distiller
from scigen.core.noise import karras_sigmas
from scigen.core.sampling import Sampling
from scigen.errors import UserError
from scigen.plots.leaderboard import figure, markdown, tables
from scigen.progress import progress
from scigen.workflows.folder import alone, claim, digest, write

log = logging.getLogger(__name__)

SUITES = ("exact",)
TEST_SEED = 2**20
"""Added to the seed for test sets, so that training never meets them."""

Row = dict[str, Any]


def run(cfg: DictConfig) -> Path:
    """Run the suite cfg.suite; returns the folder of results, or of exported tasks."""
    if cfg.suite not in SUITES:
        raise UserError(f"There is no benchmark {cfg.suite!r}; write scigen benchmark {' or '.join(SUITES)}.")
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    plain["settings"] = plain["settings"] or {}
    _check(plain)
    tasks = named(plain["tasks"])
    if plain["export"]:
        return _export(plain, tasks)
    effort = Effort(
        budget=plain["budget"], start=max(1, round(plain["start"] * plain["budget"])), batch=plain["batch"],
        pairs=plain["pairs"], network=plain["mlp"], seed=plain["seed"],
    )  # fmt: skip
    recipes = _recipes(cfg._options, plain["settings"])
    _known(plain["methods"] or [], recipes)
    chosen = [recipes[n] for n in plain["methods"] or recipes]
    identity = {"effort": asdict(effort), "scigen": __version__}
    identity |= {k: plain[k] for k in ("steps", "conditions", "members")}
    folder = claim(Path(plain["output"] or f"runs/bench-{digest(identity)}"), identity)
    log.info("folder: %s", folder)
    with alone(folder):
        rows = list(_rows(plain, tasks, effort, recipes, chosen, folder))
        _publish(rows, tasks, identity, folder)
    return folder


def _check(plain: Mapping[str, Any]) -> None:
    """Raise UserError for numbers that make no benchmark."""
    for key in ("budget", "start", "batch", "conditions"):
        if not plain[key] > 0:
            raise UserError(f"{key}={plain[key]} must be positive.")
    if plain["members"] < 2 or not plain["steps"] or min(plain["steps"]) < 1:
        raise UserError(f"members={plain['members']} must be 2 or more, steps={plain['steps']} a list of 1 or more.")


def _export(plain: Mapping[str, Any], tasks: Sequence[Task]) -> Path:
    """Write the tasks for others."""
    folder = Path(plain["export"])
    for task in tasks:
        path = external.export(_scorer(task, plain).test, folder / f"{task.name}.npz", plain["pairs"], plain["seed"])
        Console().print(f"{task.name}: {path}", soft_wrap=True)
    return folder


def _recipes(options: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Recipe]:
    """All methods that distil, by name; some numbers changed.

    Args:
        options: of the group method, by name, with references to `noise`.
        changes: numbers by method, with references to `noise`.

    Raises:
        UserError: for changes of a method, or of a number, that there is not.
    """
    recipes = {}
    for name, option in options.items():
        kind = get_class(option["_target_"])
        if issubclass(kind, Distiller):
            recipes[name] = _recipe(name, kind, option, changes.get(name) or {})
    _known(changes, recipes)
    return recipes


def _recipe(name: str, kind: type[Distiller], option: Mapping[str, Any], changes: Mapping[str, Any]) -> Recipe:
    """One method."""
    base = OmegaConf.create(dict(option))
    OmegaConf.set_struct(base, True)
    try:
        whole = OmegaConf.merge(base, dict(changes))
    except OmegaConfBaseException as error:
        raise UserError(f"settings.{name}: {str(error).splitlines()[0]}.") from error

    def settings(sigma_min: float, sigma_max: float) -> dict[str, Any]:
        noise = {"sigma_min": sigma_min, "sigma_max": sigma_max}
        plain: Any = OmegaConf.to_container(OmegaConf.create({"noise": noise, "method": whole}), resolve=True)
        return {k: v for k, v in plain["method"].items() if k not in ("_target_", "training")}

    training: Any = OmegaConf.to_container(whole.training)
    return Recipe(name, kind, settings, training)


def _known(names: Iterable[str], recipes: Mapping[str, Recipe]) -> None:
    """Raise UserError for the name of a method that there is not."""
    for name in names:
        if name not in recipes:
            raise UserError(f"There is no method {name!r} that distils; they are {', '.join(recipes)}.")


def _rows(
    plain: Mapping[str, Any], tasks: Sequence[Task], effort: Effort, recipes: Mapping[str, Recipe],
    chosen: Sequence[Recipe], folder: Path,
) -> Iterator[Row]:  # fmt: skip
    """Rows of all tasks and contenders; finished ones are read, the others made and kept."""
    first = effort.start * (TEACHER_STEP + 1) / TEACHER_STEP
    paths = {(t.name, r.name): _path(folder, t, r) for t in tasks for r in chosen}
    open_tasks = [t.name for t in tasks if any(not paths[t.name, r.name].exists() for r in chosen)]
    total = first * len(open_tasks) + effort.budget * sum(not p.exists() for p in paths.values())
    done = 0.0
    with progress("benchmark", max(1, round(total)), "teacher steps") as advance:
        for task in tasks:
            shared, scorer = Shared(task, effort), functools.cache(functools.partial(_scorer, task, plain))
            yield from _kept(folder / f"{task.name}-references.json", lambda: _references(task, scorer(), plain))  # noqa: B023
            for recipe in chosen:
                path, note = paths[task.name, recipe.name], f"{task.name}, {recipe.name}"
                began = done

                def report(cost: float) -> None:
                    nonlocal done
                    done += cost
                    advance(min(round(done), round(total)), note)  # noqa: B023

                planned = 0.0 if path.exists() else effort.budget + (0.0 if shared.started else first)
                yield from _kept(path, lambda: _compete(shared, recipe, recipes, scorer(), plain, first, report))  # noqa: B023
                done = began + planned
            for name, source in (plain["external"] or {}).items():
                scores = scorer().score(external.samples(name, source, scorer().test))
                yield {"task": task.name, "contender": name, "role": "external", **scores}


def _scorer(task: Task, plain: Mapping[str, Any]) -> Scorer:
    """The test of a task."""
    return Scorer(TestSet.make(task, plain["conditions"], plain["members"], plain["seed"] + TEST_SEED))


def _path(folder: Path, task: Task, recipe: Recipe) -> Path:
    """Where the rows of a method on a task are kept: named after its numbers and its code as well."""
    source = inspect.getsource(importlib.import_module(recipe.kind.__module__))
    settings = recipe.settings(task.sigma_min, task.sigma_max)
    return folder / f"{task.name}-{recipe.name}-{digest([settings, dict(recipe.training), source])}.json"


def _kept(path: Path, make: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a file, made and written if it is not there."""
    if not path.exists():
        write(path, json.dumps(make(), indent=1))
    rows: list[Row] = json.loads(path.read_text())
    return rows


def _references(task: Task, scorer: Scorer, plain: Mapping[str, Any]) -> list[Row]:
    """The exact law, the teacher with its converged sampler, and the teacher at the students' calls."""
    rows: list[Row] = [{"task": task.name, "contender": "exact law", "role": "exact"}]
    rows[0] |= scorer.score(scorer.test.exact)
    grid = karras_sigmas(Effort.calls, task.sigma_min, task.sigma_max).tolist()
    teacher = Sampling("dpm_solver", tuple(grid))
    for steps in sorted({*plain["steps"], len(grid)}, reverse=True):
        drawn = contender.generate(task.law, "dpm_solver", teacher.grid(steps), scorer.test, plain["seed"])
        rows.append({"task": task.name, "contender": "teacher", "role": "teacher", "calls": steps})
        rows[-1] |= scorer.score(drawn)
    return rows


def _compete(
    shared: Shared, recipe: Recipe, recipes: Mapping[str, Recipe], scorer: Scorer, plain: Mapping[str, Any],
    first: float, report: Callable[[float], None],
) -> list[Row]:  # fmt: skip
    """Train a method on a task and score it with every number of calls."""
    row: Row = {"task": shared.task.name, "contender": recipe.name, "role": "student"}
    began = time.monotonic()
    try:
        trained = contender.train(shared, recipe, recipes, report)
    except Diverged as error:
        log.warning("%s, %s: %s", shared.task.name, recipe.name, error)
        return [row | {"failed": str(error)}]
    row |= {"cost": first + trained.cost, "per_step": trained.per_step, "optimiser_steps": trained.steps}
    row["seconds"] = round(time.monotonic() - began, 1)
    rows = []
    for calls, grid in contender.grids(trained.method, plain["steps"], shared.task.sigma_min).items():
        drawn = contender.generate(trained.student, trained.method.sampler, grid, scorer.test, plain["seed"])
        if not torch.isfinite(drawn).all():
            rows.append(row | {"calls": calls, "failed": "samples are not finite"})
        else:
            rows.append(row | {"calls": calls} | scorer.score(drawn))
    return rows


def _publish(rows: Sequence[Row], tasks: Sequence[Task], identity: Mapping[str, Any], folder: Path) -> None:
    """Tables in the terminal, results.json, table.md and a figure."""
    about = {t.name: t.about for t in tasks}
    found = tables(rows, about)
    for table in found:
        Console().print(table)
    write(folder / "results.json", json.dumps({"made_with": identity, "rows": rows}, indent=1))
    write(folder / "table.md", "\n".join(markdown(t) for t in found))
    picture = figure(rows, about, folder / "figure.png")
    Console().print(
        f"Results: {folder / 'results.json'}\nTable:   {folder / 'table.md'}\nFigure:  {picture}", soft_wrap=True
    )
