"""What the dimensions of an ensemble are: samples, members, cases of a sample (lead times, levels), space."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.coordinates import axis_of

SAMPLES = ("time", "specimen", "slice", "case", "init_time", "forecast_reference_time")
"""Names of dimensions along which samples lie, where there is one of them."""
LEADS = ("lead_time", "lead", "step", "prediction_timedelta", "forecast_period")
LEVELS = ("level", "pressure_level", "isobaricinhpa", "plev", "height", "depth", "channel", "variable")
SPACE = {"Y": ("y", "row", "rows"), "X": ("x", "column", "columns"), "Z": ("z",)}


@dataclass(frozen=True)
class Layout:
    """Dimensions of a variable of samples, member aside.

    Attributes:
        sample: along which samples lie.
        cases: lead times and levels: a sample has one field for each combination.
        space: the others.
        gridded: whether cells of space are neighbours along each dimension, as spectra need it.
    """

    sample: str
    cases: tuple[str, ...]
    space: tuple[str, ...]
    gridded: bool

    @classmethod
    def of(cls, array: xr.DataArray, sample: str | None = None) -> "Layout":
        """The layout of a variable.

        Args:
            array: with or without `member`.
            sample: dimension of the samples; None finds it.

        Raises:
            UserError: if there is no such dimension, or it cannot be told which one it is.
        """
        dims = [str(d) for d in array.dims if d != "member"]
        placed = {d: a for d in dims if (a := _axis(array, d)) in ("X", "Y", "Z")}
        cases = [d for d in dims if d not in placed and _is_case(array, d)]
        left = [d for d in dims if d not in placed and d not in cases]
        if sample is None:
            known = [d for d in SAMPLES if d in left]
            found = known[0] if known else left[0] if left else None
            if found is None:
                raise UserError(
                    f"'{array.name}' has the dimensions {dims} and none that samples lie along: name it with sample=, "
                    "or add one with ds.expand_dims('time')."
                )
            sample = found
        elif sample not in dims:
            raise UserError(f"sample={sample}: '{array.name}' has the dimensions {dims}.")
        space = tuple(d for d in dims if d != sample and d not in cases)
        gridded = bool(space) and all(d in placed for d in space)
        return cls(sample, tuple(d for d in cases if d != sample), space, gridded)


def _axis(array: xr.DataArray, dim: str) -> str | None:
    axis = axis_of(array, dim)
    return axis or next((a for a, names in SPACE.items() if dim.lower() in names), None)


def _is_case(array: xr.DataArray, dim: str) -> bool:
    """Whether a dimension is one of lead times or levels."""
    coordinate = array.coords.get(dim)
    if coordinate is not None:
        if np.issubdtype(coordinate.dtype, np.timedelta64):
            return True
        if coordinate.attrs.get("standard_name") in ("forecast_period", "air_pressure", "height", "model_level_number"):
            return True
    return dim.lower() in (*LEADS, *LEVELS)


def is_lead(array: xr.DataArray, dim: str) -> bool:
    """Whether a dimension of cases is one of lead times, whose coordinate is a span of time."""
    coordinate = array.coords.get(dim)
    return coordinate is not None and np.issubdtype(coordinate.dtype, np.timedelta64)
