"""Generators of others on the bench: a callable, or a file of samples made for the exported conditions."""

import importlib
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scigen.core.bench.scores import TestSet
from scigen.core.methods.base import repeat
from scigen.errors import UserError


def export(test: TestSet, path: Path, draws: int, seed: int) -> Path:
    """Write what another library needs to take part in a task, an .npz of float32 arrays.

    Args:
        test: its task, and conditions and noise to answer; its truths stay here.
        path: of the file.
        draws: training samples.
        seed: of them.

    Returns:
        The path. The arrays: `train_x` (draws, n) and `train_scalars` (draws, K); `noise` (S, M, n) of unit variance,
        `scalars` (S, K); `sigma_min`, `sigma_max`. K may be 0.
    """
    task = test.task
    batch = task.draw(draws, torch.Generator().manual_seed(seed))
    scalars = [
        c.get("scalars", torch.empty(n, 0)).float().numpy()
        for c, n in ((batch.condition, draws), (test.condition, len(test.truth)))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path, train_x=batch.x.numpy(), train_scalars=scalars[0], noise=test.noise.numpy(), scalars=scalars[1],
        sigma_min=np.float32(task.sigma_min), sigma_max=np.float32(task.sigma_max),
    )  # fmt: skip
    return path


def samples(name: str, source: str, test: TestSet) -> Tensor:
    """Samples (S, M, n) of an external generator for a test set.

    Args:
        name: what it is called, for messages.
        source: "file.npz" with an array (S, M, n) named after each task, or "module:function": a callable
            f(noise (B, n) float32, condition) → samples (B, n), tensors or arrays, with condition {} or
            {"scalars": (B, K)}.
        test: conditions and noise.

    Raises:
        UserError: for what is missing, of another shape, or not finite.
    """
    found = _read(name, source, test.task.name) if source.endswith(".npz") else _call(name, source, test)
    if tuple(found.shape) != tuple(test.noise.shape):
        raise UserError(
            f"external.{name}={source} gives {test.task.name} samples of the shape {tuple(found.shape)}; expected"
            f" {tuple(test.noise.shape)}: conditions, members, coefficients."
        )
    if not torch.isfinite(found).all():
        raise UserError(f"external.{name}={source} gives {test.task.name} samples that are not finite.")
    return found


def _read(name: str, source: str, task: str) -> Tensor:
    """The array of a task from a file."""
    try:
        with np.load(source, allow_pickle=False) as file:
            if task not in file.files:
                raise UserError(
                    f"external.{name}={source} has no array {task!r}, only {', '.join(file.files) or 'none'}: add it,"
                    " or leave the task out with tasks=[…]."
                )
            return torch.from_numpy(np.asarray(file[task], np.float64))
    except FileNotFoundError as error:
        raise UserError(f"external.{name}={source}: there is no such file.") from error
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"external.{name}={source} is no .npz of plain arrays ({error}).") from error


def _call(name: str, source: str, test: TestSet) -> Tensor:
    """What a callable gives for the test's noise."""
    function = _function(name, source)
    members = test.noise.shape[1]
    condition = {k: v.float() for k, v in repeat(test.condition, members).items()}
    with torch.no_grad():
        out = torch.as_tensor(function(test.noise.flatten(0, 1), condition))
    if tuple(out.shape) != tuple(test.noise.flatten(0, 1).shape):
        raise UserError(
            f"external.{name}={source} answers noise of the shape {tuple(test.noise.flatten(0, 1).shape)} with"
            f" {tuple(out.shape)}; expected the same shape."
        )
    return out.double().reshape(test.noise.shape)


def _function(name: str, source: str) -> Callable[..., Any]:
    """The callable "module:function", looked for in the working directory as well."""
    module, colon, attribute = source.partition(":")
    if not colon or not module or not attribute:
        raise UserError(f"external.{name}={source} is neither a file.npz nor module:function.")
    sys.path.append(os.getcwd())
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"external.{name}={source} cannot be imported: {error}.") from error
    finally:
        sys.path.remove(os.getcwd())
    if not callable(function):
        raise UserError(f"external.{name}={source} is not a function.")
    return function
