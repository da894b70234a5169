"""Which parameters of a network are trained: all, or the few that shift and scale what it has learnt."""

import logging
import re

from torch import nn

from scigen.errors import UserError

log = logging.getLogger(__name__)

AFFINE = r"(^|\.)(film|affine)\."
"""Names of layers that make scales and shifts from noise level and scalars: scigen's U-Net, PhysicsNeMo's networks."""


def select(module: nn.Module, which: str) -> int:
    """Freeze what is not to be trained; returns the number of trained numbers.

    Args:
        module: a student.
        which: "all"; "affine" for biases, gains of normalisations and the layers that make scales and shifts (FiLM), as
            in Perez et al. 2018, arXiv:1709.07871, and BitFit, arXiv:2106.10199; or a regular expression of which a
            part of a parameter's name must match.

    Raises:
        UserError: if it is no regular expression, or matches nothing.
    """
    if which == "all":
        return sum(p.numel() for p in module.parameters() if p.requires_grad)
    try:
        pattern = re.compile(AFFINE if which == "affine" else which)
    except re.error as error:
        raise UserError(f"training.parameters={which}: all, affine or a regular expression ({error}).") from error
    named = list(module.named_parameters())
    for name, p in named:
        chosen = (which == "affine" and p.ndim <= 1) or pattern.search(name) is not None
        p.requires_grad_(chosen)
    counts = [sum(p.numel() for _, p in named if p.requires_grad), sum(p.numel() for _, p in named)]
    if not counts[0]:
        names = ", ".join(name for name, _ in named[:3])
        raise UserError(f"training.parameters={which} matches no parameter of the network, such as {names}.")
    if counts[0] < counts[1]:
        log.info("training.parameters=%s: %d of %d numbers are trained", which, *counts)
    return counts[0]
