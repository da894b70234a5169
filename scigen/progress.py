"""One progress bar with rate and time left, readable too when the output is a log file."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EVERY = 15.0  # seconds between lines in a log file


@contextmanager
def progress(title: str, total: int, unit: str, start: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Show how far a long piece of work is.

    Args:
        title: what is being done.
        total: how many units there are.
        unit: what they are called, plural.
        start: units that were done before.

    Yields:
        advance(units done in total, note).
    """
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn(f"{title:<18}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=total, completed=start, note="")

            def move(done: int, note: str = "") -> None:
                bar.update(task, completed=done, note=note)

            yield move
        return
    began, last, told, base = time.monotonic(), -math.inf, -1, start

    def line(done: int, note: str = "") -> None:
        nonlocal last, told, base, began
        now = time.monotonic()
        if told < 0 and done > base:  # what was done before does not count towards the rate
            base, began = done, now
        if done == told or (now - last < EVERY and done < total):
            return
        last, told = now, done
        rate = (done - base) / max(now - began, 1e-9)
        left = f"{(total - done) / rate:.0f} s left" if done < total and rate > 0 else f"{now - began:.0f} s"
        print(f"{title}: {done}/{total} {unit}, {rate:.1f}/s, {left} {note}".rstrip(), file=sys.stderr, flush=True)

    yield line
