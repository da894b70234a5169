"""Progress in a log file."""

import re

import pytest

from scigen import progress as module


def test_rate_and_time_left_count_what_is_done_now(monkeypatch, capsys):
    """Resumed at 100 of 200, 10 units in 5 seconds: 2/s, 45 s left; the end is told once."""
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "EVERY", 4.0)
    with module.progress("work", 200, "steps") as advance:
        advance(100, "")
        now = 5.0
        advance(110, "loss 1")
        advance(111, "")  # too soon to be told
        now = 20.0
        advance(200, "")
    lines = capsys.readouterr().err.splitlines()
    assert re.search(r"110/200 steps, 2.0/s, 45 s left loss 1", lines[1])
    assert [line.split(":")[1].split("/")[0].strip() for line in lines] == ["100", "110", "200"]


def test_an_error_inside_is_not_swallowed():
    with pytest.raises(ValueError, match="inside"), module.progress("work", 2, "steps"):
        raise ValueError("inside")
