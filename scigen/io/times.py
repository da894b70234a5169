"""The step of an archive's times, and the gaps in them."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

TOLERANCE = 1.5
"""A step longer than this many usual ones is a gap, which months of 28 to 31 days are not."""


@dataclass(frozen=True)
class Gap:
    """Times that are missing.

    Attributes:
        before: the last time before it.
        after: the first time after it.
        count: how many usual steps are missing.
    """

    before: Any
    after: Any
    count: int

    def __str__(self) -> str:
        """Both ends."""
        return f"{str(self.before)[:16]} to {str(self.after)[:16]}"


def usual_step(index: pd.Index) -> pd.Timedelta | None:
    """The median step of times in order, in any calendar; None for fewer than two."""
    if len(index) < 2:
        return None
    return pd.Timedelta(pd.Series(index[1:] - index[:-1]).median())


def find_gaps(index: pd.Index) -> list[Gap]:
    """The gaps of times in order, in any calendar."""
    usual = usual_step(index)
    if usual is None or usual <= pd.Timedelta(0):
        return []
    steps = pd.TimedeltaIndex(index[1:] - index[:-1])
    return [Gap(index[i], index[i + 1], round(steps[i] / usual) - 1) for i in (steps > TOLERANCE * usual).nonzero()[0]]


def is_even(index: pd.Index) -> bool:
    """Whether every step is a whole number of usual ones."""
    usual = usual_step(index)
    if usual is None or usual <= pd.Timedelta(0):
        return False
    return bool(((pd.TimedeltaIndex(index[1:] - index[:-1]) % usual) == pd.Timedelta(0)).all())


def say_step(step: pd.Timedelta) -> str:
    """A step in words: "6 h", "1 d", "90 min"."""
    seconds = step.total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"


def say_gaps(gaps: list[Gap]) -> str:
    """Gaps in words, the first three of them with their ends."""
    shown = ", ".join(map(str, gaps[:3])) + (", …" if len(gaps) > 3 else "")
    count = sum(g.count for g in gaps)
    return f"{len(gaps)} gap{'s' * (len(gaps) > 1)} in time, {count} step{'s' * (count > 1)} missing: {shown}"
