"""Items as futures of a Dask cluster: a local one, or any that is running (SLURM by dask-jobqueue, Kubernetes, …).

There is no array graph. A worker opens the job once, keeps its model, and writes its items into the store itself; what
travels is the words of the command and the number of an item. A worker that dies costs the item that it was making.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from scigen.errors import UserError
from scigen.io.plan import Item
from scigen.workflows.items import Report, Work, make

log = logging.getLogger(__name__)

LOSSES = 5
"""Workers that may die while they make one item, before it counts as failed."""

_open: dict[str, Work] = {}
"""The job that this worker has open, by its words."""


class Dask:
    """Workers of a Dask cluster."""

    def __init__(
        self, workers: int = 2, threads: int = 1, address: str | None = None, memory: str | int = "auto",
        retries: int = 2,
    ) -> None:  # fmt: skip
        """Set the cluster.

        Args:
            workers: processes of a local cluster.
            threads: of each, for PyTorch. Bits are promised at one number of threads only.
            address: of the scheduler of a cluster that is running; it has its own workers. None starts a local one.
            memory: a worker of the local cluster may use, such as 4GB.
            retries: further attempts at an item that fails.
        """
        self.workers, self.threads, self.address, self.memory = workers, threads, address, memory
        self.retries = retries
        if workers < 1 or threads < 1:
            raise UserError(f"executor.workers={workers} and executor.threads={threads} must be at least 1.")

    def run(self, words: Mapping[str, Any], work: Work, items: Sequence[Item], report: Report) -> int:
        """Make items; returns how many failed.

        Raises:
            UserError: without the extra `dask`, or if the cluster cannot be reached.
        """
        try:
            import dask
            import distributed
        except ImportError as error:
            raise UserError("executor=dask needs Dask's scheduler: pip install 'scigen[dask]'.") from error
        settings = {
            "distributed.scheduler.allowed-failures": LOSSES,
            "distributed.scheduler.worker-saturation": 1.0,
            "distributed.worker.daemon": False,
        }
        with dask.config.set(settings):
            if self.address is None:
                own = distributed.LocalCluster(
                    n_workers=self.workers, threads_per_worker=1, processes=True, memory_limit=self.memory,
                    dashboard_address=None,
                )  # fmt: skip
            else:
                own = None
            try:
                with distributed.Client(self.address or own, timeout="30s") as client:
                    return self._gather(client, distributed, words, work, items, report)
            except OSError as error:
                raise UserError(
                    f"executor.address={self.address}: no Dask scheduler answers there ({error})."
                ) from error
            finally:
                if own is not None:
                    own.close()

    def _gather(
        self, client: Any, distributed: Any, words: Mapping[str, Any], work: Work, items: Sequence[Item], report: Report
    ) -> int:
        log.info("%d items for the workers of %s", len(items), client.scheduler.address)
        threads = self.threads if self.address is None else None
        by_key = {
            client.submit(
                make_one, dict(words), item.number, self.retries, threads, key=f"{work.store.path.name}-{item.name}",
                pure=False,
            ): item
            for item in items
        }  # fmt: skip
        failed = 0
        for future in distributed.as_completed(by_key):
            item = by_key[future]
            if future.status == "finished":
                failed += future.result()
            else:
                error = future.exception()
                if isinstance(error, UserError):
                    raise error
                log.error("Item %s failed: %s", item.name, error)
                work.store.failed(item, error)
                failed += 1
            report((item.stop - item.start) * (item.high - item.low))
            future.release()
        return failed


def make_one(words: Mapping[str, Any], number: int, retries: int, threads: int | None) -> int:
    """Make one item, on a worker; returns 1 if it failed.

    Args:
        words: the configuration of the verb sample, JSON types.
        number: of the item.
        retries: further attempts.
        threads: for PyTorch; None leaves them as they are.
    """
    from scigen.workflows.job import open_work

    key = repr(sorted(words.items()))
    if key not in _open:
        logging.getLogger("scigen").setLevel(logging.WARNING)  # one process tells the story
        if threads is not None:
            torch.set_num_threads(threads)
        _open.clear()
        _open[key] = open_work(words)
        log.debug("process %d has opened the job", os.getpid())
    work = _open[key]
    (item,) = (i for i in work.store.items if i.number == number)
    return make(work, [item], retries=retries)
