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

from scigen.core.bundle import Bundle, load, versions
from scigen.core.datamodule import ArchiveStream, SampleStream
from scigen.core.domain import Data, Domain
from scigen.core.methods.base import Distiller, Method
from scigen.core.noise import sigma_range
from scigen.core.sampling import Sampling
from scigen.core.train import Schedule, train
from scigen.errors import UserError
from scigen.workflows.device import pick
from scigen.workflows.folder import alone, claim, digest
from scigen.workflows.judge import judge
from scigen.workflows.pairs import pair_stream
from scigen.workflows.progress import progress

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Path:
    """Fit as configured; returns the path of the report, or of the teacher where the method is no distiller."""
    began = time.monotonic()
    cfg = copy.deepcopy(cfg)
    _limit(cfg)
    if cfg.teacher and not _distils(cfg):
        raise UserError(f"teacher={cfg.teacher} with a method that trains a teacher: leave one of them out.")
    domain: Domain = instantiate(cfg.domain, **cfg.data)
    teacher = load(cfg.teacher) if cfg.teacher else None
    if teacher and teacher.domain != domain.name:
        raise UserError(f"teacher={cfg.teacher} is a bundle of domain={teacher.domain}, not of domain={domain.name}.")
    data = domain.open(Path("runs") / "data", teacher.codec if teacher else None)
    log.info("data: %s", data.source)
    _fill_noise(cfg, data, teacher)
    plain = _plain(cfg)
    made_of = {"teacher": teacher.fingerprint()} if teacher else {k: plain[k] for k in ("network", "teaching")}
    identity = {k: plain[k] for k in ("data", "noise", "seed")} | made_of
    identity |= {"domain": domain.name, "fingerprint": data.fingerprint, "precision": cfg.trainer.precision}
    folder = claim(Path(cfg.run or f"runs/{domain.name}-{digest(identity)}"), identity)
    log.info("run folder: %s", folder)
    with alone(folder):
        report = _stages(cfg, domain, data, teacher, folder)
    log.info("done in %.1f minutes", (time.monotonic() - began) / 60)
    return report


def _stages(cfg: DictConfig, domain: Domain, data: Data, teacher: Bundle | None, folder: Path) -> Path:
    """Teacher, student, report in a run folder; stages that are finished are not done again."""
    plain, sampling = _plain(cfg), instantiate(cfg.sampler)
    if teacher is None:
        teacher = _teach(cfg, domain, data, sampling, folder)
    teacher = replace(teacher, sampling=sampling).to(pick(cfg.trainer.accelerator))
    if not _distils(cfg):
        Console().print(f"Teacher: {folder / 'teacher.safetensors'}", soft_wrap=True)
        return folder / "teacher.safetensors"
    name = cfg.method._target_.split(".")[-2]
    wanted = {k: plain[k] for k in ("method", "sampler", "seed")} | {"teacher": teacher.fingerprint()}
    stage = claim(folder / f"{name}-{digest(wanted)}", wanted)
    student = _distil(cfg, data, teacher, stage).to(pick(cfg.trainer.accelerator))
    limits = cfg.trainer.limits
    report = judge(
        domain, data, teacher, student, stage, seed=cfg.seed, batch=cfg.batch,
        samples=min(cfg.samples, limits.samples or cfg.samples),
        members=min(cfg.members, limits.members or cfg.members),
    )  # fmt: skip
    Console().print(f"Student: {stage / 'student.safetensors'}\nReport:  {report}", soft_wrap=True)
    return report


def _distils(cfg: DictConfig) -> bool:
    """Whether the method needs a teacher."""
    return issubclass(get_class(cfg.method._target_), Distiller)


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain types, references resolved."""
    return json.loads(json.dumps(OmegaConf.to_container(cfg, resolve=True), default=str))


def _limit(cfg: DictConfig) -> None:
    """Apply the trainer's upper bounds on steps and pairs."""
    limits = cfg.trainer.limits
    if limits.steps is not None:
        for stage in (cfg.teaching, cfg.method):
            stage.training.steps = min(stage.training.steps, limits.steps)
    if limits.pairs is not None and "pairs" in cfg.method:
        cfg.method.pairs = min(cfg.method.pairs, limits.pairs)


def _fill_noise(cfg: DictConfig, data: Data, teacher: Bundle | None) -> None:
    """Take the range of σ from the data, or from a teacher that was given, where it is not configured."""
    if teacher:
        low, high = teacher.sampling.sigmas[-1], teacher.sampling.sigmas[0]
    else:
        count = len(data.codec.samples(data.train.inputs))
        index = torch.linspace(0, count - 1, min(count, 1000)).long().unique().tolist()
        low, high = sigma_range(data.codec.encode(data.train.truth, data.train.inputs, index))
    cfg.noise.sigma_min = low if cfg.noise.sigma_min is None else cfg.noise.sigma_min
    cfg.noise.sigma_max = high if cfg.noise.sigma_max is None else cfg.noise.sigma_max
    own = (cfg.noise.sigma_min, cfg.noise.sigma_max)
    log.info("σ ∈ [%g, %g]", *own)
    if teacher and (own[0] < 0.99 * low or own[1] > 1.01 * high):
        raise UserError(f"The teacher knows σ ∈ [{low:g}, {high:g}]; noise asks for [{own[0]:g}, {own[1]:g}].")
    if own[1] < high or own[0] > 5 * low:
        log.warning("σ ∈ [%g, %g] is narrower than the data ask for, [%g, %g]", *own, low, high)


def _train(
    cfg: DictConfig, title: str, method: Method, stream: SampleStream, schedule: Schedule, folder: Path
) -> nn.Module:
    """Train with a progress bar; returns the averaged student."""
    own = ("checkpoint_every", "limits", "_target_")
    args = {k: v for k, v in _plain(cfg)["trainer"].items() if k not in own}
    args["accelerator"] = pick(cfg.trainer.accelerator).type  # so that training and sampling agree
    trainer = partial(get_class(cfg.trainer._target_), **args)
    accumulate = schedule.accumulate
    with progress(title, schedule.steps, "steps") as advance:
        return train(
            method, stream, schedule, trainer, folder, seed=cfg.seed, checkpoint_every=cfg.trainer.checkpoint_every,
            report=lambda done, loss: advance(done // accumulate, f"loss {loss:.4g}" if loss == loss else ""),
        )  # fmt: skip


def _settings(method: DictConfig, cfg: DictConfig) -> tuple[dict[str, Any], Schedule]:
    """Arguments of a method's constructor, and how long it is trained."""
    plain = _plain(cfg)["teaching" if method is cfg.teaching else "method"]
    return {k: v for k, v in plain.items() if k != "training"}, Schedule(**plain["training"])


def _teach(cfg: DictConfig, domain: Domain, data: Data, sampling: Sampling, folder: Path) -> Bundle:
    """The folder's teacher: the finished one, or trained now."""
    path = folder / "teacher.safetensors"
    if path.exists():
        log.info("teacher: finished before, %s", path)
        return load(path)
    began = time.monotonic()
    codec, plain = data.codec, _plain(cfg)["network"]
    name = plain.pop("_target_")
    args = plain | {"channels": codec.shape[0], "space": len(codec.shape) - 1}
    args |= {"condition_fields": codec.fields, "condition_scalars": codec.scalars}
    torch.manual_seed(cfg.seed)
    bundle = Bundle(get_class(name)(**args), name, args, 1.0, codec, sampling, domain.name, "teacher")
    settings, schedule = _settings(cfg.teaching, cfg)
    learner = copy.deepcopy(bundle.denoiser).requires_grad_(True)
    method = instantiate(settings, student=learner, noise=instantiate(cfg.noise))
    micro, total = schedule.batch // schedule.accumulate, schedule.steps * schedule.accumulate
    stream = ArchiveStream(codec, data.train.truth, data.train.inputs, micro, total, cfg.seed)
    trained = _train(cfg, "teacher", method, stream, schedule, folder / "teacher")
    bundle.denoiser.load_state_dict(trained.state_dict())
    bundle.provenance = _provenance(cfg, data, began)
    bundle.save(path)
    return bundle


def _distil(cfg: DictConfig, data: Data, teacher: Bundle, folder: Path) -> Bundle:
    """The folder's student: the finished one, or distilled now."""
    path = folder / "student.safetensors"
    if path.exists():
        log.info("student: finished before, %s", path)
        return load(path)
    began = time.monotonic()
    settings, schedule = _settings(cfg.method, cfg)
    student = copy.deepcopy(teacher.denoiser).requires_grad_(True)
    method: Distiller = instantiate(settings, student=student, teacher=copy.deepcopy(teacher.denoiser))
    micro, total = schedule.batch // schedule.accumulate, schedule.steps * schedule.accumulate
    stream: SampleStream
    if method.pairs:
        cache = folder / "pairs.safetensors"
        stream = pair_stream(
            teacher, data.train.inputs, method.pairs, micro, total, cache, seed=cfg.seed, batch=cfg.batch
        )  # fmt: skip
    else:
        stream = ArchiveStream(data.codec, data.train.truth, data.train.inputs, micro, total, cfg.seed)
    trained = _train(cfg, "student", method, stream, schedule, folder)
    sampling = Sampling("few_step", method.sigmas)
    bundle = replace(teacher, network=copy.deepcopy(teacher.network), role="student", sampling=sampling)
    bundle.denoiser.load_state_dict(trained.state_dict())
    bundle.provenance = _provenance(cfg, data, began) | {"teacher": teacher.fingerprint()}
    bundle.save(path)
    return bundle


def _provenance(cfg: DictConfig, data: Data, began: float) -> dict[str, Any]:
    """What a bundle says of its making."""
    return {
        "data": data.source, "data_fingerprint": data.fingerprint, "config": _plain(cfg), "versions": versions(),
        "training_seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
