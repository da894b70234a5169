"""The one LightningModule: it drives any Method, with manual optimisation, and names none.

Every random number of step i comes from a seed made of (seed, i, rank), so a resumed run continues bit-identically.
"""

import logging
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from scigen.core.datamodule import SampleStream
from scigen.core.ema import PowerEMA
from scigen.core.methods.base import Batch, Method
from scigen.core.selection import Judge, Selector
from scigen.core.trainable import select
from scigen.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """How long and how a method is trained.

    Attributes:
        steps: optimiser steps, all learners together.
        batch: samples per step (the micro-batches of an accumulation together).
        lr: peak learning rate of AdamW; warmed up linearly, then cosine to zero.
        warmup: steps of warm-up.
        ema: relative widths of the weights' averages, as shares of the student's steps.
        snapshots: how often the averages are kept, and judged where there is a judge.
        patience: snapshots without a better score after which training stops; 0 never does.
        clip: largest gradient norm of a learner.
        accumulate: micro-batches per step.
        betas: of AdamW.
        rates: learning rate of a learner over that of the student, where it is another.
        parameters: of the student that are trained: all, affine or a regular expression (see `core.trainable`).
    """

    steps: int
    batch: int
    lr: float
    warmup: int = 100
    ema: tuple[float, ...] = (0.05, 0.10)
    snapshots: int = 8
    patience: int = 0
    clip: float = 1.0
    accumulate: int = 1
    betas: tuple[float, float] = (0.9, 0.99)
    rates: Mapping[str, float] = field(default_factory=dict)
    parameters: str = "all"

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.steps < 1 or self.batch < 1 or self.accumulate < 1 or self.batch % self.accumulate or self.lr <= 0:
            raise UserError(
                f"training: steps={self.steps}, batch={self.batch}, accumulate={self.accumulate} must be at least 1,"
                f" the batch a multiple of accumulate, and lr={self.lr} positive."
            )

    def rate(self, step: int, learner: str = "student") -> float:
        """Learning rate of a learner at a step."""
        peak = self.lr * self.rates.get(learner, 1.0)
        return peak * min(1.0, (step + 1) / max(self.warmup, 1)) * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def keeps(self, step: int) -> bool:
        """Whether the averages are kept after this many steps: `snapshots` times, evenly, the last at the end."""
        share = max(1, min(self.snapshots, self.steps))
        return step in {math.ceil(self.steps * k / share) for k in range(1, share + 1)}


def step_seed(seed: int, index: int, rank: int = 0) -> int:
    """Seed of the global generators at a micro-batch: (seed, index, rank) hashed to 63 bits, in practice all apart."""
    a, b = np.random.SeedSequence([seed, index, rank]).generate_state(2)
    return (int(a) << 31) ^ int(b)


def check_number(value: Tensor, what: str, step: int, batch: Batch, checkpoint: Path | None) -> None:
    """Raise UserError unless a scalar is finite: before it can reach weights, and with them a checkpoint."""
    if not torch.isfinite(value):
        of = f" on a batch of {', '.join(batch.samples[:4])}{' …' if len(batch.samples) > 4 else ''}" * bool(
            batch.samples
        )
        kept = (
            f"the last good checkpoint, {checkpoint}"
            if checkpoint and checkpoint.exists()
            else "the start (there is no checkpoint yet)"
        )
        raise UserError(
            f"The {what} is {value.item()} at step {step}{of}. Repeating the command goes on from {kept}; a lower"
            " learning rate (method.training.lr, teaching.training.lr) or trainer.precision=32-true usually cures it."
        )


class Driver(lightning.LightningModule):
    """Trains a method's learners in turn, averages the student's weights, counts its own steps."""

    batches: Tensor

    def __init__(self, method: Method, schedule: Schedule, seed: int = 0) -> None:
        """Set what is trained and how."""
        super().__init__()
        self.automatic_optimization = False
        self.method, self.schedule, self.seed = method, schedule, seed
        self.ema = PowerEMA(method.student, schedule.ema)
        self.checkpoint: Path | None = None
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One AdamW per learner."""
        groups = [[p for p in m.parameters() if p.requires_grad] for m in self.method.learners().values()]
        return [
            torch.optim.AdamW(g, lr=self.schedule.lr, betas=self.schedule.betas, weight_decay=0.0) for g in groups
        ]

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch."""
        return batch.to(device)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One micro-batch: the learner whose turn it is gets a gradient, and at the end of an accumulation a step."""
        index = int(self.batches)
        step, micro = divmod(index, self.schedule.accumulate)
        torch.manual_seed(step_seed(self.seed, index, self.global_rank))
        self.method.at(step / self.schedule.steps)
        turn = self.method.turn(step)
        learners = self.method.learners()
        found = self.optimizers()
        optimizer = (found if isinstance(found, list) else [found])[list(learners).index(turn)]
        self.toggle_optimizer(optimizer)
        losses = self.method.loss(turn, batch)
        check_number(losses["loss"], f"{turn}'s loss", step, batch, self.checkpoint)
        self.manual_backward(losses["loss"] / self.schedule.accumulate)
        if micro == self.schedule.accumulate - 1:
            norm = nn.utils.clip_grad_norm_(learners[turn].parameters(), self.schedule.clip)
            check_number(norm, f"{turn}'s gradient", step, batch, self.checkpoint)
            for group in optimizer.param_groups:
                group["lr"] = self.schedule.rate(step, turn)
            optimizer.step()
            optimizer.zero_grad()
            if turn == "student":
                self.ema.update(self.method.student)
        self.untoggle_optimizer(optimizer)
        self.batches += 1
        self.recent = {f"{turn}/{k}": float(v.detach()) for k, v in losses.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen teacher out: it has a file of its own."""
        frozen = "method.teacher."
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if not k.startswith(frozen)}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load a checkpoint's state; only a teacher may be missing from it."""
        try:
            found = super().load_state_dict(state_dict, strict=False, assign=assign)
        except RuntimeError as error:
            raise UserError(f"The checkpoint is of another model: {' '.join(str(error).split())[:300]}") from error
        missing = [k for k in found.missing_keys if not k.startswith("method.teacher.")]
        if strict and (missing or found.unexpected_keys):
            raise UserError(
                f"The checkpoint is of another model: missing {missing[:3]}, unexpected {found.unexpected_keys[:3]}."
            )
        return found


class Recorder(Callback):
    """Keeps a checkpoint of everything and a CSV of the losses, and reports progress."""

    def __init__(
        self, folder: Path, every: int, selector: Selector, report: Callable[[int, float], None] | None = None
    ) -> None:
        """Set where and how often.

        Args:
            folder: of `last.ckpt` and `training.csv`.
            every: micro-batches between checkpoints.
            selector: keeps the averages.
            report: called with (micro-batches done, mean loss of late).
        """
        self.folder, self.every, self.selector, self.report = folder, every, selector, report
        self.stopped = False
        self.sums: dict[str, list[float]] = {}
        self.mean = math.nan

    @property
    def checkpoint(self) -> Path:
        """The file to go on from."""
        return self.folder / "last.ckpt"

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
        """Collect losses; write a row every 20 micro-batches and at the end."""
        for name, value in driver.recent.items():
            self.sums.setdefault(name, []).append(value)
        done = int(driver.batches)
        total = driver.schedule.steps * driver.schedule.accumulate
        if done % 20 == 0 or done == total:
            row = {name: sum(v) / len(v) for name, v in self.sums.items()}
            self.mean = row.get("student/loss", self.mean)
            self.sums.clear()
            if trainer.is_global_zero:
                self._write(done // driver.schedule.accumulate, row)
        if self.report:
            self.report(done, self.mean)
        step, micro = divmod(done, driver.schedule.accumulate)
        if micro == 0 and driver.schedule.keeps(step) and int(driver.ema.steps):
            with torch.random.fork_rng(), torch.no_grad():
                self.selector.snapshot(driver.ema, step)
            self.stopped = trainer.should_stop = self.selector.exhausted(step)

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

    Raises:
        UserError: for a precision or number of devices that it is not made for, a checkpoint of another model, or a
            loss that is not a number.

    Returns:
        The student with the chosen weights, in evaluation mode.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(step_seed(seed, 0))
    method.prepare(stream.get(stream.indices(0)))
    select(method.student, schedule.parameters)
    driver = Driver(method.train(), schedule, seed)
    driver.ema.eval()
    selector = Selector(folder, judge, schedule.patience)
    recorder = Recorder(folder, checkpoint_every * schedule.accumulate, selector, report)
    driver.checkpoint = recorder.checkpoint
    resume = recorder.checkpoint if recorder.checkpoint.exists() else None
    if resume:
        stream.start = int(torch.load(resume, weights_only=True, map_location="cpu")["state_dict"]["batches"])
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    run = trainer(
        max_epochs=1, callbacks=[recorder], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0, default_root_dir=folder,
    )  # fmt: skip
    if run.precision not in ("32-true", "bf16-mixed") or run.world_size > 1:
        raise UserError(
            f"trainer.precision={run.precision}, trainer.devices={run.world_size}: training takes 32-true or bf16-mixed"
            " precision, on one device."
        )
    if stream.start < len(stream) and not selector.exhausted(stream.start // schedule.accumulate):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__`")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.")
            warnings.filterwarnings("ignore", message="Found .* module.s. in eval mode")  # a teacher, the average
            warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before")
            warnings.filterwarnings("ignore", message="The 'train_dataloader' does not have many workers")
            try:
                run.fit(driver, stream.loader(), ckpt_path=resume, weights_only=True)
            finally:
                stream.close()
        if int(driver.batches) < len(stream) and not recorder.stopped:
            raise KeyboardInterrupt
        recorder.save(run)
    elif resume:
        driver.load_state_dict(torch.load(resume, weights_only=True, map_location="cpu")["state_dict"])
    with torch.no_grad():
        return selector.choose(driver.ema, int(driver.batches) // schedule.accumulate).eval()
