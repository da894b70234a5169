"""The verb compare: every setting on the same samples and noise, kept, timed, and the cheapest one named."""

import json
import shutil

import pytest
import xarray as xr

import scigen
from scigen.cli import main, named
from scigen.workflows.compare import front, within

from .conftest import Fitted

FEW = ["samples=3", "members=3", "batch=9", "steps=[1,2]", "solvers=[heun,euler]", "output=compared"]


def setting(cost, score, high=None, spread=1.0):
    return {"calls": cost, "score": {"estimate": score, "low": None, "high": high}, "spread": spread}


def test_the_front_is_what_nothing_beats():
    points = [setting(1, 1.3), setting(2, 1.1), setting(4, 1.2), setting(4, 1.1), setting(8, 1.0), setting(9, 1.0)]
    assert front(points) == [True, True, False, False, True, False]
    assert front([setting(1, None), setting(2, 1.0)]) == [False, True]
    assert front([setting(2, 1.0), setting(2, 1.0)]) == [True, True]  # equals do not beat each other


def test_the_budget_counts_the_upper_end_and_the_spread():
    reference = setting(40, 1.0, 1.0, 0.97)
    assert within(setting(1, 1.005, 1.019), reference, 0.02)
    assert not within(setting(1, 1.005, 1.021), reference, 0.02)  # the estimate alone would be
    assert not within(setting(1, 1.003, 1.006, 0.90), reference, 0.02)  # CRPS hardly sees such a collapse
    assert within(setting(1, 1.003, 1.006, 0.935), reference, 0.02)
    assert within(setting(1, 1.01, None, None), reference, 0.02) and not within(setting(1, None), reference, 0.02)


def test_run_folders_stand_alone_behind_the_verb():
    words = ["runs/a", "budget=0.1", "it's b"]
    assert named("compare", words) == [r"runs=['runs/a','it\'s b']", "budget=0.1"]


@pytest.fixture(scope="module")
def compared(fitted: Fitted) -> dict:
    """One student's comparison: other tests put more students into the same run folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(fitted.home)
        assert main(["compare", str(fitted.stage), *FEW]) == 0
    return json.loads((fitted.home / "compared" / "compare.json").read_text())


def test_students_and_solvers_are_there_once_with_their_calls(fitted, compared):
    calls = {s["name"]: s["calls"] for s in compared["settings"]}
    assert calls == {
        "teacher, dpm_solver, 4 steps": 4, "teacher, heun, 1 step": 1, "teacher, heun, 2 steps": 3,
        "teacher, euler, 2 steps": 2, "student, regression, 1 step": 1,
    }  # fmt: skip
    rows = {s["name"]: s for s in compared["settings"]}
    assert compared["reference"] == "teacher, dpm_solver, 4 steps"
    assert rows[compared["reference"]]["score"] == {"estimate": 1.0, "low": 1.0, "high": 1.0}
    assert all(s["seconds"] > 0 for s in rows.values())
    assert rows["student, regression, 1 step"]["bundle"] == scigen.load(fitted.student).fingerprint()
    cheapest = [s for s in compared["settings"] if s["within"]]
    assert compared["cheapest"] == min(cheapest, key=lambda s: (s["calls"], s["seconds"]))["name"]
    page = (fitted.home / "compared" / "report.html").read_text("utf-8")
    assert compared["verdict"].splitlines()[0] in page and page.count("data:image/png") == 1


def test_all_are_sampled_with_the_same_samples_members_and_seed(fitted, compared):
    archives = [xr.open_zarr(p) for p in (fitted.home / "compared" / "samples").glob("*.zarr")]
    assert len(archives) == len(compared["settings"])
    assert all(ds.time.equals(archives[0].time) and ds.sizes["member"] == 3 for ds in archives)
    assert {ds.attrs["scigen_seed"] for ds in archives} == {0}


def test_a_repeated_command_samples_and_times_nothing(inside, compared, monkeypatch):
    monkeypatch.setattr("scigen.core.bundle.Bundle.draw", lambda *_, **__: pytest.fail("sampled again"))
    assert main(["compare", str(inside.stage), *FEW]) == 0
    again = json.loads((inside.home / "compared" / "compare.json").read_text())
    assert again["settings"] == compared["settings"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "compare needs run folders"),
        (["nowhere"], "no run folder nowhere"),
        (["runs"], "holds no finished student"),
        (["{run}", "steps=[0]"], "whole numbers"),
        (["{run}", "solvers=[few_step]"], "solvers=few_step"),
        (["{run}", "budget=-1"], "must not be negative"),
        (["{run}", "members=1"], "members=1"),
        (["{run}", "data={{paht: x}}"], "data.paht"),
        (["{run}", "{other}"], "different data"),
    ],
)
def test_mistakes_get_one_line(inside, tmp_path, capsys, words, message):
    other = tmp_path / "other"
    shutil.copytree(inside.run, other, ignore=shutil.ignore_patterns("samples", "pairs-*", "averages", "*.ckpt"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"fingerprint": "0" * 16}))
    assert main(["compare", *(w.format(run=inside.run, other=other) for w in words)]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
