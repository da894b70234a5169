"""A codec for a pair of archives, with the statistics of its training split, in one pass over it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from scigen.core.domain import Split
from scigen.core.mean import ConditionalMean
from scigen.errors import UserError
from scigen.weather.data import Grid, Pair
from scigen.weather.moments import Moments, blocks
from scigen.weather.physics import TOLD, DownscalingCodec, Statistics
from scigen.weather.transforms import Spec, transform

KEPT = ("units", "standard_name", "long_name", "original_name")
"""Attributes of variables that bundles carry."""

BLOCK_BYTES = 2**25
"""Size of a block of the pass, fine fields as the archive holds them; the work on it takes a few times as much."""


def make_codec(
    pair: Pair, train: Split, *, conserve: bool, transforms: Mapping[str, Spec] | None = None,
    features: Sequence[str] = (), regrid: str | None = None,
) -> DownscalingCodec:  # fmt: skip
    """The codec of a pair of archives, normalised by the training split.

    Args:
        pair: fine, coarse and static fields; attributes and grid are taken from them.
        train: the split.
        conserve: whether the coarse fields are exactly the block means of the fine ones.
        transforms: by variable; those not named get what suits them.
        features: see `scigen.weather.features`.
        regrid: how a coarse archive on another grid was brought to the blocks.

    Raises:
        UserError: for transforms of no variable, or a variable that does not differ from its base.
    """
    inputs, variables = ({str(n): _kept(v.attrs) for n, v in ds.data_vars.items()} for ds in (pair.coarse, pair.fine))
    if unknown := [n for n in transforms or {} if n not in inputs and n not in variables]:
        raise UserError(f"data.transforms: '{unknown[0]}' is none of the variables {list(variables)}.")
    static = {str(n): np.asarray(v.values, np.float64) for n, v in pair.static.data_vars.items()}
    raw = DownscalingCodec(
        Grid.of(pair.fine), pair.factor, variables, static, Statistics(np.stack([np.zeros(len(inputs)),
        np.ones(len(inputs))])), inputs=inputs, features=features, conserve=conserve,
        regrid=regrid,
        transforms={n: transform(t) for n, t in (transforms or {}).items()},
    )  # fmt: skip
    coarse, residual, everything = Moments(len(inputs)), Moments(len(variables)), slice(None)
    for truth, seen in blocks(train.truth, train.inputs, raw.layout(train.inputs).dims[0], BLOCK_BYTES):
        coarse.add(raw.bent(seen, everything).numpy())
        residual.add(raw.encode(truth, seen, everything).numpy())
    both = coarse.both
    both[1][both[1] == 0] = 1.0
    digits = np.finfo(np.float32).eps * np.array(
        [float(coarse.largest[list(inputs).index(n)]) if n in inputs else 0.0 for n in variables]
    )  # of what archives hold
    if (residual.std <= digits).any():
        name = list(variables)[int(np.argmin(residual.std - digits))]
        raise UserError(f"{name} does not differ from its interpolated block means: there is nothing to learn.")
    fixed = np.array([[v.mean(), v.std() or 1.0] for v in static.values()]).reshape(-1, 2).T
    return raw.like(statistics=Statistics(both, residual.both, fixed))


def residual_codec(
    codec: DownscalingCodec, mean: ConditionalMean, train: Split, told: np.ndarray
) -> tuple[DownscalingCodec, Split]:
    """The codec of what a regression network leaves, and the training split with what it predicted there.

    Args:
        codec: without a mean; the network learnt its normalised residuals.
        mean: the network for all samples but these.
        train: the training split.
        told: out-of-fold predictions of it, (samples, C, Y, X), which may lie on disk.

    Raises:
        UserError: if nothing is left to generate.
    """
    time = codec.layout(train.inputs).dims[0]
    columns = {f"{TOLD}{n}": ((time, "fine_y", "fine_x"), told[:, c]) for c, n in enumerate(codec.variables)}
    inputs = train.inputs.assign(columns)
    raw = codec.like(mean=mean, statistics=replace(codec.statistics, mean=codec.statistics.residual, residual=None))
    left = Moments(len(codec.variables))
    for truth, seen in blocks(train.truth, inputs, time, BLOCK_BYTES):
        left.add(raw.encode(truth, seen, slice(None)).numpy())
    if (left.std == 0).any():
        raise UserError(f"{list(codec.variables)[int(left.std.argmin())]}: the mean leaves nothing to generate.")
    return raw.like(statistics=replace(raw.statistics, residual=left.both)), Split(train.truth, inputs)


def _kept(attrs: Mapping[object, object]) -> dict[str, str]:
    return {str(k): str(v) for k, v in attrs.items() if k in KEPT}
