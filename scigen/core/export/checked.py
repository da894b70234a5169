"""Export that is checked: a file is read again and run beside its bundle before it takes its name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scigen.core.bundle import Bundle
from scigen.core.export import earth2studio, mdlus, onnx, pt2
from scigen.core.export.generator import TOLERANCE, Generator
from scigen.errors import UserError

FORMATS = {"pt2": ".pt2", "onnx": ".onnx", "mdlus": ".mdlus", "earth2studio": ""}
"""What can be written, and how its names end; "" is a folder."""
TRACED = 3
"""Rows that are traced."""
BATCHES = (1, 2, 5)
"""Rows that are compared with the bundle: others than were traced."""


def check_name(path: Path, form: str, overwrite: bool) -> None:
    """Refuse a format that there is not, a name that ends as another does, or one that is taken.

    Raises:
        UserError: for any of these.
    """
    if form not in FORMATS:
        raise UserError(f"format={form}: expected one of {', '.join(FORMATS)}.")
    if path.suffix != FORMATS[form]:
        what = f"files of format={form} end in {FORMATS[form]}" if FORMATS[form] else f"format={form} writes a folder"
        raise UserError(f"output={path}: {what}.")
    for there in (path, path.with_suffix(".json")) if FORMATS[form] else (path,):
        if there.exists() and not overwrite:
            raise UserError(f"{there} is there already: choose another output, or set overwrite=true.")


def export(bundle: Bundle, form: str, path: Path, steps: int | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Write a model and, beside it, what its inputs are, as JSON.

    Args:
        bundle: on the device it will run on, in its precision.
        form: one of FORMATS.
        path: of the file, whose JSON has the same name, or of the folder.
        steps: number of levels; the default if None.
        overwrite: whether what has these names may be replaced.

    Raises:
        UserError: if the model cannot be exported so, a file is there, or what was written disagrees with the bundle;
            then nothing is left.

    Returns:
        What the JSON says.
    """
    check_name(path, form, overwrite)
    half = path.with_name(f".partial-{path.name}")
    _remove(half)
    half.mkdir(parents=True)
    try:
        if form == "mdlus":
            about = _denoiser(bundle, half / path.name)
        else:
            generator = Generator(bundle, steps)
            name = path.name if FORMATS[form] else "generator.pt2"
            about = _generator(generator, onnx.write if form == "onnx" else pt2.write, half / name)
            if form == "earth2studio":
                earth2studio.write(generator, half)
        about = {"format": form} | about
        stem = path.with_suffix(".json").name if FORMATS[form] else "generator.json"
        (half / stem).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if FORMATS[form]:
            for part in half.iterdir():
                os.replace(part, path.with_name(part.name))
        else:
            _remove(path)
            os.replace(half, path)
    finally:
        _remove(half)
    return about


def compared(generator: Generator, run: Callable[[dict[str, Tensor]], Tensor]) -> float:
    """The largest distance from the bundle, over batches of other sizes than were traced.

    Raises:
        UserError: if it is beyond what rounding explains.
    """
    far, limit = 0.0, TOLERANCE[generator.bundle.precision]
    for batch in BATCHES:
        ports, wanted = generator.example(batch, seed=batch)
        with torch.no_grad():
            found = run(ports)
        if found.shape != wanted.shape:
            raise UserError(f"The exported model gives {tuple(found.shape)} instead of {tuple(wanted.shape)}.")
        far = max(far, generator.traced.distance(found.cpu(), wanted.cpu()))
    _within(far, limit)
    return far


def _generator(generator: Generator, write: Callable[..., Any], path: Path) -> dict[str, Any]:
    """A generator's file, and what its JSON says."""
    far = compared(generator, write(generator, generator.example(TRACED)[0], path))
    return {**generator.describe(), "checked": {"distance": far, "batches": list(BATCHES)}}


def _denoiser(bundle: Bundle, path: Path) -> dict[str, Any]:
    """A denoiser's checkpoint, and what its JSON says."""
    far = mdlus.distance(bundle, mdlus.write(bundle, path))
    _within(far, TOLERANCE["fp32"])
    header = bundle.header()
    return {
        **{k: header[k] for k in ("domain", "role", "sigma_data", "sampling")}, "bundle": bundle.fingerprint(),
        "calls": 1, "precision": "fp32", "inputs": [], "outputs": [], "notes": mdlus.NOTES,
        "checked": {"distance": far, "batches": [len(bundle.sampling.sigmas)]},
    }  # fmt: skip


def _within(far: float, limit: float) -> None:
    if not far <= limit:
        raise UserError(
            f"The exported model disagrees with the bundle by {far:.2g} of what varies, more than {limit:g}: nothing"
            " was written. Try another format, or another version of torch."
        )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
