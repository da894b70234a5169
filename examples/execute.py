"""Run notebooks from nothing and keep their outputs, without what would differ on another machine.

python examples/execute.py                     # all of them
python examples/execute.py examples/01*.ipynb
"""

import base64
import io
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).resolve().parent
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))


def execute(path: Path, timeout: int = 600) -> nbformat.NotebookNode:
    """A notebook as it comes out of a fresh kernel, cleaned.

    Args:
        path: of the notebook, which stays as it is.
        timeout: of a cell [s].

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    own = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": folder}},
            coalesce_streams=True,
        )  # fmt: skip
        inherited = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}  # pictures go into the notebook
        client.execute(env=inherited | own | {"TMPDIR": folder})
    return cleaned(notebook)


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without progress, clock times, versions and ids that change from run to run."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [_steady(o) for o in cell.outputs if o.get("name") != "stderr"]
    return notebook


def _steady(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An output without random ids in its HTML, without the times of a log and without metadata."""
    if output.output_type == "stream":
        output.text = re.sub(r"^\d\d:\d\d:\d\d ", "", output.text, flags=re.M)
    data: dict[str, Any] = output.get("data", {})
    if "text/html" in data:
        ids: dict[str, str] = {}
        data["text/html"] = re.sub(
            r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
            lambda found: ids.setdefault(found[0], f"id-{len(ids)}"),
            data["text/html"],
        )
    if "image/png" in data:
        data["image/png"] = _small(data["image/png"])
    if "metadata" in output:
        output.metadata = nbformat.from_dict({})
    return output


def _small(png: str) -> str:
    """A picture in base64 with a palette of 256 colours: less than half the size, and hardly another picture."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    if image.mode != "P":
        image = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    out = io.BytesIO()
    image.save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode("ascii")


if __name__ == "__main__":
    for one in map(Path, sys.argv[1:]) if sys.argv[1:] else NOTEBOOKS:
        began = time.monotonic()
        nbformat.write(execute(one), one)
        print(f"{one.name}: {time.monotonic() - began:.0f} s, {one.stat().st_size / 1e3:.0f} kB")
