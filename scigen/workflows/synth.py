"""The verb synth: make a field's default data."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console

from scigen.errors import UserError


def run(cfg: DictConfig) -> Path:
    """Write the default data; returns its path."""
    path = Path(cfg.output)
    if path.exists():
        raise UserError(f"output={path} exists already: name another, or remove it.")
    instantiate(cfg.domain, **cfg.data).synth(path)
    Console().print(f"Wrote {path}")
    return path
