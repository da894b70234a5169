"""A tiny fit, done once, that tests of the verbs share."""

from pathlib import Path

import pytest

from scigen.cli import main

TINY = [
    "domain=weather", "data.synth={size: 16, times: 240, step_hours: 12, seed: 0}", "data.factor=4", "trainer=smoke",
    "network.widths=[8,8,8]", "network.embedding=8", "trainer.limits={steps: 8, pairs: 8, samples: 4, members: 3}",
    "trainer.checkpoint_every=3", "batch=8", "sampler.steps=4", "validation={samples: 2, members: 2}",
    "+teaching.training.snapshots=2", "+method.training.snapshots=2",
]  # fmt: skip

ONE = [
    "domain=weather", "data.synth={size: 16, times: 240, step_hours: 12, seed: 0}", "data.factor=4", "trainer=smoke",
    "data.variables=[t2m]", "network.widths=[8,8]", "network.embedding=8", "batch=8", "sampler.steps=4",
    "trainer.limits={steps: 4, pairs: 4, samples: 2, members: 2}", "trainer.checkpoint_every=2",
    "teaching.training.batch=8", "+teaching.training.snapshots=2", "method.training.batch=8",
]  # fmt: skip
"""One variable, the least that can be fitted."""


class Fitted:
    """A folder where `scigen fit` has run."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (self.run,) = (p for p in (home / "runs").iterdir() if p.name.startswith("weather-"))
        (self.stage,) = (p for p in self.run.iterdir() if p.name.startswith("regression-"))
        self.student, self.teacher = self.stage / "student.safetensors", self.run / "teacher.safetensors"
        (self.archive,) = (home / "runs" / "data").glob("*.zarr")


@pytest.fixture(scope="session")
def fitted(tmp_path_factory) -> Fitted:
    """Default recipe in miniature, without maps, which take the most time and have tests of their own."""
    home = tmp_path_factory.mktemp("fit")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr("scigen.weather.plots.figures", lambda *_, **__: [])
        assert main(["fit", *TINY]) == 0
    return Fitted(home)


@pytest.fixture
def inside(fitted: Fitted, monkeypatch) -> Fitted:
    """The same, as the working directory."""
    monkeypatch.chdir(fitted.home)
    return fitted


@pytest.fixture(scope="session")
def taught(tmp_path_factory) -> Path:
    """A folder with a teacher of ONE, fitted by `method=denoising`, at `teacher.safetensors`."""
    home = tmp_path_factory.mktemp("taught")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["fit", *ONE, "method=denoising", "run=teacher"]) == 0
    (home / "teacher" / "teacher.safetensors").rename(home / "teacher.safetensors")
    return home


@pytest.fixture
def quick(monkeypatch) -> None:
    """Reports without pictures and timings, for tests of what comes before them."""
    monkeypatch.setattr("scigen.weather.plots.figures", lambda *_, **__: [])
    monkeypatch.setattr("scigen.workflows.judge._curves", lambda logs, path: ("Training losses.", path))
    monkeypatch.setattr("scigen.workflows.judge.write_report", lambda path, **_: path)
    monkeypatch.setattr("scigen.workflows.judge.speed", lambda *_: {"calls": 1.0, "network": 1.0, "end_to_end": 1.0})


@pytest.fixture
def unjudged(monkeypatch) -> None:
    """Fits that end before the report."""
    monkeypatch.setattr("scigen.workflows.fit.judge", lambda *args, **_: args[4] / "report.html")
