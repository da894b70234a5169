"""The verb sample: an archive in, an ensemble archive out, item by item."""

import json
import logging
import math
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import xarray as xr
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console

from scigen.core.bundle import load, versions
from scigen.core.codec import Codec
from scigen.core.networks.tiled import Tiled
from scigen.errors import Stopped, UserError
from scigen.io.archive import fingerprint, open_archive
from scigen.io.missing import KEY, check_policy, settle
from scigen.io.plan import Item, extent
from scigen.io.store import EnsembleStore
from scigen.progress import progress
from scigen.workflows.device import pick
from scigen.workflows.forecast import forecast
from scigen.workflows.items import BATCH, Work, out_of_memory
from scigen.workflows.training import plain

log = logging.getLogger(__name__)

ADAPTED = ("size", "boundary", "exact")
"""What is asked of a bundle's codec beside the condition."""

SAME = ("members", "seed", "steps", "precision", "tile", "missing", "region", "time", *ADAPTED)
"""Words that, beside the bundle and the archive, say which numbers come out."""


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


def open_work(words: Mapping[str, Any], make_store: bool = True) -> Work:
    """The job that the words of a command stand for; the same in every process.

    Args:
        words: the configuration of this verb, JSON types.
        make_store: False for a job that is only looked at.

    Raises:
        UserError: for what does not fit, or an output that belongs to another job.
    """
    share([], words["items"])
    bundle = load(words["bundle"]).to(pick(words["device"]))
    if words["static"] is not None:
        bundle = bundle.relocate(open_archive(words["static"]))
    codec = bundle.codec.adapt({k: words[k] for k in ADAPTED})
    if words["region"] is not None:
        codec = codec.within(words["region"])
    if codec is not bundle.codec:
        bundle = bundle.placed(codec)
    if unknown := [f for f in words["also"] if f not in codec.formats]:
        raise UserError(f"also={unknown[0]}: this bundle writes {', '.join(codec.formats) or 'no other formats'}.")
    if words["tile"] is not None:
        bundle = bundle.tiled(words["tile"])
    bundle = bundle.quick(words["precision"], words["compile"])
    numbers, names = member_numbers(words["members"]), _names(words["variables"], codec)
    bundle.sampling.grid(words["steps"])
    batch = bundle.rows if words["batch"] is None else words["batch"]
    if batch < 1:
        raise UserError(f"batch={batch} must be at least 1.")
    archive = _archive(words, codec)
    archive.encoding[KEY] = check_policy(words["missing"])
    inputs = settle(select_time(codec.prepare(archive), words["time"]), words["missing"], "the input")
    inputs.encoding["source"] = archive.encoding.get("source", "the input")
    layout = codec.layout(inputs, archive)
    samples = len(codec.samples(inputs))
    work = Work(bundle, inputs, layout, names, numbers, words["seed"], words["steps"], batch, None)  # type: ignore[arg-type]
    if not make_store:
        return work
    block, group = items_of(work, words, samples)
    identity = {k: words[k] for k in SAME} | {
        "members": numbers, "variables": names, "bundle": bundle.fingerprint(), "input": fingerprint(inputs),
        "batch": words["batch"], "static": words["static"], "condition": words["condition"],
    }  # fmt: skip
    attrs = bundle.attributes(members=len(numbers), seed=words["seed"], steps=words["steps"], batch=batch)
    attrs |= {
        "title": f"Ensemble of {len(numbers)} members drawn by scigen",
        "history": f"scigen sample bundle={words['bundle']} {_asked(words)}",
        "scigen_input": identity["input"],
        "scigen_missing": words["missing"],
        "scigen_steps": len(bundle.sampling.grid(words["steps"])),
        "scigen_versions": json.dumps(versions()),
    }
    work.store = EnsembleStore(
        words["output"], layout.coords, {n: codec.variables[n] for n in names}, numbers, layout.dims,
        identity=identity, attrs=attrs | layout.coords.attrs,
        dtypes={n: t for n, t in codec.dtypes.items() if n in names}, block=block, group=group,
        overwrite=words["overwrite"],
    )  # fmt: skip
    work.batch = work.store.noted(BATCH) or batch
    return work


def items_of(work: Work, words: Mapping[str, Any], samples: int) -> tuple[int, int]:
    """Samples and members of an item."""
    coords, first = work.layout.coords, work.layout.dims[0]
    cells = math.prod(coords.sizes[d] for d in work.layout.dims if d != first)
    together = Path(words["output"]).suffix != ".zarr"
    calls = work.bundle.nfe(words["steps"])
    block, group = extent(samples, len(work.numbers), 4 * cells * len(work.names), cells * calls, together=together)
    if words["item"] is not None:
        if words["item"] < 1:
            raise UserError(f"item={words['item']} must be at least 1: samples of a work item.")
        block, group = min(words["item"], samples), len(work.numbers)
    return block, group


def share(items: Sequence[Item], words: str | None) -> list[Item]:
    """The items of one share: those whose number is k − 1 modulo n for k/n, all for None.

    Raises:
        UserError: if the words are not k/n with 1 ≤ k ≤ n.
    """
    if words is None:
        return list(items)
    k, _, n = str(words).partition("/")
    if not (k.isdigit() and n.isdigit() and 1 <= int(k) <= int(n)):
        raise UserError(f"items={words}: expected k/n, such as 3/16 for the third of sixteen shares.")
    return [i for i in items if i.number % int(n) == int(k) - 1]


def member_numbers(members: Any) -> list[int]:
    """Member numbers of members=16 (the first 16), members=16:32 (those from 16 up to 31) or members=[3,7].

    Raises:
        UserError: if it is none of these.
    """
    wrong = UserError(
        f"members={members}: expected a number, at least 1, a span such as 16:32, or a list such as [3,7]."
    )
    if isinstance(members, str):
        low, _, high = members.partition(":")
        if not (low.isdigit() and high.isdigit()):
            raise wrong
        numbers = list(range(int(low), int(high)))
    elif isinstance(members, int) and not isinstance(members, bool):
        numbers = list(range(members))
    elif isinstance(members, list) and all(isinstance(m, int) and m >= 0 for m in members):
        numbers = sorted(set(members))
    else:
        raise wrong
    if not numbers:
        raise wrong
    return numbers


def _names(asked: Any, codec: Codec) -> list[str]:
    """The output variables that are written.

    Raises:
        UserError: if the bundle does not make one of those asked for.
    """
    have = list(codec.variables)
    names = have if asked is None else [asked] if isinstance(asked, str) else list(asked)
    if wrong := [n for n in names if n not in have]:
        raise UserError(f"variables={wrong[0]}: this bundle makes {', '.join(have)}.")
    return [n for n in have if n in names]


def _archive(words: Mapping[str, Any], codec: Codec) -> xr.Dataset:
    """What conditions: an archive, or words.

    Raises:
        UserError: for neither or both.
    """
    if (words["input"] is None) == (words["condition"] is None):
        raise UserError("Give one of input=ARCHIVE and condition={name: number}; the latter where a field has few.")
    if words["input"] is not None:
        return codec.open(words["input"])
    return codec.request(words["condition"], 1)


def _asked(words: Mapping[str, Any]) -> str:
    """The words of a command line that say what was asked for."""
    first = f"input={words['input']}" if words["input"] is not None else f"condition={words['condition']}"
    return " ".join([first, *(f"{k}={words[k]}" for k in SAME if words[k] is not None)])


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


def select_time(inputs: xr.Dataset, span: str | None) -> xr.Dataset:
    """The part of prepared inputs within first:last.

    Raises:
        UserError: if the span cannot be read or holds no sample.
    """
    if span is None:
        return inputs
    first, colon, last = str(span).partition(":")
    time = str(next(iter(inputs.data_vars.values())).dims[0])
    try:
        part = inputs.sel({time: slice(first or None, (last or None) if colon else first)})
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"time={span} is no span of times: write it as 2019-03-25:2019-03-31 ({error}).") from error
    if not part.sizes[time]:
        found = inputs[time].values
        raise UserError(f"time={span} holds no sample; the archive goes from {found[0]} to {found[-1]}.")
    return part
