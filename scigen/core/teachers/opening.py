"""What is at a path that is given as a teacher."""

from pathlib import Path

import safetensors

from scigen.core.teachers import diffusers, edm, mdlus, package
from scigen.core.teachers.archive import refuse_pickle
from scigen.core.teachers.package import Package
from scigen.core.teachers.teacher import Teacher
from scigen.errors import UserError


def is_bundle(path: Path) -> bool:
    """Whether a safetensors file is scigen's own; a damaged one counts as such, and its loader says what is wrong."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return "scigen" in (file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return True


def foreign(path: Path) -> bool:
    """Whether what is at a path looks like a teacher from elsewhere, by its name alone, or the files of a folder."""
    if path.is_dir():
        return package.found(path) or diffusers.found(path)
    if path.suffix == ".mdlus":
        return True
    return path.suffix == ".safetensors" and path.is_file() and not is_bundle(path)


def load(path: Path, precond: str | None = None) -> Teacher | Package:
    """The teacher at a path.

    Args:
        path: a file or a folder.
        precond: kind of EDM's weights, see `edm.load`.

    Raises:
        UserError: if there is none, or it is damaged, unsafe or of an unknown kind.
    """
    refuse_pickle(path)
    if not path.exists():
        raise UserError(f"There is no teacher at {path}.")
    if path.is_dir() and package.found(path):
        return package.load(path)
    if path.is_dir() and diffusers.found(path):
        return diffusers.load(path)
    if path.is_dir():
        raise UserError(
            f"{path} is no teacher: neither a CorrDiff package (regression.mdlus, diffusion.mdlus, stats.json) nor a"
            " diffusers folder (unet/config.json, scheduler/scheduler_config.json)."
        )
    if path.suffix == ".mdlus":
        return mdlus.load(path)
    if path.suffix == ".safetensors":
        return edm.load(path, precond)
    raise UserError(
        f"{path}: a teacher is a scigen bundle or EDM's weights (.safetensors), a PhysicsNeMo checkpoint (.mdlus), or"
        " the folder of a CorrDiff package or of diffusers."
    )
