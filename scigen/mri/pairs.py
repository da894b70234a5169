"""Complex variables as pairs of real ones, where a format has no complex numbers."""

import numpy as np
import xarray as xr

from scigen.errors import UserError

PARTS = ("_re", "_im")
"""Ends of the names of the two variables that a complex one is in netCDF."""


def paired(ds: xr.Dataset) -> xr.Dataset:
    """The dataset with a pair of real variables, `_re` and `_im`, for each complex one, as netCDF needs it."""
    out = ds
    for name, array in ds.data_vars.items():
        if array.dtype.kind == "c":
            out = out.drop_vars(str(name)).assign({f"{name}{PARTS[0]}": array.real, f"{name}{PARTS[1]}": array.imag})
    return out


def merged(ds: xr.Dataset) -> xr.Dataset:
    """The dataset with a complex variable for each pair of `_re` and `_im`.

    Raises:
        UserError: if one of a pair is missing.
    """
    out = ds
    for name in map(str, ds.data_vars):
        if name.endswith(PARTS):
            stem = name[: -len(PARTS[0])]
            lacking = [f"{stem}{p}" for p in PARTS if f"{stem}{p}" not in ds]
            if lacking:
                raise UserError(f"{ds.encoding.get('source', 'The dataset')} has {name}, but no {lacking[0]}: add it.")
            if stem not in out:
                real, imag = ds[f"{stem}{PARTS[0]}"], ds[f"{stem}{PARTS[1]}"]
                both = np.empty(real.shape, np.complex64)
                both.real, both.imag = real.values, imag.transpose(*real.dims).values
                out = out.drop_vars([f"{stem}{p}" for p in PARTS]).assign({stem: (real.dims, both)})
    return out
