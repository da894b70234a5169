"""The notebooks hold what a run from nothing gives: outputs, small, without traces of the machine; they still run."""

import importlib.util
import json
import re
import resource
from pathlib import Path
from types import ModuleType

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs scigen[notebooks]")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
MOST = 200_000  # bytes
SECONDS = 2 * 180.0  # of processors: three minutes on two cores, whatever else they have to do


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """examples/execute.py."""
    spec = importlib.util.spec_from_file_location("execute", ROOT / "examples" / "execute.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code(path: Path) -> list:
    """Code cells."""
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def spent() -> float:
    """Time on processors of all child processes that have ended [s]."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_all_five_are_there():
    assert [p.name[:2] for p in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_whole(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    assert path.stat().st_size < MOST
    outputs = [o for c in code(path) for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 1
    assert [c.execution_count for c in code(path)] == list(range(1, len(code(path)) + 1)), "run from the top, once"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_tells_nothing_of_the_machine(path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/png", None)
    text = json.dumps(notebook)
    assert not re.findall(r"(?<![\w.:/<])/(?:home|root|tmp|work|Users|mnt|usr|opt|var)\b[^\s\"]*", text)
    assert not re.findall(r"(?:\"|\\n)\d\d:\d\d:\d\d ", text), "clock times of a log"
    assert "\\u001b" not in text, "colours of a terminal"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_works_in_a_folder_of_its_own_with_fixed_seeds(path):
    first = code(path)[0].source
    assert "os.chdir(tempfile.mkdtemp())" in first
    everything = "\n".join(c.source for c in code(path))
    assert "default_rng()" not in everything and "np.random.rand" not in everything


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_from_nothing_in_three_minutes(path, tool):
    pytest.importorskip("nbclient", reason="needs scigen[notebooks]")
    pytest.importorskip("ipykernel", reason="needs scigen[notebooks]")
    before = spent()
    found = tool.execute(path)
    assert spent() - before < SECONDS
    kept = nbformat.read(path, as_version=4)
    kinds = [
        [[sorted(o.get("data", {"text": 0})) for o in c.get("outputs", [])] for c in n.cells] for n in (found, kept)
    ]
    assert kinds[0] == kinds[1]
