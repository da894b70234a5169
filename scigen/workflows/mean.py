"""The stage before a teacher of residuals: a regression network for the mean, and out-of-fold residuals to train on."""

import copy
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from torch import nn

from scigen.core.codec import Codec
from scigen.core.domain import Data, Domain, Split
from scigen.core.driver import Schedule
from scigen.core.mean import ConditionalMean
from scigen.core.methods.mean import MeanRegression, folds
from scigen.core.streaming import archive_stream
from scigen.workflows.device import pick
from scigen.workflows.folder import claim, digest
from scigen.workflows.training import build, plain, run, settings

log = logging.getLogger(__name__)

JUDGED = 256
"""Samples of the validation split that choose the weights."""


def with_mean(cfg: DictConfig, domain: Domain, data: Data, home: Path) -> Data:
    """The data as residuals over a regression network's mean.

    Training residuals are out of fold: `mean.folds` networks are trained without one part of the training split each,
    and predict that part. One more, trained on all of it, is the bundle's. Finished networks are not trained again.

    Args:
        cfg: of the verb fit: `mean`, `network`.
        domain: the field.
        data: with a codec without a mean.
        home: the run folder, in which the stage has a folder of its own.

    Raises:
        UserError: for folds that the training split does not allow, or a field that has no such stage.
    """
    config = plain(cfg)
    wanted = {k: config[k] for k in ("mean", "network", "seed", "crop")} | {"data": data.fingerprint}
    folder = claim(home / f"mean-{digest(wanted)}", wanted)
    _, schedule = settings({"training": config["mean"]["training"]})
    train, codec = data.train, data.codec
    dim = codec.layout(train.inputs).dims[0]
    count = len(codec.samples(train.inputs))
    parts = folds(count, int(config["mean"]["folds"]))
    told_at = folder / "told.npy"
    if not told_at.exists():
        partial = folder / "told.partial.npy"
        told = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=(count, *codec.shape))
        for k, part in enumerate(parts):
            rest = np.setdiff1d(np.arange(count), part)
            others = Split(train.truth.isel({dim: rest}), train.inputs.isel({dim: rest}))
            network = _network(cfg, data, others, schedule, folder / f"fold-{k}", f"mean, fold {k + 1}/{len(parts)}")
            for lo in range(0, len(part), cfg.batch):
                index = part[lo : lo + cfg.batch]
                told[index] = _predict(network, codec, train, index)
        told.flush()
        partial.replace(told_at)
    mean = _network(cfg, data, train, schedule, folder / "all", "mean").cpu().eval().requires_grad_(False)
    told = np.load(told_at, mmap_mode="r", allow_pickle=False)
    codec, residual = domain.residuals(codec, mean, train, told)
    codec.to(pick(cfg.trainer.accelerator))
    return replace(data, codec=codec, train=residual)


def _network(
    cfg: DictConfig, data: Data, split: Split, schedule: Schedule, folder: Path, title: str
) -> ConditionalMean:  # fmt: skip
    """A network trained on a split: the finished one, or trained now."""
    codec, path = data.codec, folder / "mean.safetensors"
    blank = ConditionalMean(*build(plain(cfg)["network"], codec, cfg.seed)).to(pick(cfg.trainer.accelerator))
    if path.exists():
        log.info("%s: finished before, %s", title, path)
        blank.network.load_state_dict(load_file(path))
        return blank
    micro, total = schedule.batch // schedule.accumulate, schedule.steps * schedule.accumulate
    stream = archive_stream(codec, split.truth, split.inputs, micro, total, cfg.seed, plain(cfg)["crop"])
    judge = _judge(codec, data.validation, int(cfg.batch))
    trained = run(cfg, title, MeanRegression(copy.deepcopy(blank)), stream, schedule, folder, judge)
    blank.load_state_dict(trained.state_dict())
    partial = path.with_suffix(".partial")
    save_file({k: v.detach().cpu().contiguous() for k, v in blank.network.state_dict().items()}, partial)
    partial.replace(path)
    return blank


def _judge(codec: Codec, split: Split, batch: int) -> Any:
    """Mean squared error on the validation split; None where there is none."""
    total = len(codec.samples(split.inputs))
    if not total:
        return None
    index = np.unique(np.linspace(0, total - 1, min(total, JUDGED)).round().astype(int))

    def judge(mean: nn.Module) -> dict[str, float]:
        square = 0.0
        for lo in range(0, len(index), batch):
            part = index[lo : lo + batch]
            error = _predict(mean, codec, split, part) - codec.encode(split.truth, split.inputs, part).numpy()
            square += float(np.square(error, dtype=np.float64).mean(axis=tuple(range(1, error.ndim))).sum())
        return {"score": square / len(index)}

    return judge


def _predict(mean: nn.Module, codec: Codec, split: Split, index: np.ndarray) -> np.ndarray:
    """The mean's normalised prediction for samples of a split: (B, C, *S)."""
    device = next(mean.parameters()).device
    condition = {k: v.to(device) for k, v in codec.condition(split.inputs, index).items()}
    with torch.no_grad():
        return mean.eval()(torch.zeros(len(index), *codec.shape, device=device), condition=condition).cpu().numpy()
