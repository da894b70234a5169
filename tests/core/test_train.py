"""The driver: resuming is bit-identical, accumulation is the large batch, learners take turns."""

import copy
import dataclasses
import functools

import lightning
import numpy as np
import pytest
import torch
from torch import nn

from scigen.core.datamodule import ArchiveStream, SampleStream
from scigen.core.denoise import Denoiser
from scigen.core.driver import Schedule, step_seed
from scigen.core.ema import PowerEMA
from scigen.core.methods.base import Batch, Method
from scigen.core.methods.consistency import Consistency
from scigen.core.methods.denoising import Denoising
from scigen.core.networks.unet import UNet
from scigen.core.noise import LogUniform
from scigen.core.train import train
from scigen.errors import UserError

trainer = functools.partial(lightning.Trainer, accelerator="cpu", devices=1)


class Fixed(SampleStream):
    """Samples that are a function of their position."""

    def get(self, indices):
        rows = [torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(int(i))) for i in indices]
        return Batch(torch.stack(rows), {})


def method(dropout: float = 0.2) -> Denoising:
    torch.manual_seed(0)
    return Denoising(Denoiser(UNet(1, widths=(8, 8), embedding=8, dropout=dropout)), LogUniform(0.1, 10))


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("died", [6, 9])
def test_a_killed_run_resumes_bit_identically(tmp_path, died):
    schedule = Schedule(steps=14, batch=4, lr=1e-2, warmup=3, ema=(0.1, 0.2))
    straight = train(method(), Fixed(10, 4, 14), schedule, trainer, tmp_path / "straight", checkpoint_every=3)

    def die(done, loss):
        if done == died:
            raise Killed

    with pytest.raises(Killed):
        train(method(), Fixed(10, 4, 14), schedule, trainer, tmp_path / "killed", checkpoint_every=3, report=die)
    seen = []
    other = method()
    nn.init.ones_(next(other.parameters()))  # resuming does not lean on the initial weights
    resumed = train(
        other,
        Fixed(10, 4, 14),
        schedule,
        trainer,
        tmp_path / "killed",
        checkpoint_every=3,
        report=lambda done, _: seen.append(done),
    )
    assert seen == list(range(died // 3 * 3 - (3 if died % 3 == 0 else 0) + 1, 15))
    for key, value in state(straight).items():
        assert torch.equal(value, state(resumed)[key]), key
    logs = [(tmp_path / k / "training.csv").read_text() for k in ("straight", "killed")]
    assert logs[0].splitlines()[-1].split(",")[0] == logs[1].splitlines()[-1].split(",")[0] == "14"


def test_resuming_takes_up_whole_accumulations(tmp_path):
    """A kill between two micro-batches of a step loses their gradients, so the step is done anew."""
    schedule = Schedule(steps=5, batch=4, lr=1e-2, accumulate=2)

    def die(done, loss):
        if done == 8:  # the last checkpoint due came before the seventh micro-batch, that of the fourth step
            raise Killed

    with pytest.raises(Killed):
        train(method(), Fixed(10, 2, 10), schedule, trainer, tmp_path / "killed", checkpoint_every=1, report=die)
    batches = torch.load(tmp_path / "killed" / "last.ckpt", weights_only=True)["state_dict"]["batches"]
    assert int(batches) % 2 == 0
    resumed = train(method(), Fixed(10, 2, 10), schedule, trainer, tmp_path / "killed", checkpoint_every=1)
    straight = train(method(), Fixed(10, 2, 10), schedule, trainer, tmp_path / "straight", checkpoint_every=1)
    for key, value in state(straight).items():
        assert torch.equal(value, state(resumed)[key]), key


def test_a_finished_run_is_not_trained_again(tmp_path):
    schedule = Schedule(steps=4, batch=2, lr=1e-2)
    first = train(method(), Fixed(10, 2, 4), schedule, trainer, tmp_path)
    second = train(
        method(), Fixed(10, 2, 4), schedule, trainer, tmp_path, report=lambda *_: pytest.fail("trained again")
    )
    for key, value in state(first).items():
        assert torch.equal(value, state(second)[key])


class Deterministic(Method):
    """Mean squared output: a loss without random numbers, the mean of its samples'."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.student = nn.Linear(64, 64)

    def loss(self, turn, batch):
        return {"loss": self.student(batch.x.flatten(1)).square().mean()}


def test_accumulated_micro_batches_are_the_large_batch(tmp_path):
    large = train(Deterministic(), Fixed(10, 8, 5), Schedule(steps=5, batch=8, lr=1e-2), trainer, tmp_path / "a")
    small = train(
        Deterministic(), Fixed(10, 2, 20), Schedule(steps=5, batch=8, lr=1e-2, accumulate=4), trainer, tmp_path / "b"
    )
    for key, value in state(large).items():
        torch.testing.assert_close(value, state(small)[key], rtol=1e-4, atol=1e-6)


class Noted(Deterministic):
    """Notes a random number of every micro-batch."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def loss(self, turn, batch):
        self.drawn.append(float(torch.rand(())))
        return super().loss(turn, batch)


def test_random_numbers_differ_from_step_to_step_and_with_the_seed(tmp_path):
    """One seed for all steps would resume bit-identically too, and train on the same noise for ever."""
    schedule = Schedule(steps=3, batch=4, lr=1e-2, accumulate=2)
    runs = [Noted() for _ in range(3)]
    for i, (run, seed) in enumerate(zip(runs, (0, 1, 0), strict=True)):
        train(run, Fixed(10, 2, 6), schedule, trainer, tmp_path / str(i), seed=seed)
    assert len({*runs[0].drawn, *runs[1].drawn}) == 12
    assert runs[0].drawn == runs[2].drawn


def test_learning_rate_warms_up_and_falls_to_zero(tmp_path):
    schedule, seen = Schedule(steps=12, batch=2, lr=0.1, warmup=4), []
    original = torch.optim.AdamW.step

    def step(self, closure=None):
        seen.extend(group["lr"] for group in self.param_groups)
        return original(self, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        train(Deterministic(), Fixed(10, 2, 12), schedule, trainer, tmp_path)
    cosine = [0.05 * (1 + np.cos(np.pi * i / 12)) for i in range(12)]
    expected = [c * min(1.0, (i + 1) / 4) for i, c in enumerate(cosine)]
    np.testing.assert_allclose(seen, expected, rtol=1e-12)


def test_a_checkpoint_leaves_the_teacher_out_and_is_resumed_without_it(tmp_path):
    def distil(report=None):
        student = method(0.0).student
        consistency = Consistency(student, copy.deepcopy(student), [10.0], 0.1, levels=[3])
        schedule = Schedule(steps=4, batch=2, lr=1e-2)
        return train(consistency, Fixed(10, 2, 4), schedule, trainer, tmp_path, checkpoint_every=2, report=report)

    def die(done, loss):
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        distil(die)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert any(k.startswith("method.student.") for k in kept)
    assert not any(k.startswith("method.teacher.") for k in kept)
    seen = []
    distil(lambda done, _: seen.append(done))
    assert seen == [3, 4]


class TwoLearners(Method):
    """Learner b learns in two turns of three; notes the gradients it sees."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.student, self.fake = nn.Linear(64, 1), nn.Linear(64, 1)
        self.moves = []
        self.before = None

    def learners(self):
        return {"student": self.student, "fake": self.fake}

    def turn(self, step):
        return "student" if step % 3 == 0 else "fake"

    def loss(self, turn, batch):
        now = {k: copy.deepcopy(v.state_dict()) for k, v in self.learners().items()}
        if self.before:
            self.moves.append({k for k in now if any(not torch.equal(a, self.before[k][n]) for n, a in now[k].items())})
        self.before = now
        x = batch.x.flatten(1)
        return {"loss": 1e6 * (self.student(x) + self.fake(x)).square().mean()}


def test_learners_take_turns_and_every_one_is_clipped(tmp_path):
    seen = []

    two = TwoLearners()
    original = torch.optim.AdamW.step

    def step(self, closure=None):
        seen.append(sum(float(p.grad.norm()) ** 2 for g in self.param_groups for p in g["params"]) ** 0.5)
        return original(self, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        train(two, Fixed(10, 4, 7), Schedule(steps=7, batch=4, lr=1e-2, clip=0.5), trainer, tmp_path)
    assert two.moves == [{"student"}, {"fake"}, {"fake"}, {"student"}, {"fake"}, {"fake"}]
    assert all(norm == pytest.approx(0.5, rel=1e-3) for norm in seen) and len(seen) == 7


def test_mixed_precision_trains_float32_weights_to_nearly_the_same(tmp_path):
    schedule = Schedule(steps=6, batch=4, lr=1e-2, warmup=1)
    mixed = functools.partial(trainer, precision="bf16-mixed")
    runs = [train(method(0.0), Fixed(10, 4, 6), schedule, t, tmp_path / str(i)) for i, t in enumerate((trainer, mixed))]
    a, b = (torch.cat([p.flatten() for p in run.parameters()]) for run in runs)
    assert b.dtype == torch.float32 and torch.isfinite(b).all()
    start = torch.cat([p.detach().flatten() for p in method(0.0).student.parameters()])
    assert not torch.equal(a, b)
    assert float(torch.cosine_similarity(a - start, b - start, dim=0)) > 0.9


class Modes(Deterministic):
    """Notes the mode that its student is trained in."""

    seen = None

    def loss(self, turn, batch):
        self.seen = self.student.training
        return super().loss(turn, batch)


def test_students_are_trained_in_training_mode_and_returned_in_evaluation_mode(tmp_path):
    modes = Modes().eval()
    student = train(modes, Fixed(10, 2, 2), Schedule(steps=2, batch=2, lr=1e-2), trainer, tmp_path)
    assert modes.seen is True and not student.training


class Turns(TwoLearners):
    """Notes turn, progress and which learners take gradients at every micro-batch."""

    def __init__(self):
        super().__init__()
        self.seen, self.progress = [], []

    def at(self, progress):
        self.progress.append(progress)

    def loss(self, turn, batch):
        self.seen.append((turn, {k for k, m in self.learners().items() if m.weight.requires_grad}))
        return super().loss(turn, batch)


def test_turns_progress_and_averages_follow_the_steps_not_the_micro_batches(tmp_path):
    """And nobody but the learner whose turn it is gathers gradients, which its own next step would take in."""
    turns, folded = Turns(), []
    update = PowerEMA.update

    def count(self, module):
        folded.append(turns.seen[-1][0])
        update(self, module)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PowerEMA, "update", count)
        train(turns, Fixed(10, 2, 8), Schedule(steps=4, batch=4, lr=1e-2, accumulate=2), trainer, tmp_path)
    expected = ["student", "student", "fake", "fake", "fake", "fake", "student", "student"]
    assert turns.seen == [(turn, {turn}) for turn in expected]
    assert turns.progress == [0.0, 0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert folded == ["student", "student"]


class Broken(Deterministic):
    def loss(self, turn, batch):
        return {"loss": super().loss(turn, batch)["loss"] * float("nan")}


def test_a_loss_that_is_not_a_number_stops_with_the_step(tmp_path):
    with pytest.raises(UserError, match="nan at step 0"):
        train(Broken(), Fixed(10, 2, 3), Schedule(steps=3, batch=2, lr=1e-2), trainer, tmp_path)


class Named(Fixed):
    """Its samples have names."""

    def get(self, indices):
        return dataclasses.replace(super().get(indices), samples=tuple(f"day {i}" for i in indices))


class LaterBroken(Deterministic):
    """From its fifth loss on, it is no number; notes the batches."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def loss(self, turn, batch):
        self.seen.append(batch.samples)
        return {"loss": super().loss(turn, batch)["loss"] * (float("nan") if len(self.seen) > 4 else 1.0)}


@pytest.mark.parametrize(("size", "more"), [(3, ""), (6, " …")])
def test_a_loss_that_is_not_a_number_names_its_samples_and_where_it_goes_on(tmp_path, size, more):
    """The first four of them; the checkpoint only where there is one."""
    schedule, stream = Schedule(steps=8, batch=size, lr=1e-2), Named(10, size, 8)
    for broken, every, kept in (
        (LaterBroken(), 3, f"last good checkpoint, {tmp_path / '3' / 'last.ckpt'};"),
        (LaterBroken(), 9, "the start (there is no checkpoint yet)"),
    ):
        with pytest.raises(UserError) as caught:
            train(broken, stream, schedule, trainer, tmp_path / str(every), checkpoint_every=every)
        names = broken.seen[4]
        assert len(broken.seen) == 5 and len(set(names)) == size
        assert f"student's loss is nan at step 4 on a batch of {', '.join(names[:4])}{more}." in str(caught.value)
        assert kept in str(caught.value)


class Steep(Deterministic):
    """A finite loss whose gradient is not."""

    def loss(self, turn, batch):
        return {"loss": (super().loss(turn, batch)["loss"] * 0).sqrt()}


def test_a_gradient_that_is_not_a_number_never_reaches_the_weights(tmp_path):
    steep = Steep()
    before = state(steep.student)
    with pytest.raises(UserError, match="student's gradient is nan at step 0"):
        train(steep, Fixed(10, 2, 3), Schedule(steps=3, batch=2, lr=1e-2), trainer, tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in state(steep.student).items())


@pytest.mark.parametrize(("widths", "embedding"), [((8,), 8), ((8, 8), 16)])
def test_a_checkpoint_of_another_model_is_refused(tmp_path, widths, embedding):
    train(method(), Fixed(10, 2, 2), Schedule(steps=2, batch=2, lr=1e-2), trainer, tmp_path)
    other = Denoising(Denoiser(UNet(1, widths=widths, embedding=embedding)), LogUniform(0.1, 10))
    with pytest.raises(UserError, match="another model"):
        train(other, Fixed(10, 2, 3), Schedule(steps=3, batch=2, lr=1e-2), trainer, tmp_path)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_precisions_that_training_is_not_made_for_are_refused(tmp_path, precision):
    other = functools.partial(trainer, precision=precision)
    with pytest.raises(UserError, match=f"precision={precision}.*32-true or bf16-mixed"):
        train(method(), Fixed(10, 2, 2), Schedule(steps=2, batch=2, lr=1e-2), other, tmp_path)


def test_every_epoch_sees_every_sample_once_in_its_own_order():
    stream = SampleStream(7, 3, 100, seed=1)
    flat = np.concatenate([stream.indices(i) for i in range(14)])
    epochs = flat.reshape(6, 7)
    assert all(sorted(e) == list(range(7)) for e in epochs)
    assert len({tuple(e) for e in epochs}) > 1
    stream.start = 5
    assert np.array_equal(SampleStream(7, 3, 100, seed=1).indices(5), stream.indices(5))


def test_batches_larger_than_the_data_run_on_across_epochs():
    stream = SampleStream(3, 8, 10)
    flat = np.concatenate([stream.indices(i) for i in range(3)])
    assert all(sorted(e) == [0, 1, 2] for e in flat.reshape(8, 3))
    with pytest.raises(UserError, match="no training samples"):
        SampleStream(0, 8, 10)
    with pytest.raises(UserError, match="seed=-1"):
        SampleStream(3, 8, 10, seed=-1)


def test_archive_batches_are_the_archives_samples(bundle, archive):
    inputs = bundle.codec.prepare(archive)
    stream = ArchiveStream(bundle.codec, archive, inputs, 3, 5)
    indices = stream.indices(0)
    batch = stream.get(indices)
    fields = bundle.codec.decode(batch.x, batch.condition)
    expected = np.stack([archive[n].values[indices] for n in ("t2m", "u10")], axis=1)
    np.testing.assert_allclose(fields.numpy(), expected, atol=1e-4)


def test_seeds_of_steps_differ():
    seeds = {step_seed(s, i, r) for s in range(3) for i in range(200) for r in range(3)}
    assert len(seeds) == 1800


@pytest.mark.parametrize("bad", [dict(steps=0), dict(batch=5, accumulate=2), dict(lr=0.0)])
def test_bad_schedules_are_refused(bad):
    with pytest.raises(UserError):
        Schedule(**({"steps": 1, "batch": 4, "lr": 1e-3} | bad))
