"""Few-step diffusion students for science whose ensembles stay honest."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

    from scigen.core.bundle import Bundle

__all__ = ["__version__", "load", "open"]

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


def open(path: str | Path) -> "xr.Dataset":
    """An ensemble archive, lazily, with the accessor `.scigen` for mean, spread, quantiles, exceedance.

    Args:
        path: what `scigen sample` wrote, or any archive with a member dimension.

    Raises:
        UserError: if it does not open.
    """
    from scigen.io.ensemble import open_ensemble  # imports xarray

    return open_ensemble(path)
