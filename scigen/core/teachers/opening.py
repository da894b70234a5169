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
    header = _header(path)
    return header is None or "scigen" in header


def _header(path: Path) -> dict[str, str] | None:
    """What a safetensors file says of itself; None for a damaged one."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (safetensors.SafetensorError, OSError):
        return None


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
    if precond is not None and path.suffix != ".safetensors":
        raise UserError(f"teacher.precond={precond}: only EDM's weights (.safetensors) do not say it; leave it out.")
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
    if path.suffix == ".safetensors" and "scigen" in (_header(path) or {}):
        raise UserError(f"{path} is a bundle of scigen's own: write teacher={path}.")
    if path.suffix == ".safetensors":
        return edm.load(path, precond)
    raise UserError(
        f"{path}: a teacher is a scigen bundle or EDM's weights (.safetensors), a PhysicsNeMo checkpoint (.mdlus), or"
        " the folder of a CorrDiff package or of diffusers."
    )
