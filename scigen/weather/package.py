"""The codec of a CorrDiff package on a pair of archives: its statistics, its fixed fields and its mean instead of ours.

The base that the codec interpolates is taken away again by what the mean adds, so that fields are those of the package:
mean + std (regression + residual). What both networks see are inputs interpolated by scigen, from block means or from
data.coarse.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from scigen.core.mean import ConditionalMean
from scigen.core.teachers import package as packages
from scigen.core.teachers.package import Package, Reading, Residual
from scigen.errors import UserError
from scigen.weather.physics import DownscalingCodec, Statistics
from scigen.weather.transforms import Identity

NAMES = {"u10m": "u10", "v10m": "v10", "d2m": "d2m", "mrr": "refc", "sp": "sp"}
"""Names of Earth2Studio's that are others here."""
SLACK = 0.01
"""Degrees by which cells of the two grids may lie apart."""


def adopt(package: Package, codec: DownscalingCodec) -> tuple[DownscalingCodec, Residual, dict[str, Any]]:
    """The codec, the diffusion network and its arguments.

    Args:
        package: checked.
        codec: of the data, whose variables, inputs and grid are the package's.

    Raises:
        UserError: if they are not.
    """
    outputs = _matched(list(codec.variables), package.variables["output"], "outputs", "data.variables")
    inputs = _matched(list(codec.inputs), package.variables["input"], "inputs", "data.inputs")
    if outputs != list(range(len(outputs))):
        raise UserError(
            f"The package's outputs are {package.variables['output']}, in this order: write data.variables as they are."
        )
    _same_place(package, codec)
    names = package.variables["invariants"]
    moments = package.statistics
    mean, std = moments["output"]
    coarse = np.empty((2, len(inputs)))
    coarse[:, inputs] = moments["input"]
    plain = codec.like(
        statistics=Statistics(
            coarse, np.stack([0 * std, std]), moments["invariants"] if names else None, np.stack([0 * std, std])
        ),
        static={n: package.invariants[n] for n in names}, conserve=False, mean=None,
        transforms={n: Identity() for n in (*codec.inputs, *codec.variables)},
    )  # fmt: skip
    own = list(codec.inputs)
    shared: tuple[tuple[int, float, float] | None, ...] = tuple(
        (own.index(n), float(coarse[0, own.index(n)]), float(coarse[1, own.index(n)])) if n in own else None
        for n in codec.variables
    )
    count = len(inputs)
    reading = Reading(
        tuple(inputs),
        tuple(range(2 * count, 2 * count + len(names))),
        shared,
        tuple(mean.tolist()),
        tuple(std.tolist()),
    )
    words = asdict(reading)
    regression = packages.mean(package, plain.fields, plain.scalars, words)
    kind = f"{packages.__name__}.Mean"
    args = _arguments(plain, package.networks[0][0], words)
    regression.requires_grad_(False)
    whole = plain.like(mean=ConditionalMean(regression, kind, args).eval())
    words = words | {"told": package.told}
    network = packages.residual(package, whole.fields, whole.scalars, words)
    return whole, network, _arguments(whole, package.networks[1][0], words)


def _arguments(codec: DownscalingCodec, description: Any, words: dict[str, Any]) -> dict[str, Any]:
    return dict(
        channels=codec.shape[0], condition_fields=codec.fields, condition_scalars=codec.scalars, space=2,
        description=description, reading={k: list(v) if isinstance(v, tuple) else v for k, v in words.items()},
    )  # fmt: skip


def _matched(own: list[str], theirs: Sequence[str], what: str, key: str) -> list[int]:
    """Position among our variables of each of the package's."""
    wanted = [n if n in own else NAMES.get(n, n) for n in theirs]
    if sorted(wanted) != sorted(own):
        raise UserError(
            f"The package's {what} are {list(theirs)} and the data's {own}: give {key}={{name: name in the archive}}"
            " with the package's names."
        )
    return [own.index(n) for n in wanted]


def _same_place(package: Package, codec: DownscalingCodec) -> None:
    """Refuse data on another grid than the package's."""
    shape = codec.grid.shape
    for name, field in package.invariants.items():
        if field.shape != shape:
            raise UserError(f"The package's invariant {name} is on {field.shape} cells, the data on {shape}.")
    if package.latlon is None:
        return
    if package.latlon[0].shape != shape:
        raise UserError(f"The package's grid has {package.latlon[0].shape} cells, the data {shape}.")
    own = codec.grid.latlon()
    if own is None:
        return
    apart = [np.abs(a - b) for a, b in zip(own, package.latlon, strict=True)]
    worst = max(float(apart[0].max()), float(np.minimum(apart[1] % 360, 360 - apart[1] % 360).max()))
    if worst > SLACK:
        raise UserError(
            f"The package's grid lies up to {worst:.3g}° from that of the data: its rows may run the other way, or it"
            " is of another region."
        )
