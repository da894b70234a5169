"""Which networks a bundle may name: it may run no other code."""

import importlib
from typing import Any

from scigen.errors import UserError

NETWORKS = (
    "scigen.core.networks.unet.UNet",
    "scigen.core.networks.physicsnemo.SongUNet",
    "scigen.core.networks.songunet_posembd.SongUNetPosEmbd",
    "scigen.core.networks.dhariwal.DhariwalUNet",
    "scigen.core.networks.dit.DiT",
    "scigen.core.teachers.mdlus.Checkpoint",
    "scigen.core.teachers.package.Mean",
    "scigen.core.teachers.package.Residual",
    "scigen.core.teachers.diffusers.Diffusers",
)
AUTOENCODERS = ("scigen.core.networks.autoencoder.Autoencoder",)


def construct(name: str, allowed: tuple[str, ...], what: str) -> Any:
    """The class of this dotted name.

    Raises:
        UserError: if it is not in the allow-list: a bundle may not name arbitrary code.
    """
    if name not in allowed:
        raise UserError(f"The bundle names an unknown {what} {name!r}; this scigen knows: {', '.join(allowed)}.")
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)
