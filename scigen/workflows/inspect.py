"""The verb inspect: what scigen sees in a bundle, an archive or a teacher from elsewhere."""

from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from scigen.errors import UserError
from scigen.io.archive import groups_of, open_archive
from scigen.io.describe import describe
from scigen.io.groups import InGroups
from scigen.weather.variables import recognise


def run(cfg: DictConfig) -> None:
    """Print what is at cfg.path, or cfg.teacher."""
    console = Console()

    def show(label: str, words: str) -> None:
        console.print(f"{label:<12} {words}", markup=False, highlight=False, soft_wrap=True)

    words = cfg.path if cfg.teacher is None else OmegaConf.to_container(cfg, resolve=True)["teacher"]  # type: ignore[index,call-overload]
    if words is None:
        raise UserError("inspect needs a path, as in scigen inspect era5.nc, or teacher=.")
    if cfg.teacher is not None or _elsewhere(words):
        from scigen.workflows.inspect_teacher import teacher

        for label, said in teacher(words):
            show(label, said)
        return
    if Path(cfg.path).suffix == ".safetensors":
        from scigen.core.bundle import load

        bundle = load(cfg.path)
        console.print(repr(bundle), markup=False)
        console.print(f"fingerprint  {bundle.fingerprint()}")
        for name, attrs in bundle.codec.variables.items():
            console.print(f"variable     {name} [{attrs.get('units', '?')}]", markup=False)
        levels = ", ".join(f"{s:.3g}" for s in bundle.sampling.sigmas[:6]) + (
            " …" if len(bundle.sampling.sigmas) > 6 else ""
        )
        console.print(f"sampling     {bundle.sampling.sampler}, {len(bundle.sampling.sigmas)} levels: {levels}")
        for key in ("data", "data_fingerprint", "training_seconds", "versions", "teacher"):
            if key in bundle.provenance:
                console.print(f"{key:<12} {bundle.provenance[key]}", markup=False)
        return
    groups = groups_of(cfg.path)
    if groups:
        show("groups", f"{', '.join(groups)}: name one as {cfg.path}::{groups[0]}")
    try:
        ds = open_archive(cfg.path)
    except InGroups:  # which have been named
        return
    known = {own: name for name, own in recognise(ds).items()}
    for label, words in describe(ds, known):
        show(label, words)
    if cfg.bundle is not None:
        for label, words in fits(cfg.bundle, cfg.path):
            show(label, words)


def _elsewhere(path: str) -> bool:
    """Whether a path is of a teacher from elsewhere, or of a pickle, which is refused as one."""
    suffix = Path(path).suffix.lower()
    if not (
        (Path(path).is_dir() and suffix != ".zarr")
        or suffix in (".mdlus", ".safetensors", ".pt", ".pth", ".pkl", ".ckpt", ".bin")
    ):
        return False
    from scigen.core.teachers.archive import PICKLES
    from scigen.core.teachers.opening import foreign

    return suffix in PICKLES or foreign(Path(path))


def fits(bundle: str, path: str) -> Iterator[tuple[str, str]]:
    """What a bundle takes of an archive and makes of it.

    Raises:
        UserError: if the archive does not fit; the message says how.
    """
    from scigen.core.bundle import load

    model = load(bundle)
    archive = model.codec.open(path)
    inputs = model.codec.prepare(archive)
    layout = model.codec.layout(inputs, archive)
    first, *space = layout.dims
    yield "bundle", repr(model)
    yield (
        "takes",
        ", ".join(f"{n} [{v.attrs.get('units', '?')}]" for n, v in inputs.data_vars.items() if first in v.dims),
    )
    shape = " × ".join(f"{d} {layout.coords.sizes[d]}" for d in space)
    yield "makes", f"{', '.join(model.codec.variables)} for {layout.coords.sizes[first]} samples ({first}), on {shape}"
