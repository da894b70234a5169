"""A generator as a file of torch.export: `torch.export.load(path).module()` runs it, with torch alone."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from scigen.core.export.generator import Generator
from scigen.core.traced import BATCH
from scigen.errors import UserError

LARGEST = 2**16
"""Rows of a batch at most."""


def traced(generator: Generator, ports: Mapping[str, Tensor]) -> torch.export.ExportedProgram:
    """The generator as a graph that takes any number of rows.

    Args:
        generator: on the device that the graph will run on.
        ports: inputs by name, of two rows at least.

    Raises:
        UserError: if the network does not trace.
    """
    return follow(generator, ports, generator.name)


def follow(module: nn.Module, ports: Mapping[str, Tensor], name: str) -> torch.export.ExportedProgram:
    """The graph of a module that takes ports by name; `name` of the network is for messages.

    Raises:
        UserError: if it does not trace.
    """
    rows = {0: torch.export.Dim(BATCH, min=1, max=LARGEST)}
    shapes = {"inputs": {n: rows for n in ports}}
    try:
        with torch.no_grad():
            return torch.export.export(module, (dict(ports),), dynamic_shapes=shapes, strict=False)
    except UserError:
        raise
    except Exception as error:  # whatever the exporter makes of what it cannot follow
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"torch.export cannot trace this model with its network {name} ({said[0]}); sample it with scigen sample,"
            " or export another network."
        ) from error


def write(generator: Generator, ports: Mapping[str, Tensor], path: Path) -> Callable[..., Tensor]:
    """Write the file; returns what runs it as it was read again.

    Args:
        generator: to be traced.
        ports: inputs by name, of two rows at least.
        path: of the file, which ends in .pt2.

    Raises:
        UserError: if the network does not trace.
    """
    torch.export.save(traced(generator, ports), path)
    return torch.export.load(path).module()
