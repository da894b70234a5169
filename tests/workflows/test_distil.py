"""From teacher to student: every method end to end, chains, starts from elsewhere, smaller networks, and refusals."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import xarray as xr

import scigen
from scigen.cli import main
from scigen.config import config_dir
from scigen.core.bundle import Bundle
from scigen.core.denoise import FlowMap
from scigen.core.methods.denoising import Denoising
from scigen.weather.physics import DownscalingCodec
from scigen.workflows import distil

from .conftest import ONE

METHODS = sorted(p.stem for p in (config_dir() / "method").glob("*.yaml") if p.stem != "denoising")
CALLS = {"consistency": (1, 2), "scm": (1, 2), "tcm": (1, 2), "tdm": (2,), "flow_map": (1, 2, 4)}
"""Numbers of calls that each method's student can be sampled with, as configured; 1 alone for the others."""


def fit(home: Path, *words: str) -> int:
    return main(["fit", *ONE, f"teacher={home / 'teacher.safetensors'}", *words])


def weights(bundle: Bundle) -> torch.Tensor:
    return torch.cat([v.flatten() for v in bundle.network.state_dict().values()])


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


@pytest.fixture
def home(taught, quick, monkeypatch) -> Path:
    """The teacher's folder, as the working directory."""
    monkeypatch.chdir(taught)
    return taught


class Stages(list):
    """Stands for training: notes each stage's name, method and start, and moves all weights by a hundredth."""

    def __call__(self, cfg, title, method, stream, schedule, folder, judge):
        self.append((title, method, {k: v.clone() for k, v in method.student.state_dict().items()}))
        with torch.no_grad():
            for p in method.student.parameters():
                p += 0.01
        return method.student

    @property
    def titles(self) -> list[str]:
        return [title.removeprefix("student, ") for title, _, _ in self]


@pytest.fixture
def stages(home, unjudged, monkeypatch) -> Stages:
    """Fits without training."""
    found = Stages()
    monkeypatch.setattr(distil, "run", found)
    return found


@pytest.fixture(scope="session")
def consistent(taught) -> Path:
    """A consistency student of the teacher."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(taught)
        patch.setattr("scigen.workflows.fit.judge", lambda *args, **_: args[4])
        assert fit(taught, "method=consistency", "run=consistent", "validation.samples=0") == 0
    (path,) = taught.glob("consistent/consistency-*/student.safetensors")
    return path


# -------------------------------------------------------------------------------------------------- every method


def test_a_method_that_trains_a_teacher_stops_there(taught):
    assert scigen.load(taught / "teacher.safetensors").role == "teacher"
    kept = {p.name for p in (taught / "teacher").iterdir()}
    assert kept == {"card.json", "card.md", "config.json", "teacher", ".lock"} and not list(taught.rglob("*.html"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_student_that_samples_with_the_calls_it_reports(home, consistent, method):
    extra = {"tcm": [f"init={consistent}"], "tdm": ["trainer.limits.steps=8"]}.get(method, [])
    init = method == "tcm"  # and TDM's first turn is for nothing: its fake score still is the teacher's
    assert fit(home, f"method={method}", "run=methods", "validation={samples: 2, members: 2}", *extra) == 0
    (path,) = home.glob(f"methods/{method}-*/student.safetensors")
    student, teacher = scigen.load(path), scigen.load(home / "teacher.safetensors")
    assert (student.role, student.two_times) == ("student", method == "flow_map")
    assert student.provenance["method"] == method
    assert student.sampling.own_steps == CALLS.get(method, (1,))
    start = scigen.load(consistent) if init else teacher
    if student.two_times:
        assert student.network.embed[0].weight[:, -FlowMap.FEATURES :].abs().min() > 0, "widened with zeros, and learnt"
    else:
        assert not torch.equal(weights(student), weights(start)), "learnt"
    archive = xr.open_zarr(next((home / "runs" / "data").glob("*.zarr"))).isel(time=slice(0, 1))
    inputs = student.codec.prepare(archive)
    condition, keys = student.codec.condition(inputs, [0, 0]), student.codec.samples(inputs) * 2
    drawn = {}
    for steps in {*student.sampling.own_steps, *((3, 7) if student.two_times else ())}:
        drawn[steps], calls = student.draw(condition, keys, [0, 1], seed=0, steps=steps)
        assert calls == student.nfe(steps) == steps and torch.isfinite(drawn[steps]).all()
        assert not torch.equal(drawn[steps][0], drawn[steps][1])
    assert len({float(x.sum()) for x in drawn.values()}) == len(drawn)
    own = {f"{role}, {n} step{'s' * (n > 1)}" for n in student.sampling.own_steps for role in ("teacher", "student")}
    models = json.loads((path.parent / "metrics.json").read_text())["models"]
    assert set(models) == {"exact law", "teacher, 4 steps", "interpolation"} | own


# -------------------------------------------------------------------------------------------------------- chains


@pytest.mark.parametrize(
    ("experiment", "names"), [("tcm", ["consistency", "tcm"]), ("finish", ["consistency", "dmd", "crps"])]
)
def test_every_stage_starts_from_the_weights_that_the_last_one_left(home, stages, experiment, names):
    assert fit(home, f"experiment={experiment}", f"run={experiment}-chain") == 0
    assert stages.titles == names
    before = scigen.load(home / "teacher.safetensors")
    for name, (_, method, start) in zip(names, stages, strict=True):
        assert same(start, before.denoiser.state_dict())
        (path,) = home.glob(f"{experiment}-chain/{name}-*/student.safetensors")
        student = scigen.load(path)
        teacher = scigen.load(home / "teacher.safetensors")
        assert same(method.teacher.state_dict(), teacher.denoiser.state_dict())
        assert student.provenance["method"] == name and student.provenance["teacher"] == teacher.fingerprint()
        assert student.provenance.get("init") == (None if name == "consistency" else before.fingerprint())
        if name == "tcm":  # what it keeps below its transition is that student as well
            assert same(method.frozen.state_dict(), before.denoiser.state_dict())
        before = student


def test_a_repeated_chain_trains_nothing_and_another_end_trains_the_end_alone(home, stages):
    words = ["experiment=finish", "run=again"]
    assert fit(home, *words) == 0
    kept = {p: p.stat().st_mtime_ns for p in home.glob("again/*/student.safetensors")}
    assert len(stages) == len(kept) == 3
    assert fit(home, *words) == 0
    assert len(stages) == 3
    assert fit(home, *words, "then.crps.energy=0.5") == 0
    assert stages.titles[3:] == ["crps"]
    assert fit(home, *words, "then.dmd.fake_steps=3") == 0  # what follows it starts from other weights
    assert stages.titles[4:] == ["dmd"], "crps' start is bit by bit the same, as this training does not see the method"
    assert all(p.stat().st_mtime_ns == when for p, when in kept.items())


def test_a_chain_is_trained_and_reported(home, monkeypatch):
    curves = []
    monkeypatch.setattr("scigen.workflows.judge._curves", lambda logs, path: curves.extend(logs) or ("", path))
    assert fit(home, "experiment=tcm", "run=real") == 0
    first, second = (next(home.glob(f"real/{name}-*")) for name in ("consistency", "tcm"))
    assert [path.resolve() for path in curves] == [first / "training.csv", second / "training.csv"]
    assert not (first / "metrics.json").exists()
    assert "student, 2 steps" in json.loads((second / "metrics.json").read_text())["models"]
    students = [scigen.load(stage / "student.safetensors") for stage in (first, second)]
    assert students[1].provenance["init"] == students[0].fingerprint()
    assert not torch.equal(weights(students[0]), weights(students[1]))
    monkeypatch.setattr("scigen.core.driver.Driver.training_step", lambda *_: pytest.fail("trained again"))
    assert fit(home, "experiment=tcm", "run=real") == 0


def test_a_method_can_be_added_to_a_chain_by_a_word(home, stages):
    assert fit(home, "method=regression", "+method@then.crps=crps", "run=word") == 0
    assert stages.titles == ["regression", "crps"]


# -------------------------------------------------------------------------------------- starting from elsewhere


def test_a_student_starts_from_the_one_that_is_given(home, stages, consistent):
    assert fit(home, "method=regression", f"init={consistent}", "run=given") == 0
    assert same(stages[0][2], scigen.load(consistent).denoiser.state_dict())
    assert fit(home, "method=regression", "run=given") == 0
    assert stages.titles == ["regression"] * 2, "another start is another stage"
    assert fit(home, "method=regression", f"init={consistent}", "run=given") == 0
    assert len(stages) == 2


def test_a_flow_map_starts_as_the_student_that_it_is_widened_from(home, stages, consistent):
    assert fit(home, "method=flow_map", f"init={consistent}", "run=widened") == 0
    flow, start = stages[0][1].student, scigen.load(consistent)
    flow.load_state_dict(stages[0][2])
    archive = xr.open_zarr(next((home / "runs" / "data").glob("*.zarr"))).isel(time=slice(0, 2))
    condition = start.codec.condition(start.codec.prepare(archive), [0, 1])
    x, sigma = torch.randn(2, *start.codec.shape, generator=torch.Generator().manual_seed(0)), torch.tensor([1.0, 9.0])
    flow.eval()
    for to in (None, 0.5 * sigma):
        torch.testing.assert_close(flow(x, sigma, condition, to), start.denoiser(x, sigma, condition))


def test_a_student_of_the_same_data_fits_a_teacher_that_is_still_to_be_trained(home, stages, consistent, monkeypatch):
    """The codec made anew of the data is the one that the student has."""
    monkeypatch.setattr("scigen.workflows.fit.run_stage", lambda cfg, title, method, *_: method.student)
    assert main(["fit", *ONE, "method=tcm", f"init={consistent}", "run=anew"]) == 0
    assert stages.titles == ["tcm"]


# ---------------------------------------------------------------------------------------------- smaller networks


def test_a_smaller_network_is_fitted_to_the_teachers_scores_once(home, stages):
    small = "student={widths: [4,8], embedding: 4}"
    assert fit(home, small, "method=regression", "run=small") == 0
    assert stages.titles == ["smaller student", "regression"]
    teacher, (_, method, _) = scigen.load(home / "teacher.safetensors"), stages[0]
    assert isinstance(method, Denoising)
    assert same(method.teacher.state_dict(), teacher.denoiser.state_dict())
    (path,) = home.glob("small/small-*/start.safetensors")
    (own,) = home.glob("small/regression-*/student.safetensors")
    start, student = scigen.load(path), scigen.load(own)
    assert start.role == "teacher" and same(stages[1][2], start.denoiser.state_dict())
    assert weights(student).numel() == weights(start).numel() < 0.7 * weights(teacher).numel()
    assert student.network_args == teacher.network_args | {"widths": [4, 8], "embedding": 4}
    assert torch.equal(stages[1][1].teacher.denoiser.network.stem.conv.weight, teacher.network.stem.conv.weight)
    assert fit(home, small, "method=consistency", "run=small") == 0
    assert stages.titles[2:] == ["consistency"], "the smaller network is there already"
    assert fit(home, "student={widths: [4,4]}", "method=consistency", "run=small") == 0
    assert stages.titles[3:] == ["smaller student", "consistency"]


def test_a_smaller_network_comes_nearer_to_the_teachers_scores_than_a_still_smaller_training(home, unjudged):
    """It is trained, and towards the teacher's D, which at large noise is not the data."""
    words = ["student={widths: [8,8], embedding: 4}", "teaching.training.lr=1e-2", "teaching.training.warmup=1"]
    limit = "trainer.limits={{steps: {}, pairs: 4, samples: 2, members: 2}}"
    plain = [w for w in ONE if not w.startswith("trainer.limits")]
    teacher, errors = scigen.load(home / "teacher.safetensors"), []
    archive = xr.open_zarr(next((home / "runs" / "data").glob("*.zarr"))).isel(time=slice(0, 16))
    condition = teacher.codec.condition(teacher.codec.prepare(archive), slice(0, 16))
    sigma = torch.full((16,), 2.0)
    x = 2.2 * torch.randn(16, *teacher.codec.shape, generator=torch.Generator().manual_seed(0))
    for steps in (1, 40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distil, "_stage", lambda cfg, method, data, teacher, start, folder: start)
            given = f"teacher={home / 'teacher.safetensors'}"
            assert main(["fit", *plain, limit.format(steps), given, *words, f"run=nearer{steps}"]) == 0
        small = scigen.load(next(home.glob(f"nearer{steps}/small-*/start.safetensors")))
        error = small.denoiser(x, sigma, condition) - teacher.denoiser(x, sigma, condition)
        errors.append(float(error.square().mean()))
    assert errors[1] < 0.5 * errors[0]


# ------------------------------------------------------------------------------------------------------ refusals


@pytest.fixture
def wrong(home, consistent, tmp_path) -> dict[str, Path]:
    """Students that do not fit the teacher."""
    student = scigen.load(consistent)
    settings, arrays = student.codec.state()
    shifted = DownscalingCodec.restore(settings, arrays | {"residual_stats": arrays["residual_stats"] * 1.01})
    held = DownscalingCodec.restore(settings | {"conserve": False}, arrays)
    return {
        "mri": replace(student, domain="mri").save(tmp_path / "mri.safetensors"),
        "shifted": replace(student, codec=shifted).save(tmp_path / "shifted.safetensors"),
        "free": replace(student, codec=held).save(tmp_path / "free.safetensors"),
        "student": consistent,
        "home": home,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["init={mri}"], "does not fit the teacher"),
        (["init={shifted}"], "in another way than the teacher"),
        (["init={free}"], "in another way than the teacher"),
        (["init=nowhere.safetensors"], "no bundle at nowhere.safetensors"),
        (["init={student}", "student={{widths: [4]}}"], "leave student= out"),
        (["method=tcm"], "give one as init=PATH, or chain both with experiment=tcm"),
        (["method=tcm", "init={home}/teacher.safetensors"], "not from the teacher"),
        (["experiment=tcm", "method=regression"], "not from regression"),
        (["method=denoising", "init={student}"], "init={student} is a student; method=denoising goes on training a"),
        (["method=denoising", "student={{widths: [4]}}"], "with a method that trains a teacher"),
        (["method=denoising", "experiment=finish"], "then=dmd, crps with a method that trains a teacher"),
        (["+method@then.again=denoising"], "then.again trains a teacher"),
        (["student={{width: [4]}}"], "UNet takes widths"),
        (["student={{channels: 2}}"], "channels is the data's, 1 here"),
        (["student={{widths: []}}"], "do not fit"),
        (["method=consistency", "method.sigmas=[1e4, 1.0]"], "levels [10000, 1] leave the range"),
        (["method=consistency", "method.sigmas=[5.0, 1e-4]"], "levels [5, 0.0001] leave the range"),
        (["experiment=finish", "then.crps.sigmas=[1e4]"], "method=crps: the student's levels [10000] leave the range"),
        (["experiment=finish", "then.crps.members=1"], "members=1"),
        (["experiment=finish", "then.dmd.training.lr=-1"], "lr=-1"),
        (["+method.training.patient=3"], "training.patient is none of the keys of a training: steps, batch"),
        (["method=regression", "method.sigmas=[5.0]"], "its teacher's σ_max"),
    ],
)  # fmt: skip
def test_a_mistake_anywhere_in_a_chain_is_told_before_anything_is_trained(
    wrong, tmp_path, monkeypatch, capsys, words, message
):
    """Even the teacher."""
    for place in ("scigen.workflows.distil.run", "scigen.workflows.fit.run_stage"):
        monkeypatch.setattr(place, lambda *_: pytest.fail("trained"))
    words, message = [w.format(**wrong) for w in words], message.format(**wrong)
    assert main(["fit", *ONE, f"run={tmp_path / 'run'}", *words]) == 2
    shown = capsys.readouterr().err.replace("\n", " ")
    assert message in shown and "Traceback" not in shown


@pytest.mark.parametrize("kind", ["student", "shape"])
def test_a_teacher_or_a_start_of_another_kind_is_refused(home, fitted, consistent, capsys, kind):
    if kind == "student":
        words, message = [f"teacher={consistent}"], "give the teacher that it was distilled from"
    else:
        words = [f"teacher={home / 'teacher.safetensors'}", f"init={fitted.student}"]
        message = "t2m, u10, v10 on 16 × 16"
    assert main(["fit", *ONE, *words]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_a_student_that_starts_amid_the_data_is_warned_of(home, stages, capsys):
    assert fit(home, "method=consistency", "method.sigmas=[5.0]", "run=amid") == 0
    assert "starts at σ = 5" in capsys.readouterr().err
    assert fit(home, "method=consistency", "run=amid") == 0
    assert "starts at σ" not in capsys.readouterr().err
