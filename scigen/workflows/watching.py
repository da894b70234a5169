"""What listens to a training beside the CSV files: Lightning's loggers for TensorBoard and for Weights & Biases."""

import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from scigen.errors import UserError

PACKAGES = {"TensorBoardLogger": "tensorboard", "WandbLogger": "wandb"}
"""Extras that bring what a logger needs, by its class."""


def logger_of(logger: Mapping[str, Any] | None, folder: Path) -> Callable[[], Logger] | None:
    """What makes the logger of a stage; None where the CSV files are enough.

    Args:
        logger: of the configuration: `_target_` and arguments; empty for none.
        folder: of the stage. A stage that goes on where it stopped goes on in the same log.

    Raises:
        UserError: if its package is not installed.
    """
    if not logger:
        return None
    kind = get_class(logger["_target_"])
    arguments = {k: v for k, v in logger.items() if k != "_target_"}
    if issubclass(kind, TensorBoardLogger):
        arguments |= {"save_dir": folder, "name": "tensorboard", "version": ""}
    elif issubclass(kind, WandbLogger):
        name = f"{folder.parent.name}-{folder.name}"
        arguments |= {"save_dir": folder, "name": name, "id": _identity(folder), "resume": "allow"}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        kind(**arguments)  # before anything is trained
    except ModuleNotFoundError as error:
        extra = PACKAGES.get(kind.__name__, error.name)
        raise UserError(f"logger={extra} needs a package: pip install 'scigen[{extra}]', or logger=csv.") from error
    return partial(kind, **arguments)


def _identity(folder: Path) -> str:
    """What the log of a stage is called at Weights & Biases: drawn once and kept, so that folders never share a log."""
    path = folder / "wandb.id"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
    return path.read_text(encoding="utf-8")
