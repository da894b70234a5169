"""The tally of a contender, block by block, with memory that does not grow with the archive."""

import logging
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np

from scigen.metrics.matching import Match
from scigen.metrics.reading import BLOCK_BYTES, cut, read_members, read_truth
from scigen.metrics.tally import Plan, Tally, merge, tally

log = logging.getLogger(__name__)


def stream(
    match: Match,
    model: str,
    plan: Plan,
    *,
    budget: int = BLOCK_BYTES,
    workers: int = 1,
    progress: Callable[[int, str], None] | None = None,
) -> Tally:
    """Judge one contender on one variable.

    Args:
        match: of the variable.
        model: the contender.
        plan: what is counted.
        budget: bytes of members a block; `workers` blocks are held at a time.
        workers: threads.
        progress: told how many samples are done.

    Returns:
        The tally of all samples, in their order.
    """

    def one(part: slice) -> Tally:
        members, truth = read_members(match, model, part), read_truth(match, part)
        return tally(plan, members, truth, np.arange(part.start, part.stop))

    whole: list[Tally] = []
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future[Tally]] = set()
        for part in [*cut(match, model, budget), None]:
            while running and (len(running) >= workers or part is None):
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    whole.append(future.result())
                    done += len(whole[-1].index)
                    if progress:
                        progress(done, "")
                if len(whole) > 32:
                    whole = [merge(*whole)]
            if part is not None:
                running.add(pool.submit(one, part))
    return merge(*whole).ordered()
