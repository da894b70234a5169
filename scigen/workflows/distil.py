"""Teacher to student, in one method or several in turn, each starting from the student before."""

import copy
import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from scigen.core.bundle import Bundle, load
from scigen.core.datamodule import SampleStream
from scigen.core.denoise import FlowMap
from scigen.core.domain import Data
from scigen.core.driver import Schedule
from scigen.core.methods.base import Distiller
from scigen.core.networks.widen import widen
from scigen.core.sampling import Sampling
from scigen.core.streaming import archive_stream
from scigen.core.teachers.converted import Converted
from scigen.errors import UserError
from scigen.workflows.device import pick
from scigen.workflows.folder import claim, digest
from scigen.workflows.pairs import Pairs, pair_stream
from scigen.workflows.training import adopt, build, calibrated, judge_of, plain, provenance, run, settings

log = logging.getLogger(__name__)


GIVEN = ("channels", "space", "condition_fields", "condition_scalars")
"""Arguments of a network that the codec sets."""


def check(cfg: DictConfig, data: Data, teacher: Bundle) -> None:
    """Refuse a chain of methods that does not fit its start, its teacher or itself, before anything is trained.

    Args:
        cfg: of the verb fit: `init`, `student`, `method`, `then`.
        data: to train on.
        teacher: with its converged sampler; its weights do not matter.

    Raises:
        UserError: for what would stop one of the stages later.
    """
    config = plain(cfg)
    student = _smaller(config, teacher) if config["student"] else _start(cfg, teacher)
    for method in _chain(config):
        bundle, learning = _build(method, student, teacher)
        if learning.pairs:
            Pairs(teacher, data.train.inputs, learning.pairs, cfg.seed, cfg.batch, learning.sigmas)
        if learning.sigmas[0] < 0.99 * teacher.sampling.sigmas[0]:
            log.warning("the student starts at σ = %g, where the data still show", learning.sigmas[0])
        student = replace(bundle, provenance={"method": stem(method)})


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
    config, device = plain(cfg), pick(cfg.trainer.accelerator)
    student = (_shrink(cfg, data, teacher, home) if cfg.student else _start(cfg, teacher)).to(device)
    folders = []
    for method in _chain(config):
        wanted: dict[str, Any] = {"method": method, "teacher": teacher.fingerprint(), "data": data.fingerprint}
        wanted |= {k: config[k] for k in ("sampler", "seed", "validation", "crop")}
        if student is not teacher:
            wanted["init"] = student.fingerprint()
        folder = claim(home / f"{stem(method)}-{digest(wanted)}", wanted)
        student = _stage(cfg, method, data, teacher, student, folder).to(device)
        folders.append(folder)
    return student, folders


def stem(method: dict[str, Any]) -> str:
    """Name of a method: its file's, and its option file's."""
    return str(method["_target_"]).split(".")[-2]


def _chain(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [config["method"], *config["then"].values()]


def _start(cfg: DictConfig, teacher: Bundle) -> Bundle:
    """What the first student starts from, unless it is smaller: another student, or the teacher."""
    if not cfg.init:
        return teacher
    found = load(cfg.init)
    if found.domain != teacher.domain or found.codec.shape != teacher.codec.shape:
        raise UserError(f"init={cfg.init}, {found!r}, does not fit the teacher, {teacher!r}.")
    (ours, arrays), (theirs, other) = ((b.codec.uncalibrated or b.codec).state() for b in (teacher, found))
    same = json.dumps(ours) == json.dumps(theirs) and arrays.keys() == other.keys()
    if not same or any(not np.array_equal(arrays[k], other[k]) for k in arrays):
        raise UserError(
            f"init={cfg.init} translates between archives and networks in another way than the teacher (variables,"
            " grid or statistics): start from a student of this teacher, or fit without init=."
        )
    return found


def _smaller(config: dict[str, Any], teacher: Bundle) -> Bundle:
    """The teacher's bundle around another network, not trained: of its class, or `network=` if it is from elsewhere."""
    own, base, kind = config["student"], teacher.network_args, teacher.network_class
    if isinstance(teacher.network, Converted):
        _, kind, base = build(config["network"], teacher.codec, config["seed"])
    name = kind.rsplit(".", 1)[-1]
    if taken := [k for k in GIVEN if k in own]:
        raise UserError(f"student={own}: {taken[0]} is the data's, {base[taken[0]]} here; leave it out.")
    args = {**base, **own}
    try:
        network = get_class(kind)(**args)
    except TypeError as error:
        known = [k for k in base if k not in GIVEN]
        raise UserError(f"student={own}: {name} takes {', '.join(known)} and the like ({error}).") from error
    return replace(teacher, network=network, network_class=kind, network_args=args)


def _shrink(cfg: DictConfig, data: Data, teacher: Bundle, home: Path) -> Bundle:
    """A smaller network, fitted to the teacher's scores: the finished one, or fitted now."""
    config = plain(cfg)
    wanted = {k: config[k] for k in ("student", "teaching", "seed", "noise", "crop")}
    wanted |= {"teacher": teacher.fingerprint(), "data": data.fingerprint}
    if isinstance(teacher.network, Converted):
        wanted["network"] = config["network"]
    folder = claim(home / f"small-{digest(wanted)}", wanted)
    path = folder / "start.safetensors"
    if path.exists():
        log.info("smaller student: finished before, %s", path)
        return load(path)
    began = time.monotonic()
    torch.manual_seed(cfg.seed)
    bundle = _smaller(config, teacher)
    counts = [sum(p.numel() for p in b.network.parameters()) for b in (bundle, teacher)]
    log.info("smaller student: %.2f M parameters, the teacher %.2f M", *(c / 1e6 for c in counts))
    arguments, schedule = settings(config["teaching"])
    learner = copy.deepcopy(bundle.denoiser).requires_grad_(True)
    method = instantiate(
        arguments, student=learner, noise=instantiate(cfg.noise), teacher=copy.deepcopy(teacher.denoiser)
    )
    trained = run(cfg, "smaller student", method, _archive(cfg, data, schedule), schedule, folder, None)
    adopt(bundle, trained)
    bundle.provenance = provenance(cfg, data, time.monotonic() - began) | {"teacher": teacher.fingerprint()}
    bundle.save(path)
    return bundle


def _archive(cfg: DictConfig, data: Data, schedule: Schedule) -> SampleStream:
    return archive_stream(
        data.codec, data.train.truth, data.train.inputs, *_batches(schedule), cfg.seed, plain(cfg)["crop"]
    )


def _batches(schedule: Schedule) -> tuple[int, int]:
    """Samples of a micro-batch, and how many of them there are."""
    return schedule.batch // schedule.accumulate, schedule.steps * schedule.accumulate


def _build(config: dict[str, Any], start: Bundle, teacher: Bundle) -> tuple[Bundle, Distiller]:
    """A student's bundle with the weights that it starts from, and its method with a copy of them to train.

    Raises:
        UserError: if the method needs to start elsewhere, or its levels are none of the teacher's.
    """
    name = stem(config)
    kind: type[Distiller] = get_class(config["_target_"])
    if kind.follows and start.provenance.get("method") != kind.follows:
        raise UserError(
            f"method={name} starts from a student of method={kind.follows}, not from"
            f" {start.provenance.get('method', 'the teacher')}: give one as init=PATH, or chain both with"
            f" experiment={name}."
        )
    arguments, _ = settings(config)
    bundle = replace(start, role="student", network=copy.deepcopy(start.network))
    if kind.two_times and not start.two_times:
        args = {**start.network_args, "condition_scalars": start.codec.scalars + FlowMap.FEATURES}
        network = widen(start.network, get_class(start.network_class)(**args))
        bundle = replace(bundle, network=network, network_args=args, two_times=True)
    learner = copy.deepcopy(bundle.denoiser).requires_grad_(True)
    method: Distiller = instantiate(arguments, student=learner, teacher=copy.deepcopy(teacher.denoiser))
    low, high = teacher.sampling.sigmas[-1], teacher.sampling.sigmas[0]
    if max(method.sigmas) > 1.01 * high or min(method.sigmas) < 0.99 * low:
        raise UserError(
            f"method={name}: the student's levels [{', '.join(f'{s:g}' for s in method.sigmas)}] leave the range that"
            f" the teacher knows, σ ∈ [{low:g}, {high:g}]."
        )
    end = low if kind.two_times else None
    bundle.sampling = Sampling(method.sampler, method.sigmas, trained=True, sigma_min=end)
    return bundle, method


def _stage(cfg: DictConfig, config: dict[str, Any], data: Data, teacher: Bundle, start: Bundle, folder: Path) -> Bundle:
    """One method's student: the finished one, or distilled now."""
    path, name = folder / "student.safetensors", stem(config)
    if path.exists():
        log.info("student: finished before, %s", path)
        return load(path)
    began = time.monotonic()
    bundle, method = _build(config, start, teacher)
    bundle.to(pick(cfg.trainer.accelerator))
    _, schedule = settings(config)
    stream = _archive(cfg, data, schedule)
    if method.pairs:
        stream = pair_stream(
            teacher, data.train.inputs, method.pairs, *_batches(schedule), folder.parent, seed=cfg.seed,
            batch=cfg.batch, levels=method.sigmas, workers=cfg.workers,
        )  # fmt: skip
    own = bundle.sampling.own_steps
    steps = tuple(sorted({own[0], own[-1]}))
    judge = judge_of(bundle, data.validation, **cfg.validation, steps=steps, seed=cfg.seed, batch=cfg.batch)
    trained = run(cfg, f"student, {name}", method, stream, schedule, folder, judge)
    adopt(bundle, trained)
    bundle = calibrated(bundle, data.validation, cfg.seed, cfg.batch, cfg.trainer.limits)
    bundle.provenance = provenance(cfg, data, time.monotonic() - began)
    bundle.provenance |= {"teacher": teacher.fingerprint(), "method": name}
    if start is not teacher:
        bundle.provenance["init"] = start.fingerprint()
    bundle.save(path)
    return bundle
