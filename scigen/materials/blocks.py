"""Blocks of specimens: which go to which split, where they lie, and how they are turned and shifted to train on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scigen.errors import UserError
from scigen.materials.specimens import Specimens

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Block:
    """A part of a specimen.

    Attributes:
        specimen: its number.
        low: first voxel along z, y, x.
    """

    specimen: int
    low: tuple[int, int, int]


@dataclass(frozen=True)
class Cutting:
    """Blocks of all splits.

    Attributes:
        size: voxels along z, y, x.
        periodic: whether blocks wrap around: only where they are whole periodic specimens along an axis.
        blocks: of every split, by its name.
    """

    size: tuple[int, int, int]
    periodic: tuple[bool, bool, bool]
    blocks: dict[str, list[Block]]

    def labels(self, specimens: Specimens, block: Block) -> np.ndarray:
        """(Z, Y, X) of a block."""
        window = tuple(slice(a, a + n) for a, n in zip(block.low, self.size, strict=True))
        return specimens.volumes[block.specimen].labels[window]


def cut(
    specimens: Specimens,
    size: int | Sequence[int] | None,
    shares: Sequence[float],
    number: int,
    seed: int = 0,
) -> Cutting:
    """Cut specimens into blocks.

    Many specimens are shared out by group, so that those of one simulation stay together; few are cut across their
    longest axis into parts for training, validation and test, a block apart from each other only if there is room, and
    never overlapping.

    Args:
        specimens: to cut.
        size: of the blocks; None takes whole specimens.
        shares: of training, validation and test.
        number: training blocks to draw from specimens larger than a block; validation and test get their share.
        seed: of the order and the places.

    Raises:
        UserError: for blocks larger than a specimen, or too few groups.
    """
    shapes = sorted({v.labels.shape for v in specimens.volumes})
    if size is None and len(shapes) > 1:
        raise UserError(f"Specimens differ in size, {shapes[0]} to {shapes[-1]}: say data.block=, voxels a side.")
    sides = (size,) * 3 if isinstance(size, int) else tuple(size or shapes[0])
    if len(sides) != 3 or min(sides) < 8:
        raise UserError(f"data.block={size}: one or three numbers of at least 8 voxels.")
    for v in specimens.volumes:
        if any(n > m for n, m in zip(sides, v.labels.shape, strict=True)):
            raise UserError(f"data.block={list(sides)} is larger than {v.name}, {list(v.labels.shape)} voxels.")
    block = (int(sides[0]), int(sides[1]), int(sides[2]))
    whole = [all(v.labels.shape[a] == block[a] and v.periodic[a] for v in specimens.volumes) for a in range(3)]
    rng = np.random.default_rng([seed, 11])
    groups = sorted(set(specimens.groups))
    part = _by_group(specimens, groups, shares, rng) if len(groups) >= 10 else _by_place(specimens, block, shares)
    same = all(v.labels.shape == block for v in specimens.volumes)
    out: dict[str, list[Block]] = {}
    for name, share in zip(SPLITS, shares, strict=True):
        regions = part[name]
        if same:
            out[name] = [Block(i, (0, 0, 0)) for i, _, _ in regions]
        else:
            count = number if name == "train" else max(round(number * share / shares[0]), 16)
            out[name] = _draw(regions, block, count, rng, apart=name == "test")
    if not all(out[n] for n in ("train", "test")):
        raise UserError("There are too few specimens for a training and a test split: give more, or larger ones.")
    return Cutting(block, (whole[0], whole[1], whole[2]), out)


Region = tuple[int, tuple[int, ...], tuple[int, ...]]
"""Specimen, first voxel and number of voxels along each axis."""


def _by_group(
    specimens: Specimens, groups: Sequence[str], shares: Sequence[float], rng: np.random.Generator
) -> dict[str, list[Region]]:
    """Whole groups to splits."""
    order = rng.permutation(len(groups))
    bounds = np.round(np.cumsum(shares) / np.sum(shares) * len(groups)).astype(int)
    where = {groups[g]: SPLITS[int(np.searchsorted(bounds, k, side="right"))] for k, g in enumerate(order)}
    out: dict[str, list[Region]] = {name: [] for name in SPLITS}
    for i, (v, g) in enumerate(zip(specimens.volumes, specimens.groups, strict=True)):
        out[where[g]].append((i, (0, 0, 0), v.labels.shape))
    return out


def _by_place(specimens: Specimens, block: tuple[int, int, int], shares: Sequence[float]) -> dict[str, list[Region]]:
    """Every specimen in parts along its longest axis."""
    out: dict[str, list[Region]] = {name: [] for name in SPLITS}
    for i, v in enumerate(specimens.volumes):
        shape = v.labels.shape
        room = [n - b for n, b in zip(shape, block, strict=True)]
        axis = int(np.argmax(room))
        bounds = np.concatenate([[0], np.round(np.cumsum(shares) / np.sum(shares) * shape[axis]).astype(int)])
        # room for a block in every part that is asked for
        if shares[2] > 0 and shape[axis] - bounds[2] < block[axis]:
            bounds[2] = shape[axis] - block[axis]
        if shares[1] > 0 and bounds[2] - bounds[1] < block[axis]:
            bounds[1] = bounds[2] - block[axis]
        if bounds[1] < block[axis]:
            least = block[axis] * sum(s > 0 for s in shares)
            raise UserError(
                f"{v.name} has {shape[axis]} voxels along its longest axis, and parts for training, validation and test"
                f" take {least} with data.block={list(block)}: give smaller blocks, more specimens, or data.split with"
                " a 0 for validation."
            )
        for k, name in enumerate(SPLITS):
            low, size = [0, 0, 0], list(shape)
            low[axis], size[axis] = int(bounds[k]), int(bounds[k + 1] - bounds[k])
            if shares[k] > 0:
                out[name].append((i, tuple(low), tuple(size)))
    return out


def _draw(
    regions: Sequence[Region], block: tuple[int, int, int], count: int, rng: np.random.Generator, apart: bool
) -> list[Block]:
    """Blocks at random places of regions, by their room; `apart`: on a grid without overlap, as many as there are."""
    if apart:
        grid = [
            Block(i, (int(z), int(y), int(x)))
            for i, low, size in regions
            for z in range(low[0], low[0] + size[0] - block[0] + 1, block[0])
            for y in range(low[1], low[1] + size[1] - block[1] + 1, block[1])
            for x in range(low[2], low[2] + size[2] - block[2] + 1, block[2])
        ]
        chosen = sorted(rng.permutation(len(grid))[:count])
        return [grid[k] for k in chosen]
    if not regions:
        return []
    room = np.array([np.prod([n - b + 1 for n, b in zip(size, block, strict=True)]) for _, _, size in regions], float)
    out = []
    for r in rng.choice(len(regions), size=count, p=room / room.sum()):
        i, low, size = regions[r]
        place = [int(a + rng.integers(n - b + 1)) for a, n, b in zip(low, size, block, strict=True)]
        out.append(Block(i, (place[0], place[1], place[2])))
    return out
