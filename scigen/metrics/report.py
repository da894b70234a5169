"""Reading a report: the contender that others are held against, and numbers as JSON types."""

from typing import Any

import numpy as np
import xarray as xr


def reference(report: xr.Dataset, role: str) -> str | None:
    """Name of the contender in a role; of several the one with the most network calls, the converged one.

    Args:
        report: with the coordinates role and nfe of model.
        role: as in `scigen_role`: exact, teacher, student …
    """
    names = [str(m) for m, r in zip(report["model"].values, report["role"].values, strict=True) if r == role]
    calls = np.nan_to_num(report["nfe"].sel(model=names).values, nan=-1.0)
    return names[int(calls.argmax())] if names else None


def plain(values: xr.DataArray) -> Any:
    """Numbers as JSON types, null for what is not finite."""
    data = values.values
    if data.ndim:
        return [v.item() if np.isfinite(v) else None for v in data]
    return data.item() if np.isfinite(data) else None


def plain_interval(values: xr.DataArray) -> dict[str, float | None]:
    """Estimate, low and high of a number with an interval."""
    return dict(zip(("estimate", "low", "high"), plain(values), strict=True))
