"""What is kept of a training on its way: checkpoint, losses, snapshots of averages; loggers may listen."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from scigen.core.methods.base import Batch
from scigen.core.selection import Selector


class Recorder(Callback):
    """Keeps a checkpoint of everything and a CSV of the losses, and reports progress: the first process's alone do."""

    def __init__(
        self,
        folder: Path,
        every: int,
        selector: Selector,
        report: Callable[[int, float], None] | None = None,
        logger: Callable[[], Logger] | None = None,
    ) -> None:
        """Set where and how often.

        Args:
            folder: of `last.ckpt` and `training.csv`.
            every: micro-batches between checkpoints.
            selector: keeps the averages.
            report: called with (micro-batches done, mean loss of late).
            logger: makes what is told, in the first process, all that the CSV files are told.
        """
        self.folder, self.every, self.selector, self.report = folder, every, selector, report
        self.make = logger
        self.logger: Logger | None = None
        self.stopped = False
        self.sums: dict[str, list[float]] = {}
        self.mean = math.nan

    @property
    def checkpoint(self) -> Path:
        """The file to go on from."""
        return self.folder / "last.ckpt"

    def on_train_start(self, trainer: lightning.Trainer, driver: Any) -> None:
        """Begin to log."""
        if self.make is not None and trainer.is_global_zero:
            self.logger = self.make()

    def teardown(self, trainer: lightning.Trainer, driver: Any, stage: str) -> None:
        """Let the logger write what it holds back."""
        if self.logger is not None:
            self.logger.finalize("success")

    def on_train_batch_start(self, trainer: lightning.Trainer, driver: Any, batch: Batch, batch_idx: int) -> None:
        """Save between two steps, when all counters agree."""
        done = int(driver.batches)
        if done and done % self.every == 0:
            self.save(trainer)

    def save(self, trainer: lightning.Trainer) -> None:
        """Write the checkpoint beside the old one, then put it in its place."""
        partial = self.checkpoint.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            partial.replace(self.checkpoint)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, driver: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Note losses; keep snapshots and judge them, while the other processes wait."""
        done = int(driver.batches)
        step, micro = divmod(done, driver.schedule.accumulate)
        keeps = micro == 0 and driver.schedule.keeps(step) and int(driver.ema.steps) > 0
        exhausted = False
        averages = driver.averages() if keeps else None
        if trainer.is_global_zero:
            self._note(done, driver)
            if averages is not None:
                with torch.random.fork_rng(), torch.no_grad():
                    scores = self.selector.snapshot(averages, step)
                self._tell(step, scores, "validation/")
                exhausted = self.selector.exhausted(step)
        if keeps:
            self.stopped = trainer.should_stop = trainer.strategy.broadcast(exhausted)

    def _note(self, done: int, driver: Any) -> None:
        """Collect losses; add a row every 20 micro-batches and at the end; report."""
        for name, value in driver.recent.items():
            self.sums.setdefault(name, []).append(value)
        if done % 20 == 0 or done == driver.schedule.steps * driver.schedule.accumulate:
            row = {name: sum(v) / len(v) for name, v in self.sums.items()}
            self.mean = row.get("student/loss", self.mean)
            self.sums.clear()
            self._write(done // driver.schedule.accumulate, row)
            self._tell(done // driver.schedule.accumulate, row)
        if self.report:
            self.report(done, self.mean)

    def _tell(self, step: int, row: Mapping[str, float], prefix: str = "") -> None:
        """Pass a row on to the logger, if there is one."""
        if self.logger is not None and row:
            self.logger.log_metrics({f"{prefix}{name}": value for name, value in row.items()}, step)

    def _write(self, step: int, row: dict[str, float]) -> None:
        """Add a row to training.csv; rows of steps that were lost to a kill are replaced."""
        path = self.folder / "training.csv"
        table = pd.DataFrame([{"step": step, **row}])
        if path.exists():
            before = pd.read_csv(path)
            table = pd.concat([before[before["step"] < step], table])
        partial = path.with_suffix(".partial")
        table.to_csv(partial, index=False, float_format="%.6g")
        partial.replace(path)
