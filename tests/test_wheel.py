"""What is installed holds the YAML, the report's page and the type marker, and works without the checkout."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = {
    f"scigen/{path.relative_to(ROOT / 'scigen')}"
    for path in (ROOT / "scigen").rglob("*")
    if path.suffix in (".j2", ".typed")
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    words = [
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--quiet",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("scigen-*.whl"))


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_the_wheel_holds_exactly_the_shipped_yaml(wheel: Path) -> None:
    shipped = {f"scigen/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert shipped
    assert {name for name in names(wheel) if name.endswith((".yaml", ".yml"))} == shipped


def test_the_wheel_holds_all_code_and_data_of_the_package_and_no_more(wheel: Path) -> None:
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "scigen").rglob("*.py")}
    inside = {name for name in names(wheel) if ".dist-info/" not in name and not name.startswith("scigen/configs/")}
    assert "scigen/py.typed" in DATA
    assert inside == code | DATA


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inner = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")).rpartition("/")[0]
        metadata = archive.read(f"{inner}/METADATA").decode()
        entry_points = archive.read(f"{inner}/entry_points.txt").decode()
    assert "License-Expression: Apache-2.0" in metadata and "Requires-Python: >=3.11" in metadata
    assert "scigen = scigen.cli:main" in entry_points
    assert any(name.endswith("/licenses/LICENSE") for name in names(wheel))


def test_the_installed_package_finds_its_own_yaml(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from scigen.config import compose, config_dir\n"
        "print(config_dir()); print(compose('fit', ['domain=weather']).domain['_target_'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines() == [str(site / "scigen" / "configs"), "scigen.weather.domain.Weather"], done.stderr


def test_the_source_archive_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    source = next(path for path in tmp_path.glob("scigen-*") if path.is_dir())
    assert not (source / "runs").exists() and not (source / ".venv").exists()
    subprocess.run([*build, "-t", "wheel"], cwd=source, capture_output=True, check=True)
    assert names(next(tmp_path.glob("*.whl"))) == names(wheel)
