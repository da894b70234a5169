"""The work items of a job: blocks of samples and members that are made, written and counted whole."""

from dataclasses import dataclass
from itertools import product

ITEM_BYTES = 2**26
"""Bytes of all variables together, uncompressed, that an item holds at most."""

ITEM_WORK = 2**25
"""Cells of a field times network calls that an item takes at most, so that a kill loses little."""


@dataclass(frozen=True)
class Item:
    """A work item: samples [start, stop) × members at positions [low, high)."""

    number: int
    start: int
    stop: int
    low: int
    high: int

    @property
    def name(self) -> str:
        """Its number in six digits, "000012"."""
        return f"{self.number:06d}"

    @property
    def fields(self) -> int:
        """Number of samples × members."""
        return (self.stop - self.start) * (self.high - self.low)


def plan(samples: int, members: int, block: int, group: int) -> list[Item]:
    """All items of a job, blocks of samples outside, groups of members inside; the last ones may be shorter.

    Raises:
        ValueError: if there is nothing to do, or items would be empty.
    """
    if min(samples, members, block, group) < 1:
        raise ValueError(f"samples={samples}, members={members}, block={block}, group={group} must be at least 1")
    corners = product(range(0, samples, block), range(0, members, group))
    return [
        Item(number, start, min(start + block, samples), low, min(low + group, members))
        for number, (start, low) in enumerate(corners)
    ]


def extent(samples: int, members: int, field_bytes: int, cell_calls: int, *, together: bool = False) -> tuple[int, int]:
    """How many samples and members an item has: members first, then samples, in parts of nearly one size.

    Args:
        samples: of the job.
        members: of the job.
        field_bytes: bytes of all variables of one sample and member.
        cell_calls: cells of a field × network calls that it takes.
        together: all members always, as in files that are joined along samples.

    Returns:
        (block, group), each at least 1.
    """
    fields = max(1, min(ITEM_BYTES // max(1, field_bytes), ITEM_WORK // max(1, cell_calls)))
    group = members if together else _even(members, fields)
    return (_even(samples, max(1, fields // group)) if group == members else 1), group


def _even(total: int, most: int) -> int:
    """The length of equal parts of a total, the last perhaps shorter, none above `most`."""
    parts = -(-total // most)
    return -(-total // parts)
