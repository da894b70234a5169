"""Cached pairs of a teacher: noise by address, and the states its converged ODE passes on the way to the end point.

They lie in the run folder, named after all that they are a function of, so that every method with the same teacher,
seed and levels shares them.
"""

import copy
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from scigen.core.bundle import Bundle
from scigen.core.datamodule import PairStream, Rows, pair_noise
from scigen.core.noise import check_levels
from scigen.core.trace import through, trace
from scigen.errors import UserError
from scigen.io.pieces import PieceArchive
from scigen.progress import progress
from scigen.workflows.folder import digest

log = logging.getLogger(__name__)

IN_MEMORY = 2**30
"""Size [bytes] up to which an archive of pairs is read whole."""


@dataclass(frozen=True)
class Pairs:
    """Which pairs, and how they are made.

    Attributes:
        teacher: with the sampler that counts as converged.
        inputs: prepared inputs of the training split.
        pairs: number of pairs, spread evenly over the samples.
        seed: of the noise.
        batch: rows of a compute batch, which is a piece of the archive.
        levels: the student's; the first is where the noise starts, states are kept at the others.
    """

    teacher: Bundle
    inputs: xr.Dataset
    pairs: int
    seed: int
    batch: int
    levels: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check sampler and levels.

        Raises:
            UserError: if the teacher's sampler is stochastic, so that noise and end point are no pair, or the student
                does not start where the teacher does, or goes where its path does not.
        """
        sampling = self.teacher.sampling
        if sampling.noises(len(sampling.sigmas)):
            raise UserError(
                f"sampler={sampling.sampler} draws noise on its way, so its end points make no pairs with where it"
                " starts: use a deterministic one, such as sampler=dpm_solver."
            )
        start = self.teacher.sampling.grid()[0]
        if self.levels and abs(check_levels(self.levels, "method.sigmas")[0] - start) > 1e-6 * start:
            raise UserError(
                f"method.sigmas={list(self.levels)}: the first level of a student that learns from pairs is its"
                f" teacher's σ_max, {start:g}."
            )
        self.grid()

    def grid(self) -> list[float]:
        """The teacher's grid, through the student's levels."""
        return through(self.teacher.sampling.grid(), self.levels[1:])

    def samples(self) -> np.ndarray:
        """Position in `inputs` of every pair, in order."""
        count = len(self.teacher.codec.samples(self.inputs))
        return np.floor(np.arange(self.pairs) * (count / self.pairs)).astype(int) % count

    def members(self) -> np.ndarray:
        """Member number of every pair: the pairs of a sample are counted from 0."""
        samples = self.samples()
        return np.arange(self.pairs) - np.searchsorted(samples, samples)

    def used(self) -> tuple[xr.Dataset, np.ndarray]:
        """Inputs of the samples that have pairs, in memory, and the position of every pair among them."""
        found, places = np.unique(self.samples(), return_inverse=True)
        return self.inputs.isel({self.teacher.codec.layout(self.inputs).dims[0]: found}).load(), places

    def identity(self) -> dict[str, Any]:
        """All that the states are a function of."""
        codec, hashed = self.teacher.codec, hashlib.sha256()
        keys = codec.samples(self.inputs)
        hashed.update("|".join(keys).encode())
        for name, value in sorted(codec.condition(self.inputs, sorted({0, len(keys) // 2, len(keys) - 1})).items()):
            hashed.update(name.encode() + value.contiguous().numpy().tobytes())
        return {
            "teacher": self.teacher.fingerprint(), "levels": list(self.levels[1:]), "pairs": self.pairs,
            "seed": self.seed, "batch": self.batch, "data": hashed.hexdigest()[:16],
        }  # fmt: skip

    def archive(self, run: Path) -> PieceArchive:
        """The archive of these pairs in a run folder."""
        identity = self.identity()
        shape = self.teacher.codec.shape
        space = ("z", "y", "x")[-len(shape[1:]) :] if shape[1:] else ()
        return PieceArchive(
            run / f"pairs-{digest(identity)}",
            (self.pairs, max(len(self.levels), 1), *shape),
            ("pair", "level", "channel", *space),
            self.batch,
            identity,
            {
                "sigma": ("level", np.array([*self.levels[1:], 0.0])),
                "sample": ("pair", self.samples()),
                "member": ("pair", self.members()),
            },
        )

    def maker(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function from positions of pairs to their states (n, K, C, *S), computed on `batch` rows, padded."""
        (inputs, samples), members, grid = self.used(), self.members(), self.grid()
        codec, keys = self.teacher.codec, self.teacher.codec.samples(inputs)
        device = next(self.teacher.network.parameters()).device

        def make(rows: np.ndarray) -> np.ndarray:
            padded = np.concatenate([rows, np.full(self.batch - len(rows), rows[-1])])
            where = samples[padded]
            condition = {k: v.to(device) for k, v in codec.condition(inputs, where).items()}
            x = grid[0] * pair_noise(codec, [keys[i] for i in where], members[padded], self.seed).to(device)
            with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
                end, states = trace(
                    self.teacher.sampling.run, self.teacher.denoiser, x, grid, condition, self.levels[1:]
                )
            return torch.stack([*states, end], 1)[: len(rows)].cpu().numpy()

        return make


def pair_stream(
    teacher: Bundle,
    inputs: xr.Dataset,
    pairs: int,
    micro: int,
    total: int,
    path: Path,
    *,
    seed: int,
    batch: int,
    levels: Sequence[float] = (),
    workers: int = 1,
) -> PairStream:
    """Batches of pairs from their archive in a run folder, which is completed first.

    Any number of processes may complete it at once. What is there is kept, whatever was killed; on the same device and
    number of threads per process the rest is bit-identical to what an undisturbed run gives.

    Args:
        teacher: with the sampler that counts as converged.
        inputs: prepared inputs of the training split.
        pairs: number of pairs, spread evenly over the samples.
        micro: pairs per micro-batch.
        total: number of micro-batches.
        path: the run folder.
        seed: of the noise.
        batch: rows of a compute batch.
        levels: the student's levels, the first of them the teacher's σ_max; states are kept at the others.
        workers: processes that make pairs; they share torch's threads.

    Raises:
        UserError: if the levels do not fit the teacher, the archive is damaged, or the disk is full.
    """
    plan = Pairs(teacher, inputs, pairs, seed, batch, tuple(levels))
    archive = plan.archive(path)
    left = len(archive.left())
    if left:
        _fill(plan, archive, path, max(1, min(workers, left)))
    else:
        log.info("pairs: made before, %s", archive.store)
    states: Rows = archive.array[:] if archive.size < IN_MEMORY else archive.array
    few, samples = plan.used()
    return PairStream(teacher.codec, few, states, samples, plan.members(), micro, total, seed)


def _fill(plan: Pairs, archive: PieceArchive, run: Path, workers: int) -> None:
    """Complete an archive with this process and workers − 1 more."""
    threads = torch.get_num_threads()
    share = max(1, threads // workers)
    device = str(next(plan.teacher.network.parameters()).device)
    portable = replace(plan, teacher=copy.deepcopy(plan.teacher).to(torch.device("cpu"))) if workers > 1 else plan
    context = get_context("spawn")
    helpers = [
        context.Process(target=_help, args=(portable, run, device, share), daemon=True) for _ in range(workers - 1)
    ]
    start = plan.pairs - sum(len(archive.rows(i)) for i in archive.left())
    try:
        torch.set_num_threads(share)
        for helper in helpers:
            helper.start()
        with progress("teacher's pairs", plan.pairs, "pairs", start=start) as advance:
            archive.fill(plan.maker(), lambda done: advance(done, ""))
    finally:
        torch.set_num_threads(threads)
        for helper in helpers:
            helper.terminate()
            helper.join()


def _help(plan: Pairs, run: Path, device: str, threads: int) -> None:
    """What a worker does. What it fails at is left to the process that waits for it, which then says why."""
    torch.set_num_threads(threads)
    plan.teacher.to(torch.device(device))
    plan.archive(run).fill(plan.maker())
