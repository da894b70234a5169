"""Reading an ensemble: `scigen.open`, and the accessor `.scigen` that every dataset and variable then has."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from scigen.errors import UserError
from scigen.io.archive import open_archive
from scigen.io.coordinates import MEMBERS


def open_ensemble(path: str | Path) -> xr.Dataset:
    """An ensemble archive, lazily, with the accessor `.scigen`: `scigen.open(path).scigen.spread()`.

    Args:
        path: what `scigen sample` wrote, or any archive with a member dimension.

    Raises:
        UserError: if it does not open.
    """
    where = Path(str(path))
    if where.is_dir() and (where / ".scigen").is_dir() and where.suffix != ".zarr":
        return open_archive(str(where / "*.nc"))
    return open_archive(path)


class Ensemble:
    """Statistics over the members of a dataset or a variable; what has no member dimension stays as it is."""

    def __init__(self, data: xr.Dataset | xr.DataArray) -> None:
        """Set the ensemble."""
        self.data = data

    @property
    def dim(self) -> str:
        """The member dimension.

        Raises:
            UserError: if there is none.
        """
        for dim in self.data.dims:
            coordinate = self.data.coords.get(dim)
            named = coordinate is not None and coordinate.attrs.get("standard_name") == "realization"
            if named or str(dim).lower() in MEMBERS:
                return str(dim)
        raise UserError(f"There is no member dimension among {list(map(str, self.data.dims))}; one is called 'member'.")

    def mean(self) -> Any:
        """Ensemble mean."""
        return self.data.mean(self.dim, keep_attrs=True)

    def spread(self) -> Any:
        """Standard deviation over members, of the sample (M − 1); NaN for one member."""
        return self._floats().std(self.dim, ddof=1, keep_attrs=True)

    def quantile(self, q: float | Sequence[float]) -> Any:
        """Quantiles over members, q between 0 and 1: linear between order statistics.

        Raises:
            UserError: for a q outside of that.
        """
        if np.min(q) < 0 or np.max(q) > 1:
            raise UserError(f"q={q} must lie between 0 and 1.")
        whole = self._floats()
        whole = whole.chunk({self.dim: -1}) if whole.chunks else whole
        return whole.quantile(q, self.dim, keep_attrs=True)

    def exceedance(self, threshold: Any) -> Any:
        """Share of members above a threshold: a number, or an array without members, such as a climatology."""
        whole = self.data
        above = (whole > threshold).where(whole.notnull())
        out = above.mean(self.dim)
        for one in out.data_vars.values() if isinstance(out, xr.Dataset) else [out]:
            one.attrs = {"units": "1", "long_name": "share of members above the threshold"}
        return out

    def _floats(self) -> Any:
        return self.data.astype("float64") if self._kinds() - {"f"} else self.data

    def _kinds(self) -> set[str]:
        arrays = self.data.data_vars.values() if isinstance(self.data, xr.Dataset) else [self.data]
        return {a.dtype.kind for a in arrays}


for register in (xr.register_dataset_accessor, xr.register_dataarray_accessor):
    register("scigen")(Ensemble)
