"""Drawing all contenders on the same samples with the same noise, judging them, writing the report."""

import json
import logging
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from rich.console import Console

from scigen.core import sample
from scigen.core.bundle import Bundle
from scigen.core.domain import Data, Domain, Split
from scigen.io.write import SampleWriter
from scigen.plots.panels import training_curves
from scigen.plots.report import write_report
from scigen.plots.style import canvas, save
from scigen.workflows.folder import write
from scigen.workflows.progress import progress

log = logging.getLogger(__name__)


def judge(
    domain: Domain,
    data: Data,
    teacher: Bundle,
    student: Bundle,
    folder: Path,
    *,
    samples: int,
    members: int,
    seed: int,
    batch: int,
) -> Path:
    """Sample the exact law, teacher, teacher at the student's calls, student and baselines; judge; write the report.

    Returns:
        Path of report.html; metrics.json lies beside it.
    """
    codec = student.codec
    total = len(codec.samples(data.test.inputs))
    index = np.unique(np.linspace(0, total - 1, min(samples, total)).round().astype(int))
    split = Split(data.test.truth.isel(time=index), data.test.inputs.isel(time=index))
    ensembles: dict[str, xr.Dataset] = {}
    exact = domain.exact(codec, split, members, seed)
    if exact is not None:
        attrs = {"scigen_role": "exact", "scigen_nfe": 0}
        ensembles["exact law"] = _archive(folder / "samples" / "exact.zarr", student, split, members, attrs, exact)
    calls = range(1, len(student.sampling.sigmas) + 1)
    runs = [(teacher, len(teacher.sampling.sigmas))] + [(b, n) for n in calls for b in (teacher, student)]
    for bundle, steps in runs:
        name = f"{bundle.role}, {steps} step{'s' if steps > 1 else ''}"
        ensembles[name] = _ensemble(bundle, name, split, members, seed, steps, batch, folder)
    for name, ds in domain.baselines(codec, split).items():
        ensembles[name] = ds.assign_attrs(scigen_role="baseline", scigen_nfe=0)
    report = domain.evaluate(split.truth, ensembles, codec)
    speeds = speed(teacher, student, split, members, batch, seed)
    return publish(
        domain, report, split.truth, ensembles, folder, training=[folder.parent / "teacher" / "training.csv", folder / "training.csv"],
        provenance={
            "data": data.source, "samples × members": f"{len(index)} × {members}", "teacher": repr(teacher), "student": repr(student),
            "student trained in": f"{student.provenance.get('training_seconds', float('nan')):.0f} s",
            "threads": torch.get_num_threads(),
        },
        speeds=speeds, known=domain.known(codec, split),
    )  # fmt: skip


def _ensemble(
    bundle: Bundle, name: str, split: Split, members: int, seed: int, steps: int, batch: int, folder: Path
) -> xr.Dataset:
    """One contender's archive: the one that is there if it is the same, or sampled now."""
    home = folder.parent if bundle.role == "teacher" else folder
    path = home / "samples" / f"{name.replace(', ', '-').replace(' ', '-')}-{bundle.sampling.sampler}.zarr"
    attrs = bundle.attributes(members=members, seed=seed, steps=steps, batch=batch)
    total = len(bundle.codec.samples(split.inputs)) * members
    done = 0
    with progress(name, total, "fields") as advance:

        def count(n: int) -> None:
            nonlocal done
            done += n
            advance(done, "")

        blocks = bundle.blocks(split.inputs, members, seed=seed, steps=steps, batch=batch, progress=count)
        return _archive(path, bundle, split, members, attrs, blocks)


def _archive(
    path: Path, bundle: Bundle, split: Split, members: int, attrs: dict[str, Any], blocks: Iterator[tuple[int, np.ndarray]]
) -> xr.Dataset:
    """Write blocks into a samples archive and open it; an archive of the same samples and attributes is kept."""
    layout = bundle.codec.layout(split.inputs)
    if path.exists():
        found = xr.open_zarr(path)
        if all(found.attrs.get(k) == v for k, v in attrs.items()) and np.array_equal(found[layout.dims[0]], layout.coords[layout.dims[0]]):
            return found
        found.close()
    names = list(bundle.codec.variables)
    with SampleWriter(path, layout.coords, bundle.codec.variables, members, layout.dims, attrs=attrs, overwrite=True) as writer:
        for start, block in blocks:
            writer.write(start, {n: block[:, :, c] for c, n in enumerate(names)})
    return xr.open_zarr(path)


def speed(teacher: Bundle, student: Bundle, split: Split, members: int, batch: int, seed: int) -> dict[str, float]:
    """Teacher over student, measured in one run: the network's calls alone, and end to end with conditions, noise and writing."""
    codec = teacher.codec
    times = max(1, min(batch // members, len(codec.samples(split.inputs))))
    inputs = split.inputs.isel(time=slice(0, times))
    condition = {k: v[torch.arange(batch) % times] for k, v in codec.condition(inputs, slice(None)).items()}
    device = next(teacher.network.parameters()).device
    condition = {k: v.to(device) for k, v in condition.items()}
    x = torch.randn(batch, *codec.shape, generator=torch.Generator().manual_seed(seed)).to(device)

    def network(bundle: Bundle) -> None:
        grid = bundle.sampling.grid(1 if bundle is student else None)
        solver = sample.few_step if bundle is student else getattr(sample, bundle.sampling.sampler)
        with torch.inference_mode():
            solver(bundle.denoiser, grid[0] * x, grid, condition)

    def whole(bundle: Bundle) -> None:
        with tempfile.TemporaryDirectory() as place:
            steps = 1 if bundle is student else None
            blocks = bundle.blocks(inputs, batch // times, seed=seed, steps=steps, batch=batch)
            _archive(Path(place) / "speed.zarr", bundle, Split(split.truth, inputs), batch // times, {}, blocks)

    def seconds(work: Any, bundle: Bundle, repeats: int) -> float:
        spent = []
        for _ in range(repeats):
            began = time.perf_counter()
            work(bundle)
            if device.type == "cuda":
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - began)
        return min(spent)

    network(student)
    whole(student)
    return {
        "network": seconds(network, teacher, 2) / seconds(network, student, 10),
        "end_to_end": seconds(whole, teacher, 2) / seconds(whole, student, 10),
        "student_fields_per_second": batch / seconds(whole, student, 5),
    }


def publish(
    domain: Domain,
    report: xr.Dataset,
    truth: xr.Dataset,
    ensembles: dict[str, xr.Dataset],
    folder: Path,
    *,
    provenance: dict[str, Any],
    training: list[Path] | None = None,
    speeds: dict[str, float] | None = None,
    known: dict[str, Any] | None = None,
) -> Path:
    """Table in the terminal, metrics.json, figures and report.html; returns the path of the page."""
    figures = domain.figures(report, truth, ensembles, folder / "figures")
    curves = [p for p in training or [] if p.exists()]
    if curves:
        figures.append(_curves(curves, folder / "figures" / "training.png"))
    tables = domain.tables(report)
    console = Console()
    for table in tables:
        console.print(table)
    verdict = domain.verdict(report)
    console.print(verdict)
    if speeds:
        line = (
            f"One student call is {speeds['network']:.1f} times as fast as the teacher's sampling counting the network alone,"
            f" {speeds['end_to_end']:.1f} times end to end (conditions, noise, writing)."
        )
        console.print(line)
        verdict = f"{verdict} {line}"
    metrics = {"models": domain.to_json(report), "speed": speeds, "known": known, "provenance": provenance}
    write(folder / "metrics.json", json.dumps(metrics, indent=1, default=str))
    provenance = provenance | {"scigen": version("scigen")}
    page = folder / "report.html"
    write_report(page, title=f"scigen: {domain.name}", verdict=verdict, tables=tables, figures=figures, provenance=provenance)
    return page


def _curves(logs: list[Path], path: Path) -> tuple[str, Path]:
    """Training losses, a panel a stage: (caption, path)."""
    with canvas(3.6 * len(logs), 2.6) as figure:
        for ax, log_file in zip(figure.subplots(1, len(logs), squeeze=False)[0], logs, strict=True):
            training_curves(ax, log_file)
            ax.set_title("student" if len(logs) > 1 and log_file is logs[-1] else "teacher")
        return "Training loss of teacher and student.", save(figure, path)
