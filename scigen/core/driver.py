"""The one LightningModule: it drives any Method, with manual optimisation, and names none.

Every random number of step i comes from a seed made of (seed, i, rank), so a resumed run continues bit-identically.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from scigen.core.draws import sharing
from scigen.core.ema import PowerEMA
from scigen.core.methods.base import Batch, Method
from scigen.core.sharding import is_spread, number, whole
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
