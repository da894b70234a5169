"""The verb sample: an archive in, an ensemble archive out, item by item."""

import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import xarray as xr
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console

from scigen.core.networks.tiled import Tiled
from scigen.errors import Stopped, UserError
from scigen.io.plan import Item
from scigen.progress import progress
from scigen.workflows.chosen import share
from scigen.workflows.forecast import forecast
from scigen.workflows.items import Work, out_of_memory
from scigen.workflows.job import open_work
from scigen.workflows.training import plain

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Path:
    """Draw cfg.members for every sample of cfg.input; returns the output's path.

    Raises:
        UserError: for what does not fit, an output that belongs to another command, or items that failed.
        Stopped: after a SIGTERM.
    """
    words = plain(cfg)
    executor = instantiate(words.pop("executor"))
    if words["dry_run"]:
        forecast(open_work(words, make_store=False), words, executor.workers)
        return Path(words["output"])
    work = open_work(words)
    store, total = work.store, sum(i.fields for i in work.store.items)
    mine = share(store.left(), words["items"])
    done = total - sum(i.fields for i in store.left())
    if done:
        log.info("%s: %d of %d fields are there already; going on.", store.path, done, total)
    if store.left():
        end, failed = done + sum(i.fields for i in mine), 0
        _say_tiles(work)
        with stopping(), progress("sampling", end, "fields", start=done) as advance:

            def count(n: int) -> None:
                nonlocal done
                done += n
                advance(done, "")

            failed = executor.run(words, work, mine, count)
        if failed:
            first = next(iter(store.failures().values()), "").partition(": ")[2]
            raise UserError(
                f"{failed} of {len(mine)} items failed, the first with: {first}\nWhat was made of {store.path} stays,"
                f" the rest is missing; {store.home}/.scigen/failed tells more. The same command goes on with these."
            )
    if left := len(store.left()):
        Console().print(f"{store.path}: this share is done; {left} of {len(store.items)} items are left for others.")
        return store.path
    summary = store.finish()
    _tell(work, words, summary)
    if words["also"]:
        output = Path(store.path)
        with xr.open_dataset(output, engine="zarr" if output.suffix == ".zarr" else None, chunks={}) as made:
            for path in work.bundle.codec.export(made, output.with_suffix(""), list(words["also"])):
                log.info("also %s", path)
    return store.path


@contextmanager
def stopping() -> Iterator[None]:
    """SIGTERM, which schedulers send before they kill, raises `Stopped`: the item in hand is given up, none is cut."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped("SIGTERM")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_tiles(work: Work) -> None:
    """How far blended tiles are from the field as a whole, by one member of the first sample."""
    bundle = work.bundle
    if not isinstance(bundle.network, Tiled) or bundle.network.exact:
        return
    inputs = work.read(Item(0, 0, 1, 0, 1))
    key = [bundle.codec.samples(inputs)[0]]
    ask = (bundle.codec.condition(inputs, slice(0, 1)), key, [0], work.seed, work.steps)
    try:
        whole = replace(bundle, network=bundle.network.network).generate(*ask)[0]
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        log.warning(
            "Tiles are blended; how far they are from the whole field is unknown, which does not fit in memory."
        )
        return
    away = float((bundle.generate(*ask)[0] - whole).norm() / whole.norm())
    log.info("This network sees the whole field, so tiles are blended: a sample of them is %.2g %% away.", 100 * away)


def _tell(work: Work, words: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """What was written, in a line and a small table."""
    console = Console()
    samples = work.layout.coords.sizes[work.layout.dims[0]]
    console.print(
        f"Wrote {work.store.path}: {samples} samples × {len(work.numbers)} members, {work.bundle.nfe(words['steps'])}"
        " network call(s) each",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    for name, about in summary.get("variables", {}).items():
        units = work.bundle.codec.variables[name].get("units", "1")
        console.print(
            f"  {name} [{units}]: {about['min']:.4g} to {about['max']:.4g}, mean {about['mean']:.4g},"
            f" {about['nan']} missing", markup=False, highlight=False,
        )  # fmt: skip
