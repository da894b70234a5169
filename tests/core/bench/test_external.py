"""Generators of others: what is exported suffices to answer, and wrong answers get a clear word."""

import sys

import numpy as np
import pytest
import torch

from scigen.core.bench.external import export, samples
from scigen.core.bench.scores import Scorer, TestSet
from scigen.errors import UserError

F64 = torch.float64


@pytest.fixture
def test(task) -> TestSet:
    return TestSet.make(task, 6, 4, seed=2)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of generators in the working directory."""
    (tmp_path / "mygenerators.py").write_text(
        "import numpy as np\n"
        "def halves(noise, condition):\n    return 0.5 * noise + condition['scalars'].mean(1, keepdim=True)\n"
        "def arrays(noise, condition):\n    return 0.5 * noise.numpy()\n"
        "def short(noise, condition):\n    return noise[:-1]\n"
        "def holes(noise, condition):\n    return noise / 0 * 0\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    yield "mygenerators"
    sys.modules.pop("mygenerators", None)


def test_exported_noise_and_conditions_lead_to_the_exact_answer(task, test, tmp_path):
    path = export(test, tmp_path / "out" / "small.npz", draws=20, seed=3)
    with np.load(path, allow_pickle=False) as f:
        noise, scalars = torch.from_numpy(f["noise"]), torch.from_numpy(f["scalars"])
        assert f["train_x"].shape == (20, 4) and f["train_scalars"].shape == (20, 2)
        assert float(f["sigma_max"]) == 15.0 and "truth" not in f.files
    answer = task.exact(noise.flatten(0, 1), {"scalars": scalars.repeat_interleave(4, 0)}).reshape(noise.shape)
    np.savez(tmp_path / "mine.npz", small=answer.numpy())
    found = samples("mine", str(tmp_path / "mine.npz"), test)
    torch.testing.assert_close(found, test.exact, rtol=0, atol=1e-5)
    assert Scorer(test).score(found)["crps"] == pytest.approx(1, abs=1e-4)


def test_exported_training_draws_belong_to_their_conditions(task, test, tmp_path):
    with np.load(export(test, tmp_path / "small.npz", draws=4000, seed=3)) as f:
        x, y = torch.from_numpy(f["train_x"]).double(), torch.from_numpy(f["train_scalars"]).double()
    miss = y - x @ task.law.matrix.mT
    assert float(miss.var()) == pytest.approx(0.25, rel=0.1)
    assert not torch.equal(x[:6], test.truth.float())


def test_a_function_gets_noise_and_condition_of_every_member(module, test):
    found = samples("mine", f"{module}:halves", test)
    expected = 0.5 * test.noise.double() + test.condition["scalars"].float().double().mean(1)[:, None, None]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(samples("mine", f"{module}:arrays", test), 0.5 * test.noise.double())
    assert sys.path.count(str(module)) == 0


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("mygenerators:short", r"\(24, 4\)"),
        ("mygenerators:holes", "not finite"),
        ("mygenerators:number", "not a function"),
        ("mygenerators:nothing", "cannot be imported"),
        ("no_such_module:f", "cannot be imported"),
        ("mygenerators", "neither"),
        (":f", "neither"),
        ("nowhere.npz", "no such file"),
        ("text.npz", "no .npz"),
        ("other.npz", "no array 'small', only big"),
        ("shape.npz", r"shape \(6, 3, 4\); expected \(6, 4, 4\)"),
        ("nan.npz", "not finite"),
        ("pickled.npz", "no .npz of plain arrays"),
    ],
)
def test_mistakes_are_told(module, test, tmp_path, source, said):
    (tmp_path / "text.npz").write_text("not an archive")
    np.savez(tmp_path / "other.npz", big=np.zeros(3))
    np.savez(tmp_path / "shape.npz", small=np.zeros((6, 3, 4)))
    np.savez(tmp_path / "nan.npz", small=np.full((6, 4, 4), np.nan))
    np.savez(tmp_path / "pickled.npz", small=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=said):
        samples("mine", source, test)
