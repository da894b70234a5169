"""Downscaling as y = A x: the codec between archives and the network.

A network sample is a normalised residual r = (T(x) − base − mean) / std of the fine fields x, bent by the transform T
of each variable. The base is the interpolated coarse field T(y), what a regression network adds to it if there is one,
and 0 for a variable that the coarse fields lack.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scigen.core.codec import Codec, Index, Layout, tensor
from scigen.core.mean import ConditionalMean
from scigen.core.operator import OnChannels, Operator
from scigen.errors import UserError
from scigen.io.coordinates import check_finite
from scigen.weather.conserve import scale_blocks
from scigen.weather.data import Grid, orientation, sample_times, to_coarse
from scigen.weather.features import check_features, clock, in_block, place, sun
from scigen.weather.operators import BlockMean, Interpolation
from scigen.weather.region import cells_within
from scigen.weather.relocation import place_static
from scigen.weather.traced import TracedDownscaling
from scigen.weather.transforms import Transform, default, transform
from scigen.weather.window import Window

TOLD = "told_"
"""Prefix of variables of prepared inputs that hold what a regression network predicts of a variable, made before."""

Attributes = Mapping[str, Mapping[str, Any]]
"""CF attributes by variable, in channel order."""


@dataclass(frozen=True)
class Statistics:
    """Means and standard deviations that normalise, (2, number of variables) each, of transformed values.

    Attributes:
        coarse: of the coarse variables.
        residual: of the fine variables less their base; None until they have been computed.
        static: of the static fields.
        mean: of the fine variables less their interpolation, which a regression network predicts; None without one.
    """

    coarse: np.ndarray
    residual: np.ndarray | None = None
    static: np.ndarray | None = None
    mean: np.ndarray | None = None


class DownscalingCodec(Codec):
    """Coarse fields, static fields, place and time in; fine fields out."""

    def __init__(
        self,
        grid: Grid,
        factor: int,
        variables: Attributes,
        static: Mapping[str, np.ndarray],
        statistics: Statistics,
        *,
        inputs: Attributes | None = None,
        transforms: Mapping[str, Transform] | None = None,
        features: Sequence[str] = (),
        conserve: bool = True,
        mean: ConditionalMean | None = None,
        regrid: str | None = None,
    ) -> None:
        """Set the codec.

        Args:
            grid: the fine grid.
            factor: fine cells per coarse cell along each axis.
            variables: the fine ones.
            static: time-independent fields on the fine grid by name, (Y, X) each.
            statistics: what normalises.
            inputs: the coarse variables; None for the same as the fine ones.
            transforms: by variable; those not named get what suits them.
            features: what networks are told beside fields and clock, see `features.FEATURES`.
            conserve: whether coarse fields are exactly the block means of the fine ones, so that samples may be held to
                them.
            mean: a network whose output is added to the base.
            regrid: how inputs on neither of the two grids are brought to the coarse one; None refuses them.

        Raises:
            UserError: for an unknown feature, or one of place on a grid without latitudes and longitudes.
        """
        self.grid, self.factor, self.conserve, self.mean, self.regrid = grid, factor, conserve, mean, regrid
        self._variables = {name: dict(attrs) for name, attrs in variables.items()}
        self.inputs = self._variables if inputs is None else {name: dict(attrs) for name, attrs in inputs.items()}
        self.transforms = {
            n: (transforms or {}).get(n) or default(n, str(a.get("units", "")))
            for n, a in {**self.inputs, **self._variables}.items()
        }
        self._origin = (0, 0)
        self.static = {name: np.asarray(field, dtype=np.float32) for name, field in static.items()}
        self.statistics = statistics
        self.features = check_features(features)
        rows, columns = grid.shape
        self.mean_operator = BlockMean(grid.weights, factor)
        self.interpolation = Interpolation((rows // factor, columns // factor), factor, grid.closes)
        moments = zip(*_both(statistics.static, len(static)), strict=True)
        normal = [(v - m) / s for v, (m, s) in zip(self.static.values(), moments, strict=True)]
        fixed = [*normal, *in_block((rows, columns), factor)]
        if self.features:
            self._latlon = grid.latlon()
            if self._latlon is None:
                raise UserError(
                    f"data.features={list(self.features)} need latitudes and longitudes, which the grid, {grid}, lacks:"
                    " give the archive coordinates latitude and longitude of its cells, or leave the features out."
                )
            fixed += list(place(*self._latlon)) if "place" in self.features else []
        self._fixed = tensor(np.stack(fixed))
        names = list(self._variables)
        self._shared = [(i, list(self.inputs).index(n)) for i, n in enumerate(names) if n in self.inputs]
        same = [i for i, _ in self._shared if conserve]
        self._held = [i for i in same if self.transforms[names[i]].linear]
        self._scaled = [i for i in same if self.transforms[names[i]].positive]

    @property
    def shape(self) -> tuple[int, ...]:
        """(variables, Y, X)."""
        return (len(self._variables), *self.grid.shape)

    @property
    def fields(self) -> int:
        """Number of condition fields: coarse ones interpolated and block-constant, fixed ones, the sun, the mean."""
        extra = ("sun" in self.features) + (len(self._variables) if self.mean is not None else 0)
        return 2 * len(self.inputs) + len(self._fixed) + extra

    @property
    def scalars(self) -> int:
        """Number of condition scalars: hour and season as points on circles."""
        return 4

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Columns of a global grid close, rows never."""
        return False, self.grid.closes

    @property
    def origin(self) -> tuple[int, ...]:
        """Row and column of the first cell in the region that this one is a part of."""
        return self._origin

    @property
    def measured(self) -> Operator | None:
        """The block mean of the variables that are held to it, where coarse fields are exactly that."""
        if not self._held:
            return None
        total = len(self._variables)
        return self.mean_operator if len(self._held) == total else OnChannels(self.mean_operator, self._held, total)

    @property
    def variables(self) -> dict[str, dict[str, Any]]:
        """CF attributes of the fine variables, in channel order."""
        return self._variables

    def prepare(self, archive: xr.Dataset) -> xr.Dataset:
        """The coarse fields of an archive of the bundle's fine or coarse grid, in the bundle's order, lazily."""
        return to_coarse(archive, self.grid, self.factor, self.inputs, self.regrid)[0]

    def samples(self, inputs: xr.Dataset) -> Sequence[str]:
        """Times in ISO format, to the second."""
        return sample_times(inputs)

    def condition(self, inputs: xr.Dataset, index: Index) -> dict[str, Tensor]:
        """What networks see, and what `decode` needs.

        Returns:
            "fields" (B, K, Y, X), "scalars" (B, 4); "base" (B, C, Y, X), transformed values; where some variables are
            measured "measurement" (B, held, Y/f, X/f), normalised; where others are scaled "coarse" (B, scaled, Y/f,
            X/f), physical units.
        """
        part = inputs.isel({self._time(inputs): index})
        coarse, bent = self._coarse(part)
        fields = self._seen(part, bent)
        out = {"fields": fields, "scalars": clock(part[self._time(part)])}
        out["base"] = self._base(part, bent, out)
        if self.mean is not None:
            mean, std = _normal(self.statistics.mean, self.shape[0])
            told = (out["base"] - self._interpolated(bent) - mean) / std
            out["fields"] = torch.cat([fields, told.float()], dim=1)
        pick = dict(self._shared)
        if self._held:
            mean, std = (v[self._held] for v in _normal(self.statistics.residual, self.shape[0]))
            left = coarse[:, [pick[i] for i in self._held]] - self.mean_operator(out["base"][:, self._held])
            out["measurement"] = ((left - mean) / std).float()
        if self._scaled:
            out["coarse"] = coarse[:, [pick[i] for i in self._scaled]]
        return out

    def encode(self, truth: xr.Dataset, inputs: xr.Dataset, index: Index) -> Tensor:
        """Normalised residuals (B, C, Y, X) of the true fine fields over their base."""
        mean, std = _normal(self.statistics.residual, self.shape[0])
        return ((self._fine(truth, index) - self._known_base(inputs, index) - mean) / std).float()

    def bent(self, inputs: xr.Dataset, index: Index) -> Tensor:
        """Transformed coarse fields (B, I, Y/f, X/f), float64."""
        return self._coarse(inputs.isel({self._time(inputs): index}))[1]

    def decode(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Fine fields (B, C, Y, X) in physical units; those of rain are scaled to the coarse ones block by block."""
        mean, std = (v.to(x.device) for v in _normal(self.statistics.residual, self.shape[0]))
        z = condition["base"].double() + mean + std * x.double()
        fields = torch.stack([self.transforms[n].inverse(z[:, c]) for c, n in enumerate(self._variables)], dim=1)
        if self._scaled:
            scaled = scale_blocks(self.mean_operator, fields[:, self._scaled], condition["coarse"])
            fields = fields.index_copy(1, torch.tensor(self._scaled, device=x.device), scaled)
        return fields

    @property
    def regression(self) -> ConditionalMean | None:
        """The network whose output is added to the base."""
        return self.mean

    def traced(self) -> TracedDownscaling:
        """Coarse fields and the clock in, fine fields out."""
        return TracedDownscaling(
            self, shared=dict(self._shared), held=self._held, scaled=self._scaled, fixed=self._fixed,
            places=self._latlon if "sun" in self.features else None,
        )  # fmt: skip

    def like(self, **changes: Any) -> "DownscalingCodec":
        """The same but for these arguments of the constructor."""
        own: dict[str, Any] = dict(
            grid=self.grid, factor=self.factor, variables=self._variables, static=self.static,
            statistics=self.statistics, inputs=self.inputs, transforms=self.transforms, features=self.features,
            conserve=self.conserve, mean=self.mean, regrid=self.regrid,
        )  # fmt: skip
        return DownscalingCodec(**(own | changes))

    @property
    def grain(self) -> int:
        """A coarse cell."""
        return self.factor

    def window(self, low: tuple[int, ...], size: tuple[int, ...]) -> Window:
        """A part of the region, of whole blocks."""
        return Window(self, (low[0], low[1]), (size[0], size[1]))

    def relocate(self, static: xr.Dataset) -> "DownscalingCodec":
        """The codec of another region, given by its static fields.

        Args:
            static: the bundle's static fields, by name, on a fine grid of the same spacing.

        Raises:
            UserError: if the grid has another spacing or no whole blocks, or a static field is missing.
        """
        grid, fields = place_static(static, self.grid, self.factor, list(self.static))
        return self.like(grid=grid, static=fields)

    def within(self, region: Mapping[str, Any]) -> "DownscalingCodec":
        """The codec of a part of the region, whole blocks, whose noise is the region's own."""
        rows, columns = cells_within(self.grid, self.factor, region)
        static = {name: field[rows][:, columns] for name, field in self.static.items()}
        part = self.like(grid=self.grid.take(rows, columns), static=static)
        part._origin = (self._origin[0] + int(rows[0]), self._origin[1] + int(columns[0]))
        return part

    def layout(self, inputs: xr.Dataset, archive: xr.Dataset | None = None) -> Layout:
        """Times of the inputs on the fine grid; rows and longitudes run as the archive's do, if one is given."""
        time = self._time(inputs)
        if archive is None:
            grid, arrange = self.grid, lambda fields: fields
        else:
            way = orientation(archive, self.grid, self.factor, self.regrid)
            grid, arrange = way.grid, way.apply
        coords = xr.Dataset(coords={time: inputs[time], **grid.coordinates()})
        return Layout(coords, (time, *grid.dims), arrange)

    @property
    def attributes(self) -> dict[str, Any]:
        """The factor, and which variables conserve their coarse fields."""
        names = list(self._variables)
        kept = [names[i] for i in sorted(self._held + self._scaled)]
        return {"scigen_factor": self.factor, "scigen_conserved": " ".join(kept)}

    @property
    def purpose(self) -> dict[str, Any]:
        """Downscaling for research."""
        return {
            "use": "Ensembles of fine fields given coarse ones, of the region, variables and season it was trained on.",
            "not": "Warnings and decisions on safety without a forecaster; climates far from the training period.",
            "limits": [
                "Times are sampled one by one: members have no continuity in time.",
                "Extremes rarer than the training period holds are extrapolated.",
                "What the truth of the archive lacks (its resolution, its errors), the members lack as well.",
            ],
        }

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Grid, variables, transforms as JSON; static fields, statistics and a mean's weights as arrays."""
        settings: dict[str, Any] = {
            "grid": self.grid.to_dict(), "factor": self.factor, "variables": self._variables, "inputs": self.inputs,
            "transforms": {n: t.to_dict() for n, t in self.transforms.items()}, "features": list(self.features),
            "conserve": self.conserve, "static": list(self.static), "mean": None, "regrid": self.regrid,
        }  # fmt: skip
        arrays = {f"{k}_stats": np.asarray(v) for k, v in vars(self.statistics).items() if v is not None}
        arrays |= {f"static.{name}": field for name, field in self.static.items()} | self.grid.arrays()
        if self.mean is not None:
            settings["mean"], weights = self.mean.state()
            arrays |= {f"mean.{k}": v for k, v in weights.items()}
        return settings, arrays

    @classmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Inverse of `state`."""
        own = dict(settings)
        weights = {k.removeprefix("mean."): v for k, v in arrays.items() if k.startswith("mean.")}
        mean = own.pop("mean")
        stats = Statistics(**{k.removesuffix("_stats"): v for k, v in arrays.items() if k.endswith("_stats")})
        static = {name: arrays[f"static.{name}"] for name in own.pop("static")}
        grid, bent = Grid.from_dict(own.pop("grid"), arrays), own.pop("transforms")
        return cls(
            grid, own.pop("factor"), own.pop("variables"), static, stats,
            transforms={n: transform(t) for n, t in bent.items()},
            mean=None if mean is None else ConditionalMean.restore(mean, weights), **own,
        )  # fmt: skip

    def to(self, device: torch.device) -> None:
        """Run the regression network on a device."""
        if self.mean is not None:
            self.mean.to(device)

    def _coarse(self, part: xr.Dataset) -> tuple[Tensor, Tensor]:
        """Coarse fields (B, I, Y/f, X/f), physical and transformed, float64."""
        names = list(self.inputs)
        coarse = _stack(part, names)
        if not torch.isfinite(coarse).all():
            check_finite(part[names], "The input")
        return coarse, torch.stack([self.transforms[n].forward(coarse[:, i]) for i, n in enumerate(names)], dim=1)

    def _fine(self, truth: xr.Dataset, index: Index) -> Tensor:
        """Transformed fine fields (B, C, Y, X), float64."""
        names = list(self._variables)
        fine = _stack(truth.isel({self._time(truth): index}), names)
        return torch.stack([self.transforms[n].forward(fine[:, c]) for c, n in enumerate(names)], dim=1)

    def _interpolated(self, bent: Tensor) -> Tensor:
        """Transformed coarse fields on the fine grid, (B, C, Y, X); 0 for variables that they lack."""
        out = bent.new_zeros(len(bent), *self.shape)
        for c, i in self._shared:
            out[:, c] = self.interpolation(bent[:, i : i + 1])[:, 0]
        return out

    def _seen(self, part: xr.Dataset, bent: Tensor) -> Tensor:
        """The condition fields (B, K, Y, X) but for those of the mean."""
        mean, std = _normal(self.statistics.coarse, len(self.inputs))
        normal = (bent - mean) / std
        seen = [self.interpolation(normal).float(), self.mean_operator.inverse(normal).float()]
        seen.append(self._fixed.expand(len(bent), *self._fixed.shape))
        if "sun" in self.features:
            assert self._latlon is not None
            seen.append(tensor(sun(part[self._time(part)], *self._latlon))[:, None])
        return torch.cat(seen, dim=1)

    def _base(self, part: xr.Dataset, bent: Tensor, seen: Mapping[str, Tensor]) -> Tensor:
        """The base (B, C, Y, X), float64: interpolation, and what the regression network adds, perhaps made before."""
        base = self._interpolated(bent)
        if self.mean is None:
            return base
        names = [TOLD + n for n in self._variables]
        if all(n in part for n in names):
            told = _stack(part, names)
        else:
            device = next(self.mean.parameters()).device
            with torch.no_grad():
                x = torch.zeros(len(base), *self.shape, device=device)
                told = self.mean(x, condition={k: v.to(device) for k, v in seen.items()}).cpu().double()
        mean, std = _normal(self.statistics.mean, self.shape[0])
        return base + mean + std * told

    def _known_base(self, inputs: xr.Dataset, index: Index) -> Tensor:
        """The base of samples of prepared inputs."""
        if self.mean is not None:
            return self.condition(inputs, index)["base"]
        return self._interpolated(self.bent(inputs, index))

    @staticmethod
    def _time(ds: xr.Dataset) -> str:
        return str(next(iter(ds.data_vars.values())).dims[0])


def _stack(ds: xr.Dataset, names: Sequence[str]) -> Tensor:
    """Variables of a dataset (time, Y, X) as one float64 tensor (time, C, Y, X)."""
    return torch.from_numpy(np.stack([np.asarray(ds[n].values, dtype=np.float64) for n in names], axis=1))


def _both(values: np.ndarray | None, count: int) -> np.ndarray:
    """Means and standard deviations (2, count); 0 and 1 where there are none."""
    return np.stack([np.zeros(count), np.ones(count)]) if values is None else np.asarray(values, np.float64)


def _normal(values: np.ndarray | None, count: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (count, 1, 1) each."""
    mean, std = torch.from_numpy(_both(values, count)).reshape(2, count, 1, 1)
    return mean, std
