"""Grids: where the cells lie, how large they are, and whether they go around the globe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.coordinates import horizontal_dims, is_degrees, with_cf_attributes
from scigen.io.geolocation import UNITS, mapping_of
from scigen.weather.area import cell_weights, centres_of, measured
from scigen.weather.sphere import cell_size, degrees, distances, unit_vectors

TOLERANCE = 1e-3
"""Two cells are the same if their 1-D coordinates differ by less than this share of a cell."""

LOOSE = 1e-2
"""The same of 2-D latitudes and longitudes, which files hold in float32 and average in more than one way."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid of rows and columns: regular in latitude and longitude, rotated, projected or curvilinear.

    Attributes:
        dims: names of (Y, X).
        y: coordinate of the rows, (Y,), monotonic either way [units of its attributes].
        x: coordinate of the columns, (X,), monotonic either way.
        attrs: CF attributes of both, {"y": {…}, "x": {…}}.
        latitude: of every cell, (Y, X) [degrees_north], where it is no coordinate of the rows; None if unknown.
        longitude: of every cell, (Y, X) [degrees_east].
        mapping: (name, CF attributes) of the grid mapping; None without.
        counted: whether y and x only count the cells, which `latitude` and `longitude` then tell.
    """

    dims: tuple[str, str]
    y: np.ndarray
    x: np.ndarray
    attrs: Mapping[str, Mapping[str, Any]]
    latitude: np.ndarray | None = None
    longitude: np.ndarray | None = None
    mapping: tuple[str, Mapping[str, Any]] | None = field(default=None, kw_only=True)
    counted: bool = field(default=False, kw_only=True)

    @classmethod
    def of(cls, ds: xr.Dataset, monotonic: bool = True) -> Self:
        """The grid of a dataset.

        Args:
            ds: any dataset with two space dimensions.
            monotonic: whether to refuse coordinates that are not; longitudes may be cut anywhere.

        Raises:
            UserError: if it has neither 1-D coordinates of Y and X nor a 2-D latitude and longitude, if these are not
                finite or not monotonic, if a meridian is there twice, or latitudes lie beyond a pole.
        """
        ds = with_cf_attributes(ds)
        dims = horizontal_dims(ds)
        place = _checked(centres_of(ds, dims))
        mapping = next(((name, dict(v.attrs)) for name, v in mapping_of(ds).items()), None)
        if place and not measured(ds, dims):
            y, x = (np.arange(ds.sizes[d], dtype=np.float64) for d in dims)
            return cls(dims, y, x, {"y": {"axis": "Y"}, "x": {"axis": "X"}}, *place, mapping=mapping, counted=True)
        for dim in dims:
            if dim not in ds.indexes or ds[dim].dtype.kind not in "fiu":
                raise UserError(
                    f"'{dim}' has no coordinate with numbers, so its cells cannot be told: give it one with "
                    f"ds.assign_coords({dim}=…), in metres on a projected grid, or give both dimensions a 2-D latitude "
                    "and longitude."
                )
            steps = np.diff(ds[dim].values.astype(float))
            if monotonic and not (np.isfinite(ds[dim].values).all() and (np.all(steps > 0) or np.all(steps < 0))):
                raise UserError(
                    f"The coordinate '{dim}' neither rises nor falls all along: sort it with ds.sortby('{dim}')."
                )
        y, x = (ds[d].values.astype(np.float64) for d in dims)
        grid = cls(dims, y, x, {k: dict(ds[d].attrs) for k, d in zip("yx", dims, strict=True)}, *place, mapping=mapping)
        if is_degrees(ds[dims[0]], "latitude") and np.abs(y).max() > 90 + TOLERANCE * spacing(y):
            raise UserError(f"The latitudes {y[0]:g} to {y[-1]:g} lie beyond a pole: mend the coordinate '{dims[0]}'.")
        if monotonic and grid.period[1] and abs(x[-1] - x[0]) > 360 - spacing(x) / 2:
            raise UserError(
                f"The longitudes {x[0]:g} to {x[-1]:g} hold a meridian twice: leave the last column out, "
                f"ds.isel({dims[1]}=slice(-1))."
            )
        return grid

    @property
    def shape(self) -> tuple[int, int]:
        """Number of (rows, columns)."""
        return len(self.y), len(self.x)

    @property
    def period(self) -> tuple[float | None, float | None]:
        """360 along longitudes [degrees], None along what does not close."""
        return None, 360.0 if self.attrs["x"].get("standard_name") == "longitude" else None

    @property
    def closes(self) -> bool:
        """Whether the columns go all around the globe, so that the last one is a neighbour of the first."""
        return self.period[1] is not None and _closes(self.x)

    @property
    def falls(self) -> tuple[bool, bool]:
        """Whether (rows, columns) run to smaller coordinates: to the south, to the west."""
        if self.counted and self.latitude is not None and self.longitude is not None:
            east = (np.diff(self.longitude[:, [0, -1]]) + 180) % 360 - 180
            return bool(np.diff(self.latitude[[0, -1]], axis=0).mean() < 0), bool(east.mean() < 0)
        return self.y[0] > self.y[-1], self.x[0] > self.x[-1]

    @property
    def weights(self) -> np.ndarray:
        """Relative areas of the cells, (Y, X), mean one: see `cell_weights`."""
        return cell_weights(xr.Dataset(coords=self.coordinates()), self.dims)

    def latlon(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Latitude and longitude of every cell, (Y, X) each [degrees]; None where they are unknown."""
        if self.latitude is not None and self.longitude is not None:
            return self.latitude, self.longitude
        if [self.attrs[k].get("standard_name") for k in "yx"] == ["latitude", "longitude"]:
            return np.broadcast_to(self.y[:, None], self.shape), np.broadcast_to(self.x, self.shape)
        return None

    def points(self) -> np.ndarray | None:
        """The 2-D latitude and longitude as unit vectors (Y, X, 3); None without them."""
        if self.latitude is None or self.longitude is None:
            return None
        return unit_vectors(self.latitude, self.longitude)

    def same(self, other: "Grid") -> bool:
        """Whether the cells of another grid are these, in the same order."""
        if self.shape != other.shape:
            return False
        compared = not (self.counted or other.counted)
        if compared and any(
            np.abs(a - b).max() > TOLERANCE * spacing(a) for a, b in ((self.y, other.y), (self.x, other.x))
        ):
            return False
        mine, theirs = self.points(), other.points()
        if mine is None or theirs is None:
            return compared and self.projected_as(other)
        return near(mine, theirs, cell_size(mine))

    def projected_as(self, other: "Grid") -> bool:
        """Whether nothing speaks against one projection: the parameters that both grid mappings give agree."""
        if self.mapping is None or other.mapping is None:
            return True
        mine, theirs = self.mapping[1], other.mapping[1]
        return mine.get("grid_mapping_name") == theirs.get("grid_mapping_name") and all(
            np.shape(mine[k]) == np.shape(theirs[k]) and np.allclose(mine[k], theirs[k], rtol=1e-6)
            for k in set(mine) & set(theirs)
            if all(np.asarray(m[k]).dtype.kind in "fiu" for m in (mine, theirs))
        )

    def coordinates(self) -> dict[str, tuple[Any, Any, dict[str, Any]]]:
        """What `xr.Dataset(coords=…)` takes."""
        out: dict[str, tuple[Any, Any, dict[str, Any]]] = {}
        if not self.counted:
            out = {d: (d, v, dict(self.attrs[k])) for d, v, k in zip(self.dims, (self.y, self.x), "yx", strict=True)}
        for kind, values in zip(UNITS, (self.latitude, self.longitude), strict=True):
            if values is not None:
                name = kind if kind not in self.dims else kind[:3]
                out[name] = (self.dims, values, {"standard_name": kind, "units": UNITS[kind]})
        if self.mapping is not None:
            out[self.mapping[0]] = ((), np.int32(0), dict(self.mapping[1]))
        return out

    def take(self, rows: np.ndarray, columns: np.ndarray) -> "Grid":
        """The grid of these rows and columns."""
        y, x = (np.arange(float(len(p))) if self.counted else v[p] for v, p in ((self.y, rows), (self.x, columns)))
        place = [None if v is None else v[rows][:, columns] for v in (self.latitude, self.longitude)]
        return Grid(self.dims, y, x, self.attrs, *place, mapping=self.mapping, counted=self.counted)

    def coarse(self, factor: int) -> "Grid":
        """The grid of blocks of factor × factor cells. The shape must be a multiple.

        Its 1-D coordinates are the means of those of the cells; its 2-D ones the directions of their mean vectors.
        """
        rows, columns = (n // factor for n in self.shape)
        if self.counted:
            y, x = np.arange(float(rows)), np.arange(float(columns))
        else:
            y, x = (v.reshape(-1, factor).mean(1) for v in (self.y, self.x))
        points = self.points()
        place: tuple[np.ndarray, ...] = ()
        if points is not None and self.longitude is not None:
            middle = points.reshape(rows, factor, columns, factor, 3).mean((1, 3))
            place = degrees(middle, self.longitude[::factor, ::factor])
        return Grid(self.dims, y, x, self.attrs, *place, mapping=self.mapping, counted=self.counted)

    def to_dict(self) -> dict[str, Any]:
        """JSON types; what `arrays` gives is not among them."""
        out: dict[str, Any] = dict(
            dims=list(self.dims), y=self.y.tolist(), x=self.x.tolist(),
            attrs={k: _json(a) for k, a in self.attrs.items()},
        )  # fmt: skip
        if self.mapping is not None:
            out["mapping"] = [self.mapping[0], _json(self.mapping[1])]
        return out | ({"counted": True} if self.counted else {})

    def arrays(self) -> dict[str, np.ndarray]:
        """The 2-D latitude and longitude as `grid.latitude` and `grid.longitude`; empty without them."""
        both = {"grid.latitude": self.latitude, "grid.longitude": self.longitude}
        return {k: np.asarray(v, np.float64) for k, v in both.items() if v is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> Self:
        """Inverse of `to_dict` and `arrays`, which may hold other arrays too."""
        y, x = (np.asarray(data[k], dtype=np.float64) for k in "yx")
        place = [(arrays or {}).get(f"grid.{kind}") for kind in UNITS]
        mapping = (data["mapping"][0], data["mapping"][1]) if "mapping" in data else None
        dims = (data["dims"][0], data["dims"][1])
        return cls(dims, y, x, data["attrs"], *place, mapping=mapping, counted=data.get("counted", False))

    def __str__(self) -> str:
        """Size, spacing and extent in words."""
        parts = [f"{len(v)} {dim}" for dim, v in zip(self.dims, (self.y, self.x), strict=True)]
        if not self.counted:
            for i, v in enumerate((self.y, self.x)):
                parts[i] += f" from {v[0]:g} to {v[-1]:g}" + (f" by {spacing(v):g}" if len(v) > 1 else "")
        out = " × ".join(parts)
        if self.latitude is not None and self.longitude is not None:
            corners = [f"{v[0, 0]:g} to {v[-1, -1]:g}" for v in (self.latitude, self.longitude)]
            out += f" (latitude {corners[0]}, longitude {corners[1]} from the first to the last cell)"
        return out


def spacing(values: np.ndarray) -> float:
    """Typical distance between neighbours; 1 for a single cell."""
    return float(np.median(np.abs(np.diff(values)))) if len(values) > 1 else 1.0


def wraps(ds: xr.Dataset, dims: tuple[str, str]) -> bool:
    """Whether the columns of a dataset, with or without coordinates, go all around the globe: see `Grid.closes`."""
    x = dims[1]
    return x in ds.indexes and is_degrees(ds[x], "longitude") and _closes(ds[x].values.astype(np.float64))


def _closes(longitude: np.ndarray) -> bool:
    """Whether evenly spaced longitudes [degrees] and one more cell make 360."""
    if len(longitude) < 2:
        return False
    cell, steps = spacing(longitude), np.abs(np.diff(longitude))
    return bool(np.abs(steps - cell).max() < 0.01 * cell and abs(steps.sum() + cell - 360) < 0.01 * cell)


def near(one: np.ndarray, other: np.ndarray, cell: float) -> bool:
    """Whether cells (Y, X, 3) on the sphere are the same: nearer than a small share of a cell [radians]."""
    return bool(distances(one, other).max() <= LOOSE * cell + 1e-7)


def _checked(place: list[np.ndarray]) -> list[np.ndarray]:
    """2-D latitude and longitude, or nothing.

    Raises:
        UserError: if they are not finite, or no degrees.
    """
    for kind, values, most in zip(UNITS, place, (90.001, 720.0), strict=False):
        if not np.isfinite(values).all() or np.abs(values).max() > most:
            raise UserError(
                f"The 2-D {kind} holds {int((~np.isfinite(values)).sum())} missing values and goes from "
                f"{np.nanmin(values):g} to {np.nanmax(values):g}: expected degrees everywhere. Mend it, or where "
                "there are 1-D coordinates drop it and its fellow with ds.drop_vars."
            )
    return place


def _json(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON types; numbers that JSON does not know are left out."""
    plain = {k: v.tolist() if isinstance(v, np.generic | np.ndarray) else v for k, v in attrs.items()}
    return {k: v for k, v in plain.items() if not isinstance(v, float) or np.isfinite(v)}
