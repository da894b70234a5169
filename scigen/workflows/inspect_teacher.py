"""What scigen sees in a teacher from elsewhere: its kind, its levels, its channels, its cost, its convergence."""

import time
from collections.abc import Iterator
from typing import Any

import torch

from scigen.core.denoise import Denoiser
from scigen.core.teachers.converted import Converted, probe
from scigen.core.teachers.package import GROUPS, Package
from scigen.core.teachers.teacher import Teacher
from scigen.errors import UserError
from scigen.workflows.convergence import CALLS, REFERENCE, SOLVERS, cheapest, table
from scigen.workflows.teacher import found

MEMBERS = 8
SECONDS = 60.0
"""About what the convergence table may take; teachers that are slower are not sampled."""
USUAL = 64
"""Cells a side of what is sampled, where a network takes any size and says none."""


def teacher(words: Any) -> Iterator[tuple[str, str]]:
    """Labels and words about a teacher.

    Args:
        words: as `teacher=` of `scigen fit`.

    Raises:
        UserError: if it is none, or a function, which is called where a fit meets data.
    """
    own = found(words)
    if isinstance(own, Package):
        yield from _package(own)
        network: Converted = own.diffusion()
        size = _pair(own.networks[1][0]["args"])
    elif isinstance(own, Teacher):
        yield "teacher", own.kind
        yield "predicts", f"{own.predicts} on the schedule {own.schedule}"
        for name, value in own.facts.items():
            yield name, str(value)
        network, size = own.network, _pair(own.network_args)
    else:
        raise UserError(
            f"teacher={words}: inspect reads files and folders of teachers; a function is called once when a fit meets"
            " its data."
        )
    yield "levels", f"σ ∈ [{own.sigmas[0]:.4g}, {own.sigmas[1]:.4g}], σ_data = {network.sigma_data:.4g}"
    yield (
        "channels",
        f"{network.channels}, from {network.condition_fields} condition fields and {network.condition_scalars} scalars",
    )
    parameters = sum(p.numel() for p in network.parameters())
    yield (
        "network",
        f"{parameters / 1e6:.3g} M parameters, {'only ' if network.fixed_size else ''}{size[0]} × {size[1]}",
    )
    probe(network, size, own.sigmas)
    yield from _sampled(network, size, own.sigmas)


def _package(own: Package) -> Iterator[tuple[str, str]]:
    yield "teacher", f"CorrDiff package {own.path}: mean and residual"
    for group, names in own.variables.items():
        rows = zip(names, *own.statistics[group], strict=True)
        words = ", ".join(f"{n} ({mean:.4g} ± {std:.4g})" for n, mean, std in rows)
        yield GROUPS[group].split("_")[0], words or "none"
    for key in ("solver", "sampler_type", "number_of_steps", "hr_mean_conditioning"):
        if key in own.metadata:
            yield key, str(own.metadata[key])


def _sampled(network: Converted, size: tuple[int, ...], sigmas: tuple[float, float]) -> Iterator[tuple[str, str]]:
    """Cost of a call, and the table of convergence, for a condition of zeros, which is the mean one."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(MEMBERS, network.channels, *size, generator=generator)
    condition = {
        "fields": torch.zeros(MEMBERS, network.condition_fields, *size),
        "scalars": torch.zeros(MEMBERS, network.condition_scalars),
    }
    denoiser = Denoiser(network, network.sigma_data).eval().requires_grad_(False)
    began = time.perf_counter()
    with torch.inference_mode():
        denoiser(noise, torch.full((MEMBERS,), sigmas[1]), condition)
    cost = time.perf_counter() - began
    yield "call", f"{1e3 * cost / MEMBERS:.3g} ms a member, {MEMBERS} at once, on this CPU"
    total = cost * (2 * REFERENCE[1] + len(SOLVERS) * sum(CALLS))
    if total > SECONDS:
        yield "convergence", f"not sampled: it would take {total / 60:.0f} minutes here"
        return
    rows = table(denoiser, noise, condition, sigmas, CALLS)
    yield (
        "convergence",
        f"{MEMBERS} members from the same noise, condition of zeros, against {REFERENCE[1]} levels of {REFERENCE[0]}",
    )
    for row in rows:
        mark = "converged" if row.converged else ""
        yield (
            "",
            f"{row.solver:<11} {row.calls:>3} calls  spread × {row.spread:.3f}  members off by {row.apart:.3f}  {mark}",
        )
    best = cheapest(rows)
    if best is None:
        yield "sampler", f"none has converged within {max(CALLS)} calls: give sampler.steps more"
    else:
        levels = (best.calls + 1) // 2 if best.solver == "heun" else best.calls
        yield "sampler", f"sampler={best.solver} sampler.steps={levels}"


def _pair(args: dict[str, Any]) -> tuple[int, int]:
    """Cells that a network was made for, as far as its arguments say."""
    for key in ("img_resolution", "input_size", "sample_size"):
        if args.get(key):
            size = args[key]
            return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    for key in ("description", "config", "args", "model"):
        if isinstance(args.get(key), dict):
            return _pair(args[key])
    return USUAL, USUAL
