"""Watching a training: loggers are told what the CSV files are told, change nothing, and are missed politely."""

import sys

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.loggers import WandbLogger
from safetensors.torch import load_file

from scigen.cli import main
from scigen.errors import UserError
from scigen.plots.validation import figure
from scigen.workflows.watching import logger_of

from .conftest import ONE

TEACHER = [*ONE, "method=denoising", "validation={samples: 2, members: 2}", "trainer.limits.steps=40"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Two teachers of the same words, one of them watched by TensorBoard."""
    pytest.importorskip("tensorboard")
    home = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for name in ("csv", "tensorboard"):
            assert main(["fit", *TEACHER, f"run={name}", f"logger={name}"]) == 0
    return home


def test_a_logger_changes_nothing(watched):
    a, b = (load_file(watched / name / "teacher.safetensors") for name in ("csv", "tensorboard"))
    assert a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a)
    assert not (watched / "csv" / "teacher" / "tensorboard").exists()


def test_tensorboard_has_the_numbers_of_the_csv_files(watched):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stage = watched / "tensorboard" / "teacher"
    events = EventAccumulator(str(stage / "tensorboard")).Reload()
    for file, prefix in (("training.csv", ""), ("validation.csv", "validation/")):
        table = (
            pd.read_csv(stage / file).drop_duplicates("step").set_index("step").drop(columns="width", errors="ignore")
        )
        for column in table:
            told = events.Scalars(f"{prefix}{column}")
            assert [e.step for e in told] == list(table.index)
            np.testing.assert_allclose([e.value for e in told], table[column], rtol=1e-5)


def test_validation_samples_are_drawn_and_replaced(watched):
    for name in ("csv", "tensorboard"):
        folder = watched / name / "teacher"
        assert [p.name for p in folder.glob("samples*")] == ["samples.png"]
        assert matplotlib.image.imread(folder / "samples.png").std() > 0


def test_a_stage_has_one_log_at_weights_and_biases_and_another_stage_another(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(WandbLogger, "__init__", lambda self, **words: seen.append(words))
    for name in ("a/teacher", "a/teacher", "b/teacher"):
        logger_of({"_target_": "lightning.pytorch.loggers.WandbLogger", "project": "p"}, tmp_path / name)
    first, again, other = (words["id"] for words in seen)
    assert first == again != other
    assert seen[0]["name"] == "a-teacher" and seen[0]["resume"] == "allow" and seen[0]["project"] == "p"


@pytest.mark.parametrize("space", [(12,), (8, 8), (4, 8, 8)])
def test_the_picture_shows_fields_of_any_dimension(tmp_path, space):
    rng = np.random.default_rng(0)
    truth, members = rng.standard_normal((2, 1, *space)), rng.standard_normal((2, 3, 1, *space))
    path = figure(truth, members, "t2m", tmp_path / "samples.png")
    assert path.exists() and list(tmp_path.iterdir()) == [path]
    assert matplotlib.image.imread(path).std() > 0


def test_an_ensemble_without_spread_looks_like_one(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((2, 1, 8, 8))
    own = truth[:, None] + rng.standard_normal((2, 4, 1, 8, 8))
    shown = []
    for share in (1.0, 0.01):
        members = own.mean(1, keepdims=True) + share * (own - own.mean(1, keepdims=True))
        image = matplotlib.image.imread(figure(truth, members, "x", tmp_path / "samples.png"))
        last = image[:, int(0.82 * image.shape[1]) : int(0.98 * image.shape[1]), :3]
        shown.append(float((last.max(-1) < 0.1).mean()))  # the share that is black
    assert shown[0] < 0.1 and shown[1] > 0.7


@pytest.mark.parametrize(("kind", "extra"), [("TensorBoardLogger", "tensorboard"), ("WandbLogger", "wandb")])
def test_a_package_that_is_missing_is_named_before_anything_is_trained(tmp_path, monkeypatch, kind, extra):
    def missing(*args, **kwargs):
        raise ModuleNotFoundError(f"No module named '{extra}'", name=extra)

    module = sys.modules[f"lightning.pytorch.loggers.{extra}"]
    monkeypatch.setattr(getattr(module, kind), "__init__", missing)
    with pytest.raises(UserError, match=rf"pip install 'scigen\[{extra}\]'"):
        logger_of({"_target_": f"lightning.pytorch.loggers.{kind}"}, tmp_path)
