"""The denoiser alone as a PhysicsNeMo checkpoint: EDM preconditioning around the network of a bundle.

Normalisation, measurement and sampler are not inside. Its GroupNorm computes another variance in evaluation than in
training, so what is loaded is to be left in training mode, as `from_checkpoint` gives it.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scigen.core.bundle import Bundle
from scigen.core.networks.physicsnemo import PhysicsNeMo, library
from scigen.errors import UserError

NOTES = (
    "D(x; sigma) of normalised samples: physicsnemo Module.from_checkpoint(file)(x, sigma, condition=…) with condition"
    " a TensorDict of cond_concat (fields) and cond_vec (scalars), where there are any. Leave it in training mode."
    " PhysicsNeMo's samplers return NaN at one step: give sample() its time_steps, the levels here and a 0."
)


def wrapped(bundle: Bundle) -> nn.Module:
    """The denoiser of a bundle as PhysicsNeMo's own module.

    Raises:
        UserError: for a network that is none of PhysicsNeMo's, a flow map, or fields that scigen pads.
    """
    network = bundle.network
    if not isinstance(network, PhysicsNeMo):
        name = bundle.network_class.rsplit(".", 1)[-1]
        raise UserError(f"format=mdlus holds PhysicsNeMo's networks, not {name}: use format=pt2 or onnx.")
    if bundle.two_times:
        raise UserError("format=mdlus holds denoisers, and this is a flow map, which takes two levels: use format=pt2.")
    size = bundle.codec.shape[1:]
    if any(n % m for n, m in zip(size, network.multiple, strict=True)):
        raise UserError(
            f"format=mdlus: scigen pads these fields of {size[0]} × {size[1]} to multiples of {network.multiple}, which"
            " PhysicsNeMo does not: use format=pt2."
        )
    kinds: dict[str, Any] = library()
    return kinds["EDMPreconditioner"](kinds["ConcatConditionWrapper"](network.inner), sigma_data=bundle.sigma_data)


def write(bundle: Bundle, path: Path) -> Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]:
    """Write the checkpoint; returns D as it was read again, of (x, sigma, condition).

    Raises:
        UserError: see `wrapped`, and where PhysicsNeMo cannot write here.
    """
    module: Any = wrapped(bundle)
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # PhysicsNeMo notes the commit, if there is a git
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module.save(str(path))
        except (ValueError, ImportError) as error:
            raise UserError(
                f"PhysicsNeMo cannot write {path} ({error}): it looks for a git repository with a commit around the"
                " working directory; run the command elsewhere."
            ) from error
        again = type(module).from_checkpoint(str(path))
    again.requires_grad_(False)
    network = bundle.network

    def run(x: Tensor, sigma: Tensor, condition: dict[str, Tensor]) -> Tensor:
        from tensordict import TensorDict

        own = {}
        if network.condition_fields:
            own["cond_concat"] = condition["fields"]
        if network.condition_scalars:
            own["cond_vec"] = condition["scalars"]
        return again(x, sigma, condition=TensorDict(own, batch_size=[x.shape[0]]) if own else None)

    return run


def distance(bundle: Bundle, run: Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]) -> float:
    """‖Δ‖/‖D‖ between a denoiser and that of a bundle, at the levels of its sampler, on noise."""
    draw = torch.Generator().manual_seed(0)
    levels = torch.tensor(bundle.sampling.sigmas, dtype=torch.float32)
    rows, codec = len(levels), bundle.codec
    size = codec.shape[1:]
    condition = {
        "fields": torch.randn(rows, codec.fields, *size, generator=draw),
        "scalars": torch.randn(rows, codec.scalars, generator=draw),
    }
    condition = {k: v for k, v in condition.items() if v.shape[1]}
    x = torch.randn(rows, *codec.shape, generator=draw) * levels.reshape(-1, 1, 1, 1)
    with torch.no_grad():
        wanted = bundle.inner(x, levels, condition)
        return float((run(x, levels, condition) - wanted).norm() / wanted.norm())
