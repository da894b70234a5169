"""Specimens in miniature, and what the tests of several statistics measure."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from scigen.materials.physics import MicrostructureCodec
from scigen.materials.quantities import quantities


def _codec(phases: int = 2, size: int = 16, **options) -> MicrostructureCodec:
    names = ["pore", "solid", "binder", "void"][:phases]
    known = [
        q.fitted(np.linspace(0.2, 0.7, 11)) for q in quantities(names, ["pore"], ["anisotropy", "coarsening_time"])
    ]
    return MicrostructureCodec(
        (size,) * 3, names, known, **{"periodic": (True,) * 3, "mean": [1 / phases] * phases, **options}
    )


@pytest.fixture
def codec():
    return _codec


@pytest.fixture
def targets():
    """An input archive of `count` specimens with these values; what is not named is left out."""

    def make(count: int = 2, **values) -> xr.Dataset:
        data = {k: ("specimen", np.broadcast_to(np.asarray(v, float), (count,)).copy()) for k, v in values.items()}
        return xr.Dataset(data, coords={"specimen": np.arange(count)})

    return make


@pytest.fixture(scope="session")
def waves() -> np.ndarray:
    """Labels of a block without symmetry, the same everywhere, of which phase 0 stays 1e-4 off its threshold."""
    z, y, x = np.meshgrid(*(np.arange(n) / n for n in (20, 24, 28)), indexing="ij", sparse=True)
    terms = ((2, 1, 0, 0.3), (-1, 2, 1, 1.7), (1, -1, 2, 2.9), (0, 2, -2, 0.8), (3, 0, 1, 4.1), (1, 2, 3, 5.3))
    one = sum(np.cos(2 * np.pi * (a * z + b * y + c * x) + p) for a, b, c, p in terms)
    two = sum(np.cos(2 * np.pi * (a * z + b * y + c * x) + p) for c, a, b, p in terms)
    return np.where(one > 0, 0, np.where(two > 0, 1, 2))


@pytest.fixture(scope="session")
def spectrum() -> Callable[..., np.ndarray]:
    """Power of waves about a wavenumber [cycles a voxel], within a width, on the grid of the Fourier transform."""

    def ring(shape: tuple[int, ...], about: float, width: float) -> np.ndarray:
        k = np.sqrt(sum(a**2 for a in np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij", sparse=True)))
        return np.where(k > 0, np.exp(-(((k - about) / width) ** 2)), 0)

    return ring
