"""Widening: the same network with more condition scalars, which it does not heed until it is trained to."""

import torch
from torch import nn

from scigen.errors import UserError


@torch.no_grad()
def widen(source: nn.Module, target: nn.Module) -> nn.Module:
    """Copy the weights of a network into one built alike, but for more condition scalars.

    Scalars enter as the last inputs of linear layers, so what the source has of a layer becomes its first columns and
    the rest is zero, as is a layer that only the target has (PhysicsNeMo's, without scalars before): whatever the new
    scalars, the last ones, are, the target gives what the source gives. Weights that the network names in `root_scaled`
    change with the number K of scalars, which it multiplies by √K.

    Args:
        source: network with K condition scalars.
        target: network of the same class with K or more; its weights are overwritten.

    Returns:
        The target.

    Raises:
        UserError: if the two differ in more than their scalars.
    """
    old, new = dict(source.named_parameters()), dict(target.named_parameters())
    grown = getattr(target, "condition_scalars", 0) - getattr(source, "condition_scalars", 0)
    if type(source) is not type(target) or grown < 0 or set(old) - set(new):
        raise UserError(
            f"A {type(source).__name__} cannot be widened into this {type(target).__name__}: both must be built alike,"
            " the second with as many condition scalars or more."
        )
    rooted = getattr(target, "root_scaled", ())
    for name, weight in new.items():
        before = old.get(name)
        if before is None:
            weight.zero_()
        elif weight.shape == before.shape:
            weight.copy_(before)
        elif weight.ndim == 2 and weight.shape == (before.shape[0], before.shape[1] + grown):
            scale = (before.shape[1] / weight.shape[1]) ** 0.5 if name in rooted else 1.0
            weight.zero_()
            weight[:, : before.shape[1]] = scale * before
        else:
            raise UserError(
                f"The network cannot be widened: {name} has the shape {tuple(before.shape)} here and"
                f" {tuple(weight.shape)} there, which {grown} more condition scalars do not explain."
            )
    target.load_state_dict({k: v for k, v in source.state_dict().items() if k not in old}, strict=False)
    return target
