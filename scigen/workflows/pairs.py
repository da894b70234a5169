"""Cached pairs of a teacher: noise by address, and the end point where its converged ODE leads."""

import json
import os
from pathlib import Path

import numpy as np
import safetensors
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

from scigen.core import sample
from scigen.core.bundle import Bundle
from scigen.core.datamodule import PairStream, pair_noise
from scigen.errors import UserError
from scigen.workflows.progress import progress


def pair_stream(
    teacher: Bundle, inputs: xr.Dataset, pairs: int, micro: int, total: int, path: Path, *, seed: int, batch: int
) -> PairStream:
    """Batches of pairs, from the cache at `path`, which is completed first.

    Args:
        teacher: with the sampler that counts as converged.
        inputs: prepared inputs of the training split.
        pairs: number of pairs, spread evenly over the samples.
        micro: pairs per micro-batch.
        total: number of micro-batches.
        path: safetensors file of end points; a partial one is gone on with.
        seed: of the noise.
        batch: rows of a compute batch.

    Raises:
        UserError: if the cache is of another teacher.
    """
    keys = teacher.codec.samples(inputs)
    places = np.floor(np.arange(pairs) * (len(keys) / pairs)).astype(int) % len(keys)
    members = np.zeros(pairs, dtype=int)
    for i in range(1, pairs):
        members[i] = members[i - 1] + 1 if places[i] == places[i - 1] else 0
    identity = json.dumps([teacher.fingerprint(), pairs, seed, batch, keys[0], keys[-1]])
    ends = _read(path, identity)
    done = len(ends)
    grid = teacher.sampling.grid()
    solver: sample.Sampler = getattr(sample, teacher.sampling.sampler)
    if done < pairs:
        parts, since = [ends] if done else [], done
        with progress("teacher's pairs", pairs, "pairs", start=done) as advance, torch.inference_mode():
            for first in range(done, pairs, batch):
                rows = np.arange(first, first + batch).clip(max=pairs - 1)
                where = places[rows]
                condition = teacher.codec.condition(inputs, where)
                noise = pair_noise(teacher.codec, [keys[i] for i in where], members[rows], seed)
                device = next(teacher.network.parameters()).device
                condition = {k: v.to(device) for k, v in condition.items()}
                x = solver(teacher.denoiser, grid[0] * noise.to(device), grid, condition).cpu()
                parts.append(x[: min(batch, pairs - first)])
                advance(min(first + batch, pairs), "")
                if first + batch - since >= 8 * batch or first + batch >= pairs:
                    _write(path, torch.cat(parts), identity)
                    since = first + batch
        ends = torch.cat(parts)
    return PairStream(teacher.codec, inputs, ends.clone(), places, members, micro, total, seed)


def _read(path: Path, identity: str) -> torch.Tensor:
    """The end points so far."""
    if not path.exists():
        return torch.empty(0)
    try:
        with safetensors.safe_open(path, framework="np") as f:
            found = (f.metadata() or {}).get("scigen_pairs")
    except safetensors.SafetensorError as error:
        raise UserError(f"The pair cache {path} is damaged ({error}): remove it.") from error
    if found != identity:
        raise UserError(
            f"The pair cache {path} belongs to another teacher, seed or data: remove it or name another run=."
        )
    return load_file(path)["ends"]


def _write(path: Path, ends: torch.Tensor, identity: str) -> None:
    """Write all end points so far, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    save_file({"ends": ends.contiguous()}, partial, metadata={"scigen_pairs": identity})
    os.replace(partial, path)
