"""The stage before a teacher in a latent space: an autoencoder, and the latents of the training split."""

import copy
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scigen.core.codec import Codec, Index
from scigen.core.domain import Data, Domain, Split
from scigen.core.methods.autoencoding import Autoencoding, cross_entropy
from scigen.core.networks.autoencoder import Autoencoder
from scigen.core.streaming import archive_stream
from scigen.workflows.device import pick
from scigen.workflows.folder import claim, digest
from scigen.workflows.training import plain, run, settings

log = logging.getLogger(__name__)

JUDGED = 64
"""Samples of the validation split that choose the weights."""


def with_autoencoder(cfg: DictConfig, domain: Domain, data: Data, home: Path) -> Data:
    """The data in the latent space of an autoencoder, which is trained now unless it is there.

    Args:
        cfg: of the verb fit: `autoencoder`.
        domain: the field.
        data: with the codec of the fields themselves.
        home: the run folder, in which the stage has a folder of its own.

    Raises:
        UserError: for a field that has no such stage, known voxels, or sizes that are no multiples of the factor.
    """
    config = plain(cfg)
    codec = domain.indicators(data.codec)
    wanted = {k: config[k] for k in ("autoencoder", "data", "seed")} | {"fingerprint": data.fingerprint}
    folder = claim(home / f"autoencoder-{digest(wanted)}", wanted)
    network = _trained(cfg, codec, data, folder)
    count = len(codec.samples(data.train.inputs))
    path = folder / "latents.npy"
    if not path.exists():
        partial = folder / "latents.partial.npy"
        size = [n // network.factor for n in codec.shape[1:]]
        out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=(count, network.latent, *size))
        for lo in range(0, count, cfg.batch):
            index = slice(lo, lo + cfg.batch)
            out[index] = _through(network.encode, network, codec, data.train, index).numpy()
        out.flush()
        partial.replace(path)
    latents = np.load(path, mmap_mode="r", allow_pickle=False)
    own, train = domain.latent(data.codec, network, data.train, latents)
    own.to(pick(cfg.trainer.accelerator))
    return replace(data, codec=own, train=train)


def _trained(cfg: DictConfig, codec: Codec, data: Data, folder: Path) -> Autoencoder:
    """The finished autoencoder, or one that is trained now."""
    arguments, schedule = settings(plain(cfg)["autoencoder"])
    kl, path = float(arguments.pop("kl")), folder / "autoencoder.safetensors"
    torch.manual_seed(cfg.seed)
    space = len(codec.shape) - 1
    network = Autoencoder(codec.shape[0], space=space, periodic=codec.periodic, **arguments)
    network.check(codec.shape[1:])
    network.to(pick(cfg.trainer.accelerator))
    if path.exists():
        log.info("autoencoder: finished before, %s", path)
        network.load_state_dict(load_file(path))
        return network.eval().requires_grad_(False)
    micro, total = schedule.batch // schedule.accumulate, schedule.steps * schedule.accumulate
    stream = archive_stream(codec, data.train.truth, data.train.inputs, micro, total, cfg.seed)
    method = Autoencoding(copy.deepcopy(network), kl)
    judge = _judge(codec, data.validation, int(cfg.batch))
    trained = run(cfg, "autoencoder", method, stream, schedule, folder, judge)
    network.load_state_dict(trained.state_dict())
    network.eval().requires_grad_(False)
    if judge:
        log.info("autoencoder: %.3g %% of held-out voxels come back as another phase", 100 * judge(network)["wrong"])
    partial = path.with_suffix(".partial")
    save_file({k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}, partial)
    partial.replace(path)
    return network


def _judge(codec: Codec, split: Split, batch: int) -> Callable[[nn.Module], dict[str, float]] | None:
    """Cross-entropy and share of wrong cells on the validation split; None where there is none."""
    total = len(codec.samples(split.inputs))
    if not total:
        return None
    index = np.unique(np.linspace(0, total - 1, min(total, JUDGED)).round().astype(int))

    def judge(network: nn.Module) -> dict[str, float]:
        entropy = wrong = 0.0
        for lo in range(0, len(index), batch):
            part = index[lo : lo + batch]
            scores = _through(network.eval(), network, codec, split, part)
            x = codec.encode(split.truth, split.inputs, part)
            entropy += len(part) * float(cross_entropy(scores, x))
            wrong += len(part) * float((scores.argmax(1) != x.argmax(1)).float().mean())
        return {"score": entropy / len(index), "wrong": wrong / len(index)}

    return judge


def _through(
    apply: Callable[[Tensor], Tensor], network: nn.Module, codec: Codec, split: Split, index: Index
) -> Tensor:  # fmt: skip
    """What part of the network makes of samples of a split, one at a time, on the CPU."""
    device = next(network.parameters()).device
    with torch.no_grad():
        return torch.cat([apply(x[None].to(device)).cpu() for x in codec.encode(split.truth, split.inputs, index)])
