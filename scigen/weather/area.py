"""Areas of grid cells, and the area-weighted means that need them."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from scigen.io.geolocation import geolocation
from scigen.weather.sphere import cell_areas

Array = NDArray[np.float64]


def latitude(ds: xr.Dataset, dims: tuple[str, str], rotated: bool = False) -> xr.DataArray | None:
    """The 1-D latitude [degrees] along one of the two space dimensions, None where there is none.

    It is known by its `standard_name` or by its name, `latitude` or `lat`; `rotated` takes that of a rotated pole too.
    """
    standard = ("latitude", "grid_latitude")[: 1 + rotated]
    for name, coordinate in ds.coords.items():
        known = coordinate.attrs.get("standard_name") in standard or str(name).lower() in ("latitude", "lat")
        if known and coordinate.ndim == 1 and coordinate.dims[0] in dims:
            return coordinate
    return None


def cell_weights(ds: xr.Dataset, dims: tuple[str, str]) -> Array:
    """Relative areas of the cells, mean one.

    - With a 1-D latitude, that of a rotated pole too: exact spherical bands between the rows, ∝ cos(latitude) where
      these are evenly spaced; a row at a pole has its half cell.
    - With other 1-D coordinates that measure something (`measured`): uniform. Such grids are projected, and their cells
      are equal in the projection, which is how their models and archives count them.
    - With 2-D latitude and longitude alone: spherical quadrilaterals.
    - Without any of these: uniform.

    Args:
        ds: has the coordinates.
        dims: names of (Y, X).

    Returns:
        (Y, X), dimensionless, positive.
    """
    shape = (ds.sizes[dims[0]], ds.sizes[dims[1]])
    lat = latitude(ds, dims, rotated=True)
    if lat is not None:
        along = 0 if lat.dims[0] == dims[0] else 1
        rows = np.expand_dims(_bands(lat.values.astype(np.float64)), 1 - along)
        weights = np.broadcast_to(rows, shape)
    elif measured(ds, dims) or min(shape) < 2 or len(centres := centres_of(ds, dims)) < 2:
        weights = np.ones(shape)
    else:
        weights = cell_areas(*centres)
    return weights / weights.mean()


def measured(ds: xr.Dataset, dims: tuple[str, str]) -> bool:
    """Whether both dimensions have numbers as coordinates that measure something, and do not just count the cells."""
    return all(
        d in ds.indexes
        and ds[d].dtype.kind in "fiu"
        and bool({"units", "standard_name"} & set(ds[d].attrs) or np.any(np.diff(ds[d].values) != 1))
        for d in dims
    )


def centres_of(ds: xr.Dataset, dims: tuple[str, str]) -> list[Array]:
    """The 2-D latitude and longitude of the cells, (Y, X) each [degrees]; empty where there are none."""
    found = geolocation(ds).values()
    return [v.transpose(*dims).values for v in found if set(v.dims) == set(dims)]


def borders(centres: Array) -> Array:
    """Borders (N + 1,) of cells midway between their centres (N,), the outer ones half a cell away; N at least 2."""
    middle = (centres[1:] + centres[:-1]) / 2
    first, last = (centres[i] - (centres[j] - centres[i]) / 2 for i, j in ((0, 1), (-1, -2)))
    return np.concatenate([[first], middle, [last]])


def _bands(rows: Array) -> Array:
    """Areas, up to a constant, of the bands around latitudes (Y,) [degrees]."""
    if len(rows) < 2:
        return np.ones(len(rows))
    return np.abs(np.diff(np.sin(np.deg2rad(borders(rows).clip(-90, 90)))))


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
