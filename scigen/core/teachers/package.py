"""A CorrDiff pair in Earth2Studio's package layout: a regression network, a diffusion model of what it leaves.

metadata.json names the variables, stats.json has their means and standard deviations, invariants.nc the fixed fields,
output_latlon_grid.nc the grid. Both networks see [inputs, invariants], normalised, on the fine grid; the diffusion
model the regression's output before them where `hr_mean_conditioning` says so. The sum of both is denormalised.

Source: Mardani et al. 2023, arXiv:2309.15214; the CorrDiff loader of Earth2Studio.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scigen.core.denoise import Condition
from scigen.core.teachers import mdlus
from scigen.core.teachers.archive import read
from scigen.core.teachers.bounds import Bounded
from scigen.core.teachers.converted import Converted
from scigen.core.teachers.predictions import Affine
from scigen.core.teachers.teacher import levels
from scigen.errors import UserError
from scigen.io.archive import open_archive

REGRESSION, DIFFUSION = "regression.mdlus", "diffusion.mdlus"
GROUPS = {"input": "input_variables", "output": "output_variables", "invariants": "invariant_variables"}


@dataclass(frozen=True)
class Package:
    """What a package says, checked.

    Attributes:
        path: its folder.
        variables: names by group: input, output, invariants.
        statistics: (2, number) by group, means and standard deviations.
        invariants: fixed fields by name, (Y, X).
        latlon: latitudes and longitudes of the fine grid (Y, X), None if it does not say.
        sigmas: the levels that its sampler walks through.
        told: whether the diffusion model is given the regression's output.
        metadata: all of metadata.json.
        networks: descriptions and weights of the regression and of the diffusion network.
    """

    path: Path
    variables: dict[str, list[str]]
    statistics: dict[str, np.ndarray]
    invariants: dict[str, np.ndarray]
    latlon: tuple[np.ndarray, np.ndarray] | None
    sigmas: tuple[float, float]
    told: bool
    metadata: dict[str, Any]
    networks: tuple[tuple[dict[str, Any], dict[str, Tensor]], tuple[dict[str, Any], dict[str, Tensor]]]

    def diffusion(self) -> mdlus.Checkpoint:
        """The diffusion network alone, with its weights, for what it was trained to see."""
        description, state = self.networks[1]
        own = mdlus.sizes(description)
        with Bounded(state, description, self.path / DIFFUSION):
            network = mdlus.Checkpoint(own.channels, own.fields, own.scalars, description=description)
        mdlus.fill(network.inner, state, self.path / DIFFUSION)
        return network


def found(folder: Path) -> bool:
    """Whether a folder is a package."""
    return any((folder / n).exists() for n in (REGRESSION, DIFFUSION, "stats.json"))


def load(folder: Path) -> Package:
    """Read a package.

    Raises:
        UserError: if a file is missing, damaged or unsafe, or two contradict each other.
    """
    for name in (REGRESSION, DIFFUSION, "metadata.json", "stats.json"):
        if not (folder / name).is_file():
            raise UserError(f"The CorrDiff package {folder} lacks {name}.")
    metadata, stats = (_json(folder / n) for n in ("metadata.json", "stats.json"))
    if "invariant" in stats:  # as CorrDiff's training writes it
        if stats.setdefault("invariants", stats["invariant"]) != stats["invariant"]:
            raise UserError(f"{folder}/stats.json contradicts itself: its 'invariant' and 'invariants' differ.")
    names = {group: _names(metadata.get(key), folder, key) for group, key in GROUPS.items()}
    for group in ("input", "output"):
        if not names[group]:
            raise UserError(f"{folder}/metadata.json names no {GROUPS[group]}.")
    statistics = {group: _moments(stats, group, own, folder) for group, own in names.items()}
    told = metadata.get("hr_mean_conditioning", False)
    if not isinstance(told, bool):
        raise UserError(f"{folder}/metadata.json: hr_mean_conditioning={told!r} is neither true nor false.")
    networks = tuple(_network(folder / n) for n in (REGRESSION, DIFFUSION))
    seen, out = len(names["input"]) + len(names["invariants"]), len(names["output"])
    for name, (description, _), extra in zip((REGRESSION, DIFFUSION), networks, (0, told * out), strict=True):
        own = mdlus.sizes(description)
        if (own.channels, own.fields) != (out, seen + extra):
            raise UserError(
                f"{folder}: {name} makes {own.channels} channels from {own.fields}; metadata.json has {out} outputs,"
                f" and {len(names['input'])} inputs, {len(names['invariants'])} invariants"
                f"{' and the mean of the outputs' if extra else ''}, {seen + extra} in all."
            )
    if networks[0][0]["class"] not in mdlus.REGRESSION or networks[1][0]["class"] not in mdlus.EDM:
        raise UserError(
            f"{folder}: {REGRESSION} is a {networks[0][0]['class']} and {DIFFUSION} a {networks[1][0]['class']};"
            f" expected {mdlus.REGRESSION[0]} and EDMPrecondSuperResolution. Have they been exchanged?"
        )
    sigmas = levels(metadata, (0.002, 800.0), f"{folder}/metadata.json")
    return Package(
        folder, names, statistics, _invariants(folder, names["invariants"]), _grid(folder), sigmas, told, metadata,
        (networks[0], networks[1]),
    )  # fmt: skip


def _network(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    contents = read(path)
    return mdlus.describe(contents, path), contents.state


def _json(path: Path) -> dict[str, Any]:
    try:
        out = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path} is no JSON ({error}).") from error
    if not isinstance(out, dict):
        raise UserError(f"{path} is no JSON object.")
    return out


def _names(own: Any, folder: Path, key: str) -> list[str]:
    own = [] if own is None else own
    if not isinstance(own, list) or not all(isinstance(v, str) for v in own) or len(set(own)) < len(own):
        raise UserError(f"{folder}/metadata.json: {key}={own!r} must be a list of names, each once.")
    return list(own)


def _moments(stats: Mapping[str, Any], group: str, names: list[str], folder: Path) -> np.ndarray:
    """Means and standard deviations of a group, (2, number)."""
    out = []
    for name in names:
        table = stats.get(group)
        own = table.get(name) if isinstance(table, Mapping) else None
        if not isinstance(own, Mapping) or not {"mean", "std"} <= set(own):
            raise UserError(
                f"{folder}/stats.json has no mean and std of {name!r} under {group!r}, which metadata.json names."
            )
        mean, std = own["mean"], own["std"]
        good = all(isinstance(v, int | float) and math.isfinite(v) for v in (mean, std))
        if not good or std <= 0:
            raise UserError(
                f"{folder}/stats.json: {group} {name!r} has mean={mean!r} and std={std!r}, which normalise nothing."
            )
        out.append((float(mean), float(std)))
    return np.array(out, np.float64).reshape(-1, 2).T


def _invariants(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    if not names:
        return {}
    if not (folder / "invariants.nc").is_file():
        raise UserError(f"The CorrDiff package {folder} lacks invariants.nc, though metadata.json names {names}.")
    ds = open_archive(str(folder / "invariants.nc"))
    if missing := [n for n in names if n not in ds]:
        raise UserError(f"{folder}/invariants.nc lacks {missing[0]!r}, which metadata.json names.")
    out = {n: np.asarray(ds[n].squeeze().values, np.float32) for n in names}
    for name, field in out.items():
        if field.ndim != 2 or not np.isfinite(field).all():
            raise UserError(f"{folder}/invariants.nc: {name!r} is no finite field (y, x), but {field.shape}.")
    return out


def _grid(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    path = folder / "output_latlon_grid.nc"
    if not path.is_file():
        return None
    ds = open_archive(str(path))
    pairs = (("lat", "lon"), ("latitude", "longitude"))
    own = next(((ds[a], ds[b]) for a, b in pairs if a in ds.variables and b in ds.variables), None)
    if own is None:
        raise UserError(f"{path} has neither lat and lon nor latitude and longitude.")
    lat, lon = (np.asarray(v.values, np.float64) for v in own)
    if not (np.isfinite(lat).all() and np.isfinite(lon).all()):
        raise UserError(
            f"{path} has latitudes or longitudes that are no numbers, so that the place of the data cannot be checked:"
            " write the true ones, or take the file away if the grid is known to be the same."
        )
    if lat.ndim == lon.ndim == 1:
        lat, lon = np.meshgrid(lat, lon, indexing="ij")
    if lat.ndim != 2 or lat.shape != lon.shape:
        raise UserError(f"{path}: latitudes {lat.shape} and longitudes {lon.shape} are of no grid (y, x).")
    return lat, lon


@dataclass(frozen=True)
class Reading:
    """Where a package's networks find what they see among the condition fields of scigen's codec.

    Attributes:
        inputs: positions of the normalised inputs, in the package's order.
        invariants: positions of the normalised invariants.
        shared: for every output, its position among the fields, and mean and standard deviation there, or None: what
            the codec's base interpolates.
        mean: of the outputs.
        std: of the outputs.
        told: whether the network is given the regression's output.
    """

    inputs: tuple[int, ...]
    invariants: tuple[int, ...]
    shared: tuple[tuple[int, float, float] | None, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    told: bool = False

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> "Reading":
        """From JSON types."""
        own: dict[str, Any] = {k: _tuples(v) for k, v in words.items()}
        return cls(**own)

    def seen(self, fields: Tensor) -> Tensor:
        """[inputs, invariants], (B, K, Y, X)."""
        return fields[:, [*self.inputs, *self.invariants]]

    def base(self, fields: Tensor) -> Tensor:
        """The codec's interpolated base less the mean of the outputs, over their standard deviation: (B, C, Y, X)."""
        out = []
        for own, mean, std in zip(self.shared, self.mean, self.std, strict=True):
            if own is None:
                out.append(torch.full_like(fields[:, 0], -mean / std))
            else:  # differences of means before anything is added to them: temperatures keep their digits
                out.append((own[2] * fields[:, own[0]] + (own[1] - mean)) / std)
        return torch.stack(out, dim=1)


def _tuples(v: Any) -> Any:
    return tuple(_tuples(i) for i in v) if isinstance(v, list | tuple) else v


class Mean(nn.Module):
    """The regression network: what it adds to the codec's base, in units of the outputs' standard deviation."""

    radius: int | None = None

    def __init__(
        self, channels: int, condition_fields: int, condition_scalars: int, *, description: mdlus.Description,
        reading: Mapping[str, Any], space: int = 2,
    ) -> None:  # fmt: skip
        """Build the network, not trained.

        Args:
            channels: C.
            condition_fields: number of fields of the codec without the mean.
            condition_scalars: not heeded.
            description: of the network.
            reading: words of a `Reading`.
            space: must be 2.
        """
        super().__init__()
        self.channels, self.reading = channels, Reading.of(reading)
        self.inner: Any = mdlus.construct(description).eval()
        self.fixed_size = mdlus.sizes(description).fixed

    def train(self, mode: bool = True) -> "Mean":
        """Stay in evaluation mode: without dropout."""
        super().train(mode)
        self.inner.train(False)
        return self

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition | None = None) -> Tensor:
        """(B, C, Y, X); of x only the shape is used."""
        fields = (condition or {})["fields"].to(x)
        return self.inner(torch.zeros_like(x), self.reading.seen(fields)) - self.reading.base(fields)


class Residual(Converted):
    """The diffusion network, in units of the outputs' standard deviation."""

    def __init__(
        self, channels: int, condition_fields: int, condition_scalars: int, *, description: mdlus.Description,
        reading: Mapping[str, Any], space: int = 2,
    ) -> None:  # fmt: skip
        """Build the network, not trained: arguments as of `Mean`; the last C fields are what the mean adds."""
        own = mdlus.sizes(description)
        super().__init__(channels, condition_fields, condition_scalars, 1.0)
        self.inner = mdlus.Checkpoint(own.channels, own.fields, own.scalars, description=description, space=space)
        self.sigma_data, self.fixed_size = self.inner.sigma_data, self.inner.fixed_size
        self.reading = Reading.of(reading)

    def affine(self, sigma: Tensor) -> Affine:
        """Of the preconditioner."""
        return self.inner.affine(sigma)

    def predict(self, y: Tensor, time: Tensor, condition: Condition, scale: Tensor) -> Tensor:
        """The network's output for what it was trained to see."""
        fields = condition["fields"].to(y)
        seen = self.reading.seen(fields)
        if self.reading.told:
            seen = torch.cat([fields[:, -self.channels :] + self.reading.base(fields), seen], dim=1)
        return self.inner.predict(y, time, {"fields": seen}, scale)


def mean(package: Package, condition_fields: int, condition_scalars: int, reading: Mapping[str, Any]) -> Mean:
    """The regression network of a package, with its weights, for a codec with so many fields and scalars."""
    description, state = package.networks[0]
    path, channels = package.path / REGRESSION, len(package.variables["output"])
    with Bounded(state, description, path):
        network = Mean(channels, condition_fields, condition_scalars, description=description, reading=reading)
    mdlus.fill(network.inner, state, path)
    return network


def residual(package: Package, condition_fields: int, condition_scalars: int, reading: Mapping[str, Any]) -> Residual:
    """The diffusion network of a package, likewise."""
    description, state = package.networks[1]
    path, channels = package.path / DIFFUSION, len(package.variables["output"])
    with Bounded(state, description, path):
        network = Residual(channels, condition_fields, condition_scalars, description=description, reading=reading)
    mdlus.fill(network.inner.inner, state, path)
    return network
