"""Several processes of this machine that train together, under the eye of the one that started them.

That one does not train: it hands out the work, passes on what they report, and when one of them dies, however it dies,
it ends the others at once. If it dies itself, they end by themselves. So nothing waits for ever for a process that is
gone.
"""

import os
import signal
import socket
import threading
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

from scigen.errors import UserError

PATIENCE = 10.0
"""Seconds that a process which is told to end may take."""

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
    """

    number: int
    ranks: int
    port: int

    def arguments(self) -> dict[str, Any]:
        """Arguments of a lightning.Trainer that make it one of them: as many devices, data parallel."""
        return {"plugins": [Together(self)], "strategy": self.strategy()}

    def strategy(self) -> Strategy:
        """Gradients are averaged over the processes, also where a learner's turn leaves the others' without any.

        No timeout is needed against processes that are gone; the others may well wait for one that judges snapshots.
        """
        return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False, timeout=timedelta(days=30))


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


def supervise(job: Job, ranks: int, report: Report, remedy: str) -> None:
    """Start the processes of a job and wait until all of them are done.

    Args:
        job: can be pickled.
        ranks: number of processes.
        report: is called as the first process reports.
        remedy: what to say when one of them is gone.

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
            rank = Rank(number, ranks, port)
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
    """Pass reports on until every process has said that it is done."""
    open_ears = dict(enumerate(ears))
    while open_ears:
        heard = connection.wait(list(open_ears.values()))
        for number, ear in [(k, v) for k, v in open_ears.items() if v in heard]:
            try:
                kind, content = ear.recv()
            except EOFError:  # it is gone, and has said nothing
                processes[number].join(PATIENCE)
                code = processes[number].exitcode or 0
                how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
                raise UserError(
                    f"Process {number + 1} of {len(ears)} that train together was {how}. {remedy}"
                ) from None
            if kind == "report":
                report(*content)
            elif kind == "done":
                del open_ears[number]
            elif kind == "mistake":
                raise UserError(content)
            else:
                raise RuntimeError(f"Process {number + 1} of {len(ears)} failed:\n{content}")


def _work(job: Job, rank: Rank, threads: int, mouth: Any) -> None:
    """What a process does: its part of the job, and say how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that waits
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    if rank.number:
        warnings.simplefilter("ignore")
    try:
        job.run(rank, lambda done, loss: mouth.send(("report", (done, loss))))
        last: tuple[str, Any] = ("done", None)
    except UserError as error:
        last = ("mistake", str(error))
    except BaseException:
        last = ("defect", traceback.format_exc())
    mouth.send(last)
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
