"""Downscaling as y = A x: the codec between archives and the network.

A network sample is the normalised residual r = (x − interpolated y − mean) / std of fields x (time, variable, Y, X).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scigen.core.codec import Codec, Index, Layout, tensor
from scigen.core.operator import Operator
from scigen.io.coordinates import check_finite
from scigen.weather.data import Grid, area_weights, orientation, sample_times, to_coarse
from scigen.weather.operators import BlockMean, Interpolation

DAYS = {"360_day": 360, "noleap": 365, "365_day": 365, "all_leap": 366, "366_day": 366}
"""Days of a year by calendar; 365.25 in those with leap years."""


class DownscalingCodec(Codec):
    """Coarse fields, static fields, hour and season in; fine fields out."""

    def __init__(
        self,
        grid: Grid,
        factor: int,
        variables: Mapping[str, Mapping[str, Any]],
        static: np.ndarray,
        coarse_stats: np.ndarray,
        residual_stats: np.ndarray | None = None,
        conserve: bool = True,
    ) -> None:
        """Set the codec.

        Args:
            grid: the fine grid.
            factor: fine cells per coarse cell along each axis.
            variables: CF attributes of each variable, in channel order.
            static: time-independent fields on the fine grid, normalised, (K, Y, X).
            coarse_stats: mean and standard deviation of each coarse variable, (2, C), physical units.
            residual_stats: the same of the residuals; None until they have been computed.
            conserve: whether the coarse fields are exactly the block means of the fine ones, so that the network's
                output may be held to them.
        """
        self.grid, self.factor, self.conserve = grid, factor, conserve
        self._variables = {name: dict(attrs) for name, attrs in variables.items()}
        self.static = np.asarray(static, dtype=np.float32)
        self.coarse_stats = np.asarray(coarse_stats, dtype=np.float64)
        c = len(self._variables)
        self.residual_stats = (
            np.stack([np.zeros(c), np.ones(c)]) if residual_stats is None else np.asarray(residual_stats, float)
        )
        rows, columns = len(grid.y), len(grid.x)
        self.mean_operator = BlockMean(area_weights(grid.y, grid.attrs, columns), factor)
        self.interpolation = Interpolation((rows // factor, columns // factor), factor)
        phase = [2 * np.pi * (np.arange(n) % factor + 0.5) / factor for n in (rows, columns)]
        waves = [f(p) for p in phase for f in (np.sin, np.cos)]
        place = [np.broadcast_to(w[:, None] if i < 2 else w[None], (rows, columns)) for i, w in enumerate(waves)]
        self._features = tensor(np.concatenate([self.static, np.stack(place)]))

    @property
    def shape(self) -> tuple[int, ...]:
        """(variables, Y, X)."""
        return (len(self._variables), len(self.grid.y), len(self.grid.x))

    @property
    def fields(self) -> int:
        """Number of condition fields: coarse ones interpolated and block-constant, static ones, place in the block."""
        return 2 * self.shape[0] + len(self._features)

    @property
    def scalars(self) -> int:
        """Number of condition scalars: hour and season as points on circles."""
        return 4

    @property
    def measured(self) -> Operator | None:
        """The block mean, where coarse fields are exactly that of the fine ones."""
        return self.mean_operator if self.conserve else None

    @property
    def variables(self) -> dict[str, dict[str, Any]]:
        """CF attributes of the variables, in channel order."""
        return self._variables

    def prepare(self, archive: xr.Dataset) -> xr.Dataset:
        """The coarse fields of an archive of the bundle's fine or coarse grid, in the bundle's order, lazily."""
        return to_coarse(archive, self.grid, self.factor, self._variables)[0]

    def samples(self, inputs: xr.Dataset) -> Sequence[str]:
        """Times in ISO format, to the second."""
        return sample_times(inputs)

    def condition(self, inputs: xr.Dataset, index: Index) -> dict[str, Tensor]:
        """Fields (B, K, Y, X), scalars (B, 4); coarse fields (B, C, Y/f, X/f) in physical units for `decode`."""
        part = inputs.isel({self._time(inputs): index})
        coarse = _stack(part, list(self._variables))
        if not torch.isfinite(coarse).all():
            check_finite(part, "The input")
        mean, std = (torch.from_numpy(v).reshape(-1, 1, 1) for v in self.coarse_stats)
        normal = (coarse - mean) / std
        both = torch.cat([self.interpolation(normal), self.mean_operator.inverse(normal)], dim=1).float()
        static = self._features.expand(len(both), *self._features.shape)
        out = {"fields": torch.cat([both, static], dim=1), "scalars": _clock(part[self._time(part)]), "coarse": coarse}
        if self.conserve:
            mean, std = (torch.from_numpy(v).reshape(-1, 1, 1) for v in self.residual_stats)
            left = coarse - self.mean_operator(self.interpolation(coarse))
            out["measurement"] = ((left - mean) / std).float()
        return out

    def encode(self, truth: xr.Dataset, inputs: xr.Dataset, index: Index) -> Tensor:
        """Normalised residuals (B, C, Y, X) of the true fine fields over the interpolated coarse ones."""
        names = list(self._variables)
        fine = _stack(truth.isel({self._time(truth): index}), names)
        coarse = _stack(inputs.isel({self._time(inputs): index}), names)
        mean, std = (torch.from_numpy(v).reshape(-1, 1, 1) for v in self.residual_stats)
        return ((fine - self.interpolation(coarse) - mean) / std).float()

    def decode(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Fine fields (B, C, Y, X) in physical units."""
        mean, std = (torch.from_numpy(v).reshape(-1, 1, 1).to(x.device) for v in self.residual_stats)
        return self.interpolation(condition["coarse"].double()) + mean + std * x.double()

    def layout(self, inputs: xr.Dataset, archive: xr.Dataset | None = None) -> Layout:
        """Times of the inputs on the fine grid; rows and longitudes run as the archive's do, if one is given."""
        time = self._time(inputs)
        if archive is None:
            grid, arrange = self.grid, lambda fields: fields
        else:
            way = orientation(archive, self.grid, self.factor)
            grid, arrange = way.grid, way.apply
        coords = xr.Dataset(coords={time: inputs[time], **grid.coordinates()})
        return Layout(coords, (time, *grid.dims), arrange)

    @property
    def attributes(self) -> dict[str, Any]:
        """The factor."""
        return {"scigen_factor": self.factor}

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Grid, factor, variables as JSON; static fields and statistics as arrays."""
        grid = self.grid.to_dict()
        settings: dict[str, Any] = dict(
            grid=grid, factor=self.factor, variables=self._variables, conserve=self.conserve
        )
        arrays: dict[str, np.ndarray] = dict(
            static=self.static, coarse_stats=self.coarse_stats, residual_stats=self.residual_stats
        )
        return settings, arrays

    @classmethod
    def restore(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Inverse of `state`."""
        arguments = settings | arrays | {"grid": Grid.from_dict(settings["grid"])}
        return cls(**arguments)

    @staticmethod
    def _time(ds: xr.Dataset) -> str:
        return str(next(iter(ds.data_vars.values())).dims[0])


def _stack(ds: xr.Dataset, names: Sequence[str]) -> Tensor:
    """Variables of a dataset (time, Y, X) as one float64 tensor (time, C, Y, X)."""
    return torch.from_numpy(np.stack([np.asarray(ds[n].values, dtype=np.float64) for n in names], axis=1))


def _clock(time: xr.DataArray) -> Tensor:
    """sin and cos of the hour of the day and of the day of the calendar's year: (B, 4)."""
    day = 2 * np.pi * (time.dt.hour + time.dt.minute / 60) / 24
    year = 2 * np.pi * (time.dt.dayofyear - 1) / DAYS.get(time.dt.calendar, 365.25)
    return tensor(np.stack([f(a.values) for a in (day, year) for f in (np.sin, np.cos)], axis=1))
