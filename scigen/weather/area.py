"""Areas of grid cells, and the area-weighted means that need them."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

Array = NDArray[np.float64]


def latitude(ds: xr.Dataset, dims: tuple[str, str]) -> xr.DataArray | None:
    """The 1-D latitude [degrees_north] along one of the two space dimensions, None where there is none.

    It is known by its `standard_name` or by its name, `latitude` or `lat`.
    """
    for name, coordinate in ds.coords.items():
        known = coordinate.attrs.get("standard_name") == "latitude" or str(name).lower() in ("latitude", "lat")
        if known and coordinate.ndim == 1 and coordinate.dims[0] in dims:
            return coordinate
    return None


def cell_weights(ds: xr.Dataset, dims: tuple[str, str]) -> Array:
    """Relative areas of the cells, mean one: cos(latitude) on latitude–longitude grids, else uniform.

    Args:
        ds: has the coordinates.
        dims: names of (Y, X).

    Returns:
        (Y, X), dimensionless.
    """
    shape = tuple(ds.sizes[d] for d in dims)
    lat = latitude(ds, dims)
    if lat is None:
        return np.ones(shape)
    cosine = np.clip(np.cos(np.deg2rad(lat.values.astype(np.float64))), 0.0, None)
    along = 0 if lat.dims[0] == dims[0] else 1
    weights = np.broadcast_to(np.expand_dims(cosine, 1 - along), shape)
    return weights / weights.mean()


def block_means(field: Array, weights: Array, factor: int) -> tuple[Array, Array]:
    """A x: area-weighted means over blocks of factor × factor cells, counted from the first row and column.

    Rows and columns at the end that fill no block are left out.

    Args:
        field: (…, Y, X) [units].
        weights: (Y, X).
        factor: cells a block along each side, at most the shorter side.

    Returns:
        (means (…, Y // factor, X // factor) [units], weights of the blocks, mean one).
    """
    y, x = (n // factor for n in weights.shape)
    cut = (..., slice(y * factor), slice(x * factor))

    def total(values: Array) -> Array:
        cells = values[cut]
        return cells.reshape(*cells.shape[:-2], y, factor, x, factor).sum((-3, -1))

    area = total(weights)
    return total(field * weights) / area, area / area.mean()
