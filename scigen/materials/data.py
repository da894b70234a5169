"""Training, validation and test samples: blocks of specimens with their quantities, turned, shifted, partly told."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from scigen.core.domain import Split
from scigen.errors import UserError
from scigen.materials.blocks import Block, Cutting
from scigen.materials.diffusion import effective_diffusivities
from scigen.materials.known import UNKNOWN, random_part
from scigen.materials.quantities import DIFFUSIVITY, FRACTION, Quantity
from scigen.materials.specimens import Specimens
from scigen.materials.symmetry import group
from scigen.progress import progress

log = logging.getLogger(__name__)

GIVEN = {FRACTION: 0.85, DIFFUSIVITY: 0.6, "process": 0.4}
"""How often a kind of quantity is told in training, so that any subset may be given afterwards."""


def measure(
    specimens: Specimens, cutting: Cutting, blocks: Sequence[Block], transport: Sequence[str], cache: Path, workers: int
) -> dict[str, np.ndarray]:
    """Quantities (blocks,) of blocks by name; what takes long is kept in the cache folder."""
    count = len(specimens.phases)
    labels = np.stack([cutting.labels(specimens, b) for b in blocks])
    share = np.stack([np.bincount(v.ravel(), minlength=count) for v in labels]) / labels[0].size
    out = {f"{FRACTION}_{p}": share[:, i] for i, p in enumerate(specimens.phases)}
    numbers = [list(specimens.phases).index(p) for p in transport]
    solved = _diffusivities(labels, numbers, cutting, specimens.volumes[0].voxel_size, cache, workers)
    for i, p in enumerate(transport):
        out |= {f"{DIFFUSIVITY}_{p}_{a}": solved[:, i, k] for k, a in enumerate("zyx")}
    where = np.array([b.specimen for b in blocks])
    return out | {name: np.asarray(values, np.float64)[where] for name, values in specimens.process.items()}


def whole(specimens: Specimens, cutting: Cutting, blocks: Sequence[Block], values: dict[str, np.ndarray]) -> xr.Dataset:
    """Blocks as they are, with all their quantities: phase (specimen, z, y, x) and (specimen)."""
    labels = np.stack([cutting.labels(specimens, b) for b in blocks])
    return _dataset(labels, values, np.arange(len(blocks)), specimens, cutting)


def training(
    specimens: Specimens,
    cutting: Cutting,
    blocks: Sequence[Block],
    values: dict[str, np.ndarray],
    quantities: Sequence[Quantity],
    *,
    copies: int,
    symmetry: str,
    known: float,
    seed: int,
) -> Split:
    """Copies of blocks, each turned by a symmetry of the material and shifted where it is periodic, with questions.

    Args:
        specimens: the material.
        cutting: of its blocks.
        blocks: of the training split.
        values: their quantities.
        quantities: all there are.
        copies: of each block.
        symmetry: see `symmetry.group`.
        known: share of copies of which some voxels are told.
        seed: of all that is random.
    """
    turns = group(symmetry, cutting.size, specimens.volumes[0].voxel_size)
    total = len(blocks) * copies
    labels = np.empty((total, *cutting.size), np.uint8)
    told = np.full((total, *cutting.size), UNKNOWN, np.uint8) if known > 0 else None
    rows: dict[str, np.ndarray] = {name: np.empty(total) for name in values}
    for k in range(total):
        rng = np.random.default_rng([seed, 12, k])
        n = k % len(blocks)
        turn = turns[int(rng.integers(len(turns)))]
        own = turn.volume(cutting.labels(specimens, blocks[n]))
        shifts = [int(rng.integers(m)) if p else 0 for m, p in zip(cutting.size, cutting.periodic, strict=True)]
        labels[k] = np.roll(own, shifts, (0, 1, 2))
        row = turn.values({name: v[n] for name, v in values.items()})
        for name in values:
            rows[name][k] = row[name]
        if told is not None and rng.random() < known:
            told[k] = random_part(labels[k], rng)
    truth = _dataset(labels, rows, np.arange(total), specimens, cutting)
    inputs = ask(truth, quantities, np.random.default_rng([seed, 13]))
    if told is not None:
        inputs["known"] = (("specimen", "z", "y", "x"), told)
    return Split(truth, inputs)


def ask(truth: xr.Dataset, quantities: Sequence[Quantity], rng: np.random.Generator) -> xr.Dataset:
    """Inputs with a random subset of the quantities told, NaN for the others: how often says `GIVEN`."""
    count = truth.sizes["specimen"]
    kinds = {kind: rng.random(count) < share for kind, share in GIVEN.items()}
    out = xr.Dataset(coords={"specimen": truth["specimen"]})
    for q in quantities:
        told = kinds[q.kind] if q.kind != "process" else rng.random(count) < GIVEN["process"]
        if q.kind == DIFFUSIVITY:
            told = told | (rng.random(count) < 0.3)
        out[q.name] = ("specimen", np.where(told, truth[q.name].values, np.nan))
    return out


def tell(truth: xr.Dataset, quantities: Sequence[Quantity], given: Sequence[str]) -> xr.Dataset:
    """Inputs with these kinds, or names, of quantities told.

    Raises:
        UserError: for a word that is neither.
    """
    words = {q.kind for q in quantities} | {q.name for q in quantities}
    if unknown := [g for g in given if g not in words]:
        raise UserError(f"data.given={unknown[0]}: expected some of {', '.join(sorted(words))}.")
    out = xr.Dataset(coords={"specimen": truth["specimen"]})
    for q in quantities:
        told = q.kind in given or q.name in given
        out[q.name] = truth[q.name] if told else ("specimen", np.full(truth.sizes["specimen"], np.nan))
    return out


def _dataset(
    labels: np.ndarray, values: dict[str, np.ndarray], names: np.ndarray, specimens: Specimens, cutting: Cutting
) -> xr.Dataset:
    """Labels and quantities as an archive."""
    first = specimens.volumes[0]
    about = {
        "flag_values": np.arange(len(specimens.phases), dtype=np.uint8), "flag_meanings": " ".join(specimens.phases)
    }  # fmt: skip
    attrs = {
        "voxel_size": list(first.voxel_size), "voxel_unit": first.unit, "periodic": [int(p) for p in cutting.periodic]
    }  # fmt: skip
    out = xr.Dataset(
        {"phase": (("specimen", "z", "y", "x"), labels, about)}, coords={"specimen": names}, attrs=attrs
    )  # fmt: skip
    return out.assign({name: ("specimen", np.asarray(v, np.float64)) for name, v in values.items()})


def _diffusivities(
    labels: np.ndarray, phases: Sequence[int], cutting: Cutting, voxel_size: Sequence[float], cache: Path, workers: int
) -> np.ndarray:
    """(N, P, 3) diffusivities, from the cache if they were computed before."""
    digest = hashlib.sha256(repr((list(phases), cutting.periodic, tuple(voxel_size), labels.shape)).encode())
    digest.update(labels.tobytes())
    path = cache / f"diffusivity-{digest.hexdigest()[:16]}.npy"
    if path.exists():
        found = np.load(path, allow_pickle=False)
        if found.shape == (len(labels), len(phases), 3):
            return found
    with progress("diffusivities", len(labels), "volumes") as advance:
        out = effective_diffusivities(
            labels, phases, periodic=cutting.periodic, voxel_size=voxel_size, workers=workers,
            progress=lambda done: advance(done, ""),
        )  # fmt: skip
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npy")
    np.save(partial, out, allow_pickle=False)
    partial.replace(path)
    return out
