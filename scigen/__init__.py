"""Few-step diffusion students for science whose ensembles stay honest."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scigen.core.bundle import Bundle

__all__ = ["__version__", "load"]

try:
    __version__ = version("scigen")
except PackageNotFoundError:  # a checkout on the path, not installed
    __version__ = "0+unknown"


def load(path: str | Path) -> "Bundle":
    """The trained model in a `.safetensors` file that `scigen fit` wrote.

    Args:
        path: the file.

    Raises:
        UserError: no such file, or not a whole scigen bundle.
    """
    from scigen.core.bundle import load as load_bundle  # imports torch

    return load_bundle(path)
