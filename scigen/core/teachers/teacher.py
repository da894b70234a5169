"""What is known of a teacher from elsewhere before it meets data."""

from dataclasses import dataclass, field
from typing import Any

from scigen.core.teachers.converted import Converted


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
