"""A tiny fit, done once, that tests of the verbs share."""

from pathlib import Path

import pytest

from scigen.cli import main

TINY = [
    "domain=weather", "data.synth={size: 16, times: 240, step_hours: 12, seed: 0}", "data.factor=4", "trainer=smoke",
    "network.widths=[8,8,8]", "network.embedding=8", "trainer.limits={steps: 8, pairs: 8, samples: 4, members: 3}",
    "trainer.checkpoint_every=3", "batch=8", "sampler.steps=4",
]  # fmt: skip


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
    """Default recipe in miniature."""
    home = tmp_path_factory.mktemp("fit")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["fit", *TINY]) == 0
    return Fitted(home)


@pytest.fixture
def inside(fitted: Fitted, monkeypatch) -> Fitted:
    """The same, as the working directory."""
    monkeypatch.chdir(fitted.home)
    return fitted
