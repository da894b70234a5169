"""Drawing all contenders on the same samples with the same noise, judging them, writing the report."""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from rich.console import Console

from scigen.core.bundle import Bundle, versions
from scigen.core.codec import Codec
from scigen.core.domain import Data, Domain, Split
from scigen.core.ledger import Ledger
from scigen.io.archive import fingerprint
from scigen.io.plan import extent
from scigen.io.store import EnsembleStore
from scigen.metrics.quality import as_json
from scigen.plots import ledger as ledger_plot
from scigen.plots.panels import training_curves
from scigen.plots.report import write_report
from scigen.plots.style import canvas, save
from scigen.plots.summary import main_table
from scigen.progress import progress
from scigen.workflows.folder import write
from scigen.workflows.speed import speed

log = logging.getLogger(__name__)


def judge(
    domain: Domain, data: Data, teacher: Bundle, student: Bundle, folder: Path, *,
    samples: int, members: int, seed: int, batch: int, logs: Sequence[Path] = (), baseline: Bundle | None = None,
) -> Path:  # fmt: skip
    """Sample the exact law, teacher, teacher at the student's calls, student and baselines; judge; write the report.

    Args:
        domain: the field.
        data: its archive; test samples are taken evenly from the test split.
        teacher: with the sampler that counts as converged.
        student: distilled from it.
        folder: of the student; the teacher's samples are kept in its parent, for other students.
        samples: number of test samples.
        members: of each ensemble.
        seed: of each ensemble.
        batch: rows of a compute batch.
        logs: training.csv of the student's stages.
        baseline: a network that estimates the mean, judged as one member.

    Returns:
        Path of report.html; metrics.json lies beside it.
    """
    codec = student.codec
    split = chosen(codec, data.test, samples)
    ensembles: dict[str, xr.Dataset] = {}
    exact = domain.exact(codec, split, members, seed)
    if exact is not None:
        attrs = {"scigen_role": "exact", "scigen_nfe": 0, "scigen_seed": seed, "scigen_members": members}
        ensembles["exact law"] = archive(
            folder.parent / "samples" / "exact.zarr", student, split, members, attrs, exact
        )
    runs = [(teacher, len(teacher.sampling.sigmas), members)]
    runs += [(b, n, members) for n in student.sampling.own_steps for b in (teacher, student)]
    runs += [(b, 1, 1) for b in ([baseline] if baseline else [])]

    def answers(own: Split, suffix: str = "") -> dict[str, xr.Dataset]:
        """Ensembles of all models, and the field's baselines."""
        found = {}
        for bundle, steps, count in runs:
            name = called(bundle, steps)
            home = (folder if bundle.role == "student" else folder.parent) / "samples"
            stem = f"{name.replace(', ', '-').replace(' ', '-')}-{bundle.sampling.sampler}{suffix}"
            found[name] = ensemble(bundle, name, own, count, seed, steps, batch, home / f"{stem}.zarr")
        for name, ds in domain.baselines(codec, own).items():
            found[name] = ds.assign_attrs(scigen_role="baseline", scigen_nfe=0)
        return found

    ensembles |= answers(split)
    report = domain.evaluate(split.truth, ensembles)
    held = domain.held_out(codec, split, seed)
    if held is not None:
        log.info("once more, without a part of what was measured")
        report = domain.audited(report, split, held, answers(held, "-held-out"))
    logs = [folder.parent / "teacher" / "training.csv", *logs]
    facts = {
        "data": data.source, "test samples × members": f"{len(codec.samples(split.inputs))} × {members}",
        "teacher": f"{teacher!r}"[1:-1] + f", fitted in {teacher.provenance.get('training_seconds', '?')} s",
        "student": f"{student!r}"[1:-1] + f", distilled in {student.provenance.get('training_seconds', '?')} s",
        "device": str(next(teacher.network.parameters()).device), "threads": torch.get_num_threads(),
    }  # fmt: skip
    provenance = {
        "command": student.provenance.get("command") or "unknown", "seed": seed, "batch": batch,
        "data fingerprint": data.fingerprint, "teacher fingerprint": teacher.fingerprint(),
        "student fingerprint": student.fingerprint(), "card": "card.json and card.md, beside the student",
        "configuration": json.dumps(student.provenance.get("config", {})),
    }  # fmt: skip
    both = {"teacher": ensembles[called(teacher, len(teacher.sampling.sigmas))]}
    own = called(student, len(student.sampling.sigmas))
    both["student"] = ensembles[own]
    ledger = domain.ledger(codec, split, teacher, student, both)
    return publish(
        domain, report, split.truth, ensembles, folder, provenance=provenance, logs=[p for p in logs if p.exists()],
        speeds=speed(teacher, student, split, members, batch, seed), known=domain.known(codec, split), facts=facts,
        ledger=(own, ledger) if ledger else None,
    )  # fmt: skip


def chosen(codec: Codec, split: Split, samples: int) -> Split:
    """Samples taken evenly from a split, loaded.

    Args:
        codec: says what a sample is.
        split: to choose from.
        samples: how many, at most.
    """
    total = len(codec.samples(split.inputs))
    index = np.unique(np.linspace(0, total - 1, min(samples, total)).round().astype(int))
    first = codec.layout(split.inputs).dims[0]
    return Split(split.truth.isel({first: index}).load(), split.inputs.isel({first: index}).load())


def called(bundle: Bundle, steps: int) -> str:
    """What the report calls a model."""
    if bundle.role == "baseline":
        name = bundle.network_class.rsplit(".", 1)[-1]
        return f"{'U-Net' if name == 'UNet' else name} regression"
    return f"{bundle.role}, {steps} step{'s' if steps > 1 else ''}"


def ensemble(
    bundle: Bundle, name: str, split: Split, members: int, seed: int, steps: int, batch: int, path: Path
) -> xr.Dataset:
    """One bundle's samples archive: the one at `path` if it is the same, or sampled now."""
    attrs = bundle.attributes(members=members, seed=seed, steps=steps, batch=batch)
    done = 0
    with progress(name, len(bundle.codec.samples(split.inputs)) * members, "fields") as advance:

        def count(n: int) -> None:
            nonlocal done
            done += n
            advance(done, "")

        blocks = bundle.blocks(split.inputs, members, seed=seed, steps=steps, batch=batch, progress=count)
        return archive(path, bundle, split, members, attrs, blocks)


def archive(
    path: Path, bundle: Bundle, split: Split, members: int, attrs: Mapping[str, Any],
    blocks: Iterator[tuple[int, np.ndarray]],
) -> xr.Dataset:  # fmt: skip
    """Write blocks into a samples archive and open it; one with the same samples and attributes is kept."""
    layout, names = bundle.codec.layout(split.inputs), list(bundle.codec.variables)
    samples, *space = (layout.coords.sizes[d] for d in layout.dims)
    block, group = extent(samples, members, 4 * len(names) * math.prod(space), 0, together=True)
    store = EnsembleStore(
        path, layout.coords, bundle.codec.variables, range(members), layout.dims,
        identity={**attrs, "samples": fingerprint(split.inputs)}, attrs=attrs, dtypes=bundle.codec.dtypes,
        block=block, group=group, overwrite=True,
    )  # fmt: skip
    if store.left():
        for item, whole in zip(store.items, regrouped(blocks, [i.stop for i in store.items]), strict=True):
            store.write(item, {n: whole[:, :, c] for c, n in enumerate(names)})
    store.finish()
    return xr.open_zarr(path)


def regrouped(blocks: Iterator[tuple[int, np.ndarray]], ends: Sequence[int]) -> Iterator[np.ndarray]:
    """Consecutive blocks of samples as blocks that end at these positions."""
    held: list[np.ndarray] = []
    start = 0
    for end in ends:
        while sum(len(b) for b in held) < end - start:
            held.append(next(blocks)[1])
        whole = np.concatenate(held)
        yield whole[: end - start]
        held, start = [whole[end - start :]], end


def publish(
    domain: Domain, report: xr.Dataset, truth: xr.Dataset, ensembles: Mapping[str, xr.Dataset], folder: Path, *,
    provenance: dict[str, Any], logs: Sequence[Path] = (), speeds: dict[str, float] | None = None,
    known: dict[str, Any] | None = None, facts: Mapping[str, Any] | None = None,
    ledger: tuple[str, Mapping[str, Ledger]] | None = None,
) -> Path:  # fmt: skip
    """Table in the terminal, metrics.json, figures and report.html; returns the path of the page.

    Args:
        domain: the field.
        report: of its `evaluate`.
        truth: of the test samples.
        ensembles: archives by contender.
        folder: where all is written.
        provenance: what it takes to do it again; `command` is shown as one.
        logs: training.csv of stages.
        speeds: of `speed`.
        known: numbers of the exact law.
        facts: what was fitted on what.
        ledger: of a student's spread: its name, and ledgers by variable.
    """
    console = Console()
    tables, verdict = list(domain.tables(report)), domain.verdict(report)
    if speeds:
        calls = int(speeds["calls"])
        who = "One student call is" if calls == 1 else f"{calls} student calls are"
        verdict += (
            f" {who} {speeds['network']:.1f} times as fast as sampling the teacher, counting the network alone, and"
            f" {speeds['end_to_end']:.1f} times end to end (conditions, noise, writing)."
        )
    if ledger:
        tables.append(ledger_plot.table(*ledger))
    for table in tables:
        console.print(table)
    console.print(verdict, markup=False)
    provenance = provenance | {"versions": ", ".join(f"{k} {v}" for k, v in versions().items())}
    summary, pictures = domain.quality(report), folder / "figures"
    failures = domain.failures(report, truth, ensembles, pictures)
    numbers = {
        "verdict": verdict, "quality": as_json(summary), "models": domain.to_json(report), "speed": speeds,
        "known": known, "ledger": {k: v.to_json() for k, v in ledger[1].items()} if ledger else None,
        "worst": [caption for caption, _ in failures], "provenance": {**(facts or {}), **provenance},
    }  # fmt: skip
    write(folder / "metrics.json", json.dumps(numbers, indent=1, default=str))
    chapters = [("Truth and ensembles", domain.figures(report, truth, ensembles, pictures))]
    if ledger:
        chapters.append(("Where the spread comes from", [ledger_plot.figure(ledger[1], pictures / "ledger.png")]))
    chapters.append(("Failure cases", failures))
    if logs:
        chapters.append(("Training", [_curves(logs, pictures / "training.png")]))
    return write_report(
        folder / "report.html", title=f"scigen: {domain.name}", verdict=verdict, main=main_table(summary, report),
        tables=tables, facts=facts, chapters=[(name, figures) for name, figures in chapters if figures],
        command=provenance.pop("command", None), provenance=provenance,
    )  # fmt: skip


def _curves(logs: Sequence[Path], path: Path) -> tuple[str, Path]:
    """Training losses, a panel a stage: (caption, path)."""
    with canvas(3.6 * len(logs), 2.6) as figure:
        for ax, log_file in zip(figure.subplots(1, len(logs), squeeze=False)[0], logs, strict=True):
            training_curves(ax, log_file)
            ax.set_title(log_file.parent.name.rsplit("-", 1)[0])
        return "Training losses.", save(figure, path)
