"""The verb export: a bundle as a file that runs without scigen."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from scigen.core.bundle import load
from scigen.core.export import checked
from scigen.io.archive import open_archive
from scigen.workflows.device import pick
from scigen.workflows.training import plain


def run(cfg: DictConfig) -> Path:
    """Export cfg.bundle as cfg.format to cfg.output; returns the path.

    Raises:
        UserError: for a format that there is not, an output that is there, or a model that cannot leave.
    """
    words = plain(cfg)
    form, path = str(words["format"]), Path(words["output"])
    checked.check_name(path, form, bool(words["overwrite"]))
    bundle = load(words["bundle"])
    if words["static"] is not None:
        bundle = bundle.relocate(open_archive(words["static"]))
    options = {n: words[n] for n in ("size", "boundary", "exact") if words[n] is not None}
    if options:
        bundle = bundle.placed(bundle.codec.adapt(options))
    bundle = bundle.quick(words["precision"]).to(pick(words["device"]))
    about = checked.export(bundle, form, path, words["steps"], bool(words["overwrite"]))
    console = Console()

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    say(f"Wrote {path}: {about['calls']} network call(s), {about['precision']}")
    for side in ("inputs", "outputs"):
        for port in about[side]:
            units = port["units"] if isinstance(port["units"], str) else ", ".join(dict.fromkeys(port["units"]))
            shape = " × ".join(map(str, port["shape"]))
            say(f"  {side[:-1]:<6} {port['name']} [{units}] {port['dtype']} {shape}")
    say(f"  {about['checked']['distance']:.1e} of what varies away from the bundle, at batches of other sizes")
    return path
