"""The verb benchmark from end to end, in miniature."""

import json
import sys

import numpy as np
import pytest
from omegaconf import OmegaConf

from scigen.cli import main
from scigen.config import compose, config_dir
from scigen.core.bench.contender import Effort, Shared, train
from scigen.core.bench.tasks import TASKS
from scigen.workflows.benchmark import _recipes

TINY = [
    "benchmark", "exact", "tasks=[modes]", "budget=6", "batch=16", "conditions=6", "members=5", "pairs=32",
    "steps=[1,2]", "mlp={width: 16, blocks: 1, embedding: 8}",
]  # fmt: skip
RECIPES = _recipes(compose("benchmark")._options, {})
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning"),  # torch's own, of forward mode
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(home) -> list[dict]:
    (path,) = home.glob("runs/bench-*/results.json")
    return json.loads(path.read_text())["rows"]


def test_contenders_references_and_files_are_there(home, capsys):
    assert main([*TINY, "methods=[regression,consistency]"]) == 0
    rows = results(home)
    found = [(r["contender"], r.get("calls")) for r in rows]
    assert found == [
        ("exact law", None), ("teacher", 40), ("teacher", 2), ("teacher", 1),
        ("regression", 1), ("consistency", 1), ("consistency", 2),
    ]  # fmt: skip
    exact = rows[0]
    assert exact["crps"] == pytest.approx(1) and exact["energy"] == pytest.approx(1)
    first = 3 * 4 / 3  # half of the budget in steps of 4/3
    for row in rows[4:]:
        assert abs(row["cost"] - first - 6) <= row["per_step"] and row["optimiser_steps"] >= 1
    (folder,) = (home / "runs").iterdir()
    assert {"table.md", "figure.png"} <= {p.name for p in folder.iterdir()} and not list(folder.glob("*.partial"))
    text = (folder / "table.md").read_text()
    assert "| regression | 1 |" in text and "regression" in capsys.readouterr().out


def test_what_is_finished_is_not_done_again_and_the_rest_is_added(home, monkeypatch):
    assert main([*TINY, "methods=[regression]"]) == 0
    before = results(home)
    monkeypatch.setattr("scigen.core.bench.contender.train", lambda *args: pytest.fail("trained again"))
    assert main([*TINY, "methods=[regression]"]) == 0
    assert results(home) == before
    monkeypatch.undo()
    monkeypatch.chdir(home)
    assert main([*TINY, "methods=[regression]", "settings={regression: {pairs: 8}}"]) == 0  # another regression
    assert len(list(home.glob("runs/bench-*/modes-regression-*.json"))) == 2
    assert main([*TINY, "methods=[regression]", "seed=1"]) == 0  # another bench
    assert len(list((home / "runs").iterdir())) == 2


def test_the_same_command_gives_the_same_numbers(home):
    numbers = []
    for name in ("a", "b"):
        assert main([*TINY, "methods=[regression]", f"output={name}"]) == 0
        rows = json.loads((home / name / "results.json").read_text())["rows"]
        numbers.append([{k: v for k, v in r.items() if k != "seconds"} for r in rows])
    assert numbers[0] == numbers[1]


def test_a_method_of_ones_own_takes_part(home):
    option = OmegaConf.load(config_dir() / "method" / "regression.yaml")
    option.pairs = 8
    (home / "mine" / "method").mkdir(parents=True)
    OmegaConf.save(option, home / "mine" / "method" / "own.yaml")
    assert main([*TINY, "methods=[own]", "--config-dir", "mine"]) == 0
    assert results(home)[-1]["contender"] == "own"


def test_settings_may_name_the_tasks_noise(home):
    """What an option's own levels do: σ_max is another for every task."""
    words = [*TINY, "methods=[consistency]", 'settings={consistency: {sigmas: ["${noise.sigma_max}", 0.5, 0.2]}}']
    assert main([w.replace("steps=[1,2]", "steps=[1,3]") for w in words]) == 0
    assert [r["calls"] for r in results(home) if r["contender"] == "consistency"] == [1, 3]
    recipe = _recipes(compose("benchmark")._options, {"consistency": {"sigmas": ["${noise.sigma_max}", 0.5]}})
    for top in (11.0, 17.0):
        assert recipe["consistency"].settings(0.02, top)["sigmas"] == [top, 0.5]


def test_all_options_of_method_that_distil_are_found():
    stems = {p.stem for p in (config_dir() / "method").glob("*.yaml")}
    assert set(RECIPES) == stems - {"denoising"}
    assert RECIPES["regression"].settings(0.02, 17.0)["sigmas"] == [17.0]


def test_others_answer_what_was_exported(home, monkeypatch):
    """The exact answer to the exported noise, as file and as function: CRPS and energy score of the exact law."""
    assert main([*TINY, "export=tasks"]) == 0
    with np.load(home / "tasks" / "modes.npz", allow_pickle=False) as f:
        import torch

        noise = torch.from_numpy(f["noise"])
        assert f["train_x"].shape == (32, 16) and noise.shape == (6, 5, 16)
    exact = TASKS["modes"]().exact(noise.flatten(0, 1)).reshape(noise.shape)
    np.savez(home / "theirs.npz", modes=exact.numpy())
    (home / "halfway.py").write_text("def zero(noise, condition):\n    return 0 * noise\n")
    assert main([*TINY, "methods=[regression]", "external={theirs: theirs.npz, zero: 'halfway:zero'}"]) == 0
    sys.modules.pop("halfway", None)
    theirs, zero = results(home)[-2:]
    assert theirs["role"] == "external" and theirs["crps"] == pytest.approx(1, abs=1e-6)
    assert zero["variance"] == pytest.approx(0, abs=1e-12) and zero["crps"] > 1.1
    assert main([*TINY, "methods=[regression]", "external={theirs: nowhere.npz}"]) == 2


def test_what_diverges_is_told_and_the_others_go_on(home, monkeypatch):
    words = ["methods=[consistency,regression]", "settings={consistency: {training: {lr: 1e30}}}"]
    assert main([*TINY, *words]) == 0
    rows = results(home)
    lost = [r for r in rows if r["contender"] == "consistency"]
    assert lost and all("failed" in r for r in lost) and rows[-1]["contender"] == "regression" and "w1" in rows[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["benchmark", "exat"], "no benchmark 'exat'; write scigen benchmark exact"),
        ([*TINY, "tasks=[gausian]"], "they are gaussian, rotated"),
        ([*TINY, "methods=[regresion]"], "There is no method 'regresion' that distils"),
        ([*TINY, "methods=[denoising]"], "There is no method 'denoising' that distils"),
        ([*TINY, "settings={regression: {pears: 3}}"], "settings.regression"),
        ([*TINY, "settings={regresion: {pairs: 3}}"], "no method 'regresion'"),
        ([*TINY, "budget=0"], "budget=0 must be positive"),
        ([*TINY, "members=1"], "members=1"),
        ([*TINY, "steps=[0]"], "steps=[0]"),
    ],
)
def test_mistakes_get_one_line(home, capsys, words, said):
    last: dict[str, str] = {}
    for word in words[2:]:
        last[word.partition("=")[0]] = word
    assert main([*words[:2], *last.values()]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert said in shown and "Traceback" not in shown


def test_a_word_alone_is_the_suite_where_there_are_suites():
    assert compose("benchmark", ["exact"]).suite == compose("benchmark", ["suite=exact"]).suite == "exact"
    assert compose("benchmark", ["other", "budget=3"]).budget == 3


@pytest.mark.parametrize("name", RECIPES)
def test_every_shipped_method_keeps_to_the_budget_from_an_oracle(name):
    """Found in configs/method by itself: cost within a step of the budget, a student that has learned something."""
    effort = Effort(
        budget=40, start=5, batch=16, calls=10, pairs=64, network={"width": 16, "blocks": 1, "embedding": 8}
    )
    shared = Shared(TASKS["modes"](), effort)
    done = train(shared, RECIPES[name], RECIPES)
    halves = 2 if RECIPES[name].kind.follows else 1
    assert abs(done.cost - 40) <= 0.51 * halves * max(done.per_step, 2.0) and done.per_step > 0.3
    start = shared.student(RECIPES[name].kind)
    moved = [not a.equal(b) for a, b in zip(done.student.parameters(), start.parameters(), strict=True)]
    assert any(moved) and not any(p.requires_grad for p in done.student.parameters())
