"""The verb fit: data → teacher → few-step student → samples of all contenders → report."""

import copy
import logging
import time
from dataclasses import replace
from pathlib import Path

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from rich.console import Console

from scigen.core.bundle import Bundle, load
from scigen.core.crops import Crops
from scigen.core.domain import Data, Domain
from scigen.core.methods.base import Distiller
from scigen.core.networks.allowed import NETWORKS
from scigen.core.noise import sigma_range
from scigen.core.sampling import Sampling
from scigen.core.streaming import archive_stream
from scigen.errors import UserError
from scigen.workflows import teacher as teachers
from scigen.workflows.autoencoder import with_autoencoder
from scigen.workflows.baseline import baseline
from scigen.workflows.card import write_cards
from scigen.workflows.device import pick
from scigen.workflows.distil import check, distil, stem
from scigen.workflows.folder import alone, claim, digest
from scigen.workflows.judge import judge
from scigen.workflows.mean import with_mean
from scigen.workflows.training import adopt, build, calibrated, judge_of, plain, provenance, settings
from scigen.workflows.training import run as run_stage

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Path:
    """Fit as configured; returns the path of the report, or of the teacher where the method is no distiller."""
    began = time.monotonic()
    cfg = copy.deepcopy(cfg)
    _limit(cfg)
    _check(cfg)
    domain: Domain = instantiate(cfg.domain, **cfg.data)
    elsewhere = teachers.found(plain(cfg)["teacher"])
    teacher = load(cfg.teacher) if cfg.teacher and elsewhere is None else None
    start = load(cfg.init) if cfg.init and not _distils(cfg) else None
    if start and (start.role != "teacher" or start.two_times):
        raise UserError(
            f"init={cfg.init} is a {start.role}; method={stem(cfg.method)} goes on training a teacher. A student is"
            " trained on by a method that makes students, such as method=crps."
        )
    if start and start.domain != domain.name:
        raise UserError(f"init={cfg.init} is a bundle of domain={start.domain}, not of domain={domain.name}.")
    if teacher and (teacher.role != "teacher" or teacher.two_times):
        raise UserError(
            f"teacher={cfg.teacher} is a {teacher.role}, whose output is a sample and no mean E[x₀ | x_σ]: give the"
            " teacher that it was distilled from, and the student itself as init=."
        )
    if teacher and teacher.domain != domain.name:
        raise UserError(f"teacher={cfg.teacher} is a bundle of domain={teacher.domain}, not of domain={domain.name}.")
    given = teacher or start
    data = domain.open(Path("runs") / "data", given.codec if given else None)
    if given and data.codec is not given.codec:  # the archive lies elsewhere
        given = given.placed(data.codec)
        teacher, start = (given, None) if teacher else (None, given)
    log.info("data: %s", data.source)
    if elsewhere is not None:
        data, teacher = teachers.joined(elsewhere, data, domain.name)
        given = teacher
        teachers.give_student(cfg, teacher, stored=teacher.network_class in NETWORKS)
    config = plain(cfg)
    made_of = (
        {"teacher": teacher.fingerprint()}
        if teacher
        else {k: config[k] for k in ("network", "teaching", "validation", "mean", "autoencoder", "crop")}
    )
    if start:
        made_of = {"init": start.fingerprint()} | {k: config[k] for k in ("method", "validation", "crop")}
    identity = {k: config[k] for k in ("data", "noise", "seed")} | made_of
    identity |= {"domain": domain.name, "fingerprint": data.fingerprint, "precision": cfg.trainer.precision}
    folder = claim(Path(cfg.run or f"runs/{domain.name}-{digest(identity)}"), identity)
    log.info("run folder: %s", folder)
    with alone(folder):
        if cfg.mean:
            data = with_mean(cfg, domain, data, folder)
        if cfg.autoencoder:
            data = with_autoencoder(cfg, domain, data, folder)
        _fill_noise(cfg, data, given)
        report = _stages(cfg, domain, data, teacher, start, folder)
    log.info("done in %.1f minutes", (time.monotonic() - began) / 60)
    return report


def _stages(
    cfg: DictConfig, domain: Domain, data: Data, teacher: Bundle | None, start: Bundle | None, folder: Path
) -> Path:
    """Teacher, student, report in a run folder; stages that are finished are not done again."""
    sampling, path = instantiate(cfg.sampler), folder / "teacher.safetensors"
    if teacher is None and path.exists():
        log.info("teacher: finished before, %s", path)
        teacher = load(path)
    found = teacher or start
    blank = replace(found, sampling=sampling) if found else _network(cfg, domain, data, sampling)
    _check_crop(cfg, blank)
    if _distils(cfg):
        check(cfg, data, blank)
    blank.to(pick(cfg.trainer.accelerator))
    teacher = blank if teacher else _teach(cfg, data, blank, path, start)
    if not _distils(cfg):
        write_cards([path], {})
        Console().print(f"Teacher: {path}", soft_wrap=True)
        return path
    student, stages = distil(cfg, data, teacher, folder)
    rival = baseline(cfg, data, domain.name, folder) if cfg.baseline else None
    stage = stages[-1]
    limits = cfg.trainer.limits
    report = judge(
        domain, data, teacher, student, stage, seed=cfg.seed, batch=cfg.batch,
        samples=min(cfg.samples, limits.samples or cfg.samples),
        members=min(cfg.members, limits.members or cfg.members), logs=[s / "training.csv" for s in stages],
        baseline=rival,
    )  # fmt: skip
    made = [s / "student.safetensors" for s in stages]
    rivals = sorted(folder.glob("baseline-*/baseline.safetensors")) if rival else []
    metrics = report.with_name("metrics.json")
    write_cards([path, *made, *rivals], {path: metrics, made[-1]: metrics} if metrics.exists() else {})
    Console().print(f"Student: {stage / 'student.safetensors'}\nReport:  {report}", soft_wrap=True)
    return report


def _check_crop(cfg: DictConfig, bundle: Bundle) -> None:
    """Refuse crops that the field or the network has no use for, before anything is trained."""
    if cfg.crop is None:
        return
    crops = Crops(bundle.codec, plain(cfg)["crop"])
    fixed = getattr(bundle.network, "fixed_size", None)
    if fixed is not None and tuple(fixed) != crops.size:
        name = bundle.network_class.rsplit(".", 1)[-1]
        raise UserError(
            f"crop={cfg.crop}: {name} knows the places of fields of {tuple(fixed)} cells and takes no others, so it is"
            " neither trained on crops nor sampled beyond them: use network=unet."
        )
    if any(m.get("pairs") for m in (cfg.method, *cfg.then.values())):
        log.info("crop=%s: the teacher's pairs are of whole fields; crops are cut from data.", cfg.crop)


def _distils(cfg: DictConfig) -> bool:
    """Whether the method needs a teacher."""
    return issubclass(get_class(cfg.method._target_), Distiller)


def _check(cfg: DictConfig) -> None:
    """Refuse words that contradict each other."""
    for name, method in cfg.then.items():
        if not issubclass(get_class(method._target_), Distiller):
            raise UserError(f"then.{name} trains a teacher: only methods that distil one can follow another.")
    idle = [k for k in ("teacher", "student", "then") if cfg[k]]
    if idle and not _distils(cfg):
        word = ", ".join(cfg.then) if idle[0] == "then" else cfg[idle[0]]
        raise UserError(f"{idle[0]}={word} with a method that trains a teacher: leave one of them out.")
    if cfg.mean and (cfg.teacher or (cfg.init and not _distils(cfg))):
        raise UserError(f"{cfg.teacher or cfg.init} brings its own mean, if it has one: leave mean= out.")
    if cfg.autoencoder and (cfg.teacher or (cfg.init and not _distils(cfg))):
        raise UserError(f"{cfg.teacher or cfg.init} brings its own autoencoder, if it has one: leave autoencoder= out.")
    if cfg.autoencoder and (other := [k for k in ("mean", "crop") if cfg[k]]):
        raise UserError(f"autoencoder= and {other[0]}=: a latent space has no {other[0]}; leave one of them out.")
    if isinstance(cfg.trainer.devices, int) and cfg.trainer.devices > 1:
        config = plain(cfg)
        for stage in (config["teaching"], config["method"], *config["then"].values()):
            settings(stage)[1].check_devices(cfg.trainer.devices)
    if cfg.init and cfg.student:
        raise UserError("init= brings a network of its own: leave student= out.")


def _limit(cfg: DictConfig) -> None:
    """Apply the trainer's upper bounds on steps and pairs."""
    limits = cfg.trainer.limits
    if limits.steps is not None:
        others = [stage for stage in (cfg.autoencoder, cfg.baseline) if stage]
        for stage in (cfg.teaching, cfg.method, *cfg.then.values(), *others):
            stage.training.steps = min(stage.training.steps, limits.steps)
    for method in (cfg.method, *cfg.then.values()):
        if limits.pairs is not None and "pairs" in method:
            method.pairs = min(method.pairs, limits.pairs)
    for key in ("samples", "members"):
        if limits[key] is not None:
            cfg.validation[key] = min(cfg.validation[key], limits[key])


def _fill_noise(cfg: DictConfig, data: Data, teacher: Bundle | None) -> None:
    """Take the range of σ from the data, or from a teacher that was given, where it is not configured."""
    if teacher:
        low, high = teacher.sampling.sigmas[-1], teacher.sampling.sigmas[0]
    else:
        count = len(data.codec.samples(data.train.inputs))
        index = torch.linspace(0, count - 1, min(count, 1000)).long().unique().tolist()
        low, high = sigma_range(data.codec.typical(data.train.truth, data.train.inputs, index))
    cfg.noise.sigma_min = low if cfg.noise.sigma_min is None else cfg.noise.sigma_min
    cfg.noise.sigma_max = high if cfg.noise.sigma_max is None else cfg.noise.sigma_max
    own = (cfg.noise.sigma_min, cfg.noise.sigma_max)
    log.info("σ ∈ [%g, %g]", *own)
    if teacher and (own[0] < 0.99 * low or own[1] > 1.01 * high):
        raise UserError(f"The teacher knows σ ∈ [{low:g}, {high:g}]; noise asks for [{own[0]:g}, {own[1]:g}].")
    if own[1] < high or own[0] > 5 * low:
        log.warning("σ ∈ [%g, %g] is narrower than the data ask for, [%g, %g]", *own, low, high)


def _network(cfg: DictConfig, domain: Domain, data: Data, sampling: Sampling) -> Bundle:
    """The teacher, not trained."""
    network, name, args = build(plain(cfg)["network"], data.codec, cfg.seed)
    return Bundle(network, name, args, 1.0, data.codec, sampling, domain.name, "teacher")


def _teach(cfg: DictConfig, data: Data, bundle: Bundle, path: Path, start: Bundle | None = None) -> Bundle:
    """Train the teacher, or go on training the one that it starts from, as `method` says, and write it."""
    before = start.fingerprint() if start else None
    began = time.monotonic()
    codec = data.codec
    arguments, schedule = settings(plain(cfg)["method" if start else "teaching"])
    learner = copy.deepcopy(bundle.denoiser).requires_grad_(True)
    method = instantiate(arguments, student=learner, noise=instantiate(cfg.noise))
    micro, total = schedule.batch // schedule.accumulate, schedule.steps * schedule.accumulate
    stream = archive_stream(codec, data.train.truth, data.train.inputs, micro, total, cfg.seed, plain(cfg)["crop"])
    few = {k: max(-(-n // 2), min(n, 2)) for k, n in cfg.validation.items()}  # a teacher's samples are dear
    chooser = judge_of(bundle, data.validation, **few, steps=(None,), seed=cfg.seed, batch=cfg.batch)
    trained = run_stage(cfg, "teacher", method, stream, schedule, path.parent / "teacher", chooser)
    adopt(bundle, trained)
    bundle = calibrated(bundle, data.validation, cfg.seed, cfg.batch, cfg.trainer.limits)
    bundle.provenance = provenance(cfg, data, time.monotonic() - began) | ({"init": before} if before else {})
    bundle.save(path)
    return bundle
