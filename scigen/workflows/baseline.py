"""A network that estimates the mean directly, of the teacher's architecture: a baseline of one call and one member."""

import copy
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn

from scigen.core.bundle import Bundle, load
from scigen.core.codec import Codec
from scigen.core.domain import Data, Split
from scigen.core.methods.mean import DirectMean
from scigen.core.sampling import Sampling
from scigen.core.streaming import archive_stream
from scigen.workflows.device import pick
from scigen.workflows.folder import claim, digest
from scigen.workflows.training import adopt, build, plain, provenance, run, settings

log = logging.getLogger(__name__)

JUDGED = 64
"""Samples of the validation split that choose the weights."""


def baseline(cfg: DictConfig, data: Data, domain: str, home: Path) -> Bundle:
    """The finished baseline of a run, or one trained now.

    It is a denoiser that is given no sample, at the highest level of noise: the mean of what the condition leaves open,
    held to the measurement as the teacher is.

    Args:
        cfg: of the verb fit: `baseline`, `network`, `noise`.
        data: to train on.
        domain: the field's name.
        home: the run folder, in which the stage has a folder of its own.
    """
    config, began = plain(cfg), time.monotonic()
    wanted = {k: config[k] for k in ("baseline", "network", "seed", "crop")}
    wanted |= {"data": data.fingerprint, "sigma_max": config["noise"]["sigma_max"]}
    folder = claim(home / f"baseline-{digest(wanted)}", wanted)
    path = folder / "baseline.safetensors"
    if path.exists():
        log.info("baseline: finished before, %s", path)
        return load(path).to(pick(cfg.trainer.accelerator))
    _, schedule = settings({"training": config["baseline"]["training"]})
    level = float(cfg.noise.sigma_max)
    built = build(config["network"], data.codec, cfg.seed)
    bundle = Bundle(*built, 1.0, data.codec, Sampling("mean", (level,)), domain, "baseline")
    bundle.to(pick(cfg.trainer.accelerator))
    micro, total = schedule.batch // schedule.accumulate, schedule.steps * schedule.accumulate
    stream = archive_stream(data.codec, data.train.truth, data.train.inputs, micro, total, cfg.seed, config["crop"])
    method = DirectMean(copy.deepcopy(bundle.denoiser).requires_grad_(True), level)
    judge = _judge(data.codec, data.validation, level, int(cfg.batch))
    adopt(bundle, run(cfg, "baseline", method, stream, schedule, folder, judge))
    bundle.provenance = provenance(cfg, data, time.monotonic() - began)
    bundle.save(path)
    return bundle


def _judge(codec: Codec, split: Split, level: float, batch: int) -> Callable[[nn.Module], dict[str, float]] | None:
    """Mean squared error on the validation split; None where there is none."""
    total = len(codec.samples(split.inputs))
    if not total:
        return None
    index = np.unique(np.linspace(0, total - 1, min(total, JUDGED)).round().astype(int))

    def judge(denoiser: nn.Module) -> dict[str, float]:
        device, square = next(denoiser.parameters()).device, 0.0
        for low in range(0, len(index), batch):
            part = index[low : low + batch]
            truth = codec.encode(split.truth, split.inputs, part).to(device)
            condition = {k: v.to(device) for k, v in codec.condition(split.inputs, part).items()}
            with torch.no_grad():
                found = denoiser(torch.zeros_like(truth), truth.new_full((len(truth),), level), condition)
            square += float((found - truth).double().square().flatten(1).mean(1).sum())
        return {"score": square / len(index)}

    return judge
