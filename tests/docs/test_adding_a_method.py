"""The example of docs/adding_a_method.md is whole, short, and meets the contract without being registered."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def blocks() -> dict[str, str]:
    """Files of the example by path."""
    text = (ROOT / "docs" / "adding_a_method.md").read_text()
    return dict(re.findall(r"^`([\w/]+\.(?:py|yaml))`\n\n```\w+\n(.*?)^```$", text, re.S | re.M))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of scigen with the example's two files laid in."""
    skipped = shutil.ignore_patterns("__pycache__")
    for name in ("scigen", "configs", "tests/core/methods"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=skipped)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, content in blocks().items():
        assert not (tmp_path / path).exists()
        (tmp_path / path).write_text(content)
    return tmp_path


def contract(tree: Path, which: str = "online") -> subprocess.CompletedProcess:
    """The contract test of the method `online` in the tree."""
    words = [sys.executable, "-m", "pytest", "-q", "tests/core/methods/test_contract.py", "-k", which]
    env = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=tree, env=env, capture_output=True, text=True, check=False)


def test_the_example_is_short_and_meets_the_contract(tree):
    method = blocks()["scigen/core/methods/online.py"]
    assert len([line for line in method.splitlines() if line.strip()]) < 40
    out = contract(tree)
    assert out.returncode == 0 and "4 passed" in out.stdout, out.stdout[-2000:] + out.stderr[-2000:]


def test_the_contract_refuses_the_example_with_a_broken_loss(tree):
    path = tree / "scigen/core/methods/online.py"
    whole = path.read_text()
    assert "condition) - end)" in whole
    path.write_text(whole.replace("condition) - end)", "condition) - 0.8 * end)"))
    out = contract(tree, "online and lands")
    assert out.returncode == 1 and "1 failed" in out.stdout, out.stdout[-2000:]
