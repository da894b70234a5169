"""Downscaling from tensors on: coarse fields and the clock in, fine fields out."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from scigen.core.traced import Port, Traced
from scigen.errors import UserError
from scigen.weather.conserve import scale_blocks
from scigen.weather.features import angles, zenith

if TYPE_CHECKING:
    from scigen.weather.physics import DownscalingCodec


class TracedDownscaling(Traced):
    """`DownscalingCodec` without archives; computed in float64 as there, so that kelvins keep their digits."""

    coarse: Tensor
    residual: Tensor
    told: Tensor
    fixed: Tensor
    latitude: Tensor
    longitude: Tensor

    def __init__(
        self, codec: "DownscalingCodec", *, shared: Mapping[int, int], held: Sequence[int], scaled: Sequence[int],
        fixed: Tensor, places: tuple[np.ndarray, np.ndarray] | None,
    ) -> None:  # fmt: skip
        """Take over a codec's numbers.

        Args:
            codec: of one region.
            shared: which coarse variable is the same as a fine one, by their numbers.
            held: fine variables that are held to the coarse ones by the denoiser.
            scaled: fine variables that are scaled to them.
            fixed: condition fields that are always the same, (K, Y, X).
            places: latitudes and longitudes (Y, X) [degrees] where networks are told of the sun, else None.
        """
        super().__init__()
        self.codec, self.shared, self.held, self.scaled = codec, shared, list(held), list(scaled)
        self.mean_operator, self.interpolation, self.mean = codec.mean_operator, codec.interpolation, codec.mean
        names, f = list(codec.variables), codec.factor
        moments = {
            "coarse": (codec.statistics.coarse, len(codec.inputs)),
            "residual": (codec.statistics.residual, len(names)),
            "told": (codec.statistics.mean, len(names)),
        }
        for name, (values, count) in moments.items():
            both = np.stack([np.zeros(count), np.ones(count)]) if values is None else np.asarray(values, np.float64)
            self.register_buffer(name, torch.from_numpy(both).reshape(2, count, 1, 1))
        self.register_buffer("fixed", fixed)
        self.sunny = places is not None
        if places is not None:
            for name, degrees in zip(("latitude", "longitude"), places, strict=True):
                self.register_buffer(name, torch.from_numpy(np.deg2rad(np.asarray(degrees, np.float64))))
        self.notes = f"grid: {codec.grid}; the coarse cells are blocks of {codec.factor} × {codec.factor} of its cells"
        rows, columns = codec.shape[1:]
        units = tuple(str(a.get("units", "1")) for a in codec.inputs.values())
        self.inputs = (
            Port(
                "coarse", (len(codec.inputs), rows // f, columns // f), units,
                "coarse fields, rows and columns as the grid of `notes` runs", tuple(codec.inputs),
            ),
            Port("hour", (), "h", "hour of the day in UTC, from 0 to 24"),
            Port("season", (), "1", "share of the year that has gone by: (day of the year − 1 + hour/24) / 365.25"),
        )  # fmt: skip
        self.output = Port(
            "fields", codec.shape, tuple(str(a.get("units", "1")) for a in codec.variables.values()),
            "fine fields of one member a row", tuple(names),
        )  # fmt: skip

    def condition(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `DownscalingCodec.condition`."""
        codec, coarse = self.codec, inputs["coarse"].double()
        bent = torch.stack([codec.transforms[n].forward(coarse[:, i]) for i, n in enumerate(codec.inputs)], dim=1)
        day, year = (2 * np.pi * inputs[n].double() / whole for n, whole in (("hour", 24.0), ("season", 1.0)))
        normal = (bent - self.coarse[0]) / self.coarse[1]
        seen = [self.interpolation(normal).float(), self.mean_operator.inverse(normal).float()]
        seen.append(self.fixed.expand(coarse.shape[0], *self.fixed.shape))
        if self.sunny:
            seen.append(zenith(day, year, self.latitude, self.longitude, torch)[:, None].float())
        fields = torch.cat(seen, dim=1)
        out = {"fields": fields, "scalars": torch.stack([day.sin(), day.cos(), year.sin(), year.cos()], dim=1).float()}
        spread = self.interpolation(bent)
        nothing, shared = torch.zeros_like(spread[:, 0]), self.shared
        parts = [spread[:, shared[c]] if c in shared else nothing for c in range(codec.shape[0])]
        base = torch.stack(parts, dim=1)
        if self.mean is not None:
            told = self.mean(torch.zeros_like(base).float(), condition=out).double()
            base = base + self.told[0] + self.told[1] * told
            out["fields"] = torch.cat([fields, told.float()], dim=1)
        out["base"] = base
        if self.held:
            left = coarse[:, [shared[i] for i in self.held]] - self.mean_operator(base[:, self.held])
            out["measurement"] = ((left - self.residual[0, self.held]) / self.residual[1, self.held]).float()
        if self.scaled:
            out["coarse"] = coarse[:, [shared[i] for i in self.scaled]]
        return out

    def decode(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """As `DownscalingCodec.decode`, float32."""
        codec = self.codec
        z = condition["base"] + self.residual[0] + self.residual[1] * x.double()
        fields = [codec.transforms[n].inverse(z[:, c]) for c, n in enumerate(codec.variables)]
        if self.scaled:
            rain = torch.stack([fields[i] for i in self.scaled], dim=1)
            rain = scale_blocks(self.mean_operator, rain, condition["coarse"])
            for c, i in enumerate(self.scaled):
                fields[i] = rain[:, c]
        return torch.stack(fields, dim=1).float()

    def package(self) -> dict[str, Any]:
        """Variables, statistics and grids; the output's statistics are those of what the networks generate."""
        codec = self.codec
        inputs, outputs = list(codec.inputs), list(codec.variables)
        static = codec.statistics.static
        fixed = np.stack([np.zeros(len(codec.static)), np.ones(len(codec.static))]) if static is None else static

        def table(names: Sequence[str], mean: Any, std: Any) -> dict[str, Any]:
            pairs = zip(names, np.ravel(mean), np.ravel(std), strict=True)
            return {n: {"mean": float(m), "std": float(s)} for n, m, s in pairs}

        grids = {"output_latlon_grid.nc": codec.grid, "input_latlon_grid.nc": codec.grid.coarse(codec.factor)}
        files = {}
        for name, grid in grids.items():
            places = grid.latlon()
            if places is None:
                raise UserError("format=earth2studio: the grid has no latitudes and longitudes; use format=pt2.")
            files[name] = xr.Dataset(
                {n: (("y", "x"), np.array(v)) for n, v in zip(("lat", "lon"), places, strict=True)}
            )
        if codec.static:
            files["invariants.nc"] = xr.Dataset({n: (("y", "x"), v) for n, v in codec.static.items()})
        return {
            "metadata": {
                "input_variables": inputs, "output_variables": outputs, "invariant_variables": list(codec.static),
            },
            "stats": {
                "input": table(inputs, self.coarse[0], self.coarse[1]),
                "output": table(outputs, self.residual[0], self.residual[1]),
                "invariants": table(list(codec.static), fixed[0], fixed[1]),
            },
            "grids": files,
        }  # fmt: skip

    def example(self, batch: int, seed: int) -> xr.Dataset:
        """Coarse fields of the training mean and spread, at times over a year."""
        rng, codec = np.random.default_rng(seed), self.codec
        shape = (batch, *self.inputs[0].shape)
        z = torch.from_numpy(rng.standard_normal(shape)) * self.coarse[1] + self.coarse[0]
        values = torch.stack([codec.transforms[n].inverse(z[:, i]) for i, n in enumerate(codec.inputs)], dim=1)
        grid = codec.grid.coarse(codec.factor)
        time = pd.Timestamp("2021-01-05") + pd.to_timedelta(np.arange(batch) * 1237, unit="h")
        dims = ("time", *grid.dims)
        out = {n: (dims, values[:, i].float().numpy(), dict(a)) for i, (n, a) in enumerate(codec.inputs.items())}
        return xr.Dataset(out, coords={"time": time, **grid.coordinates()})

    def feed(self, archive: xr.Dataset) -> dict[str, Tensor]:
        """Of coarse fields in the codec's order."""
        inputs = self.codec.prepare(archive)
        first = inputs[next(iter(self.codec.inputs))]
        values = np.stack([np.asarray(inputs[n].values, np.float32) for n in self.codec.inputs], axis=1)
        day, year = angles(inputs[first.dims[0]])
        return {
            "coarse": torch.from_numpy(values),
            "hour": torch.from_numpy(day * 24 / (2 * np.pi)).float(),
            "season": torch.from_numpy(year / (2 * np.pi)).float(),
        }
