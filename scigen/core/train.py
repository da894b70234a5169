"""Training a method, from its folder's checkpoint or the start, in this process or in one a device.

With several devices each has a process (`ranks`), and takes its rows of every micro-batch.
"""

import copy
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import Logger
from torch import nn

from scigen.core.datamodule import SampleStream
from scigen.core.driver import Driver, Schedule, step_seed
from scigen.core.methods.base import Method
from scigen.core.ranks import Rank, Report, supervise
from scigen.core.recorder import Recorder
from scigen.core.selection import Judge, Selector
from scigen.core.trainable import select
from scigen.errors import UserError


def train(
    method: Method,
    stream: SampleStream,
    schedule: Schedule,
    trainer: Callable[..., lightning.Trainer],
    folder: Path,
    *,
    seed: int = 0,
    checkpoint_every: int = 200,
    report: Callable[[int, float], None] | None = None,
    judge: Judge | None = None,
    logger: Callable[[], Logger] | None = None,
) -> nn.Module:
    """Train a method, going on from the folder's checkpoint if there is one.

    Args:
        method: what is trained.
        stream: batches, addressed by their number.
        schedule: how long and how.
        trainer: makes a lightning.Trainer from keyword arguments.
        folder: of checkpoint and CSV.
        seed: of everything random in training.
        checkpoint_every: steps between checkpoints.
        report: called with (micro-batches done, mean loss of late).
        judge: of students, for the choice of weights and early stopping; None keeps the last average.
        logger: makes what listens beside the CSV files, in the process that writes them.

    Raises:
        UserError: for a precision, strategy or number of devices that it is not made for, a checkpoint of another
            model, a loss that is not a number, or a process that was killed.

    Returns:
        The student with the chosen weights, in evaluation mode.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _hush()
    ranks, sharded = _processes(trainer, schedule, method)
    torch.manual_seed(step_seed(seed, 0))
    method.prepare(stream.get(stream.indices(0)))
    select(method.student, schedule.parameters)
    every = checkpoint_every * schedule.accumulate
    job = Job(method, stream, schedule, trainer, folder, seed, every, judge, logger)
    if ranks == 1:
        driver = job.run(None, report)
    else:
        if job.left():
            remedy = f"Repeating the command goes on from the last checkpoint in {folder}."
            supervise(replace(job, method=method.cpu()), ranks, report or (lambda *_: None), remedy, sharded=sharded)
        driver = job.load()
    with torch.no_grad():
        return job.selector.choose(driver.ema, int(driver.batches) // schedule.accumulate).eval()


OPTIONS: dict[str, Any] = dict(
    max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    use_distributed_sampler=False, num_sanity_val_steps=0,
)  # fmt: skip
"""Of a lightning.Trainer: what the driver does itself."""


@dataclass(frozen=True)
class Job:
    """A training, as every process of it gets it; see `train`. `every` counts micro-batches."""

    method: Method
    stream: SampleStream
    schedule: Schedule
    trainer: Callable[..., lightning.Trainer]
    folder: Path
    seed: int
    every: int
    judge: Judge | None
    logger: Callable[[], Logger] | None = None

    @property
    def selector(self) -> Selector:
        """Keeps the averages."""
        return Selector(self.folder, self.judge, self.schedule.patience)

    @property
    def checkpoint(self) -> Path:
        """The file to go on from."""
        return self.folder / "last.ckpt"

    def left(self) -> bool:
        """Whether there is something left to train; sets the stream to where it goes on."""
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True, map_location="cpu")["state_dict"]
            self.stream.start = int(state["batches"])
        start = self.stream.start
        return start < len(self.stream) and not self.selector.exhausted(start // self.schedule.accumulate)

    def driver(self, sharded: bool = False) -> Driver:
        """A driver at the start."""
        driver = Driver(self.method.train(), self.schedule, self.seed, sharded)
        driver.ema.eval()
        driver.checkpoint = self.checkpoint
        return driver

    def load(self) -> Driver:
        """The driver as the checkpoint has it."""
        driver = self.driver()
        driver.load_state_dict(torch.load(self.checkpoint, weights_only=True, map_location="cpu")["state_dict"])
        return driver

    def run(self, rank: Rank | None, report: Report | None) -> Driver:
        """Train to the end; as one of several processes if there is a rank.

        Raises:
            KeyboardInterrupt: if it was stopped on the way.
        """
        if rank is not None:  # tensors arrive in memory that the processes share
            own = replace(self, method=copy.deepcopy(self.method), judge=copy.deepcopy(self.judge))
            own.stream.share = (rank.number, rank.ranks)
            return own._fit(rank.arguments(), report, rank.sharded)
        return self._fit({"strategy": "auto"}, report) if self.left() else self.load()

    def _fit(self, arguments: dict[str, Any], report: Report | None, sharded: bool = False) -> Driver:
        """Train from the checkpoint, or the start, to the end."""
        _hush()
        self.left()
        driver = self.driver(sharded)
        recorder = Recorder(self.folder, self.every, self.selector, report, self.logger)
        run = self.trainer(**{**OPTIONS, **arguments}, callbacks=[recorder], default_root_dir=self.folder)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__`")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.")
            warnings.filterwarnings("ignore", message="Found .* module.s. in eval mode")  # a teacher, the average
            warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before")
            warnings.filterwarnings("ignore", message="The 'train_dataloader' does not have many workers")
            try:
                resume = self.checkpoint if self.checkpoint.exists() else None
                run.fit(driver, self.stream.loader(), ckpt_path=resume, weights_only=True)
            finally:
                self.stream.close()
        if int(driver.batches) < len(self.stream) and not recorder.stopped:
            raise KeyboardInterrupt
        recorder.save(run)
        return driver


def _hush() -> None:
    """Leave Lightning's warnings only, in whatever process this is."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _processes(trainer: Callable[..., lightning.Trainer], schedule: Schedule, method: Method) -> tuple[int, bool]:
    """The number of processes that train, one a device, and whether the model is spread over them.

    Raises:
        UserError: for a precision or devices that training is not made for, or a batch that they cannot share.
    """
    wanted = getattr(trainer, "keywords", {}).get("strategy", "auto")
    if isinstance(wanted, str) and wanted not in ("auto", "fsdp") and not wanted.startswith("ddp"):
        raise UserError(f"trainer.strategy={wanted}: training on several devices takes ddp or fsdp.")
    sharded = wanted == "fsdp"
    run = trainer(**OPTIONS, strategy="auto") if sharded else trainer(**OPTIONS)  # Lightning's own is for GPUs only
    if run.precision not in ("32-true", "bf16-mixed"):
        raise UserError(f"trainer.precision={run.precision}: training takes 32-true or bf16-mixed precision.")
    ranks = run.num_devices
    if run.num_nodes > 1 or run.world_size > max(ranks, 1):
        raise UserError(
            f"Training runs on one machine, not on {run.num_nodes}, nor under torchrun: it starts processes itself."
        )
    if sharded and ranks > 1 and not method.by_row:
        name = type(method).__module__.rsplit(".", 1)[-1]
        raise UserError(f"trainer.strategy=fsdp trains method=denoising and regression, not {name}: take ddp.")
    schedule.check_devices(ranks)
    return ranks, sharded and ranks > 1
