"""The verb check: whether an ensemble archive is whole, and as it was written."""

from omegaconf import DictConfig
from rich.console import Console

from scigen.errors import UserError
from scigen.io.verify import verify


def run(cfg: DictConfig) -> None:
    """Look at cfg.path once more.

    Raises:
        UserError: if something is missing or damaged; the message says what to do.
    """
    report = verify(cfg.path, repair=cfg.repair)
    console = Console()
    for line in report.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not report.whole:
        again = "Repeat the command that makes it, which makes what is missing."
        if report.damaged and not cfg.repair:
            again = "With repair=true what is damaged is given up, and the command that made it makes it again."
        raise UserError(f"{cfg.path} is not whole. {again}")
