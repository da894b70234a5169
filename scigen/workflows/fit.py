"""The verb fit: data → teacher → few-step student → samples of all contenders → report."""

import copy
import json
import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import nn

from scigen.core.bundle import Bundle, Sampling, load, versions
from scigen.core.datamodule import ArchiveStream
from scigen.core.domain import Data, Domain
from scigen.core.methods.base import Distiller, Method
from scigen.core.noise import sigma_range
from scigen.core.train import Schedule, train
from scigen.errors import UserError
from scigen.workflows.folder import claim, digest
from scigen.workflows.judge import judge
from scigen.workflows.pairs import pair_stream
from scigen.workflows.progress import progress

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Path:
    """Fit as configured; returns the run folder's report or bundle."""
    began = time.monotonic()
    cfg = copy.deepcopy(cfg)
    for key in ("steps", "pairs"):
        _cap(cfg, key)
    domain: Domain = instantiate(cfg.domain, **cfg.data)
    teacher = load(cfg.teacher) if cfg.teacher else None
    data = domain.open(Path("runs") / "data", teacher.codec if teacher else None)
    log.info("data: %s", data.source)
    if teacher and teacher.domain != domain.name:
        raise UserError(f"teacher={cfg.teacher} is a bundle of domain={teacher.domain}, not of {domain.name}.")
    _fill_noise(cfg, data, teacher)
    plain = OmegaConf.to_container(cfg, resolve=True)
    identity = {k: plain[k] for k in ("data", "seed")}
    identity |= {"fingerprint": data.fingerprint, "domain": domain.name, "noise": plain["noise"]}
    identity |= {"teacher": teacher.fingerprint()} if teacher else {k: plain[k] for k in ("network", "teaching")}
    folder = claim(Path(cfg.run or f"runs/{domain.name}-{digest(identity)}"), identity)
    log.info("run folder: %s", folder)
    sampling: Sampling = instantiate(cfg.sampler)
    if teacher is None:
        teacher = _teach(cfg, domain, data, sampling, folder)
    teacher = replace(teacher, sampling=sampling)
    if not issubclass(get_class(cfg.method._target_), Distiller):
        Console().print(f"Teacher: {folder / 'teacher.safetensors'}")
        return folder / "teacher.safetensors"
    name = cfg.method._target_.rsplit(".", 2)[-2]
    wanted = {"method": plain["method"], "sampler": plain["sampler"], "seed": cfg.seed, "teacher": teacher.fingerprint()}
    stage = claim(folder / f"{name}-{digest(wanted)}", wanted)
    student = _distil(cfg, data, teacher, stage)
    report = judge(
        domain, data, teacher, student, stage,
        samples=min(cfg.samples, cfg.trainer.limits.samples or cfg.samples),
        members=min(cfg.members, cfg.trainer.limits.members or cfg.members),
        seed=cfg.seed, batch=cfg.batch,
    )  # fmt: skip
    log.info("done in %.1f minutes", (time.monotonic() - began) / 60)
    Console().print(f"Student: {stage / 'student.safetensors'}\nReport:  {report}")
    return report


def _cap(cfg: DictConfig, key: str) -> None:
    """Apply the trainer's upper bounds on steps and pairs."""
    bound = cfg.trainer.limits[key]
    if bound is None:
        return
    if key == "steps":
        for stage in (cfg.teaching, cfg.method):
            stage.training.steps = min(stage.training.steps, bound)
    elif "pairs" in cfg.method:
        cfg.method.pairs = min(cfg.method.pairs, bound)


def _fill_noise(cfg: DictConfig, data: Data, teacher: Bundle | None) -> None:
    """Take the range of σ from the data, or from a teacher that was given, where it is not configured."""
    if teacher:
        low, high = teacher.sampling.sigmas[-1], teacher.sampling.sigmas[0]
    else:
        count = len(data.codec.samples(data.train.inputs))
        index = torch.linspace(0, count - 1, min(count, 1000)).long().unique().numpy()
        low, high = sigma_range(data.codec.encode(data.train.truth, data.train.inputs, index))
    cfg.noise.sigma_min = low if cfg.noise.sigma_min is None else cfg.noise.sigma_min
    cfg.noise.sigma_max = high if cfg.noise.sigma_max is None else cfg.noise.sigma_max
    if cfg.noise.sigma_max < high or cfg.noise.sigma_min > 5 * low:
        log.warning("σ ∈ [%g, %g] is narrower than the data ask for, [%g, %g]", cfg.noise.sigma_min, cfg.noise.sigma_max, low, high)


def _network(cfg: DictConfig, data: Data) -> tuple[nn.Module, str, dict[str, Any]]:
    """The configured network for this data, its class and all its arguments."""
    args = {k: v for k, v in OmegaConf.to_container(cfg.network, resolve=True).items() if k != "_target_"}
    codec = data.codec
    args |= dict(channels=codec.shape[0], condition_fields=codec.fields, condition_scalars=codec.scalars, space=len(codec.shape) - 1)
    name = cfg.network._target_
    return get_class(name)(**args), name, args


def _constructor(method: DictConfig) -> dict[str, Any]:
    """What a method's constructor is given, references resolved."""
    return {k: v for k, v in OmegaConf.to_container(method, resolve=True).items() if k != "training"}


def _trainer(cfg: DictConfig) -> Any:
    """lightning.Trainer as configured, to be given the rest."""
    own = ("checkpoint_every", "limits", "_target_")
    args = {k: v for k, v in OmegaConf.to_container(cfg.trainer, resolve=True).items() if k not in own}
    return partial(get_class(cfg.trainer._target_), **args)


def _train(cfg: DictConfig, title: str, method: Method, stream: Any, schedule: Schedule, folder: Path) -> nn.Module:
    """Train with a progress bar."""
    with progress(title, len(stream), "steps") as advance:
        return train(
            method, stream, schedule, _trainer(cfg), folder, seed=cfg.seed, checkpoint_every=cfg.trainer.checkpoint_every,
            report=lambda done, loss: advance(done, f"loss {loss:.4f}"),
        )  # fmt: skip


def _teach(cfg: DictConfig, domain: Domain, data: Data, sampling: Sampling, folder: Path) -> Bundle:
    """The folder's teacher: the finished one, or trained now."""
    path = folder / "teacher.safetensors"
    if path.exists():
        log.info("teacher: finished before, %s", path)
        return load(path)
    torch.manual_seed(cfg.seed)
    network, name, args = _network(cfg, data)
    began = time.monotonic()
    bundle = Bundle(network, name, args, 1.0, data.codec, sampling, domain.name, "teacher")
    schedule = Schedule(**cfg.teaching.training)
    settings = _constructor(cfg.teaching)
    method = instantiate(settings, student=copy.deepcopy(bundle.denoiser).requires_grad_(True), noise=instantiate(cfg.noise))
    stream = ArchiveStream(data.codec, data.train.truth, data.train.inputs, schedule.batch // schedule.accumulate, schedule.steps * schedule.accumulate, cfg.seed)  # fmt: skip
    bundle.denoiser.load_state_dict(_train(cfg, "teacher", method, stream, schedule, folder / "teacher").state_dict())
    bundle.provenance = _provenance(cfg, data, time.monotonic() - began)
    bundle.save(path)
    return bundle


def _distil(cfg: DictConfig, data: Data, teacher: Bundle, folder: Path) -> Bundle:
    """The folder's student: the finished one, or distilled now."""
    path = folder / "student.safetensors"
    if path.exists():
        log.info("student: finished before, %s", path)
        return load(path)
    began = time.monotonic()
    settings = _constructor(cfg.method)
    student = copy.deepcopy(teacher.denoiser).requires_grad_(True)
    method: Distiller = instantiate(settings, student=student, teacher=copy.deepcopy(teacher.denoiser))
    schedule = Schedule(**cfg.method.training)
    micro, total = schedule.batch // schedule.accumulate, schedule.steps * schedule.accumulate
    if method.pairs:
        stream = pair_stream(teacher, data.train.inputs, method.pairs, micro, total, folder / "pairs.safetensors", seed=cfg.seed, batch=cfg.batch)  # fmt: skip
    else:
        stream = ArchiveStream(data.codec, data.train.truth, data.train.inputs, micro, total, cfg.seed)
    trained = _train(cfg, "student", method, stream, schedule, folder)
    bundle = replace(teacher, network=copy.deepcopy(teacher.network), role="student", sampling=Sampling("few_step", method.sigmas))
    bundle.denoiser.load_state_dict(trained.state_dict())
    bundle.provenance = _provenance(cfg, data, time.monotonic() - began) | {"teacher": teacher.fingerprint()}
    bundle.save(path)
    return bundle


def _provenance(cfg: DictConfig, data: Data, seconds: float) -> dict[str, Any]:
    """What a bundle says of its making."""
    config = json.loads(json.dumps(OmegaConf.to_container(cfg, resolve=True), default=str))
    return dict(data=data.source, data_fingerprint=data.fingerprint, config=config, versions=versions(), training_seconds=round(seconds, 1))  # fmt: skip
