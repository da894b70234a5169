"""Model cards beside bundles: what the bundle says of itself, what its fit measured, on which machine."""

import csv
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from scigen.core.bundle import load
from scigen.core.card import filled, markdown
from scigen.core.domain import Data, Split
from scigen.workflows.folder import write


def write_cards(bundles: Sequence[Path], judged: Mapping[Path, Path]) -> None:
    """Write card.json and card.md beside bundles.

    Args:
        bundles: their paths; what is not there is left out.
        judged: metrics.json of those that have been judged.
    """
    for path in bundles:
        if not path.exists():
            continue
        bundle = load(path)
        metrics = judged.get(path)
        content = bundle.card(json.loads(metrics.read_text()) if metrics else None)
        log_file = path.parent / ("teacher" if bundle.role == "teacher" else "") / "validation.csv"
        content["training"]["convergence"] = filled(_convergence(log_file))
        write(path.with_name("card.json"), json.dumps(content, indent=1, allow_nan=False))
        write(path.with_name("card.md"), markdown(content))


def made(data: Data) -> dict[str, Any]:
    """What a bundle says of its making beside the configuration: cohort, hardware, the command.

    Args:
        data: that it was trained on.
    """
    return {"cohort": cohort(data), "hardware": hardware(), "threads": torch.get_num_threads(), "command": command()}


def cohort(data: Data) -> dict[str, Any]:
    """Sizes and periods of the splits, variables with units, cells, licence of the archive."""
    names = {"train": data.train, "validation": data.validation, "test": data.test}
    truth, codec = data.test.truth, data.codec
    licence = next((truth.attrs[k] for k in ("license", "licence", "rights") if k in truth.attrs), None)
    return {
        "splits": {name: _split(data, split) for name, split in names.items()}, "rule": data.rule,
        "variables": {n: str(a.get("units", "")) for n, a in codec.variables.items()},
        "cells": [int(n) for n in codec.shape[1:]], "licence": None if licence is None else str(licence),
    }  # fmt: skip


def _split(data: Data, split: Split) -> dict[str, Any]:
    """How many samples, from which to which, of how many subjects or specimens."""
    keys = data.codec.samples(split.inputs)
    out: dict[str, Any] = {"samples": len(keys)}
    if len(keys):
        out |= {"first": str(keys[0]), "last": str(keys[-1])}
    who = next((c for c in ("patient", "subject") if c in split.inputs.coords), None)
    if who is not None:
        out["subjects"] = len(set(map(str, _values(split.inputs[who]))))
    return out


def _values(array: xr.DataArray) -> list[Any]:
    return list(array.values.ravel())


def hardware() -> str:
    """Processor, or accelerator, of this machine."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    return f"CPU {platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def command() -> str | None:
    """The command line of this process, if it is scigen's; None in a notebook or another program."""
    name = Path(sys.argv[0]).name
    ours = name.startswith("scigen") or Path(sys.argv[0]).parent.name == "scigen"
    return "scigen " + shlex.join(sys.argv[1:]) if ours else None


def _convergence(path: Path) -> dict[str, Any] | None:
    """What the choice of weights saw: the faults of the first, the last and the best weights."""
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    rows = [r for r in rows if "score" in r]
    if not rows:
        return None
    best = min(rows, key=lambda r: r["score"])
    return {"validation_score_first": rows[0]["score"], "last": rows[-1]["score"], "best": best["score"],
            "best_at_step": best.get("step")}  # fmt: skip
