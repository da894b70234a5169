"""Specimens in miniature."""

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
