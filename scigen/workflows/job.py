"""A job of batch inference: what the words of a command stand for, the same in every process that works on it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from scigen.core.bundle import load, versions
from scigen.core.codec import Codec
from scigen.errors import UserError
from scigen.io.archive import fingerprint, open_archive
from scigen.io.missing import KEY, check_policy, settle
from scigen.io.plan import extent
from scigen.io.store import EnsembleStore
from scigen.workflows.chosen import member_numbers, select_time, share, variable_names
from scigen.workflows.device import pick
from scigen.workflows.items import BATCH, Work

ADAPTED = ("size", "boundary", "exact")
"""What is asked of a bundle's codec beside the condition."""

SAME = ("members", "seed", "steps", "precision", "tile", "missing", "region", "time", *ADAPTED)
"""Words that, beside the bundle and the archive, say which numbers come out."""


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
    numbers, names = member_numbers(words["members"]), variable_names(words["variables"], codec)
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
        "members": numbers, "variables": names, "bundle": bundle.fingerprint(),
        "input": inputs.encoding.get("fingerprint") or fingerprint(inputs),
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
