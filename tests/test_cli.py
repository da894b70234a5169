"""The command line: help without weight, one line for a mistake, the right exit status for everything."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import scigen
from scigen.cli import VERBS, main
from scigen.errors import UserError

HEAVY = ("torch", "lightning", "hydra", "omegaconf", "physicsnemo", "matplotlib", "xarray", "numpy")

Workflow = Callable[[Callable[[Any], None]], None]


@pytest.fixture
def workflow(monkeypatch: pytest.MonkeyPatch) -> Workflow:
    """Put a function in the place of the workflow of `scigen inspect`."""

    def install(run: Callable[[Any], None]) -> None:
        module = ModuleType("scigen.workflows.inspect")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "scigen.workflows.inspect", module)

    return install


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """No colours, a known width, and the logger as it was."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    logger = logging.getLogger("scigen")
    before = (list(logger.handlers), logger.level)
    yield
    logger.handlers, logger.level = before


def scigen_process(*words: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "scigen", *words], capture_output=True, text=True, **kwargs)


# ---------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["fit", "--help", "domain=weather"], []], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import contextlib, io, json, sys\n"
        "from scigen.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        f"    status = main({words!r})\n"
        "print(json.dumps([status, len(out.getvalue()), sorted({name.partition('.')[0] for name in sys.modules})]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, length, modules = json.loads(done.stdout)
    assert status == (0 if words else 2) and length > 0
    assert "scigen" in modules
    assert [name for name in HEAVY if name in modules] == []


def test_importing_scigen_imports_nothing_heavy() -> None:
    code = "import json, sys, scigen; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in HEAVY if name in json.loads(done.stdout)] == []


def test_load_is_the_bundles_load(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = pytest.importorskip("scigen.core.bundle")
    monkeypatch.setattr(bundle, "load", lambda path: ("loaded", path))
    assert scigen.load("student.safetensors") == ("loaded", "student.safetensors")


def test_help_names_every_verb_flag_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in (*VERBS, "--config-dir", "--debug", "--version", "scigen fit domain=weather"):
        assert word in text


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_examples_choices_and_keys(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    from scigen.config import config_dir
    from scigen.config.tree import read_page

    assert main([verb, "--help"]) == main(["--help", verb]) == 0
    text = capsys.readouterr().out
    page = read_page(config_dir(), verb)
    assert page.examples and all(example in text for example in page.examples)
    for choice in page.choices:
        assert choice.group in text
        if "@" not in choice.group:
            assert all(f"{choice.group}={option}" in text for option in choice.options)
    assert all(f"{key.name}=" in text for key in page.keys)


def test_help_of_an_option_shows_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--help"])
    assert "data.gap=" not in capsys.readouterr().out
    main(["fit", "--help", "domain=weather"])
    assert "data.gap=" in capsys.readouterr().out


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"scigen {scigen.__version__}\n"


def test_configs_are_copied_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--copy-configs", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine" / "fit.yaml").is_file()
    assert main(["--copy-configs", str(tmp_path / "mine")]) == 2


# ------------------------------------------------------------------------------------------------------------ mistakes

MISTAKES = {
    "fti domain=weather": "'fti' is not a verb",
    "domain=weather": "scigen fit domain=weather",
    "fit": "which domain?",
    "fit domain=wether": "did you mean domain=weather?",
    "fit dmain=weather": "did you mean domain?",
    "fit domain=weather data.pth=x.nc": "did you mean data.path?",
    "fit domain=weather run={a": "quotes",
    "fit weather": "domain=weather",
    "fit domain=weather --multirun": "--multirun",
    "fit domain=weather --config-dir": "--config-dir",
    "fit domain=weather --config-dir nowhere": "no such folder",
    "sample": "needs bundle=…",
    "sample input.zarr": "bundle=input.zarr",
}


@pytest.mark.parametrize("line, said", MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_one_line_on_stderr_and_status_2(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error ") and err.count("\n") == 1
    assert said in err and "Traceback" not in err


def test_a_mistake_ends_the_process_with_status_2() -> None:
    done = scigen_process("fit", "domain=wether")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean domain=weather?" in done.stderr and "Traceback" not in done.stderr


def test_debug_shows_where_a_mistake_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "domain=wether", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err and "composition.py" in err
    assert err.splitlines()[-1].startswith("error there is no domain=wether")


# -------------------------------------------------------------------------------------------------------------- running


def test_the_workflow_gets_the_config_and_logs_to_stderr(
    workflow: Workflow, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: Any) -> None:
        logging.getLogger("scigen.io.archive").info("reads %s", config.path)
        print("the result")

    workflow(run)
    assert main(["inspect", "path=x.nc"]) == 0
    assert main(["inspect", "path=x.nc"]) == 0  # one handler, however often
    out, err = capsys.readouterr()
    assert out == "the result\n" * 2
    assert [line.split(" ", 1)[1] for line in err.splitlines()] == ["reads x.nc"] * 2


def test_a_users_mistake_in_a_workflow_is_told_even_when_wrapped(
    workflow: Workflow, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: Any) -> None:
        try:
            raise UserError("x.nc [K] is not there; give a file that exists")
        except UserError as error:
            raise RuntimeError("error in call to target") from error

    workflow(run)
    assert main(["inspect", "path=x.nc"]) == 2
    assert capsys.readouterr().err == "error x.nc [K] is not there; give a file that exists\n"


def test_a_constructor_called_by_hydra_can_tell_a_mistake(
    workflow: Workflow, capsys: pytest.CaptureFixture[str]
) -> None:
    from hydra.utils import instantiate

    workflow(lambda config: instantiate({"_target_": f"{__name__}.refuse"}))
    sys.modules.setdefault(__name__, sys.modules[refuse.__module__])
    assert main(["inspect", "path=x.nc"]) == 2
    assert capsys.readouterr().err == "error factor must be at least 2\n"


def refuse() -> None:
    raise UserError("factor must be at least 2")


def test_a_defect_is_raised_for_python_to_show(workflow: Workflow) -> None:
    def run(config: Any) -> None:
        raise ZeroDivisionError("a defect")

    workflow(run)
    with pytest.raises(ZeroDivisionError):
        main(["inspect", "path=x.nc"])


def _interrupted(config: Any) -> None:
    raise KeyboardInterrupt


def _interrupted_within_lightning(config: Any) -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)  # what Lightning's trainer makes of Ctrl-C


@pytest.mark.parametrize("run", [_interrupted, _interrupted_within_lightning])
def test_ctrl_c_says_how_to_go_on(
    run: Callable[[Any], None], workflow: Workflow, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow(run)
    assert main(["inspect", "path=x.nc"]) == 130
    assert capsys.readouterr().err == "stopped the same command goes on where it stopped\n"


def test_another_exit_keeps_its_status(workflow: Workflow) -> None:
    workflow(lambda config: sys.exit(3))
    with pytest.raises(SystemExit) as caught:
        main(["inspect", "path=x.nc"])
    assert caught.value.code == 3
