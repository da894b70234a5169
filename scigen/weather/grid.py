"""Grids: where the cells lie, how large they are, and where one grid lies in another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.coordinates import horizontal_dims, with_cf_attributes
from scigen.weather.area import cell_weights

TOLERANCE = 1e-3
"""Two cells are the same if their coordinates differ by less than this share of a cell."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A rectilinear grid.

    Attributes:
        dims: names of (Y, X).
        y: coordinate of the rows, (Y,), monotonic either way [units of its attributes].
        x: coordinate of the columns, (X,), monotonic either way.
        attrs: CF attributes of both, {"y": {…}, "x": {…}}.
    """

    dims: tuple[str, str]
    y: np.ndarray
    x: np.ndarray
    attrs: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, ds: xr.Dataset) -> Self:
        """The grid of a dataset.

        Raises:
            UserError: if it has no monotonic one-dimensional coordinates of Y and X.
        """
        ds = with_cf_attributes(ds)
        dims = horizontal_dims(ds)
        for dim in dims:
            if dim not in ds.indexes or ds[dim].dtype.kind not in "fiu":
                raise UserError(
                    f"'{dim}' has no coordinate with numbers, so its cells cannot be told: give it one with "
                    f"ds.assign_coords({dim}=…), in metres on a projected grid."
                )
            steps = np.diff(ds[dim].values.astype(float))
            if not (np.isfinite(ds[dim].values).all() and (np.all(steps > 0) or np.all(steps < 0))):
                raise UserError(
                    f"The coordinate '{dim}' neither rises nor falls all along: sort it with ds.sortby('{dim}')."
                )
        y, x = (ds[d].values.astype(np.float64) for d in dims)
        return cls(dims, y, x, {k: dict(ds[d].attrs) for k, d in zip("yx", dims, strict=True)})

    @property
    def shape(self) -> tuple[int, int]:
        """Number of (rows, columns)."""
        return len(self.y), len(self.x)

    @property
    def period(self) -> tuple[float | None, float | None]:
        """360 along longitudes [degrees], None along what does not close."""
        return None, 360.0 if self.attrs["x"].get("standard_name") == "longitude" else None

    def latlon(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Latitude and longitude of every cell [degrees], (Y, X) each; None where they are not known."""
        kinds = (self.attrs["y"].get("standard_name"), self.attrs["x"].get("standard_name"))
        if kinds != ("latitude", "longitude"):
            return None
        latitude, longitude = np.meshgrid(self.y, self.x, indexing="ij")
        return latitude, longitude

    def same(self, other: "Grid") -> bool:
        """Whether the cells of another grid are these, in the same order."""
        return self.shape == other.shape and all(
            np.abs(a - b).max() <= TOLERANCE * spacing(a) for a, b in ((self.y, other.y), (self.x, other.x))
        )

    def coordinates(self) -> dict[str, tuple[str, np.ndarray, dict[str, Any]]]:
        """What `xr.Dataset(coords=…)` takes."""
        pairs = zip(self.dims, (self.y, self.x), (self.attrs["y"], self.attrs["x"]), strict=True)
        return {dim: (dim, values, dict(attrs)) for dim, values, attrs in pairs}

    def coarse(self, factor: int) -> "Grid":
        """The grid of blocks of factor × factor cells: means of the coordinates. The shape must be a multiple."""
        y, x = (v.reshape(-1, factor).mean(1) for v in (self.y, self.x))
        return Grid(self.dims, y, x, self.attrs)

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        attrs = {k: {n: _plain(v) for n, v in a.items()} for k, a in self.attrs.items()}
        return dict(dims=list(self.dims), y=self.y.tolist(), x=self.x.tolist(), attrs=attrs)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        y, x = (np.asarray(data[k], dtype=np.float64) for k in "yx")
        return cls((data["dims"][0], data["dims"][1]), y, x, data["attrs"])

    def __str__(self) -> str:
        """Size, spacing and extent in words."""
        parts = [
            f"{len(v)} {dim} from {v[0]:g} to {v[-1]:g}" + (f" by {spacing(v):g}" if len(v) > 1 else "")
            for dim, v in zip(self.dims, (self.y, self.x), strict=True)
        ]
        return " × ".join(parts)


def area_weights(y: np.ndarray, attrs: Mapping[str, Mapping[str, Any]], columns: int) -> np.ndarray:
    """Relative areas of the cells, mean one: cos(latitude) where the rows are latitudes, else uniform.

    Args:
        y: coordinate of the rows, (Y,).
        attrs: of a `Grid`.
        columns: number X.

    Returns:
        (Y, X), dimensionless.
    """
    cells = xr.Dataset(coords={"rows": ("rows", y, dict(attrs["y"])), "columns": np.arange(columns)})
    return cell_weights(cells, ("rows", "columns"))


@dataclass(frozen=True, eq=False)
class Fit:
    """How a grid fits into another one.

    Attributes:
        rows: position in the larger grid of each row of the smaller one, consecutive either way.
        columns: the same of the columns; they may run across the end where longitudes close.
    """

    rows: np.ndarray
    columns: np.ndarray

    def take(self, ds: xr.Dataset, grid: Grid) -> xr.Dataset:
        """The cells of `grid` out of a dataset, in its order and with its coordinates and names."""
        own = horizontal_dims(ds)
        ds = ds.isel({d: _slice(p) for d, p in zip(own, (self.rows, self.columns), strict=True)})
        return ds.rename({a: b for a, b in zip(own, grid.dims, strict=True) if a != b}).assign_coords(
            grid.coordinates()
        )


def fit(have: Grid, want: Grid, cell: tuple[float, float]) -> Fit | None:
    """Where the cells of `want` lie in `have`, either order of rows, either longitude convention.

    Args:
        have: the larger grid, or the same.
        want: the smaller grid.
        cell: spacing of the cells, which tolerances refer to, along (Y, X).

    Returns:
        None unless all cells are there as neighbours of each other.
    """
    period = want.period if have.period == want.period else (None, None)
    rows = _match(have.y, want.y, cell[0], period[0])
    columns = _match(have.x, want.x, cell[1], period[1])
    return None if rows is None or columns is None else Fit(rows, columns)


def spacing(values: np.ndarray) -> float:
    """Typical distance between neighbours; 1 for a single cell."""
    return float(np.median(np.abs(np.diff(values)))) if len(values) > 1 else 1.0


def _match(have: np.ndarray, want: np.ndarray, cell: float, period: float | None) -> np.ndarray | None:
    """Positions in `have` of the values of `want`, None unless each is there and they are neighbours."""
    if len(have) < len(want) or (len(want) == 1 < len(have) and abs(spacing(have) - cell) > 0.01 * cell):
        return None
    apart = want[:, None] - have[None, :]
    if period:
        apart -= period * np.round(apart / period)
    places = np.abs(apart).argmin(1)
    near = np.abs(apart[np.arange(len(want)), places]).max() <= TOLERANCE * cell
    steps = np.diff(places)
    if period:
        steps = (steps + 1) % len(have) - 1  # −1 stays, the way across the end becomes 1
    neighbours = np.all(steps == 1) or np.all(steps == -1)
    return places if near and neighbours else None


def _slice(places: np.ndarray) -> slice | np.ndarray:
    """Consecutive positions as a slice, which reads no more than it must; positions across the end as they are."""
    steps = np.diff(places)
    if len(places) == 1 or np.all(steps == 1):
        return slice(int(places[0]), int(places[-1]) + 1)
    if np.all(steps == -1):
        return slice(int(places[0]), int(places[-1]) - 1 if places[-1] > 0 else None, -1)
    return places


def _plain(value: Any) -> Any:
    """An attribute as a JSON type."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value
