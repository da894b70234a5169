"""The one LightningModule: it drives any Method, with manual optimisation, and names none.

Every random number of step i comes from a seed made of (seed, i, rank), so a resumed run continues bit-identically.
With several devices each has a process (`ranks`), and takes its rows of every micro-batch.
"""

import copy
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from scigen.core.datamodule import SampleStream
from scigen.core.draws import sharing
from scigen.core.ema import PowerEMA
from scigen.core.methods.base import Batch, Method
from scigen.core.ranks import Rank, Report, supervise
from scigen.core.recorder import Recorder
from scigen.core.selection import Judge, Selector
from scigen.core.sharding import is_spread, number, whole
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

    def check_devices(self, devices: int) -> None:
        """Raise UserError unless so many devices can share a batch."""
        if self.batch % (devices * self.accumulate):
            raise UserError(
                f"training.batch={self.batch} is the batch of all devices together: it must be a multiple of"
                f" trainer.devices={devices} times training.accumulate={self.accumulate}."
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


def check_number(value: Tensor, what: str, step: int, samples: Sequence[str], checkpoint: Path | None) -> None:
    """Raise UserError unless a scalar is finite: before it can reach weights, and with them a checkpoint."""
    if not torch.isfinite(value):
        of = f" on a batch of {', '.join(samples[:4])}{' …' if len(samples) > 4 else ''}" * bool(samples)
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

    def __init__(self, method: Method, schedule: Schedule, seed: int = 0, sharded: bool = False) -> None:
        """Set what is trained and how, and whether it will be spread over devices."""
        super().__init__()
        self.automatic_optimization = False
        self.method, self.schedule, self.seed = method, schedule, seed
        self.ema = PowerEMA(method.student, schedule.ema)
        self.blank: list[PowerEMA] = (
            [copy.deepcopy(self.ema)] if sharded else []
        )  # out of sight of modules, to gather averages in
        self.checkpoint: Path | None = None
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One AdamW per learner."""
        groups = [[p for p in m.parameters() if p.requires_grad] for m in self.method.learners().values()]
        return [torch.optim.AdamW(g, lr=self.schedule.lr, betas=self.schedule.betas, weight_decay=0.0) for g in groups]

    def spread_modules(self) -> list[nn.Module]:
        """What is spread over the devices where the model is too large for one: learners and averages."""
        return [*self.method.learners().values(), *self.ema.means]

    def averages(self) -> PowerEMA:
        """The averages, whole; all processes must ask for them."""
        if not is_spread(self.ema):
            return self.ema
        found = self.blank[0]
        found.load_state_dict(whole(self.ema.state_dict()))
        return found

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch."""
        return batch.to(device)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One micro-batch: the learner whose turn it is gets a gradient, and at the end of an accumulation a step."""
        index, accumulate = int(self.batches), self.schedule.accumulate
        step, micro = divmod(index, accumulate)
        rank, ranks = self.global_rank, self.trainer.world_size
        torch.manual_seed(step_seed(self.seed, index, rank))
        self.method.at(step / self.schedule.steps)
        turn = self.method.turn(step)
        learners = self.method.learners()
        found = self.optimizers()
        optimizer = (found if isinstance(found, list) else [found])[list(learners).index(turn)]
        self.toggle_optimizer(optimizer)
        parts, last = ranks * accumulate, micro == accumulate - 1
        whole = sharing(step_seed(self.seed, step), micro * ranks + rank, parts)
        with whole if self.method.by_row and parts > 1 else nullcontext():
            losses = self.method.loss(turn, batch)
        mean, suspects = self._mean(losses["loss"].detach(), batch)
        check_number(mean, f"{turn}'s loss", step, suspects, self.checkpoint)
        strategy = self.trainer.strategy
        with nullcontext() if last or not isinstance(strategy, DDPStrategy) else strategy.block_backward_sync():
            self.manual_backward(losses["loss"] / accumulate)
        if last:
            norm = nn.utils.clip_grad_norm_(learners[turn].parameters(), self.schedule.clip)
            check_number(number(norm), f"{turn}'s gradient", step, suspects, self.checkpoint)
            for group in optimizer.param_groups:
                group["lr"] = self.schedule.rate(step, turn)
            optimizer.step()
            optimizer.zero_grad()
            if turn == "student":
                self.ema.update(self.method.student)
        self.untoggle_optimizer(optimizer)
        self.batches += 1
        self.recent = {f"{turn}/{k}": float(v.detach()) for k, v in losses.items()} | {f"{turn}/loss": float(mean)}

    def _mean(self, loss: Tensor, batch: Batch) -> tuple[Tensor, Sequence[str]]:
        """The mean of a loss over the processes, and the samples to name if it is no number: those of who has none."""
        ranks = self.trainer.world_size
        if ranks == 1:
            return loss, batch.samples
        mean = loss.double() / ranks
        torch.distributed.all_reduce(mean)
        suspects: list[Any] = [batch.samples]
        if not torch.isfinite(mean):
            suspects = [()] * ranks
            torch.distributed.all_gather_object(suspects, () if torch.isfinite(loss) else batch.samples)
        return mean, [name for names in suspects for name in names]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen teacher out: it has a file of its own. Gather what is spread."""
        frozen = "method.teacher."
        checkpoint["state_dict"] = {
            k: whole(v) for k, v in checkpoint["state_dict"].items() if not k.startswith(frozen)
        }
        if "optimizer_states" in checkpoint:
            checkpoint["optimizer_states"] = whole(checkpoint["optimizer_states"])

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
    job = Job(method, stream, schedule, trainer, folder, seed, checkpoint_every * schedule.accumulate, judge)
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
        recorder = Recorder(self.folder, self.every, self.selector, report)
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
