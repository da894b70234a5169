"""The domain of archives that belong to no field: it judges, and does nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import xarray as xr

from scigen.core.codec import Codec
from scigen.core.domain import Data, Domain, Split
from scigen.errors import UserError
from scigen.io.coordinates import horizontal_dims
from scigen.metrics.judging import Settings, evaluate
from scigen.metrics.matching import Match, match
from scigen.metrics.summary import quality, to_json
from scigen.plots import calibration, failures
from scigen.plots.table import Table
from scigen.weather.area import cell_weights
from scigen.weather.grid import wraps
from scigen.workflows.shared import tables, verdict


class Shared(Domain):
    """Any ensemble against its truth."""

    name = "shared"

    def __init__(self, settings: Settings | None = None) -> None:
        """Set what is asked for."""
        self.settings = settings or Settings()

    def synth(self, path: Path) -> Path:
        """Refused: there are no default data."""
        self._refuse()

    def open(self, cache: Path, codec: Codec | None = None) -> Data:
        """Refused: nothing is fitted."""
        self._refuse()

    def standard(self, archive: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
        """The archive as it is."""
        return archive

    def baselines(self, codec: Codec, split: Split) -> dict[str, xr.Dataset]:
        """Refused: nothing is fitted."""
        self._refuse()

    def evaluate(self, truth: xr.Dataset, samples: Mapping[str, xr.Dataset]) -> xr.Dataset:
        """Every shared score, with intervals."""
        return evaluate(truth, samples, self.settings, areas)

    def tables(self, report: xr.Dataset) -> Sequence[Table]:
        """Scores of every variable; then those of groups."""
        return tables.tables(report)

    def verdict(self, report: xr.Dataset) -> str:
        """A sentence on each contender."""
        return verdict.verdict(report)

    def to_json(self, report: xr.Dataset) -> dict[str, Any]:
        """All numbers."""
        return to_json(report)

    def figures(
        self, report: xr.Dataset, truth: xr.Dataset, samples: Mapping[str, xr.Dataset], folder: Path
    ) -> list[tuple[str, Path]]:
        """Ranks, reliability, spread against error, spectra, tails."""
        return calibration.figures(report, folder)

    def quality(self, report: xr.Dataset) -> xr.Dataset:
        """Fair CRPS over the reference's and spread–skill, each of the variable where it is worst."""
        return quality(report)

    def failures(
        self, report: xr.Dataset, truth: xr.Dataset, samples: Mapping[str, xr.Dataset], folder: Path
    ) -> list[tuple[str, Path]]:
        """The samples of the largest CRPS, of the first variable that lies in a plane or a volume."""
        several = [str(m) for m in report["model"].values if int(report["members"].sel(model=m)) > 1]
        others = [m for m in several if m != report.attrs["reference"]]
        if not several:
            return []
        model = (others or several)[0]
        for one in match(truth, samples, [str(v) for v in report["variable"].values], self.settings.sample)[0]:
            if len(one.layout.space) < 2 or one.layout.cases or one.layout.sample not in one.truth.dims:
                continue
            dim, told = one.layout.sample, report.sel(model=model, variable=one.name)
            true = one.truth.isel({dim: one.rows}).transpose(dim, *one.layout.space)
            drawn = one.samples[model].isel({dim: one.picks[model]}).transpose(dim, "member", *one.layout.space)
            pairs = zip(told["worst"].values, told["worst_crps"].values, strict=True)
            cases = [(int(i), float(c)) for i, c in pairs if np.isfinite(c)]
            return (
                [failures.figure(true.rename(one.name), drawn, model, cases, folder / "failures.png")] if cases else []
            )
        return []

    def _refuse(self) -> NoReturn:
        raise UserError("domain=shared judges ensembles and fits nothing: choose domain=weather, materials or mri.")


def areas(one: Match) -> tuple[np.ndarray, list[bool]]:
    """Relative areas of the cells, mean one, where there are latitudes, and which dimensions go around the globe."""
    space = list(one.layout.space)
    even = np.ones(int(np.prod(one.shape, dtype=int))), [False] * len(space)
    array = next(iter(one.samples.values())).isel({one.layout.sample: 0}, drop=True)
    ds = array.isel({d: 0 for d in ("member", *one.layout.cases)}, drop=True).to_dataset(name="field")
    try:
        dims = horizontal_dims(ds)
    except UserError:
        return even
    if not set(dims) <= set(space):
        return even
    weights = xr.DataArray(cell_weights(ds, dims), dims=dims)
    weights = weights.expand_dims({d: ds.sizes[d] for d in space if d not in dims}).transpose(*space)
    return weights.values.ravel(), [d == dims[1] and wraps(ds, dims) for d in space]
