"""Teacher to student, in one method or several in turn, each starting from the student before."""

import copy
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from torch import nn

from scigen.core.bundle import Bundle, load
from scigen.core.datamodule import ArchiveStream, SampleStream
from scigen.core.denoise import FlowMap
from scigen.core.domain import Data
from scigen.core.methods.base import Distiller
from scigen.core.networks.widen import widen
from scigen.core.sampling import Sampling
from scigen.errors import UserError
from scigen.workflows.device import pick
from scigen.workflows.folder import claim, digest
from scigen.workflows.pairs import pair_stream
from scigen.workflows.training import judge_of, plain, provenance, run, settings

log = logging.getLogger(__name__)


def distil(cfg: DictConfig, data: Data, teacher: Bundle, home: Path) -> tuple[Bundle, list[Path]]:
    """The student of a chain of methods, with the folders of its stages; finished stages are not done again.

    Args:
        cfg: of the verb fit: `init`, `student`, `method`, `then`.
        data: to train on.
        teacher: with its converged sampler, on the device.
        home: the run folder, in which every stage has one of its own.

    Raises:
        UserError: if the start does not fit the teacher or the method.
    """
    config = plain(cfg)
    student = _start(cfg, data, teacher, home)
    folders = []
    for method in [config["method"], *config["then"].values()]:
        name = stem(method)
        _check_start(name, get_class(method["_target_"]), student)
        wanted: dict[str, Any] = {"method": method, "teacher": teacher.fingerprint(), "data": data.fingerprint}
        wanted |= {k: config[k] for k in ("sampler", "seed", "validation")}
        if student is not teacher:
            wanted["init"] = student.fingerprint()
        folder = claim(home / f"{name}-{digest(wanted)}", wanted)
        student = _stage(cfg, method, data, teacher, student, folder).to(pick(cfg.trainer.accelerator))
        folders.append(folder)
    return student, folders


def stem(method: dict[str, Any]) -> str:
    """Name of a method: its file's, and its option file's."""
    return str(method["_target_"]).split(".")[-2]


def _start(cfg: DictConfig, data: Data, teacher: Bundle, home: Path) -> Bundle:
    """What the first student starts from: another student, a smaller network, or the teacher."""
    if cfg.init and cfg.student:
        raise UserError("init= brings a network of its own: leave student= out.")
    if cfg.student:
        return _shrink(cfg, data, teacher, home)
    if not cfg.init:
        return teacher
    found = load(cfg.init).to(pick(cfg.trainer.accelerator))
    if found.domain != teacher.domain or found.codec.shape != teacher.codec.shape:
        raise UserError(f"init={cfg.init}, {found!r}, does not fit the teacher, {teacher!r}.")
    (ours, arrays), (theirs, other) = teacher.codec.state(), found.codec.state()
    if ours != theirs or arrays.keys() != other.keys() or any((arrays[k] != other[k]).any() for k in arrays):
        raise UserError(
            f"init={cfg.init} translates between archives and networks in another way than the teacher (variables,"
            " grid or statistics): start from a student of this teacher, or fit without init=."
        )
    return found


def _shrink(cfg: DictConfig, data: Data, teacher: Bundle, home: Path) -> Bundle:
    """A smaller network, fitted to the teacher's scores."""
    config = plain(cfg)
    args = {**teacher.network_args, **config["student"]}
    wanted = {"student": config["student"], "teaching": config["teaching"], "teacher": teacher.fingerprint()}
    wanted |= {k: config[k] for k in ("seed", "noise", "validation")} | {"data": data.fingerprint}
    folder = claim(home / f"small-{digest(wanted)}", wanted)
    path = folder / "start.safetensors"
    if path.exists():
        return load(path).to(pick(cfg.trainer.accelerator))
    began = time.monotonic()
    torch.manual_seed(cfg.seed)
    try:
        network = get_class(teacher.network_class)(**args)
    except TypeError as error:
        raise UserError(f"student={config['student']}: {teacher.network_class} takes no such argument ({error}).") from error
    counts = [sum(p.numel() for p in n.parameters()) for n in (network, teacher.network)]
    log.info("smaller student: %.2f M parameters, the teacher %.2f M", *(c / 1e6 for c in counts))
    bundle = replace(teacher, network=network, network_args=args)
    arguments, schedule = settings(config["teaching"])
    learner = copy.deepcopy(bundle.denoiser).requires_grad_(True)
    method = instantiate(
        arguments, student=learner, noise=instantiate(cfg.noise), teacher=copy.deepcopy(teacher.denoiser)
    )
    stream = _archive(cfg, data, schedule.batch // schedule.accumulate, schedule.steps * schedule.accumulate)
    trained = run(cfg, "smaller student", method, stream, schedule, folder, None)
    bundle.denoiser.load_state_dict(trained.state_dict())
    bundle.provenance = provenance(cfg, data, time.monotonic() - began) | {"teacher": teacher.fingerprint()}
    bundle.save(path)
    return bundle.to(pick(cfg.trainer.accelerator))


def _check_start(name: str, method: type[Distiller], start: Bundle) -> None:
    """Refuse a method that needs to start elsewhere."""
    if method.follows and start.provenance.get("method") != method.follows:
        raise UserError(
            f"method={name} starts from a student of method={method.follows}, not from"
            f" {start.provenance.get('method', 'the teacher')}: give one as init=PATH, or chain both with"
            f" experiment={name}."
        )


def _archive(cfg: DictConfig, data: Data, micro: int, total: int) -> SampleStream:
    return ArchiveStream(data.codec, data.train.truth, data.train.inputs, micro, total, cfg.seed)


def _student(start: Bundle, two_times: bool) -> Bundle:
    """A student's bundle with the weights that it starts from."""
    bundle = replace(start, role="student", network=copy.deepcopy(start.network))
    if two_times and not start.two_times:
        args = {**start.network_args, "condition_scalars": start.codec.scalars + FlowMap.FEATURES}
        network = widen(start.network, get_class(start.network_class)(**args))
        bundle = replace(bundle, network=network, network_args=args, two_times=True)
    return bundle


def _stage(
    cfg: DictConfig, config: dict[str, Any], data: Data, teacher: Bundle, start: Bundle, folder: Path
) -> Bundle:
    """One method's student: the finished one, or distilled now."""
    path = folder / "student.safetensors"
    name = stem(config)
    if path.exists():
        log.info("student: finished before, %s", path)
        return load(path)
    began = time.monotonic()
    arguments, schedule = settings(config)
    kind: type[Distiller] = get_class(config["_target_"])
    bundle = _student(start, kind.two_times)
    learner = copy.deepcopy(bundle.denoiser).requires_grad_(True)
    method: Distiller = instantiate(arguments, student=learner, teacher=copy.deepcopy(teacher.denoiser))
    low, high = teacher.sampling.sigmas[-1], teacher.sampling.sigmas[0]
    if max(method.sigmas) > 1.01 * high or min(method.sigmas) < 0.99 * low:
        raise UserError(
            f"method={name}: the student's levels {[round(s, 3) for s in method.sigmas]} leave the range that the"
            f" teacher knows, σ ∈ [{low:g}, {high:g}]."
        )
    bundle.sampling = Sampling(
        method.sampler, method.sigmas, trained=True, sigma_min=low if kind.two_times else None
    )  # fmt: skip
    micro, total = schedule.batch // schedule.accumulate, schedule.steps * schedule.accumulate
    stream: SampleStream
    if method.pairs:
        stream = pair_stream(
            teacher, data.train.inputs, method.pairs, micro, total, folder.parent, seed=cfg.seed, batch=cfg.batch,
            levels=method.sigmas,
        )  # fmt: skip
    else:
        stream = _archive(cfg, data, micro, total)
    own = bundle.sampling.own_steps
    steps = tuple(sorted({own[0], own[-1]}))
    judge = judge_of(bundle, data.validation, **cfg.validation, steps=steps, seed=cfg.seed, batch=cfg.batch)
    trained: nn.Module = run(cfg, f"student, {name}", method, stream, schedule, folder, judge)
    bundle.denoiser.load_state_dict(trained.state_dict())
    bundle.provenance = provenance(cfg, data, time.monotonic() - began)
    bundle.provenance |= {"teacher": teacher.fingerprint(), "method": name}
    bundle.save(path)
    return bundle
