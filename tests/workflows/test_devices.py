"""The verb fit on several devices, from the command line to the bundle."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import scigen
from scigen.cli import main

from .conftest import ONE

WORDS = [*(w.replace("steps: 4", "steps: 24") for w in ONE), "method=denoising", "validation={samples: 2, members: 2}"]
TWO = ["trainer.devices=2", "trainer.strategy=ddp"]


def weights(path) -> torch.Tensor:
    return torch.cat([p.flatten() for p in scigen.load(path).network.state_dict().values()])


def descendants(pid: int) -> list[int]:
    """Processes whose parent is this one, from /proc."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            if fields[0] != "Z" and int(fields[1]) == pid:
                with open(f"/proc/{entry}/cmdline") as f:
                    found += [int(entry)] if "spawn_main" in f.read() else []
        except (OSError, ValueError, IndexError):
            continue
    return sorted(found)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
@pytest.mark.parametrize("victim", ["main", "rank"])
def test_two_processes_fit_what_one_does_and_a_kill_costs_steps_only(tmp_path, monkeypatch, victim):
    """Kill the command, or one of its processes: all end soon, and the same command goes on, to one's own weights."""
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "scigen", "fit", *WORDS, *TWO, "run=two"]
    with (tmp_path / "said.txt").open("w") as said:
        process = subprocess.Popen(command, stderr=said, stdout=said)
    deadline = time.monotonic() + 300
    while not (tmp_path / "two" / "teacher" / "last.ckpt").exists() and time.monotonic() < deadline:
        assert process.poll() is None, (tmp_path / "said.txt").read_text()
        time.sleep(0.01)
    ranks = descendants(process.pid)
    assert len(ranks) == 2
    os.kill(process.pid if victim == "main" else ranks[1], signal.SIGKILL)
    status = process.wait(timeout=30)
    end = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{r}") for r in ranks) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{r}") for r in ranks), "nobody waits for who is gone"
    assert not (tmp_path / "two" / "teacher.safetensors").exists(), "it was too fast to be killed"
    text = (tmp_path / "said.txt").read_text().replace("\n", " ")
    assert "Traceback" not in text
    if victim == "rank":
        assert status == 2 and "killed by SIGKILL" in text and "goes on from the last checkpoint" in text
    assert main(["fit", *WORDS, *TWO, "run=two"]) == 0
    assert main(["fit", *WORDS, "run=one"]) == 0
    paths = [tmp_path / n / "teacher.safetensors" for n in ("one", "two")]
    torch.testing.assert_close(weights(paths[0]), weights(paths[1]), rtol=1e-3, atol=1e-4)
    tables = [(tmp_path / n / "teacher" / "validation.csv").read_text().count("\n") for n in ("one", "two")]
    assert tables[0] == tables[1] > 3, "snapshots are judged by the first process"


def test_a_batch_that_devices_cannot_share_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [w for w in WORDS if "teaching.training.batch" not in w]
    assert main(["fit", *words, "trainer.devices=3", "teaching.training.batch=8", "run=three"]) == 2
    assert "must be a multiple of trainer.devices=3" in capsys.readouterr().err.replace("\n", " ")
