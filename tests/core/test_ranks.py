"""Training on several devices: the same losses as on one, and no process waits for one that is gone."""

import functools
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import lightning
import pandas as pd
import pytest
import torch
from torch import nn

from scigen.core.datamodule import SampleStream
from scigen.core.denoise import Denoiser
from scigen.core.driver import Schedule
from scigen.core.methods.base import Batch, Method
from scigen.core.methods.denoising import Denoising
from scigen.core.methods.regression import Regression
from scigen.core.networks.unet import UNet
from scigen.core.noise import LogUniform
from scigen.core.train import train
from scigen.errors import UserError

one = functools.partial(lightning.Trainer, accelerator="cpu", devices=1)
spread = functools.partial(lightning.Trainer, accelerator="cpu", devices=2, strategy="fsdp")
two = functools.partial(lightning.Trainer, accelerator="cpu", devices=2, strategy="ddp")


class Fixed(SampleStream):
    """Samples that are a function of their position."""

    def get(self, indices):
        rows = [torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(int(i))) for i in indices]
        x, noise = torch.stack(rows).unbind(1)
        return Batch(x, {}, noise, torch.stack([x + noise], 1), tuple(f"day {i}" for i in indices))


def unet() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(UNet(1, widths=(8, 8), embedding=8))


def denoising() -> Method:
    return Denoising(unet(), LogUniform(0.1, 10))


def regression() -> Method:
    return Regression(unet(), unet(), [10.0, 1.0], pairs=4)


class TwoLearners(Method):
    """The fake learns in two turns of three, and has parameters that never get a gradient."""

    by_row = True

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.student, self.fake, self.idle = nn.Linear(64, 1), nn.Linear(64, 1), nn.Linear(3, 3)

    def learners(self):
        return {"student": self.student, "fake": nn.ModuleList([self.fake, self.idle])}

    def turn(self, step):
        return "student" if step % 3 == 0 else "fake"

    def loss(self, turn, batch):
        x = batch.x.flatten(1)
        return {"loss": (self.student(x) + self.fake(x)).square().mean()}


def losses(folder: Path) -> list[float]:
    table = pd.read_csv(folder / "training.csv").drop(columns="step")
    return table.to_numpy().ravel().tolist()


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize("make", [denoising, regression, TwoLearners])
def test_two_processes_train_as_one(tmp_path, make):
    """Mean of twenty losses, and the weights that came of them, to 1e-5: stratified noise, clipping, turns and all."""
    schedule = Schedule(steps=20, batch=8, lr=1e-2, warmup=5)
    seen = []
    a = train(make(), Fixed(20, 8, 20), schedule, one, tmp_path / "one")
    b = train(make(), Fixed(20, 8, 20), schedule, two, tmp_path / "two", report=lambda *now: seen.append(now[0]))
    assert seen == list(range(1, 21)), "the first process reports"
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "two"), rel=1e-5, nan_ok=True)
    torch.testing.assert_close(weights(a), weights(b), rtol=1e-3, atol=2e-5)
    start = weights(make().student)
    assert float((weights(a) - start).abs().max()) > 1e-2


@pytest.mark.slow
def test_two_processes_and_two_micro_batches_train_as_one_batch(tmp_path):
    a = train(denoising(), Fixed(20, 8, 10), Schedule(steps=10, batch=8, lr=1e-2), one, tmp_path / "one")
    schedule = Schedule(steps=10, batch=8, lr=1e-2, accumulate=2)
    b = train(denoising(), Fixed(20, 4, 20), schedule, two, tmp_path / "two")
    torch.testing.assert_close(weights(a), weights(b), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("make", [denoising, regression])
def test_micro_batches_train_as_the_whole_batch(tmp_path, make):
    runs = []
    for accumulate in (1, 4):
        schedule = Schedule(steps=10, batch=8, lr=1e-2, accumulate=accumulate)
        stream = Fixed(20, 8 // accumulate, 10 * accumulate)
        runs.append(weights(train(make(), stream, schedule, one, tmp_path / str(accumulate))))
    torch.testing.assert_close(*runs, rtol=1e-3, atol=2e-5)


class Own(Denoising):
    by_row = False


def test_micro_batches_of_other_methods_draw_numbers_of_their_own(tmp_path):
    """The neighbour of the test above: without shared draws the updates are others."""
    runs = []
    for accumulate in (1, 4):
        schedule = Schedule(steps=10, batch=8, lr=1e-2, accumulate=accumulate)
        method = Own(unet(), LogUniform(0.1, 10))
        stream = Fixed(20, 8 // accumulate, 10 * accumulate)
        runs.append(weights(train(method, stream, schedule, one, tmp_path / str(accumulate))))
    assert float((runs[0] - runs[1]).abs().max()) > 1e-3  # tolerance there: 2e-5


class Slow(Denoising):
    """Takes its time, so that it can be killed."""

    def loss(self, turn, batch):
        time.sleep(0.2)
        return super().loss(turn, batch)


def slow() -> Method:
    return Slow(unet(), LogUniform(0.1, 10))


def kill_one(folder: Path, place: int) -> None:
    """Once there is a checkpoint, kill one of the training processes of this one."""
    while not (folder / "last.ckpt").exists():
        time.sleep(0.01)
    ours = sorted(multiprocessing.active_children(), key=lambda p: p.pid)
    os.kill(ours[place].pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1])
def test_a_process_that_is_killed_ends_all_and_the_training_goes_on_from_the_checkpoint(tmp_path, place):
    schedule = Schedule(steps=16, batch=4, lr=1e-2)
    killer = threading.Thread(target=kill_one, args=(tmp_path / "killed", place))
    killer.start()
    said = rf"Process {place + 1} of 2 .* killed by SIGKILL.*goes on from the last checkpoint"
    with pytest.raises(UserError, match=said):
        train(slow(), Fixed(20, 4, 16), schedule, two, tmp_path / "killed", checkpoint_every=4)
    killer.join()
    assert not multiprocessing.active_children()
    seen = []
    resumed = train(
        denoising(), Fixed(20, 4, 16), schedule, two, tmp_path / "killed", checkpoint_every=4,
        report=lambda done, _: seen.append(done),
    )  # fmt: skip
    assert seen[0] > 4 and seen[-1] == 16
    straight = train(denoising(), Fixed(20, 4, 16), schedule, two, tmp_path / "straight", checkpoint_every=4)
    torch.testing.assert_close(weights(straight), weights(resumed), rtol=0, atol=0)


class BrokenHalf(Denoising):
    """No number, on the second process only."""

    def loss(self, turn, batch):
        found = super().loss(turn, batch)
        bad = torch.distributed.is_initialized() and torch.distributed.get_rank() == 1
        return {"loss": found["loss"] * (float("nan") if bad else 1.0)}


class Defect(Denoising):
    """Fails, on the second process only, while the first one waits for its gradients."""

    def loss(self, turn, batch):
        if torch.distributed.get_rank() == 1:
            raise ZeroDivisionError("a defect")
        return super().loss(turn, batch)


@pytest.mark.slow
def test_what_goes_wrong_in_one_process_is_said_once(tmp_path):
    schedule, stream = Schedule(steps=4, batch=4, lr=1e-2), Fixed(20, 4, 4)
    names = ", ".join(f"day {i}" for i in stream.indices(0)[2:])
    with pytest.raises(UserError, match=f"nan at step 0 on a batch of {names}\\."):
        train(BrokenHalf(unet(), LogUniform(0.1, 10)), stream, schedule, two, tmp_path / "nan")
    with pytest.raises(RuntimeError, match=r"Process 2 of 2 .*failed(.|\n)*ZeroDivisionError: a defect"):
        train(Defect(unet(), LogUniform(0.1, 10)), stream, schedule, two, tmp_path / "defect")


def test_batches_that_devices_cannot_share_are_refused(tmp_path):
    for schedule in (Schedule(steps=4, batch=9, lr=1e-2), Schedule(steps=4, batch=6, lr=1e-2, accumulate=2)):
        with pytest.raises(UserError, match=r"training\.batch=\d is the batch of all devices.*trainer\.devices=2"):
            train(denoising(), Fixed(20, 4, 4), schedule, two, tmp_path)


class Foreign(Denoising):
    by_row = False


def test_methods_whose_model_cannot_be_spread_are_refused(tmp_path):
    with pytest.raises(UserError, match="fsdp trains method=denoising"):
        method = Foreign(unet(), LogUniform(0.1, 10))
        train(method, Fixed(20, 4, 4), Schedule(steps=4, batch=4, lr=1e-2), spread, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "after"), [(denoising, one), (regression, spread)])
def test_a_model_spread_over_two_processes_trains_as_a_whole_one_and_goes_on_on_one(tmp_path, make, after):
    """Also from a checkpoint, which is whole: two processes do the first half, one or again two the rest."""
    schedule = Schedule(steps=20, batch=8, lr=1e-2, warmup=5)
    a = train(make(), Fixed(20, 8, 20), schedule, one, tmp_path / "one")

    def die(done, loss):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make(), Fixed(20, 8, 20), schedule, spread, tmp_path / "two", checkpoint_every=5, report=die)
    seen = []
    b = train(
        make(), Fixed(20, 8, 20), schedule, after, tmp_path / "two", checkpoint_every=5,
        report=lambda done, _: seen.append(done),
    )  # fmt: skip
    assert seen[0] in (6, 11, 16) and seen[-1] == 20
    torch.testing.assert_close(weights(a), weights(b), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("words", [{"strategy": "ddp_spawn", "num_nodes": 2}, {"strategy": "deepspeed"}])
def test_other_machines_and_strategies_are_refused(tmp_path, words):
    other = functools.partial(two, **words)
    with pytest.raises(UserError, match=r"one machine|takes ddp"):
        train(denoising(), Fixed(20, 4, 4), Schedule(steps=4, batch=4, lr=1e-2), other, tmp_path)
