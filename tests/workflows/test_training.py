"""Training a stage: the judge of its snapshots, the weights that are kept, early stopping, broken losses."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from safetensors.torch import load_file
from torch import Tensor, nn

import scigen
from scigen.cli import main
from scigen.config import compose
from scigen.core.bundle import Bundle
from scigen.core.denoise import preconditioning
from scigen.core.domain import Data, Split
from scigen.core.driver import Driver
from scigen.core.ema import reconstruct
from scigen.core.methods.regression import Regression
from scigen.core.sampling import Sampling
from scigen.core.selection import Selector
from scigen.errors import UserError
from scigen.workflows.training import adopt, judge_of, settings

from .conftest import ONE

CHOICE = {"samples": 6, "members": 4, "seed": 0, "batch": 16}


@pytest.fixture
def home(taught, unjudged, monkeypatch) -> Path:
    """The teacher's folder, as the working directory, without reports."""
    monkeypatch.chdir(taught)
    return taught


@pytest.fixture(scope="session")
def opened(taught) -> tuple[Bundle, Data]:
    """The teacher and its data."""
    teacher, cfg = scigen.load(taught / "teacher.safetensors"), compose("fit", ONE)
    return teacher, instantiate(cfg.domain, **cfg.data).open(taught / "runs" / "data", teacher.codec)


class White(nn.Module):
    """A network with which one call from LEVEL gives white noise of standard deviation k around a constant."""

    LEVEL = 10.0

    def __init__(self, k: float = 1.0, bias: float = 0.0, smooth: float = 0.0) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor([k, bias, smooth]))

    def forward(self, x: Tensor, c_noise: Tensor, condition: dict[str, Tensor] | None = None) -> Tensor:
        skip, out, scale, _ = preconditioning(torch.tensor(self.LEVEL), 1.0)
        k, bias, smooth = self.numbers
        noise = x / scale / self.LEVEL
        wanted = k * torch.lerp(noise, (noise + noise.roll(1, -1)) / 2**0.5, smooth) + bias
        return (wanted - skip * x / scale) / out


def white(bundle: Bundle, *numbers: float) -> Bundle:
    """The bundle's codec around a White."""
    sampling = Sampling("few_step", (White.LEVEL,), trained=True)
    return Bundle(White(*numbers), "White", {}, 1.0, bundle.codec, sampling, "weather", "student")


# ------------------------------------------------------------------------------------------------------ the judge


def test_candidates_meet_the_same_samples_and_the_same_noise(opened, monkeypatch):
    teacher, data = opened
    seen, forward = [], White.forward
    monkeypatch.setattr(White, "forward", lambda self, *args: seen.append(args) or forward(self, *args))
    judge = judge_of(white(teacher), data.validation, steps=(None,), **CHOICE)
    scores = []
    for k in (1.0, 0.5, 1.0):
        torch.manual_seed(len(scores))  # nor does it lean on the global generator
        scores.append(judge(white(teacher, k).denoiser))
    assert scores[0] == scores[2] != scores[1]
    count, rows = len(seen) // 3, CHOICE["samples"] * CHOICE["members"]
    assert len(seen) == 3 * count > 0
    for (x, _, condition), (y, _, other) in zip(seen[:count], seen[count:], strict=False):
        assert torch.equal(x, y) and condition.keys() == other.keys()
        assert all(torch.equal(v, other[k]) for k, v in condition.items())
    noise = torch.cat([x.flatten(1) for x, _, _ in seen[:count]])[:rows]
    assert len(torch.unique(noise, dim=0)) == rows, "every member has its own noise"


def test_the_truth_that_is_judged_against_is_the_archives(opened, monkeypatch):
    teacher, data = opened
    seen = []
    monkeypatch.setattr(
        "scigen.workflows.training.faults", lambda members, truth: seen.append((members, truth)) or {"score": 0.0}
    )
    judge_of(white(teacher), data.validation, steps=(None,), **CHOICE)(white(teacher).denoiser)
    ((members, truth),) = seen
    total = data.validation.truth.sizes["time"]
    index = np.linspace(0, total - 1, CHOICE["samples"]).round().astype(int)
    assert index[0] == 0 and index[-1] == total - 1
    expected = data.validation.truth["t2m"].values[index]
    assert truth.shape == (len(index), 1, 16, 16) and members.shape == (len(index), 4, 1, 16, 16)
    np.testing.assert_allclose(truth[:, 0], expected, rtol=0, atol=1e-4)  # kelvin
    assert np.abs(np.diff(expected, axis=0)).mean((1, 2)).min() > 0.1, "another order would be seen"
    means = [teacher.codec.mean_operator(torch.as_tensor(v).double()) for v in (members, truth[:, None])]
    torch.testing.assert_close(means[0], means[1].expand_as(means[0]), rtol=0, atol=1e-3)  # each beside its own truth


def test_a_bundle_adopts_weights_and_keeps_its_codecs_operator(opened):
    """An average of snapshots is made of all tensors of a denoiser; the block mean is not to be learnt."""
    teacher, data = opened
    bundle = replace(teacher, network=copy.deepcopy(teacher.network))
    trained = copy.deepcopy(teacher.denoiser)
    for tensor in trained.state_dict().values():
        tensor.mul_(0.98)
    share = teacher.codec.mean_operator.share.clone()
    adopt(bundle, trained)
    assert torch.equal(teacher.codec.mean_operator.share, share)
    for own, new, old in zip(*(m.parameters() for m in (bundle.network, trained, teacher.network)), strict=True):
        assert torch.equal(own, new) and torch.equal(new, 0.98 * old)
    judge = judge_of(teacher, data.validation, steps=(None,), **CHOICE)
    assert judge(trained) == judge(bundle.denoiser) != judge(teacher.denoiser)
    assert torch.equal(teacher.codec.mean_operator.share, share)


@pytest.mark.parametrize("few", [{"samples": 0}, {"members": 1}, {"members": 0}])
def test_no_judge_without_samples_or_members(opened, few):
    teacher, data = opened
    assert judge_of(teacher, data.validation, steps=(None,), **CHOICE | few) is None


def test_no_judge_of_a_single_sample(opened):
    teacher, data = opened
    single = Split(data.validation.truth.isel(time=[0]), data.validation.inputs.isel(time=[0]))
    assert judge_of(teacher, single, steps=(None,), **CHOICE) is None


def test_faults_are_averaged_over_numbers_of_steps(opened):
    teacher, data = opened
    both, *each = (judge_of(teacher, data.validation, steps=s, **CHOICE) for s in ((1, 4), (1,), (4,)))
    parts = [judge(teacher.denoiser) for judge in each]
    for key, value in both(teacher.denoiser).items():
        assert value == pytest.approx((parts[0][key] + parts[1][key]) / 2, rel=1e-12)
    assert abs(parts[0]["score"] - parts[1]["score"]) > 0.1


@pytest.fixture(scope="session")
def calibrated(opened):
    """A judge for whom the truth is a draw of White."""
    teacher, data = opened
    split = data.validation
    fields = np.concatenate([block for _, block in white(teacher).blocks(split.inputs, 1, seed=99)])
    truth = split.truth.copy()
    truth["t2m"] = (truth["t2m"].dims, fields[:, 0, 0])
    return judge_of(white(teacher), Split(truth, split.inputs), **CHOICE | {"members": 16}, steps=(None,))


@pytest.mark.parametrize(
    "numbers",
    [(0.0,), (0.5,), (0.85,), (1.2,), (1.0, 0.0, 1.0)],
    ids=["collapsed", "half the spread", "0.85 of it", "1.2 of it", "smooth"],
)
def test_every_fault_costs(calibrated, opened, numbers):
    """Against a perfect student, whose law is the truth's: it has no fault but that of few samples."""
    perfect, found = (calibrated(white(opened[0], *n).denoiser) for n in ((), numbers))
    assert perfect["ssr"] == pytest.approx(1, abs=0.1) and perfect["spectrum"] < 0.15
    assert found["score"] > perfect["score"] + 0.05


def test_a_collapsed_student_is_judged_worse_than_its_teacher(opened, monkeypatch):
    """The teacher's own samples, drawn together to the mean of each ensemble."""
    teacher, data = opened
    judge = judge_of(teacher, data.validation, steps=(None,), **CHOICE)
    whole = judge(teacher.denoiser)
    blocks = Bundle.blocks

    def together(self, *args, **kwargs):
        for start, block in blocks(self, *args, **kwargs):
            yield start, 0.2 * block + 0.8 * block.mean(1, keepdims=True)

    monkeypatch.setattr(Bundle, "blocks", together)
    collapsed = judge(teacher.denoiser)
    assert collapsed["score"] > whole["score"] + 0.5
    assert collapsed["ssr"] == pytest.approx(0.2 * whole["ssr"], rel=1e-3)


# ------------------------------------------------------------------------------------------------------- selection


def regression(home: Path, run: str, *words: str) -> Path:
    """A regression student with four snapshots; returns the stage's folder. ONE limits its judge to 2 × 2 fields."""
    words = (f"teacher={home / 'teacher.safetensors'}", f"run={run}", "+method.training.snapshots=4", *words)
    assert main(["fit", *ONE, "method=regression", "method.training.lr=1e-2", "method.training.warmup=1", *words]) == 0
    (stage,) = (home / run).glob("regression-*")
    return stage


def test_the_best_row_of_validation_is_kept(home, opened):
    stage = regression(home, "best")
    table = pd.read_csv(stage / "validation.csv")
    assert sorted(set(table["step"])) == [1, 2, 3, 4] and len(table) == 7 and table["score"].nunique() == 7
    student, (_, data) = scigen.load(stage / "student.safetensors"), opened
    best = table.loc[table["score"].idxmin()]
    found = judge_of(student, data.validation, steps=(1,), samples=2, members=2, seed=0, batch=8)(student.denoiser)
    assert found == pytest.approx(dict(best[list(found)]), rel=1e-6)


@pytest.mark.parametrize("favourite", [0, 2, 3, 4, 6])
def test_whichever_row_is_best_its_weights_are_the_students(home, monkeypatch, favourite):
    """Four snapshots on the way and three more widths at the end."""
    calls = []

    def judge(denoiser):
        calls.append({k: v.clone() for k, v in denoiser.named_parameters()})
        return {"score": float(abs(len(calls) - 1 - favourite))}

    monkeypatch.setattr("scigen.workflows.distil.judge_of", lambda *_, **__: judge)
    stage = regression(home, f"favourite{favourite}")
    student = dict(scigen.load(stage / "student.safetensors").denoiser.named_parameters())
    assert len(calls) == 7
    assert [i for i, w in enumerate(calls) if all(torch.allclose(v, student[k]) for k, v in w.items())] == [favourite]
    row = pd.read_csv(stage / "validation.csv").iloc[favourite]
    if favourite < 4:
        kept = load_file(stage / "averages" / f"step-{int(row['step']):08d}.safetensors")
        expected = {k.removeprefix("0."): v for k, v in kept.items() if k.startswith("0.")}
    else:
        averages = Selector(stage).snapshots(type("Widths", (), {"widths": (0.05, 0.10)}))
        expected = reconstruct(averages, float(row["width"]))
    for key, value in student.items():
        torch.testing.assert_close(value.detach(), expected[key], rtol=1e-6, atol=1e-7)


def test_without_a_judge_the_last_average_is_kept(home):
    stage = regression(home, "last", "validation.samples=0")
    kept = load_file(stage / "averages" / "step-00000004.safetensors")
    student = scigen.load(stage / "student.safetensors").denoiser.state_dict()
    assert not (stage / "validation.csv").exists()
    assert all(torch.equal(v, kept[f"0.{k}"]) for k, v in student.items())


# -------------------------------------------------------------------------------------------------- early stopping


def test_patience_ends_a_stage_early_and_the_fit_goes_on(home, monkeypatch):
    """Scores that only become worse: the first snapshot's weights, no step after the second snapshot."""
    weights, reports = [], []

    def judge(denoiser):
        weights.append({k: v.clone() for k, v in denoiser.state_dict().items()})
        return {"score": float(len(weights))}

    monkeypatch.setattr("scigen.workflows.distil.judge_of", lambda *_, **__: judge)
    monkeypatch.setattr("scigen.workflows.fit.judge", lambda *args, **_: reports.append(args[3]) or args[4])
    steps, step = [], Driver.training_step
    monkeypatch.setattr(Driver, "training_step", lambda *args: steps.append(args[2]) or step(*args))
    words = ["patient", "method.training.patience=1"]
    stage = regression(home, *words)
    assert len(steps) == 2 and len(reports) == 1
    path = stage / "student.safetensors"
    first = scigen.load(path)
    assert all(torch.equal(v, weights[0][k]) for k, v in first.denoiser.state_dict().items())
    regression(home, *words)
    assert len(steps) == 2 and len(reports) == 2, "finished is finished"
    path.unlink()  # killed after the last step
    regression(home, *words)
    assert len(steps) == 2, "and does not train on"
    assert scigen.load(path).fingerprint() == first.fingerprint()


# ---------------------------------------------------------------------------------------------------------- losses


def test_a_loss_that_is_no_number_names_step_times_and_checkpoint(home, monkeypatch, capsys):
    loss, drawn = Regression.loss, []

    def broken(self, turn, batch):
        drawn.append(batch.samples)
        found = loss(self, turn, batch)
        return {"loss": found["loss"] * (float("nan") if len(drawn) == 4 else 1.0)}

    words = ["fit", *ONE, "method=regression", f"teacher={home / 'teacher.safetensors'}", "run=broken"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Regression, "loss", broken)
        assert main(words) == 2
    shown = capsys.readouterr().err.replace("\n", " ")
    (stage,) = home.glob("broken/regression-*")
    assert "student's loss is nan at step 3" in shown
    assert len(drawn[3]) > 4 and f"on a batch of {', '.join(drawn[3][:4])} …" in shown
    assert all(name.startswith("2015-") and len(name) == 19 for name in drawn[3])
    assert f"{stage.relative_to(home) / 'last.ckpt'}" in shown and (stage / "last.ckpt").exists()
    steps, step = [], Driver.training_step
    monkeypatch.setattr(
        Driver, "training_step", lambda self, *args: steps.append(int(self.batches)) or step(self, *args)
    )
    assert main(words) == 0
    assert steps == [2, 3], "it goes on from the checkpoint that it named"


def test_a_key_of_training_that_there_is_not_is_refused():
    with pytest.raises(UserError, match=r"training\.ema_width is none of .* ema, snapshots, patience"):
        settings({"_target_": "x.y.Z", "training": {"steps": 1, "batch": 1, "lr": 0.1, "ema_width": 0.1}})
    arguments, schedule = settings({"_target_": "x.y.Z", "a": 1, "training": {"steps": 3, "batch": 1, "lr": 0.1}})
    assert arguments == {"_target_": "x.y.Z", "a": 1} and (schedule.steps, schedule.lr) == (3, 0.1)
