"""A teacher that is a function of the user's own, named by its place: package.module:function.

Its module is code that the user names on his own command line; bundles never name it, so a student distilled from it
has a network of scigen's own.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition
from scigen.core.teachers.converted import Converted, probe
from scigen.core.teachers.predictions import PREDICTIONS, Affine, affine
from scigen.core.teachers.schedule import Schedule
from scigen.core.teachers.schedules import schedule
from scigen.core.teachers.teacher import Teacher, levels
from scigen.errors import UserError

KEYS = ("call", "args", "predicts", "schedule", "sigma_data", "sigma_min", "sigma_max")


class Call(Converted):
    """A function (y, time, condition) → prediction: y (B, C, *S), time (B,), condition "fields" and "scalars"."""

    def __init__(
        self, function: Callable[..., Tensor], channels: int, condition_fields: int, condition_scalars: int,
        predicts: str, law: Schedule, sigma_data: float,
    ) -> None:  # fmt: skip
        """Wrap it; a module's weights are the network's.

        Args:
            function: of the user's own.
            channels: C.
            condition_fields: number of fields in the condition.
            condition_scalars: number of scalars.
            predicts: one of `predictions.PREDICTIONS`.
            law: on which schedule.
            sigma_data: of the data, as the codec normalises them.
        """
        super().__init__(channels, condition_fields, condition_scalars, sigma_data)
        self.function, self.predicts, self.law = function, predicts, law
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)  # says on which device it is
        self.eval()

    def affine(self, sigma: Tensor) -> Affine:
        """Of its schedule and prediction."""
        return affine(self.law, self.predicts, sigma, self.sigma_data)

    def predict(self, y: Tensor, time: Tensor, condition: Condition, scale: Tensor) -> Tensor:
        """What it returns.

        Raises:
            UserError: if that is no tensor.
        """
        own = {k: v.to(y) for k, v in condition.items() if k in ("fields", "scalars")}
        out = self.function(y, time, own)
        if not isinstance(out, Tensor):
            raise UserError(
                f"The teacher's function returns a {type(out).__name__}, not a tensor like its first input."
            )
        return out


def load(
    words: Mapping[str, Any], channels: int, condition_fields: int, condition_scalars: int, size: tuple[int, ...]
) -> Teacher:
    """A teacher from the words of a configuration, called once.

    Args:
        words: `call`, package.module:function or a class, whose objects are called and which gets `args`; `predicts`,
            one of `predictions.PREDICTIONS`; `schedule`, a name or {kind: …} with its numbers; `sigma_data` (1);
            `sigma_min`, `sigma_max`, the ends of the schedule by default.
        channels: C of the samples.
        condition_fields: number of fields in the condition.
        condition_scalars: number of scalars.
        size: cells of a sample along each axis.

    Raises:
        UserError: if it is not there, is not told enough of, or returns another shape or NaN.
    """
    if strange := [k for k in words if k not in KEYS]:
        raise UserError(f"teacher.{strange[0]} is unknown beside call; there are {', '.join(KEYS)}.")
    predicts = words.get("predicts")
    if predicts not in PREDICTIONS or "schedule" not in words:
        raise UserError(
            f"teacher.call={words['call']} needs predicts, one of {', '.join(PREDICTIONS)}, and schedule, such as edm,"
            " vp_linear or rectified_flow."
        )
    law = schedule(words["schedule"])
    sigma_data = words.get("sigma_data", 1.0)
    if not isinstance(sigma_data, int | float) or not 0 < sigma_data < math.inf:
        raise UserError(f"teacher.sigma_data={sigma_data!r} must be a positive number.")
    ends = levels(words, law.ends)
    name = str(words["call"])
    own = named(name, words.get("args"))
    network = Call(own, channels, condition_fields, condition_scalars, predicts, law, sigma_data)
    try:
        probe(network, size, ends)
    except UserError as error:
        raise UserError(f"teacher.call={name}: {error}") from error
    return Teacher(
        f"function {name}", network, name, {}, ends, predicts, law.kind, stored=False,
        facts={"schedule": law.to_dict() if law.kind != "table" else law.kind},
    )  # fmt: skip


def named(name: str, args: Mapping[str, Any] | None = None) -> Callable[..., Tensor]:
    """What a name package.module:function stands for; an object of it, where it is a class.

    Raises:
        UserError: if there is no such thing, or nothing that can be called.
    """
    module, mark, attribute = name.partition(":")
    if not mark or not module or not attribute.isidentifier():
        raise UserError(f"teacher.call={name}: expected package.module:function.")
    try:
        own: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"teacher.call={name}: {_said(error)}. Is its folder on PYTHONPATH?") from error
    except Exception as error:  # of the user's module
        raise UserError(
            f"teacher.call={name}: its module cannot be imported: {type(error).__name__}: {_said(error)}"
        ) from error
    if isinstance(own, type):
        try:
            own = own(**(args or {}))
        except Exception as error:  # of the user's code
            raise UserError(f"teacher.call={name}: it cannot be built: {_said(error)}.") from error
    elif args:
        raise UserError(f"teacher.call={name} is no class: it takes no args.")
    if not callable(own):
        raise UserError(f"teacher.call={name} is a {type(own).__name__}, which cannot be called.")
    return own


def _said(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
