"""Several processes of this machine that train together, under the eye of the one that started them.

That one does not train: it hands out the work, passes on what they report, and when one of them dies, however it dies,
it ends the others at once. If it dies itself, they end by themselves. So nothing waits for ever for a process that is
gone.
"""

import math
import os
import signal
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection, get_context, parent_process
from typing import Any, Protocol

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy

from scigen.core.sharding import ShardedStrategy
from scigen.errors import UserError

FOREVER = timedelta(days=30)
PATIENCE = 10.0
"""Seconds that a process which is told to end may take."""

MOMENT = 2.0
"""Seconds in which the others are heard after one has failed."""

Report = Callable[[int, float], None]
"""Called with (micro-batches done, mean loss of late)."""


class Job(Protocol):
    """What every process does."""

    def run(self, rank: "Rank", report: Report) -> object:
        """Do this process's part; report is called with (micro-batches done, mean loss of late)."""


@dataclass(frozen=True)
class Rank:
    """One of several processes.

    Attributes:
        number: which one.
        ranks: how many there are.
        port: of this machine, where they meet.
        sharded: whether the model is spread over them.
    """

    number: int
    ranks: int
    port: int
    sharded: bool = False

    def arguments(self) -> dict[str, Any]:
        """Arguments of a lightning.Trainer that make it one of them: as many devices, data parallel."""
        return {"plugins": [Together(self)], "strategy": self.strategy()}

    def strategy(self) -> Strategy:
        """Gradients are averaged over the processes, also where a learner's turn leaves the others' without any.

        No timeout is needed against processes that are gone; the others may well wait for one that judges snapshots.
        """
        if self.sharded:
            return ShardedStrategy(timeout=FOREVER)
        return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False, timeout=FOREVER)


class Together(ClusterEnvironment):
    """Tells Lightning that the processes have been started, and where they meet."""

    def __init__(self, rank: Rank) -> None:
        """Set which one this is."""
        super().__init__()
        self.rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        """Yes: `supervise` has."""
        return True

    @property
    def main_address(self) -> str:
        """This machine."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """The port."""
        return self.rank.port

    @staticmethod
    def detect() -> bool:
        """Never found, always given."""
        return False

    def world_size(self) -> int:
        """Number of processes."""
        return self.rank.ranks

    def set_world_size(self, size: int) -> None:
        """It is what it is."""

    def global_rank(self) -> int:
        """Number of this one."""
        return self.rank.number

    def set_global_rank(self, rank: int) -> None:
        """It is what it is."""

    def local_rank(self) -> int:
        """The same: there is one machine."""
        return self.rank.number

    def node_rank(self) -> int:
        """The only machine."""
        return 0


def supervise(job: Job, ranks: int, report: Report, remedy: str, *, sharded: bool = False) -> None:
    """Start the processes of a job and wait until all of them are done.

    Args:
        job: can be pickled.
        ranks: number of processes.
        report: is called as the first process reports.
        remedy: what to say when one of them is gone.
        sharded: whether the model is spread over them.

    Raises:
        UserError: if one of them raised one, or was killed.
        RuntimeError: with the traceback of what else one of them raised.
    """
    context = get_context("spawn")
    port, threads = _free_port(), max(1, torch.get_num_threads() // ranks)
    ears, processes = [], []
    try:
        for number in range(ranks):
            ear, mouth = context.Pipe(duplex=False)
            rank = Rank(number, ranks, port, sharded)
            process = context.Process(
                target=_work, args=(job, rank, threads, mouth), daemon=True, name=f"rank {number}"
            )
            process.start()
            mouth.close()
            ears.append(ear)
            processes.append(process)
        _listen(ears, processes, report, remedy)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()


def _listen(ears: list[Any], processes: list[Any], report: Report, remedy: str) -> None:
    """Pass reports on until every process has said that it is done, or say why one is not.

    When one ends, the others fail too, for want of it; so all are heard for a moment, and the cause is that one was
    killed, or else the mistake or defect that was first.
    """
    open_ears, failures, until = dict(enumerate(ears)), [], math.inf
    while open_ears and (left := until - time.monotonic()) > 0:
        heard = connection.wait(list(open_ears.values()), None if left == math.inf else left)
        for number, ear in [(k, v) for k, v in open_ears.items() if v in heard]:
            who = f"Process {number + 1} of {len(ears)} that train together"
            try:
                kind, when, content = ear.recv()
            except EOFError:  # it is gone, and has said nothing
                processes[number].join(PATIENCE)
                code = processes[number].exitcode or 0
                how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
                kind, when, content = "mistake", 0.0, f"{who} was {how}. {remedy}"
            if kind == "report":
                report(*content)
                continue
            del open_ears[number]
            if kind != "done":
                error = UserError(content) if kind == "mistake" else RuntimeError(f"{who} failed:\n{content}")
                failures.append((when, number, error))
                until = min(until, time.monotonic() + MOMENT)
    if failures:
        raise min(failures, key=lambda f: f[:2])[2]


def _work(job: Job, rank: Rank, threads: int, mouth: Any) -> None:
    """What a process does: its part of the job, and say how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that waits
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", message=".*broadcast_buffers")  # by another name in torch's later versions
    if rank.number:
        warnings.simplefilter("ignore")
    try:
        job.run(rank, lambda done, loss: mouth.send(("report", 0.0, (done, loss))))
        last = ("done", "")
    except UserError as error:
        last = ("mistake", str(error))
    except BaseException:
        last = ("defect", traceback.format_exc())
    mouth.send((last[0], time.monotonic(), last[1]))
    if last[0] == "done" and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
