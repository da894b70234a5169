"""The import contracts hold, and each of them catches a deliberate violation."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRACTS = {
    contract["id"]: contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}
VIOLATIONS = [
    # contract, file, what it must not say
    ("layers", "io/__init__.py", "import scigen.core.noise"),
    ("layers", "core/noise.py", "import scigen.weather"),
    ("layers", "weather/__init__.py", "import scigen.workflows"),
    ("layers", "workflows/__init__.py", "import scigen.config"),
    ("layers", "errors.py", "import scigen.io"),
    ("layers", "undeclared.py", ""),
    ("core", "core/noise.py", "def late():\n    from scigen.core import sample"),
    ("core", "core/denoise.py", "import scigen.core.oracle"),
    ("core", "core/ema.py", "import scigen.core.noise"),
    ("core", "core/guide.py", "import scigen.core.sample"),
    ("core", "core/undeclared.py", ""),
    ("archives", "metrics/__init__.py", "import torch"),
    ("archives", "plots/__init__.py", "import lightning"),
    ("archives", "io/__init__.py", "import hydra"),
    ("hydra", "core/noise.py", "from omegaconf import OmegaConf"),
    ("hydra", "weather/__init__.py", "import hydra"),
    ("physicsnemo", "core/networks/unet.py", "import physicsnemo"),
    ("physicsnemo", "workflows/__init__.py", "import physicsnemo.models"),
]


def copy(folder: Path) -> Path:
    shutil.copytree(ROOT / "scigen", folder / "scigen", ignore=shutil.ignore_patterns("__pycache__", "*.yaml"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint(folder: Path, contract: str | None = None) -> tuple[int, str]:
    words = ["--contract", contract] if contract else []
    code = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "FORCE_COLOR"} | {"PYTHONPATH": str(folder), "COLUMNS": "200"},
    )
    return done.returncode, done.stdout + done.stderr


def test_the_contracts_hold(tmp_path: Path) -> None:
    status, text = lint(copy(tmp_path))
    assert status == 0, text
    for name in CONTRACTS.values():
        assert f"{name} KEPT" in text


@pytest.mark.parametrize(
    "contract, file, line", VIOLATIONS, ids=lambda value: str(value).splitlines()[-1] if value else "new"
)
def test_a_violation_is_caught(contract: str, file: str, line: str, tmp_path: Path) -> None:
    module = copy(tmp_path) / "scigen" / file
    module.write_text(
        (module.read_text(encoding="utf-8") if module.exists() else "") + f"\n\n{line}\n", encoding="utf-8"
    )
    status, text = lint(tmp_path, contract)
    assert status == 1, text
    assert f"{CONTRACTS[contract]} BROKEN" in text
    assert ".".join(["scigen", *Path(file).with_suffix("").parts]).removesuffix(".__init__") in text


def test_every_contract_has_its_violation() -> None:
    assert {contract for contract, _, _ in VIOLATIONS} == set(CONTRACTS)
