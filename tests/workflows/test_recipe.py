"""The recipe's promise in miniature: a trained teacher and its one-call student against the exact law."""

import json

import pytest

from scigen.cli import main

WORDS = [
    "domain=weather", "data.synth={size: 16, times: 4096, step_hours: 6, seed: 1}", "data.factor=4",
    "network.widths=[32,48,64]", "network.embedding=64", "teaching.training.steps=800", "method.training.steps=400",
    "method.pairs=768", "samples=48",
]  # fmt: skip


@pytest.mark.slow
def test_student_and_teacher_keep_the_exact_laws_ensemble(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *WORDS, "run=fit"]) == 0
    (path,) = (tmp_path / "fit").glob("regression-*/metrics.json")
    models = json.loads(path.read_text())["models"]
    exact, teacher, student = (models[k] for k in ("exact law", "teacher, 40 steps", "student, 1 step"))
    blind = models["teacher, 1 step"]
    for v in exact:
        assert teacher[v]["crps"] < 1.04 * exact[v]["crps"]
        assert student[v]["crps"] < 1.03 * teacher[v]["crps"]
        assert abs(teacher[v]["spread_skill"]["estimate"] - exact[v]["spread_skill"]["estimate"]) < 0.06
        assert abs(student[v]["spread_skill"]["estimate"] - teacher[v]["spread_skill"]["estimate"]) < 0.04
        assert blind[v]["crps"] > 1.2 * exact[v]["crps"]  # the bounds above can fail: one call of the teacher does
        assert blind[v]["spread_skill"]["estimate"] < 0.3
