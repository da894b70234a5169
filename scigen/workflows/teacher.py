"""Teachers from elsewhere, where they meet data: a bundle around what `teacher=` names."""

import hashlib
import importlib
import inspect
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import DictConfig

from scigen.core.bundle import Bundle, versions
from scigen.core.codec import Codec
from scigen.core.denoise import preconditioning
from scigen.core.domain import Data
from scigen.core.sampling import Sampling
from scigen.core.teachers import call, opening
from scigen.core.teachers.archive import refuse_pickle
from scigen.core.teachers.converted import Converted, probe
from scigen.core.teachers.package import Package
from scigen.core.teachers.teacher import Teacher, levels
from scigen.errors import UserError
from scigen.weather.package import adopt
from scigen.weather.physics import DownscalingCodec
from scigen.workflows.training import plain

log = logging.getLogger(__name__)

KEYS = ("path", "precond", "sigma_min", "sigma_max")
GAIN = 10.0
"""Of a network's errors in D: a student that must jump from above it was hardly trained, see docs/teachers.md."""
LEVELS = 18
"""Of the sampler that a teacher has before the configuration gives it one."""


def found(words: Any) -> Teacher | Package | Mapping[str, Any] | None:
    """What `teacher=` names, if it is from elsewhere: read and checked; the words of a function as they are.

    Args:
        words: a path, {path: …} with what it does not say, or {call: …}; None for none.

    Returns:
        None for none, and for a bundle of scigen's own.

    Raises:
        UserError: if it is damaged, unsafe or unknown.
    """
    if not words:
        return None
    if isinstance(words, Mapping):
        if "call" in words:
            return words
        if strange := [k for k in words if k not in KEYS]:
            raise UserError(f"teacher.{strange[0]} is unknown; there are {', '.join(KEYS)}, or call.")
        if not isinstance(words.get("path"), str):
            raise UserError(f"teacher={dict(words)}: give path=, or call=.")
        own = opening.load(Path(words["path"]), words.get("precond"))
        return replace(own, sigmas=levels(words, own.sigmas))
    path = Path(str(words))
    refuse_pickle(path)
    bundle = path.suffix == ".safetensors" and not opening.foreign(path)
    return None if bundle or not path.exists() else opening.load(path)


def joined(own: Teacher | Package | Mapping[str, Any], data: Data, domain: str) -> tuple[Data, Bundle]:
    """The data, with the codec that the teacher needs, and the teacher as a bundle.

    Raises:
        UserError: if the two do not fit.
    """
    if isinstance(own, Package):
        return _package(own, data, domain)
    codec = data.codec
    if isinstance(own, Teacher):
        own = _told(own, codec)
    else:
        own = call.load(own, codec.shape[0], codec.fields, codec.scalars, codec.shape[1:])
        own = replace(own, network_args={"source": _source(own.network_class)})
    probe(own.network, codec.shape[1:], own.sigmas)
    log.info("teacher: %s, predicts %s on %s", own.kind, own.predicts, own.schedule)
    bundle = _bundle(own.network, own.network_class, own.network_args, codec, own.sigmas, domain, own.kind)
    return data, bundle


def _bundle(
    network: Converted, name: str, args: dict[str, Any], codec: Codec, sigmas: tuple[float, float], domain: str,
    kind: str,
) -> Bundle:  # fmt: skip
    sampling = Sampling.solver("dpm_solver", LEVELS, *sigmas)
    made = {"teacher": kind, "versions": versions()}
    return Bundle(network, name, args, network.sigma_data, codec, sampling, domain, "teacher", made)


def _package(own: Package, data: Data, domain: str) -> tuple[Data, Bundle]:
    if not isinstance(data.codec, DownscalingCodec):
        raise UserError(f"teacher={own.path} is a CorrDiff package, for domain=weather and not domain={domain}.")
    codec, network, args = adopt(own, data.codec)
    probe(network, codec.shape[1:], own.sigmas)
    name = f"{type(network).__module__}.{type(network).__qualname__}"
    log.info("teacher: CorrDiff package %s, with its statistics and its mean", own.path)
    return replace(data, codec=codec), _bundle(network, name, args, codec, own.sigmas, domain, "CorrDiff package")


def _told(own: Teacher, codec: Codec) -> Teacher:
    """The teacher whose network is told what the codec conditions on."""
    wanted = {"channels": codec.shape[0], "condition_fields": codec.fields, "condition_scalars": codec.scalars,
              "space": len(codec.shape) - 1}  # fmt: skip
    if all(own.network_args.get(k) == v for k, v in wanted.items()):
        return own
    args = own.network_args | wanted
    network: Converted = type(own.network)(**args)
    network.load_state_dict(own.network.state_dict())
    if own.network_args["condition_fields"]:
        log.warning("the teacher is told the fields of the condition, and none of its %d scalars", codec.scalars)
    else:
        log.warning("the teacher is told nothing of the condition: it is a prior of the fields")
    return replace(own, network=network, network_args=args)


def _source(name: str) -> str:
    """16 digits of the file that a function is in, so that another version of it is another teacher."""
    try:
        file = inspect.getsourcefile(importlib.import_module(name.partition(":")[0]))
    except TypeError:  # built in
        file = None
    return hashlib.sha256(Path(file).read_bytes() if file else b"").hexdigest()[:16]


def errors_gain(teacher: Bundle) -> float:
    """What an error of the network's prediction is in D at the largest level, over what it is in EDM's F: 1 but for ε.

    Args:
        teacher: around a `Converted` network.
    """
    network: Any = teacher.network
    sigma = torch.tensor([teacher.sampling.sigmas[0]], dtype=torch.float64)
    _, c_out, *_ = preconditioning(sigma, network.sigma_data)
    return float((network.affine(sigma).out / c_out).abs().max())


def give_student(cfg: DictConfig, teacher: Bundle, stored: bool) -> None:
    """Say which network the student has, where it cannot be the teacher's: that of `network=`.

    Args:
        cfg: of the verb fit; `student` is set.
        teacher: from elsewhere.
        stored: whether bundles may hold its network.

    Raises:
        UserError: if the method needs what the teacher's network cannot be told.
    """
    methods = [m for m in (cfg.method, *cfg.then.values()) if getattr(get_class(m._target_), "two_times", False)]
    if stored and methods and not cfg.student and not cfg.init:
        raise UserError(
            "Students that are flow maps are told a second time beside σ, and the network of this teacher has no place"
            " for it (stock CorrDiff's, embedding_type: zero, is not even told σ): give the student a network of"
            " scigen's own, as student={widths: [32,64,64]}."
        )
    if stored and not cfg.student and not cfg.init and (gain := errors_gain(teacher)) > GAIN:
        log.warning(
            "the teacher's network predicts the noise: at σ = %.3g its errors are %.0f times as large in a sample, so a"
            " student of few calls learns poorly on it; a network of scigen's own may learn better, as"
            " student={widths: [32,64,64]}",
            teacher.sampling.sigmas[0], gain,
        )  # fmt: skip
    if not stored and not cfg.student and not cfg.init:
        own = {k: v for k, v in plain(cfg)["network"].items() if k != "_target_" and v != "auto"}
        cfg.student = own
        log.info("the student has a network of its own, network=; it is fitted to the teacher's scores first")
