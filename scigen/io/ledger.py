"""The records of a job, in the folder `.scigen` beside the data: what is made, what is done, what has failed.

.scigen/
├── plan.json              what the data are a function of, their layout, checksums of the template
├── done/000012.json       markers: checksums and statistics of an item, when and where it was made
├── failed/000013.json     errors of items that are still to be made
├── job.json               small facts that a repeated command goes on with
├── complete.json          the summary, when everything is there and was checked
└── scratch/               what is being written
"""

import datetime
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from scigen.io.disk import digest, read_json, remove, write_json
from scigen.io.plan import Item, plan

NAME = ".scigen"
VERSION = 1


class Ledger:
    """The records that lie in a home folder.

    Attributes:
        home: folder of the data.
        plan: of the job; empty if there is none that can be read.
    """

    def __init__(self, home: Path) -> None:
        """Read the plan."""
        self.home, self.folder = home, home / NAME
        self.scratch = self.folder / "scratch"
        found = read_json(self.folder / "plan.json")
        self.plan: dict[str, Any] = found if isinstance(found, dict) else {}
        self.check = self._check()

    @staticmethod
    def begin(home: Path, content: dict[str, Any]) -> None:
        """Make the records of a new job."""
        for name in ("done", "failed", "scratch"):
            (home / NAME / name).mkdir(parents=True, exist_ok=True)
        write_json(home / NAME / "plan.json", content)

    @property
    def ours(self) -> bool:
        """Whether a plan is there."""
        return bool(self.plan)

    @property
    def same(self) -> bool:
        """Whether the plan on the disk is still the one that was read: a run with overwrite=true replaces it."""
        return self.ours and self._check() == self.check

    def items(self) -> list[Item]:
        """All items of the job."""
        samples, members = self.plan["layout"]["shape"][:2]
        return plan(samples, members, self.plan["block"], self.plan["group"])

    def marker(self, item: Item) -> dict[str, Any] | None:
        """The marker of an item; None if it is not there, damaged, of another plan, or its files have another size."""
        found = read_json(self.folder / "done" / f"{item.name}.json")
        if not isinstance(found, dict) or found.get("plan") != self.check:
            return None
        sizes = {self.home / name: size for name, (_, size) in found["files"].items()}
        return found if all(p.is_file() and p.stat().st_size == size for p, size in sizes.items()) else None

    def mark(self, item: Item, content: dict[str, Any]) -> None:
        """Say that an item is done."""
        write_json(self.folder / "done" / f"{item.name}.json", {"plan": self.check, **content, **_where()})
        (self.folder / "failed" / f"{item.name}.json").unlink(missing_ok=True)

    def unmark(self, item: Item) -> None:
        """Take the marker of an item back."""
        (self.folder / "done" / f"{item.name}.json").unlink(missing_ok=True)

    def fail(self, item: Item, error: BaseException) -> None:
        """Record what went wrong with an item."""
        said = {"error": f"{type(error).__name__}: {error}", "traceback": "".join(traceback.format_exception(error))}
        write_json(self.folder / "failed" / f"{item.name}.json", {**said, **_where()})

    def failures(self) -> dict[str, str]:
        """Errors by name of item."""
        records = {p.stem: read_json(p) for p in sorted((self.folder / "failed").glob("*.json"))}
        return {name: record["error"] for name, record in records.items() if record}

    @property
    def complete(self) -> dict[str, Any] | None:
        """The summary of a job that is complete."""
        found = read_json(self.folder / "complete.json")
        return found if isinstance(found, dict) and found.pop("plan", None) == self.check else None

    def close(self, summary: dict[str, Any]) -> None:
        """Say that everything is there and was checked."""
        write_json(self.folder / "complete.json", {"plan": self.check, **summary})

    def reopen(self) -> None:
        """Take that back."""
        (self.folder / "complete.json").unlink(missing_ok=True)

    def note(self, key: str, value: Any) -> None:
        """Keep a small fact."""
        with self.lock("job"):
            write_json(self.folder / "job.json", {**(read_json(self.folder / "job.json") or {}), key: value})

    def noted(self, key: str) -> Any:
        """A fact that was kept; None if there is none."""
        return (read_json(self.folder / "job.json") or {}).get(key)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """One process at a time; the operating system takes the lock back when a process dies."""
        with FileLock(self.folder / f".{name}.lock"):
            yield

    def clean(self) -> None:
        """Remove what killed processes have left."""
        remove(self.scratch)
        for folder in (self.folder, self.folder / "done", self.folder / "failed"):
            for path in folder.glob(".*.json.*"):
                path.unlink(missing_ok=True)

    def _check(self) -> str:
        path = self.folder / "plan.json"
        return digest(path) if path.is_file() else ""


def differences(there: Any, asked: Any, key: str = "") -> list[str]:
    """Where two nested records differ, one a line: "seed: there 1, asked for 2"."""
    if isinstance(there, dict) and isinstance(asked, dict):
        keys = sorted(there.keys() | asked.keys())
        return [line for k in keys for line in differences(there.get(k), asked.get(k), f"{key}.{k}".lstrip("."))]
    return [] if there == asked else [f"{key}: there {there!r}, asked for {asked!r}"]


def _where() -> dict[str, str]:
    now = datetime.datetime.now(datetime.UTC)
    return {"time": f"{now:%Y-%m-%dT%H:%M:%SZ}", "host": socket.gethostname()}
