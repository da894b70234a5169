"""The weather domain: downscaling, tied together for fitting and judging."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from scigen.core import addressed
from scigen.core.bundle import Bundle
from scigen.core.codec import Codec
from scigen.core.domain import Data, Domain, Split
from scigen.core.ledger import Ledger
from scigen.core.mean import ConditionalMean
from scigen.errors import UserError
from scigen.io.archive import fingerprint
from scigen.io.blocks import bytes_of
from scigen.io.coordinates import check_finite, check_times
from scigen.metrics.ensemble import gaussian_crps
from scigen.plots.table import Table
from scigen.weather import metrics, plots, tables
from scigen.weather.area import cell_weights
from scigen.weather.data import Grid, Pair, find_variables, open_pair, split_times
from scigen.weather.exact import Posterior
from scigen.weather.ledger import ledgers
from scigen.weather.normalise import make_codec, residual_codec
from scigen.weather.physics import DownscalingCodec
from scigen.weather.synth import GAUSSIAN, VARIABLES, Law, make
from scigen.weather.transforms import Spec

log = logging.getLogger(__name__)
MEMORY = 2 * 86400.0  # s, after which the errors of two forecasts count as independent


class Weather(Domain):
    """Downscaling by a factor: fine fields from their block means."""

    name = "weather"

    def __init__(
        self,
        path: str | None = None,
        coarse: str | None = None,
        variables: Sequence[str] | Mapping[str, str] | None = None,
        static: Sequence[str] | str | None = None,
        regrid: str | None = None,
        factor: int = 8,
        inputs: Sequence[str] | Mapping[str, str] | None = None,
        transforms: Mapping[str, Spec] | None = None,
        features: Sequence[str] = (),
        split: Sequence[float] = (0.7, 0.05, 0.25),
        gap: str | int = "1D",
        missing: str = "refuse",
        synth: Mapping[str, int] | None = None,
        in_memory: str | int = "2GB",
    ) -> None:
        """Set where the data are and what of them is used: the keys of `data` in configs/domain/weather.yaml."""
        self.path, self.coarse, self.static = path, coarse, static
        self.variables = GAUSSIAN if variables is None else variables
        self.factor, self.split, self.gap, self.settings = factor, tuple(split), gap, dict(synth or {})
        self.inputs, self.transforms, self.features = inputs, dict(transforms or {}), tuple(features)
        self.missing, self.regrid = missing, regrid
        self.in_memory = bytes_of(in_memory, "data.in_memory")

    def synth(self, path: Path) -> Path:
        """Make the synthetic climate at `path` (zarr) unless it is there."""
        if not path.exists():
            args = dict(self.settings)
            times, step = args.pop("times", 8192), args.pop("step_hours", 6)
            known = [f.name for f in fields(Law)]
            if not set(args) <= set(known):
                raise UserError(f"data.synth={args}: the synthetic climate knows {', '.join(known)}.")
            log.info("making the default data, %d times, at %s", times, path)
            partial = path.with_name(path.name + ".partial")
            path.parent.mkdir(parents=True, exist_ok=True)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
                make(Law(**args), times, step).chunk(time=512).to_zarr(partial, mode="w", consolidated=True)
            partial.rename(path)
        return path

    def open(self, cache: Path, codec: Codec | None = None) -> Data:
        """Open the archive (or make the default one under `cache`), check, split and normalise it."""
        path = self.path
        if path is None:
            name = "-".join(f"{k}{v}" for k, v in sorted(self.settings.items()))
            path = str(self.synth(cache / f"weather-{len(VARIABLES)}-{name}.zarr"))
        pair = open_pair(
            path, coarse=self.coarse, variables=self.variables, inputs=self.inputs, factor=self.factor,
            static=self.static, missing=self.missing, regrid=self.regrid,
        )  # fmt: skip
        time = str(next(iter(pair.fine.data_vars.values())).dims[0])
        check_times(pair.fine)
        check_finite(pair.fine)
        if self.coarse is not None:
            check_finite(pair.coarse)
        parts = split_times(pair.fine.indexes[time], self.split, self.gap)
        splits = {k: Split(*(ds.isel({time: s}) for ds in (pair.fine, pair.coarse))) for k, s in parts.items()}
        if pair.fine.nbytes + pair.coarse.nbytes <= self.in_memory:
            splits = {k: Split(s.truth.load(), s.inputs.load()) for k, s in splits.items()}
        if codec is None:
            codec = make_codec(
                pair, splits["train"], conserve=self.coarse is None, transforms=self.transforms,
                features=self.features, regrid=self.regrid,
            )  # fmt: skip
        elif not isinstance(codec, DownscalingCodec):
            raise UserError("The teacher's bundle is not one for downscaling.")
        else:
            _check_codec(codec, pair)
            codec = _placed(codec, pair)
            if codec.regrid != self.regrid:
                raise UserError(
                    f"The teacher was made with data.regrid={codec.regrid or 'null'}, not {self.regrid or 'null'}:"
                    " give it the same inputs."
                )
            if codec.conserve and self.coarse is not None:
                raise UserError(
                    "The teacher holds its members to block means of the fine fields, which data.coarse= are not:"
                    " leave data.coarse out, or fit a teacher to this pair of archives."
                )
        source = self.path or f"default data ({path})"
        return Data(splits["train"], splits["validation"], splits["test"], codec, fingerprint(pair.fine), source)

    def standard(self, archive: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
        """These variables of an archive, found as `data.variables` maps them, with canonical names and units."""
        known = self.variables if isinstance(self.variables, Mapping) else {}
        wanted = {n: known[n] for n in names} if set(names) <= set(known) else list(names)
        return find_variables(archive, wanted)

    def baselines(self, codec: Codec, split: Split) -> dict[str, xr.Dataset]:
        """Bilinear interpolation of the coarse fields; the middle of its law for a variable that they lack."""
        assert isinstance(codec, DownscalingCodec)
        count = len(codec.samples(split.inputs))
        normal = codec.condition(split.inputs, slice(0, 1))
        fields = codec.decode(torch.zeros(1, *codec.shape), normal).float().numpy().repeat(count, 0)
        for c, name in enumerate(codec.variables):
            if name in codec.inputs:
                coarse = torch.from_numpy(np.asarray(split.inputs[name].values, np.float64))[:, None]
                fields[:, c] = codec.interpolation(coarse)[:, 0].float().numpy()
        layout = codec.layout(split.inputs)
        out, dims = layout.coords.copy(), layout.dims
        for c, (name, attrs) in enumerate(codec.variables.items()):
            out[name] = ((dims[0], "member", *dims[1:]), fields[:, None, c], attrs)
        return {"interpolation": out}

    def residuals(self, codec: Codec, mean: ConditionalMean, train: Split, told: np.ndarray) -> tuple[Codec, Split]:
        """Residuals over the mean, normalised anew."""
        assert isinstance(codec, DownscalingCodec)
        return residual_codec(codec, mean, train, told)

    def exact(self, codec: Codec, split: Split, members: int, seed: int) -> Iterator[tuple[int, np.ndarray]] | None:
        """Draws of the posterior of the synthetic climate, where the data come from it."""
        posterior = self._posterior(codec, split)
        return None if posterior is None else _exact_blocks(posterior, split.inputs, members, seed)

    def known(self, codec: Codec, split: Split) -> dict[str, Any] | None:
        """Closed-form CRPS of the exact law on these samples, area-weighted, by variable."""
        posterior = self._posterior(codec, split)
        if posterior is None:
            return None
        mean = posterior.mean(split.inputs, slice(None))
        dims = split.truth[next(iter(codec.variables))].dims
        weights = cell_weights(split.truth, (str(dims[1]), str(dims[2])))
        out = {}
        for c, name in enumerate(codec.variables):
            crps = gaussian_crps(mean[:, c], posterior.std[c], split.truth[name].values.astype(np.float64))
            out[name] = {
                "exact_crps": float((crps * weights).mean()),
                "exact_spread": float(np.sqrt((posterior.std[c] ** 2 * weights).mean())),
            }
        return out

    def _posterior(self, codec: Codec, split: Split) -> Posterior | None:
        """The exact law, if the data are the synthetic ones, whole, and their block means are what conditions."""
        law = Law.of(split.truth)
        if law is None or self.coarse is not None or not isinstance(codec, DownscalingCodec):
            return None
        grid = codec.grid
        whole = grid.shape == (law.size, law.size) and all(
            np.allclose(a, b) for a, b in ((grid.y, law.latitude), (grid.x, law.longitude))
        )
        known = list(codec.inputs) == list(codec.variables) and set(codec.variables) <= set(GAUSSIAN)
        known = known and all(t.linear for t in codec.transforms.values())
        return Posterior(law, codec) if whole and known else None

    def ledger(
        self, codec: Codec, split: Split, teacher: Bundle, student: Bundle, samples: Mapping[str, xr.Dataset]
    ) -> dict[str, Ledger] | None:
        """Where the student's spread comes from, on the synthetic climate."""
        posterior = self._posterior(codec, split)
        return None if posterior is None else ledgers(posterior, teacher, student, samples)

    def evaluate(self, truth: xr.Dataset, samples: Mapping[str, xr.Dataset]) -> xr.Dataset:
        """Fair CRPS, spread, ranks, coverage, spectra, tails and conservation of every contender."""
        factors = [int(ds.attrs["scigen_factor"]) for ds in samples.values() if "scigen_factor" in ds.attrs]
        return metrics.evaluate(truth, samples, factor=factors[0] if factors else None, block=_block(truth))

    def tables(self, report: xr.Dataset) -> Sequence[Table]:
        """One table a variable."""
        return tables.tables(report)

    def verdict(self, report: xr.Dataset) -> str:
        """Student against teacher, teacher against the exact law."""
        return tables.verdict(report)

    def to_json(self, report: xr.Dataset) -> dict[str, Any]:
        """All numbers."""
        return metrics.to_json(report)

    def figures(
        self, report: xr.Dataset, truth: xr.Dataset, samples: Mapping[str, xr.Dataset], folder: Path
    ) -> list[tuple[str, Path]]:
        """Maps, spectra, calibration."""
        return plots.figures(report, truth, samples, folder)


def _block(truth: xr.Dataset) -> int:
    """Times in a block of the bootstrap: MEMORY's, so that blocks are nearly independent; a quarter of all at most."""
    time = truth.indexes["time"]
    if len(time) < 8:
        return 1
    spacing = pd.to_timedelta(np.diff(time.values[:100])).to_numpy().astype("timedelta64[s]").astype(float)
    return int(np.clip(np.ceil(MEMORY / max(float(np.median(spacing)), 1.0)), 1, len(time) // 4))


def _check_codec(codec: DownscalingCodec, pair: Pair) -> None:
    """Refuse an archive that a given teacher was not made for."""
    for key, ds, own in (("variables", pair.fine, codec.variables), ("inputs", pair.coarse, codec.inputs)):
        asked = [str(v) for v in ds.data_vars]
        if asked != list(own):
            raise UserError(
                f"The teacher's {key} are {list(own)}, in this order; data.{key}={asked}. Write them as the teacher has"
                " them."
            )
    if pair.factor != codec.factor:
        raise UserError(f"The teacher was made for a factor of {codec.factor}, not for data.factor={pair.factor}.")


def _placed(codec: DownscalingCodec, pair: Pair) -> DownscalingCodec:
    """A given teacher's codec where the archive lies: the same, or that of the archive's region.

    Raises:
        UserError: if the archive has another spacing, or lacks a static field.
    """
    grid = Grid.of(pair.fine)
    if grid.same(codec.grid):
        return codec
    log.info("the teacher was made for another region, %s; it goes on in this one, %s", codec.grid, grid)
    return codec.relocate(pair.static if codec.static else pair.fine.isel(time=0, drop=True))


def _exact_blocks(
    posterior: Posterior, inputs: xr.Dataset, members: int, seed: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Exact draws in physical units, 16 samples at a time, with the noise that `Bundle.draw` uses."""
    codec = posterior.codec
    keys = codec.samples(inputs)
    for lo in range(0, len(keys), 16):
        index = slice(lo, min(lo + 16, len(keys)))
        noise = np.stack([addressed.normal(seed, k, m, codec.shape) for k in keys[index] for m in range(members)])
        mean = posterior.normalised_mean(inputs, index).repeat_interleave(members, 0)
        condition = {k: v.repeat_interleave(members, 0) for k, v in codec.condition(inputs, index).items()}
        fields = codec.decode(posterior.draw(mean, torch.from_numpy(noise)), condition)
        yield lo, fields.float().numpy().reshape(-1, members, *codec.shape)
