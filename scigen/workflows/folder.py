"""Run folders: named after what they hold, reused when it is the same, refused when it is not."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scigen.errors import UserError
from scigen.io.ledger import differences


def digest(content: Any) -> str:
    """Eight hex digits of anything JSON can hold; keys that are null count as not there."""
    return hashlib.sha256(json.dumps(said(content), sort_keys=True, default=str).encode()).hexdigest()[:8]


def said(content: Any) -> Any:
    """A nested configuration without keys that are null: a new choice that is not made changes nothing."""
    if isinstance(content, dict):
        return {k: said(v) for k, v in content.items() if v is not None}
    return [said(v) for v in content] if isinstance(content, list | tuple) else content


def claim(folder: Path, content: dict[str, Any]) -> Path:
    """Make a folder for work described by `content`, or go on in the one that has it already.

    Raises:
        UserError: if the folder belongs to other work; the message shows the first differences.
    """
    path = folder / "config.json"
    content = json.loads(json.dumps(content, default=str))
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}). Remove the folder, or name another with run=.") from error
        if said(found) != said(content):
            raise UserError(
                f"The run folder {folder} belongs to another configuration:\n  {difference(found, content)}\n"
                "Name another folder with run=, or leave run= out and scigen names it."
            )
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and no run folder of scigen. Name another with run=.")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(content, indent=1, sort_keys=True))
    return folder


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that no second fit writes into it; a killed process lets go of it.

    Raises:
        UserError: if another process holds it.
    """
    lock = FileLock(folder / ".lock")
    try:
        with lock.acquire(timeout=0):
            yield
    except Timeout as error:
        raise UserError(
            f"Another scigen fit is at work in {folder}. Wait for it, or name another folder with run=."
        ) from error


def difference(there: Any, asked: Any) -> str:
    """The first few differences between two nested configurations, one a line."""
    lines = differences(there, asked)
    return "\n  ".join(lines[:5] + ([f"and {len(lines) - 5} more"] if len(lines) > 5 else []))


def write(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)
