"""Command line: a verb and words `key=value` become a config, and the config goes to the verb's workflow."""

import argparse
import importlib
import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.text import Text

from scigen import __version__
from scigen.config import compose, copy_configs
from scigen.config.help import show_overview, show_verb
from scigen.errors import Stopped, UserError

PATHS = ("inspect", "check")
"""Verbs whose first word may be a path alone."""
FOLDERS = ("compare",)
"""Verbs whose words without `=` are run folders."""
VERBS = ("synth", "fit", "sample", "check", "evaluate", "compare", "inspect", "export", "benchmark")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; scigen --help lists the flags, and settings are written key=value")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: the words behind `scigen`; those of the process by default.

    Returns:
        Exit status: 0 done, 2 a mistake of the user's, told in one line, 130 stopped by Ctrl-C, 143 by SIGTERM. A
        defect of scigen is raised, which Python turns into a traceback and status 1.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        _say("stopped", "yellow", "the same command goes on where it stopped")
        return 143 if isinstance(error, Stopped) else 130
    except Exception as error:
        mistake = _mistake(error)
        if mistake is None:
            raise
        if "--debug" in words:
            traceback.print_exception(error)
        _say("error", "bold red", str(mistake))
        return 2


def _run(words: Sequence[str]) -> int:
    parser = _Parser(prog="scigen", add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--config-dir", type=Path, action="append", default=[])
    parser.add_argument("--copy-configs", type=Path)
    parser.add_argument("words", nargs="*")
    given = parser.parse_intermixed_args(words)
    verb, *overrides = given.words or [None]
    if given.version:
        print(f"scigen {__version__}")
    elif given.copy_configs:
        print(copy_configs(given.copy_configs))
    elif verb is None:
        show_overview(VERBS, given.config_dir)
        return 0 if given.help else 2
    elif verb not in VERBS:
        example = f"scigen fit {verb}" if "=" in verb else "scigen fit domain=weather"
        raise UserError(f"{verb!r} is not a verb: write one of {', '.join(VERBS)} first, as in {example}")
    elif given.help:
        show_verb(verb, overrides, given.config_dir)
    else:
        _log_to_stderr()
        overrides = named(verb, overrides)
        config = compose(verb, overrides, given.config_dir)
        importlib.import_module(f"scigen.workflows.{verb}").run(config)
    return 0


def named(verb: str, words: Sequence[str]) -> list[str]:
    """The words of a verb, with a path that stands alone named as `path=`, and run folders as `runs=`."""
    first, *rest = [*words, ""]
    if verb in PATHS and first and "=" not in first:
        return [f"path={_quoted(first)}", *rest[:-1]]
    if verb in FOLDERS and (folders := [w for w in words if "=" not in w]):
        return [f"runs=[{','.join(map(_quoted, folders))}]", *(w for w in words if "=" in w)]
    return list(words)


def _quoted(path: str) -> str:
    """A path as a value that Hydra reads as text."""
    return "'{}'".format(path.replace("'", "\\'"))


def _mistake(error: BaseException | None) -> UserError | None:
    """The user's mistake behind an error: Hydra wraps what a constructor raises."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def _say(label: str, style: str, message: str) -> None:
    Console(stderr=True, highlight=False).print(Text.assemble((label, style), " ", message), soft_wrap=True)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("scigen")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
