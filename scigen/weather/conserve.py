"""Fields of rain whose block means are the coarse ones: scaled, since adding would wet what is dry."""

from torch import Tensor

from scigen.weather.operators import BlockMean

LARGEST = 10.0
"""Largest factor; beyond it a nearly dry block would become a single deluge."""


def scale_blocks(operator: BlockMean, fields: Tensor, coarse: Tensor) -> Tensor:
    """Fields at least 0 with these block means: each block times its own factor.

    Where the factor would exceed LARGEST the rest is spread evenly over the block, all of it where the block is dry.

    Args:
        operator: A.
        fields: at least 0, (B, C, Y, X).
        coarse: block means wanted, (B, C, Y/f, X/f); below 0 counts as 0.

    Returns:
        (B, C, Y, X), at least 0, A of which is `coarse`.
    """
    wanted = coarse.clamp_min(0).to(fields)
    means = operator(fields)
    factor = (wanted / means.clamp_min(1e-30)).clamp_max(LARGEST)
    return fields * operator.inverse(factor) + operator.inverse((wanted - factor * means).clamp_min(0))
