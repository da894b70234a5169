"""The template of an ensemble archive: coordinates, attributes and types of everything before a field is there."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from scigen import __version__
from scigen.errors import UserError
from scigen.io.coordinates import axis_of, has_dates, with_cf_attributes
from scigen.io.geolocation import mapping_attribute, mapping_of


@dataclass(frozen=True)
class Template:
    """An ensemble archive without its fields.

    Attributes:
        coords: every coordinate with its CF attributes; global attributes.
        dims: of the variables: samples, member, then those of space.
        variables: CF attributes by name.
        dtypes: by name.
    """

    coords: xr.Dataset
    dims: tuple[str, ...]
    variables: dict[str, dict[str, Any]]
    dtypes: dict[str, np.dtype]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the variables."""
        return tuple(self.coords.sizes[d] for d in self.dims)

    @property
    def field_bytes(self) -> int:
        """Bytes of all variables of one sample and member."""
        return int(np.prod(self.shape[2:])) * sum(t.itemsize for t in self.dtypes.values())

    def layout(self) -> dict[str, Any]:
        """What two runs must share to write into one store, as JSON."""
        return {
            "dims": list(self.dims),
            "shape": list(self.shape),
            "variables": {name: str(dtype) for name, dtype in self.dtypes.items()},
            "coordinates": {str(name): _said(c) for name, c in sorted(self.coords.coords.items())},
        }

    def encoding(self) -> dict[str, dict[str, Any]]:
        """Of the coordinates: no missing values, and times as whole numbers in the units of the input."""
        out: dict[str, dict[str, Any]] = {}
        for name, array in self.coords.coords.items():
            out[str(name)] = {"_FillValue": None}
            if has_dates(array):
                out[str(name)] |= {**array.encoding, "dtype": "int64"}
        return out

    def filled(self, fields: Mapping[str, Any], start: int, stop: int) -> xr.Dataset:
        """The archive of samples [start, stop) with these arrays as its variables; the grid mapping is one of them."""
        part = self.coords.isel({self.dims[0]: slice(start, stop)})
        part = part.reset_coords(list(mapping_of(part)))
        return part.assign({name: (self.dims, fields[name], about) for name, about in self.variables.items()})


def template(
    coords: xr.Dataset,
    variables: Mapping[str, Mapping[str, Any]],
    members: Sequence[int],
    dims: Sequence[str] | None,
    attrs: Mapping[str, Any],
    dtypes: Mapping[str, str],
) -> Template:
    """Make the template.

    Args:
        coords: coordinates of the output; data variables are ignored. Units and calendar of times are kept.
        variables: CF attributes by name.
        members: their numbers.
        dims: dimension of samples first, then those of space; None for those of `coords`, time first, Y and X last.
        attrs: global attributes; what netCDF has no type for is stored as JSON. `history` gets a line.
        dtypes: by variable; float32 for the others.

    Raises:
        UserError: if there is no member, or one twice.
        ValueError: if a dimension has no coordinate.
    """
    numbers = np.asarray(members, dtype=np.int64)
    if not len(numbers) or len(np.unique(numbers)) < len(numbers):
        raise UserError(f"members={list(members)[:8]}: give at least one, and each once.")
    order = {"T": 0, "Y": 2, "X": 3}
    own = [str(d) for d in (coords.sizes if dims is None else dims) if d != "member"]
    if dims is None:
        own.sort(key=lambda dim: order.get(axis_of(coords, dim) or "", 1))
    ds = xr.Dataset(coords=coords.coords).drop_vars("member", errors="ignore")
    if missing := [d for d in own if d not in ds.sizes]:
        raise ValueError(f"the dimensions {missing} have no coordinate: {coords}")
    ds = ds.assign_coords(member=("member", numbers))
    texts = {n: (c.dims, c.values.astype(object), c.attrs) for n, c in ds.coords.items() if c.dtype.kind in "UT"}
    ds = ds.assign_coords(texts)  # text of any length, which both formats have a type for
    for name in ds.variables:
        old = ds[name].encoding
        ds[name].encoding = {k: old[k] for k in ("units", "calendar") if k in old}
    history = [f"sampled by scigen {__version__}", *([str(attrs["history"])] if attrs.get("history") else [])]
    stored = {k: _storable(v) for k, v in attrs.items() if v is not None}
    ds = with_cf_attributes(ds).assign_attrs({"Conventions": "CF-1.11", **stored, "history": "\n".join(history)})
    return Template(
        ds,
        (own[0], "member", *own[1:]),
        {name: {**about, **mapping_attribute(ds)} for name, about in variables.items()},
        {name: np.dtype(dtypes.get(name, "float32")) for name in variables},
    )


def missing_value(dtype: np.dtype) -> Any:
    """What stands for a missing value; whole numbers have none."""
    return dtype.type(np.nan) if dtype.kind == "f" else None


def _storable(value: Any) -> Any:
    """A global attribute as text, number or numbers; anything else as JSON."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list) and value and all(type(v) in (int, float) for v in value):
        return value
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else json.dumps(value)


def _said(coordinate: xr.DataArray) -> str:
    """A coordinate in words, with a checksum of all its values: "24 values, 2019-03-01 … 2019-03-06 (3f2a91c0)"."""
    values = np.asarray(coordinate.values)
    told = values.astype("datetime64[us]") if values.dtype.kind == "M" else values
    if told.dtype.kind in "OSUTM":
        data = "\n".join(map(str, told.ravel())).encode()
    else:
        data = np.ascontiguousarray(told, told.dtype.newbyteorder("<")).tobytes()
    check = hashlib.blake2b(data, digest_size=4).hexdigest()
    ends = f"{told.flat[0]} … {told.flat[-1]}" if told.size > 1 else " ".join(map(str, told.flat))
    return f"{' × '.join(map(str, told.shape)) or 'one'} values, {ends} ({check})"
