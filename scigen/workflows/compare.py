"""The verb compare: students at every number of steps and teachers with several solvers, on the same samples and noise.

Quality is the field's main score over that of the first run's converged teacher; cost is network calls, and wall time
of one batch end to end, measured here.
"""

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from scigen.core.bundle import Bundle, load, versions
from scigen.core.domain import Domain, Split
from scigen.core.sampling import SAMPLERS
from scigen.errors import UserError
from scigen.metrics.quality import as_json
from scigen.plots import pareto
from scigen.plots.report import write_report
from scigen.workflows.card import command, hardware
from scigen.workflows.device import pick
from scigen.workflows.folder import alone, claim, difference, digest, write
from scigen.workflows.judge import chosen, ensemble

log = logging.getLogger(__name__)

REPEATS = 3
"""The fastest of so many timings counts."""


@dataclass(frozen=True)
class Entry:
    """One setting: a bundle with a sampler and a number of steps.

    Attributes:
        line: the student or solver that it is a point of.
        bundle: with that sampler.
        steps: number of levels.
    """

    line: str
    bundle: Bundle
    steps: int

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.line}, {self.steps} step{'s' if self.steps > 1 else ''}"

    @property
    def key(self) -> str:
        """Names its archive and its timing."""
        sampling = self.bundle.sampling
        return f"{self.bundle.role}-{self.bundle.fingerprint()}-{sampling.sampler}-{self.steps}"


def run(cfg: DictConfig) -> Path:
    """Compare as configured; returns the path of the page, beside which compare.json lies.

    Raises:
        UserError: if a folder is no finished run, or the runs have different fields or data.
    """
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    plain["data"] = plain["data"] or {}
    _check(plain)
    homes = [_home(Path(run)) for run in plain["runs"]]
    identity = _same([home for home, _ in homes])
    where = pick(plain["device"])
    entries = _entries(homes, plain["steps"], plain["solvers"])
    domain = _domain(identity, plain)
    cache = homes[0][0].parent / "data"
    given = None if (homes[0][0] / "teacher.safetensors").exists() else entries[0].bundle.codec
    data = domain.open(cache if cache.exists() else Path("runs") / "data", given)
    if not plain["data"] and data.fingerprint != identity["fingerprint"]:
        raise UserError(
            f"{data.source} has changed since {plain['runs'][0]} was fitted (fingerprint {data.fingerprint}, there"
            f" {identity['fingerprint']}): name the archive with 'data={{path: …}}'."
        )
    content = {k: plain[k] for k in ("samples", "members", "batch", "seed")}
    content |= {"fingerprint": data.fingerprint, "settings": [e.key for e in entries], "budget": plain["budget"]}
    folder = claim(Path(plain["output"] or f"runs/compare-{digest(content)}"), content)
    with alone(folder):
        split = chosen(entries[0].bundle.codec, data.test, plain["samples"])
        ensembles, seconds = {}, _Timings(folder / "timings.json", where)
        for entry in entries:
            bundle = entry.bundle.to(where)
            path = folder / "samples" / f"{entry.key}.zarr"
            ensembles[entry.name] = ensemble(
                bundle, entry.name, split, plain["members"], plain["seed"], entry.steps, plain["batch"], path
            )
            seconds.measure(entry, split, plain["members"], plain["batch"])
        report = domain.evaluate(split.truth, ensembles)
        summary = as_json(domain.quality(report))
        settings = _settings(entries, summary, seconds.found)
        return _publish(domain, settings, summary["_"], plain, folder, data.source, report)


def front(settings: Sequence[Mapping[str, Any]], cost: str = "calls") -> list[bool]:
    """Which settings are on the Pareto front: none is at least as cheap and as good, and one of both strictly.

    Args:
        settings: with `score` {estimate} and the cost.
        cost: "calls" or "seconds".
    """
    points = [(s[cost], _score(s)) for s in settings]
    return [
        math.isfinite(q) and not any(c <= cost_ and p <= q and (c, p) != (cost_, q) for c, p in points)
        for cost_, q in points
    ]


def within(setting: Mapping[str, Any], reference: Mapping[str, Any], budget: float) -> bool:
    """Whether a setting keeps the budget: the upper end of its score, where there is one, and its spread.

    A score alone does not see a spread that collapses (0.9 of it costs a quarter of a percent of CRPS), so the spread
    may be off by no more than the reference's and twice the budget.

    Args:
        setting: with `score` {estimate, low, high}, over the reference's, and `spread`.
        reference: the converged teacher's setting.
        budget: accepted degradation.
    """
    score = setting["score"]
    top = score["estimate"] if score["high"] is None else score["high"]
    if top is None or top > 1 + budget:
        return False
    if setting["spread"] is None or reference["spread"] is None:
        return True
    return abs(setting["spread"] - 1) <= abs(reference["spread"] - 1) + 2 * budget


def _score(setting: Mapping[str, Any]) -> float:
    value = setting["score"]["estimate"]
    return math.nan if value is None else float(value)


def _check(plain: Mapping[str, Any]) -> None:
    """Refuse words that make no comparison."""
    if not plain["runs"]:
        raise UserError("compare needs run folders: write scigen compare runs/a runs/b, or 'runs=[runs/a,runs/b]'.")
    if not plain["steps"] or any(not isinstance(n, int) or n < 1 for n in plain["steps"]):
        raise UserError(f"steps={plain['steps']}: give whole numbers of steps from 1 on, such as steps=[1,2,4,8].")
    solvers = [name for name, rule in SAMPLERS.items() if not rule.first and not rule.two_times and name != "mean"]
    if unknown := [s for s in plain["solvers"] if s not in solvers]:
        raise UserError(f"solvers={unknown[0]}: the solvers of teachers are {', '.join(solvers)}.")
    if not plain["budget"] >= 0:
        raise UserError(f"budget={plain['budget']} must not be negative; 0.02 accepts 2 %.")
    for key in ("samples", "members", "batch"):
        if plain[key] < (2 if key == "members" else 1):
            raise UserError(f"{key}={plain[key]} is too few for an ensemble to be judged.")


def _home(path: Path) -> tuple[Path, list[Path]]:
    """The run folder of a path, and the folders of its students: all of them, or the one that the path is.

    Raises:
        UserError: if there is no finished student.
    """
    if (path / "student.safetensors").exists():
        return path.parent, [path]
    if not path.is_dir():
        raise UserError(f"There is no run folder {path}. A finished `scigen fit` prints where its run folder is.")
    students = sorted(p.parent for p in path.glob("*/student.safetensors"))
    if not students or not (path / "config.json").exists():
        raise UserError(f"{path} holds no finished student of scigen fit: name a run folder, as in runs/weather-1a2b.")
    return path, students


def _same(homes: Sequence[Path]) -> dict[str, Any]:
    """The configuration of the first run; the others must have its field and data.

    Raises:
        UserError: if they have not.
    """
    kept = ("domain", "data", "fingerprint")
    first, *others = [json.loads((home / "config.json").read_text()) for home in homes]
    for home, other in zip(homes[1:], others, strict=True):
        a, b = ({k: c[k] for k in kept} for c in (first, other))
        if found := difference(a, b):
            raise UserError(f"{home} and {homes[0]} are judged on different data and cannot be compared:\n  {found}")
    return first


def _domain(identity: Mapping[str, Any], plain: Mapping[str, Any]) -> Domain:
    """The field of the runs with their data settings, changed where asked for."""
    options = plain["_domains"]
    if identity["domain"] not in options:
        raise UserError(f"The runs are of domain={identity['domain']}, which is not one of {', '.join(options)}.")
    if unknown := [k for k in plain["data"] if k not in identity["data"]]:
        raise UserError(f"data.{unknown[0]}: the runs' data settings are {', '.join(identity['data'])}.")
    return instantiate(options[identity["domain"]]["domain"], **(identity["data"] | plain["data"]))


def _entries(homes: Sequence[tuple[Path, list[Path]]], steps: Sequence[int], solvers: Sequence[str]) -> list[Entry]:
    """All settings; what two runs share is there once, the first run's converged teacher first."""
    found: dict[str, Entry] = {}
    several = len({home for home, _ in homes}) > 1
    for home, students in homes:
        bundles = {folder: load(folder / "student.safetensors") for folder in students}
        teacher = _teacher(home, next(iter(bundles.values())))
        tail = f" of {home.name}" if several else ""
        for entry in [*_teaching(teacher, steps, solvers, tail), *_studying(bundles, steps, tail, len(students) > 1)]:
            found.setdefault(entry.key, entry)
    names = [e.name for e in found.values()]
    if double := [n for n in names if names.count(n) > 1]:
        raise UserError(f"Two different settings are called {double[0]!r}: rename one of the run folders.")
    return list(found.values())


def _teacher(home: Path, student: Bundle) -> Bundle:
    """The teacher of a run: in its folder, or where the student says that it lay.

    Raises:
        UserError: if it is gone.
    """
    config = student.provenance.get("config", {})
    path = home / "teacher.safetensors"
    path = path if path.exists() else Path(config.get("teacher") or path)
    if not path.exists():
        raise UserError(f"{home} has no teacher.safetensors, and its teacher is not at {path}: put it there.")
    teacher = load(path)
    wanted = student.provenance.get("config", {}).get("sampler")
    if wanted and "_target_" in wanted:
        teacher = replace(teacher, sampling=instantiate(wanted))
    return teacher


def _teaching(teacher: Bundle, steps: Sequence[int], solvers: Sequence[str], tail: str) -> Iterator[Entry]:
    """The converged teacher, and its solvers with few steps; with one, all solvers are Euler's."""
    own = teacher.sampling
    yield Entry(f"teacher, {own.sampler}{tail}", teacher, len(own.sigmas))
    for i, name in enumerate(solvers):
        options = own.options if name == own.sampler else {}
        other = replace(teacher, sampling=replace(own, sampler=name, options=options))
        for n in sorted(set(steps)):
            if n < len(own.sigmas) and (n > 1 or i == 0):
                yield Entry(f"teacher, {name}{tail}", other, n)


def _studying(bundles: Mapping[Path, Bundle], steps: Sequence[int], tail: str, several: bool) -> Iterator[Entry]:
    """Students with every number of steps that they take, of those asked for, and their own."""
    methods = [b.provenance.get("method", "student") for b in bundles.values()]
    for folder, bundle in bundles.items():
        method = bundle.provenance.get("method", "student")
        line = folder.name if several and methods.count(method) > 1 else method
        own = bundle.sampling
        for n in sorted({*steps, len(own.sigmas)}):
            try:
                own.grid(n)
            except UserError:
                continue
            yield Entry(f"student, {line}{tail}", bundle, n)


class _Timings:
    """Seconds a field by setting, kept in a file, since they are measured once a machine."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Read what was measured before on a machine like this one."""
        self.path, self.device = path, device
        self.machine = f"{hardware()}, {device}, {torch.get_num_threads()} threads"
        kept = json.loads(path.read_text()) if path.exists() else {}
        self.found: dict[str, float] = kept["seconds"] if kept.get("machine") == self.machine else {}

    def measure(self, entry: Entry, split: Split, members: int, batch: int) -> None:
        """Time one batch end to end, without writing, unless it is known."""
        if entry.key in self.found:
            return
        codec = entry.bundle.codec
        count = max(1, min(batch // members, len(codec.samples(split.inputs))))
        each = max(1, batch // count)
        inputs = split.inputs.isel({codec.layout(split.inputs).dims[0]: slice(0, count)})
        spent = []
        for i in range(REPEATS + 1):
            began = time.perf_counter()
            list(entry.bundle.blocks(inputs, each, steps=entry.steps, batch=each * count))
            spent.append(time.perf_counter() - began)
            if i and sum(spent) > 10:  # a slow teacher needs no third look
                break
        self.found[entry.key] = min(spent[1:]) / (each * count)
        write(self.path, json.dumps({"machine": self.machine, "seconds": self.found}, indent=1))


def _settings(
    entries: Sequence[Entry], summary: Mapping[str, Any], seconds: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Rows of compare.json."""
    return [
        {
            "name": e.name, "line": e.line, "role": e.bundle.role, "method": e.bundle.provenance.get("method"),
            "sampler": e.bundle.sampling.sampler, "steps": e.steps, "calls": e.bundle.nfe(e.steps),
            "seconds": seconds[e.key], "bundle": e.bundle.fingerprint(), **summary[e.name],
        }
        for e in entries
    ]  # fmt: skip


def _publish(
    domain: Domain, settings: list[dict[str, Any]], words: Mapping[str, str], plain: Mapping[str, Any], folder: Path,
    source: str, report: Any,
) -> Path:  # fmt: skip
    """Table in the terminal, compare.json, figure and page."""
    reference = next(s for s in settings if s["name"] == words["reference"])
    for s, a, b in zip(settings, front(settings), front(settings, "seconds"), strict=True):
        s["front"], s["within"] = a or b, within(s, reference, plain["budget"])
    fit = [s for s in settings if s["within"]]
    best = min(fit, key=lambda s: (s["calls"], s["seconds"]), default=None)
    verdict = _verdict(best, reference, words, plain["budget"])
    main = pareto.table(settings, words, best["name"] if best else None)
    console = Console()
    console.print(main)
    console.print(verdict, markup=False)
    facts = {
        "runs": ", ".join(map(str, plain["runs"])), "data": source,
        "test samples × members": f"{plain['samples']} × {plain['members']} at most", "machine": hardware(),
        "threads": torch.get_num_threads(), "budget": plain["budget"],
    }  # fmt: skip
    content = {
        "settings": settings, "score": words["score"], "spread": words["spread"], "reference": words["reference"],
        "budget": plain["budget"], "cheapest": best["name"] if best else None, "verdict": verdict,
        "facts": facts, "versions": versions(),
    }  # fmt: skip
    write(folder / "compare.json", json.dumps(content, indent=1, allow_nan=False))
    picture = pareto.figure(settings, words, plain["budget"], folder / "figures" / "pareto.png")
    provenance = {"seed": plain["seed"], "batch": plain["batch"]}
    provenance |= {"versions": ", ".join(f"{k} {v}" for k, v in versions().items())}
    again = command() or "scigen compare " + " ".join(map(str, plain["runs"]))
    page = write_report(
        folder / "report.html", title=f"scigen: {domain.name}, steps and solvers compared", verdict=verdict, main=main,
        facts=facts, about="What was compared on what", tables=domain.tables(report), command=again,
        chapters=[("Quality against cost", [picture])], provenance=provenance,
    )  # fmt: skip
    console.print(f"Report: {page}", soft_wrap=True)
    return page


def _verdict(
    best: Mapping[str, Any] | None, reference: Mapping[str, Any], words: Mapping[str, str], budget: float
) -> str:
    """The cheapest setting in a sentence or two."""
    accepted = f"within {100 * budget:g} % of {reference['name']} ({reference['calls']} calls)"
    if best is None:
        return f"No setting stays {accepted}: train longer, or accept more with budget=."
    if best is reference:
        return f"Only the converged teacher itself stays {accepted}: train a student longer, or accept more (budget=)."
    score = best["score"]
    told = f"{score['estimate']:.3f}"
    if score["low"] is not None:
        told += f" [{score['low']:.3f}–{score['high']:.3f}]"
    spread = "" if best["spread"] is None else f"; {words['spread']} {best['spread']:.2f}"
    return (
        f"The cheapest setting {accepted} is {best['name']}: {best['calls']} call{'s' if best['calls'] > 1 else ''},"
        f" {reference['seconds'] / best['seconds']:.1f} times as fast end to end.\n"
        f"Its {words['score']} is {told} × the reference's{spread}."
    )
