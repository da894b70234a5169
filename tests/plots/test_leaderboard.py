"""The bench's tables and picture."""

import io
import json

import pytest
from rich.console import Console

from scigen.plots.leaderboard import figure, markdown, tables

SCORES = {
    "w1": 0.0123, "w1_worst": 0.05, "variance": 0.987, "variance_worst": 0.9, "coverage": 0.8766, "nominal": 0.9,
    "crps": 1.00456, "energy": 1.00123,
}  # fmt: skip
ABOUT = {"rotated": "a | b", "modes": "two"}
ROWS = [
    {"task": "rotated", "contender": "exact law", "role": "exact", **SCORES},
    {"task": "rotated", "contender": "teacher", "role": "teacher", "calls": 40, **SCORES},
    {"task": "rotated", "contender": "regression", "role": "student", "calls": 1, "cost": 2666.7, "per_step": 1.0}
    | SCORES,
    {"task": "rotated", "contender": "dmd", "role": "student", "failed": "student's loss nan"},
    {"task": "modes", "contender": "consistency", "role": "student", "calls": 2, "minor_mode": 0.29, **SCORES},
    {"task": "modes", "contender": "theirs", "role": "external", **SCORES},
]


def test_numbers_survive_json_and_stand_in_the_table():
    again = json.loads(json.dumps(ROWS))
    first, second = tables(again, ABOUT)
    assert first == tables(ROWS, ABOUT)[0]
    heads = [c.title for c in first.columns]
    row = dict(zip(heads, (cell[0] for cell in first.rows[2]), strict=True))
    assert (row["contender"], row["calls"], row["W1"], row["variance"]) == ("regression", "1", "0.012", "0.987")
    assert (row["cover 90 %"], row["rel. CRPS"], row["training"]) == ("87.7", "1.005", "2667")
    assert "minor" not in heads and "minor" in [c.title for c in second.columns]


def test_what_failed_is_a_row_of_dashes_and_a_note():
    table = tables(ROWS, ABOUT)[0]
    assert {cell[0] for cell in table.rows[3][1:]} == {"–"}
    assert table.notes == ["dmd: student's loss nan."]


def test_markdown_has_a_line_a_row_and_escapes_bars():
    table = tables(ROWS, ABOUT)[0]
    lines = markdown(table).splitlines()
    grid = [line for line in lines if line.startswith("|")]
    assert len(grid) == 2 + len(table.rows)
    assert len({line.replace("\\|", "").count("|") for line in grid}) == 1
    assert lines[0] == "**rotated: a | b**" and lines[-1] == "dmd: student's loss nan."
    assert "| regression | 1 | 0.012 |" in grid[4]


@pytest.mark.parametrize("width", [80, 140])
def test_a_terminal_shows_names_whole(width):
    console = Console(width=width, record=True, file=io.StringIO())
    for table in tables(ROWS, ABOUT):
        console.print(table)
    shown = console.export_text()
    for name in ("exact law", "regression", "consistency", "theirs"):
        assert name in shown


def test_the_picture_has_a_panel_a_task_and_a_line_a_contender(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("scigen.plots.leaderboard.save", lambda page, path: seen.append(page) or path)
    figure(ROWS, ABOUT, tmp_path / "x.png")
    (page,) = seen
    panels = {ax.get_title(loc="left"): ax for ax in page.axes}
    assert list(panels) == ["rotated", "modes"]
    labels = {t: ax.get_legend_handles_labels()[1] for t, ax in panels.items()}
    assert labels["rotated"] == ["exact law, as many samples", "teacher", "regression"]
    assert labels["modes"] == ["consistency", "theirs"]
    (line,) = [x for x in panels["rotated"].lines if x.get_label() == "regression"]
    assert line.get_xydata().tolist() == [[1, 0.0123]]


def test_the_picture_is_written(tmp_path):
    assert figure(ROWS, ABOUT, tmp_path / "x.png").stat().st_size > 10_000


def test_no_two_of_twenty_contenders_look_alike(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("scigen.plots.leaderboard.save", lambda page, path: seen.append(page) or path)
    rows = [{"task": "modes", "contender": f"m{i}", "role": "student", "calls": 1, "w1": 0.1 + i} for i in range(20)]
    figure(rows, {"modes": "two"}, tmp_path / "x.png")
    assert len({(line.get_color(), line.get_marker()) for line in seen[0].axes[0].lines}) == 20
