"""What of an archive and of an ensemble a command asks for: times, members, variables, a share of the items."""

from collections.abc import Sequence
from typing import Any

import xarray as xr

from scigen.core.codec import Codec
from scigen.errors import UserError
from scigen.io.plan import Item


def select_time(inputs: xr.Dataset, span: str | None) -> xr.Dataset:
    """The part of prepared inputs within first:last, or first/last where minutes are told (ISO 8601).

    Raises:
        UserError: if the span cannot be read or holds no sample.
    """
    if span is None:
        return inputs
    first, mark, last = str(span).partition("/" if "/" in str(span) else ":")
    time = str(next(iter(inputs.data_vars.values())).dims[0])
    try:
        part = inputs.sel({time: slice(first or None, (last or None) if mark else first)})
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"time={span} is no span of times: write it as 2019-03-25:2019-03-31, or with minutes as"
            f" 2019-03-25T06:30/2019-03-25T18:30 ({error})."
        ) from error
    if not part.sizes[time]:
        found = inputs[time].values
        raise UserError(f"time={span} holds no sample; the archive goes from {found[0]} to {found[-1]}.")
    return part


def member_numbers(members: Any) -> list[int]:
    """Member numbers of members=16 (the first 16), members=16:32 (those from 16 up to 31) or members=[3,7].

    Raises:
        UserError: if it is none of these.
    """
    wrong = UserError(
        f"members={members}: expected a number, at least 1, a span such as 16:32, or a list such as [3,7]."
    )
    if isinstance(members, str):
        low, _, high = members.partition(":")
        if not (low.isdigit() and high.isdigit()):
            raise wrong
        numbers = list(range(int(low), int(high)))
    elif isinstance(members, int) and not isinstance(members, bool):
        numbers = list(range(members))
    elif isinstance(members, list) and all(isinstance(m, int) and m >= 0 for m in members):
        numbers = sorted(set(members))
    else:
        raise wrong
    if not numbers:
        raise wrong
    return numbers


def variable_names(asked: Any, codec: Codec) -> list[str]:
    """The output variables that are written.

    Raises:
        UserError: if the bundle does not make one of those asked for.
    """
    have = list(codec.variables)
    names = have if asked is None else [asked] if isinstance(asked, str) else list(asked)
    if wrong := [n for n in names if n not in have]:
        raise UserError(f"variables={wrong[0]}: this bundle makes {', '.join(have)}.")
    return [n for n in have if n in names]


def share(items: Sequence[Item], words: str | None) -> list[Item]:
    """The items of one share: those whose number is k − 1 modulo n for k/n, all for None.

    Raises:
        UserError: if the words are not k/n with 1 ≤ k ≤ n.
    """
    if words is None:
        return list(items)
    k, _, n = str(words).partition("/")
    if not (k.isdigit() and n.isdigit() and 1 <= int(k) <= int(n)):
        raise UserError(f"items={words}: expected k/n, such as 3/16 for the third of sixteen shares.")
    return [i for i in items if i.number % int(n) == int(k) - 1]
