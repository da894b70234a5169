"""What a job will take, before it runs: items, size on disk, memory, and the time by a trial."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from scigen.io.describe import in_words
from scigen.io.plan import Item, plan
from scigen.workflows.items import Work


def forecast(work: Work, words: Mapping[str, Any], workers: int) -> None:
    """Print it; one compute batch is made and thrown away to know the time.

    Args:
        work: the job, without a store.
        words: the configuration of the verb sample.
        workers: processes that will share the work.
    """
    from scigen.workflows.job import items_of

    first, samples = work.layout.dims[0], work.layout.coords.sizes[work.layout.dims[0]]
    block, group = items_of(work, words, samples)
    items = plan(samples, len(work.numbers), block, group)
    fields = samples * len(work.numbers)
    sizes = {
        work.names[c]: np.dtype(work.bundle.codec.dtypes.get(work.names[c], "float32")).itemsize
        for c in range(len(work.names))
    }
    cells = int(np.prod([n for d, n in work.layout.coords.sizes.items() if d in work.layout.dims and d != first]))
    size = fields * cells * sum(sizes.values())
    trial = Item(0, 0, min(-(-work.batch // len(work.numbers)), samples), 0, len(work.numbers))
    inputs = work.read(trial)
    rows = min(work.batch, trial.fields)
    seconds = []
    for _ in range(2):  # the first one warms up
        began = time.perf_counter()
        next(
            iter(
                work.bundle.blocks(
                    inputs,
                    work.numbers[:1] if rows < len(work.numbers) else work.numbers,
                    seed=work.seed,
                    steps=work.steps,
                    batch=work.batch,
                )
            )
        )
        seconds.append(time.perf_counter() - began)
    batches = -(-fields // work.batch)
    table = Table(show_header=False, box=None)
    for label, value in (
        ("samples × members", f"{samples} × {len(work.numbers)}, {work.bundle.nfe(words['steps'])} network calls each"),
        ("items", f"{len(items)}, of up to {block} samples × {group} members"),
        ("size on disk", f"{in_words(size)} at most, before compression"),
        ("memory", f"{in_words(3 * block * group * size / fields)} for items, beside the network's"),
        ("compute batch", f"{work.batch} fields in {min(seconds):.2f} s"),
        ("time", f"{duration(min(seconds) * batches / workers)} on {workers} worker(s)"),
    ):  # fmt: skip
        table.add_row(label, value)
    console = Console()
    console.print(table)
    for item in items[:3]:
        console.print(
            f"  item {item.name}: samples {item.start}–{item.stop - 1}, members {item.low}–{item.high - 1}",
            highlight=False,
        )
    if len(items) > 3:
        console.print(f"  … {len(items) - 3} more", highlight=False)


def duration(seconds: float) -> str:
    """A time in words."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
