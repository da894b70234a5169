"""Schedules by the names that configurations give them."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from scigen.core.teachers.schedule import Edm, RectifiedFlow, Schedule, TrigFlow
from scigen.core.teachers.table import Table
from scigen.core.teachers.variance_preserving import VpCosine, VpLinear
from scigen.errors import UserError

SCHEDULES: dict[str, type[Schedule]] = {k.kind: k for k in (Edm, VpLinear, VpCosine, RectifiedFlow, TrigFlow, Table)}


def schedule(words: str | Mapping[str, Any]) -> Schedule:
    """A schedule by its name, or by `kind` and its numbers.

    Raises:
        UserError: for an unknown one, or a number that it does not have.
    """
    own = {"kind": words} if isinstance(words, str) else dict(words)
    kind = own.pop("kind", None)
    if kind not in SCHEDULES:
        raise UserError(f"schedule={kind}: unknown; use one of {', '.join(SCHEDULES)}.")
    known = [f.name for f in fields(SCHEDULES[kind])]
    if strange := [k for k in own if k not in known]:
        raise UserError(f"schedule {kind} has no {strange[0]}; it has {', '.join(known)}.")
    try:
        own = {k: tuple(v) if isinstance(v, list) else v for k, v in own.items()}
        made = SCHEDULES[kind](**own)
        low, high = made.ends
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"schedule {kind} with {own}: {error}.") from error
    if not 0 < low < high < math.inf:
        raise UserError(f"schedule {kind} with {own}: its levels, σ ∈ [{low:g}, {high:g}], are no range.")
    return made
