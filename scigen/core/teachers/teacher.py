"""What is known of a teacher from elsewhere before it meets data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scigen.core.teachers.converted import Converted
from scigen.errors import UserError


@dataclass(frozen=True)
class Teacher:
    """A network with what its files say.

    Attributes:
        kind: what it is, for people.
        network: in the place of EDM's F.
        network_class: its dotted name.
        network_args: what it was built with, JSON types.
        sigmas: smallest and largest level that it knows.
        predicts: what its own network predicts.
        schedule: on which schedule.
        stored: whether bundles may hold it; a function of the user's own stays where it is.
        facts: more that is known, for people.
    """

    kind: str
    network: Converted
    network_class: str
    network_args: dict[str, Any]
    sigmas: tuple[float, float]
    predicts: str
    schedule: str
    stored: bool = True
    facts: dict[str, Any] = field(default_factory=dict)


def levels(words: Mapping[str, Any], known: tuple[float, float], what: str = "teacher") -> tuple[float, float]:
    """Smallest and largest level: `sigma_min` and `sigma_max` of some words, else what is known.

    Args:
        words: numbers, None or nothing.
        known: what they are by default.
        what: has the words, for messages.

    Raises:
        UserError: unless they are finite numbers 0 < sigma_min < sigma_max.
    """
    low, high = (
        v if words.get(k) is None else words[k] for k, v in zip(("sigma_min", "sigma_max"), known, strict=True)
    )
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high)) or not (
        0 < low < high < math.inf
    ):
        raise UserError(f"{what}: sigma_min={low!r} and sigma_max={high!r} are no range of noise levels.")
    return float(low), float(high)
