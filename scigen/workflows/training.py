"""Training one stage of a fit: method and schedule as configured, a progress bar, weights chosen by a judge."""

import copy
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import nn

from scigen.core.bundle import Bundle, versions
from scigen.core.codec import Codec
from scigen.core.datamodule import SampleStream
from scigen.core.domain import Data, Split
from scigen.core.driver import Schedule
from scigen.core.methods.base import Method
from scigen.core.selection import faults
from scigen.core.train import train
from scigen.errors import UserError
from scigen.plots.validation import figure
from scigen.progress import progress
from scigen.workflows.card import made
from scigen.workflows.device import pick
from scigen.workflows.watching import logger_of

log = logging.getLogger(__name__)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain types, references resolved."""
    return json.loads(json.dumps(OmegaConf.to_container(cfg, resolve=True), default=str))


def settings(method: dict[str, Any]) -> tuple[dict[str, Any], Schedule]:
    """Arguments of a method's constructor, and how long it is trained.

    Raises:
        UserError: for a key of `training` that there is not.
    """
    arguments, training = {k: v for k, v in method.items() if k != "training"}, method["training"]
    known = [f.name for f in fields(Schedule)]
    if unknown := [k for k in training if k not in known]:
        raise UserError(f"training.{unknown[0]} is none of the keys of a training: {', '.join(known)}.")
    return arguments, Schedule(**training)


def build(network: dict[str, Any], codec: Codec, seed: int) -> tuple[nn.Module, str, dict[str, Any]]:
    """A network for a codec's samples, not trained: itself, its class and its arguments.

    Args:
        network: of the configuration: `_target_` and arguments; `periodic: auto` becomes what the data are.
        codec: says what it takes and gives.
        seed: of the weights.
    """
    own = dict(network)
    name = own.pop("_target_")
    args = own | {"channels": codec.shape[0], "space": len(codec.shape) - 1}
    args |= {"condition_fields": codec.fields, "condition_scalars": codec.scalars}
    if args.get("periodic") == "auto":
        args["periodic"] = list(codec.periodic)
    wraps = args.get("periodic", False)
    wraps = [wraps] * len(codec.periodic) if isinstance(wraps, bool) else wraps
    if any(has and not does for has, does in zip(codec.periodic, wraps, strict=False)):
        log.warning("The data wrap around along an axis and %s does not: a seam may show there.", name.split(".")[-1])
    torch.manual_seed(seed)
    return get_class(name)(**args), name, args


def run(
    cfg: DictConfig, title: str, method: Method, stream: SampleStream, schedule: Schedule, folder: Path,
    judge: Callable[[nn.Module], dict[str, float]] | None,
) -> nn.Module:  # fmt: skip
    """Train with a progress bar; returns the student with the chosen weights."""
    own = ("checkpoint_every", "limits", "_target_")
    args = {k: v for k, v in plain(cfg)["trainer"].items() if k not in own}
    args["accelerator"] = pick(cfg.trainer.accelerator).type  # so that training and sampling agree
    trainer = partial(get_class(cfg.trainer._target_), **args)
    accumulate = schedule.accumulate
    if isinstance(judge, EnsembleJudge):
        judge = replace(judge, picture=folder / "samples.png")
    with progress(title, schedule.steps, "steps") as advance:
        return train(
            method, stream, schedule, trainer, folder, seed=cfg.seed, checkpoint_every=cfg.trainer.checkpoint_every,
            report=lambda done, loss: advance(done // accumulate, f"loss {loss:.4g}" if loss == loss else ""),
            judge=judge, logger=logger_of(plain(cfg).get("logger"), folder),
        )  # fmt: skip


def adopt(bundle: Bundle, trained: nn.Module) -> None:
    """Give a bundle's network the weights of a trained denoiser that is built as the bundle's own.

    What the codec brings to the denoiser, an operator, is shared with other bundles and stays as it is.

    Args:
        bundle: on any device.
        trained: on any device; it may be made of averages.
    """
    (place,) = (name for name, module in bundle.denoiser.named_modules() if module is bundle.network)
    state = {k.removeprefix(f"{place}."): v for k, v in trained.state_dict().items() if k.startswith(f"{place}.")}
    bundle.network.load_state_dict(state)


def judge_of(
    bundle: Bundle, split: Split, samples: int, members: int, steps: tuple[int | None, ...], seed: int, batch: int
) -> Callable[[nn.Module], dict[str, float]] | None:
    """A judge of denoisers whose weights the bundle could adopt, on samples of a split.

    All candidates get the same samples and the same noise, so that their differences are their own.

    Args:
        bundle: with codec and sampler, on the device to sample on; it stays as it is.
        split: validation data; its samples are taken evenly.
        samples: number of samples; 0 makes no judge.
        members: of each ensemble, two at least.
        steps: numbers of steps whose faults are averaged.
        seed: of the ensembles.
        batch: rows of a compute batch, at most.
    """
    codec = bundle.codec
    total = len(codec.samples(split.inputs))
    if samples < 1 or members < 2 or total < 2:
        return None
    index = np.unique(np.linspace(0, total - 1, min(samples, total)).round().astype(int))
    batch = min(batch, len(index) * members)
    first = codec.layout(split.inputs).dims[0]
    inputs, fields = split.inputs.isel({first: index}).load(), split.truth.isel({first: index}).load()
    everything = slice(None)
    truth = codec.decode(codec.encode(fields, inputs, everything), codec.condition(inputs, everything)).numpy()
    probe = replace(bundle, network=copy.deepcopy(bundle.network))
    return EnsembleJudge(probe, inputs, codec.scored(truth), members, steps, seed, batch)


@dataclass(frozen=True)
class EnsembleJudge:
    """Samples with a denoiser's weights and finds the ensemble's faults; made by `judge_of`, whose words these are.

    Attributes:
        probe: bundle that takes the weights, on the device to sample on.
        inputs: prepared, in memory.
        truth: (samples, C, *S), as the codec scores it.
        picture: where the samples are drawn each time, if anywhere.
    """

    probe: Bundle
    inputs: xr.Dataset
    truth: np.ndarray
    members: int
    steps: tuple[int | None, ...]
    seed: int
    batch: int
    picture: Path | None = None

    def __call__(self, denoiser: nn.Module) -> dict[str, float]:
        """The faults, averaged over the numbers of steps."""
        adopt(self.probe, denoiser)
        found = []
        for n in self.steps:
            blocks = self.probe.blocks(self.inputs, self.members, seed=self.seed, steps=n, batch=self.batch)
            members = self.probe.codec.scored(np.concatenate([b for _, b in blocks]))
            found.append(faults(members, self.truth))
        if self.picture is not None:
            figure(self.truth, members, next(iter(self.probe.codec.variables)), self.picture)
        return {k: float(np.mean([f[k] for f in found])) for k in found[0]}


CALIBRATING = (24, 4)
"""Held-out samples, and members of each, that a codec is calibrated on."""


def calibrated(bundle: Bundle, split: Split, seed: int, batch: int, limits: DictConfig) -> Bundle:
    """The bundle whose codec makes its own samples of the validation split right on average, where there is a choice.

    Args:
        bundle: on the device to sample on.
        split: validation data.
        seed: of the ensembles; the noise is none that reports use.
        batch: rows of a compute batch.
        limits: of the trainer: samples and members at most.
    """
    plain_codec = bundle.codec.uncalibrated
    if plain_codec is None:
        return bundle
    bundle = replace(bundle, codec=plain_codec)
    sampling = bundle.sampling
    for steps in sampling.own_steps if sampling.jumps else (len(sampling.sigmas),):
        bundle = replace(bundle, codec=_calibrated(bundle, split, seed, batch, limits, steps))
    return bundle


def _calibrated(bundle: Bundle, split: Split, seed: int, batch: int, limits: DictConfig, steps: int) -> Codec:
    """The codec with what so many levels need."""
    codec = bundle.codec
    count, members = (min(n, limits[k] or n) for n, k in zip(CALIBRATING, ("samples", "members"), strict=True))
    keys = codec.samples(split.inputs)
    index = np.unique(np.linspace(0, len(keys) - 1, min(count, len(keys))).round().astype(int))
    first = codec.layout(split.inputs).dims[0]
    own = codec.condition(split.inputs, index)
    rows = [(i, m) for i in range(len(index)) for m in range(members)]
    found, conditions = [], []
    for low in range(0, len(rows), batch):
        part = rows[low : low + batch]
        pick_rows = torch.tensor([i for i, _ in part])
        names, numbers = [f"calibration|{keys[index[i]]}" for i, _ in part], [m for _, m in part]
        x, condition, _ = bundle.generate({k: v[pick_rows] for k, v in own.items()}, names, numbers, seed, steps)
        found.append(x.cpu())
        conditions.append({k: v.cpu() for k, v in condition.items()})
    every = {k: torch.cat([c[k] for c in conditions]) for k in conditions[0]}
    return codec.calibrated(torch.cat(found), every, split.truth.isel({first: index}).load(), steps)


def provenance(cfg: DictConfig, data: Data, seconds: float) -> dict[str, Any]:
    """What a bundle says of its making."""
    return {
        "data": data.source, "data_fingerprint": data.fingerprint, "config": plain(cfg), "versions": versions(),
        "training_seconds": round(seconds, 1), **made(data),
    }  # fmt: skip
