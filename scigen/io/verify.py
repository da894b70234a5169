"""Is an ensemble archive whole: every item there, every file as it was written, every value accounted for."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

from scigen.errors import UserError
from scigen.io.archive import PARTIAL
from scigen.io.disk import digest
from scigen.io.formats import LOCK, blocks_of, is_complete, joined_summary, mark_complete, plan_of
from scigen.io.ledger import Ledger

Statistics = dict[str, float | int | None]
"""Of one variable: min, max and sum of the finite values, and the counts `finite`, `nan` and `infinite`."""


@dataclass
class Report:
    """What a check has found.

    Attributes:
        path: of the archive.
        items: how many there are.
        done: how many of them are there and whole.
        complete: whether the archive says of itself that it is complete.
        missing: names of items that are not there.
        damaged: what is wrong, by name of item or file.
        failed: errors of items that were tried, by name.
        variables: min, max, mean and number of NaN and infinite values of what is there, by name.
    """

    path: Path
    items: int
    done: int = 0
    complete: bool = False
    missing: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Statistics] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether everything is there, as it was written, and marked as complete."""
        return self.complete and not self.missing and not self.damaged

    def lines(self) -> list[str]:
        """The report for people."""
        lines = [f"{self.path}: {self.done} of {self.items} items are there{', complete' if self.whole else ''}"]
        if self.missing:
            lines.append(f"missing: {_few(self.missing)}")
        lines += [f"damaged: {name}: {why}" for name, why in self.damaged.items()]
        lines += [f"failed: {name}: {why}" for name, why in self.failed.items()]
        if not (self.complete or self.missing or self.damaged):
            lines.append("all is there, and the command that makes it has not finished it")
        for name, s in self.variables.items():
            said = "no value" if s["min"] is None else f"{s['min']:.6g} … {s['max']:.6g}, mean {s['mean']:.6g}"
            lines.append(f"{name}: {said}, {s['nan']} NaN" + (f", {s['infinite']} infinite" if s["infinite"] else ""))
        return lines


def verify(path: str | Path, *, repair: bool = False) -> Report:
    """Read every file of an ensemble archive that `scigen sample` has written, and compare it with what was written.

    Args:
        path: the output, complete or not: a zarr store, a netCDF file or a folder of such files.
        repair: whether the markers of damaged items are taken back, so that the command repeated makes them again.

    Raises:
        UserError: if nothing is there, or it carries no record of how it was made.
    """
    path = Path(path).expanduser()
    home = path.with_name(path.name + PARTIAL) if path.suffix == ".nc" and not path.exists() else path
    if not home.exists():
        raise UserError(f"{path} is not there: give an output of scigen sample.")
    if home.is_file():
        return _file(home)
    ledger = Ledger(home)
    if not ledger.ours:
        raise UserError(f"{path} has no readable {ledger.folder.name}/plan.json, the record of how it was made.")
    report = Report(path, items=0, failed=ledger.failures(), complete=ledger.complete is not None and is_complete(home))
    marks = []
    for item in ledger.items():
        report.items += 1
        mark = ledger.marker(item)
        if mark is None:
            report.missing.append(item.name)
            continue
        wrong = _changed(home, {name: check for name, (check, _) in mark["files"].items()})
        if wrong:
            report.damaged[item.name] = "; ".join(f"{name} {why}" for name, why in wrong.items())
            if repair:
                mark_complete(home, 0)
                ledger.reopen()
                ledger.unmark(item)
        else:
            report.done += 1
            marks.append(mark["statistics"])
    report.damaged |= _changed(home, ledger.plan["template"])
    report.variables = gather(marks)
    return report


def statistics(values: np.ndarray) -> Statistics:
    """Of one variable, or a part of it."""
    if values.dtype.kind != "f":
        numbers, nan, infinite = values.ravel(), 0, 0
    else:
        nan = int(np.isnan(values).sum())
        finite = np.isfinite(values)
        infinite = values.size - nan - int(finite.sum())
        numbers = values[finite]
    ends = (float(numbers.min()), float(numbers.max())) if numbers.size else (None, None)
    total = float(numbers.sum(dtype=np.float64))
    return dict(min=ends[0], max=ends[1], sum=total, finite=int(numbers.size), nan=nan, infinite=infinite)


def gather(parts: Iterable[Mapping[str, Statistics]]) -> dict[str, Statistics]:
    """Statistics of the whole from those of its parts, by variable, with the `mean` in the place of the sum."""
    every = list(parts)
    out: dict[str, Statistics] = {}
    for name in every[0] if every else ():
        rows: list[Any] = [p[name] for p in every]
        finite = sum(r["finite"] for r in rows)
        out[name] = {
            "min": min((r["min"] for r in rows if r["finite"]), default=None),
            "max": max((r["max"] for r in rows if r["finite"]), default=None),
            "mean": math.fsum(r["sum"] for r in rows) / finite if finite else None,
            "nan": sum(r["nan"] for r in rows),
            "infinite": sum(r["infinite"] for r in rows),
        }
    return out


def _changed(home: Path, checks: Mapping[str, str]) -> dict[str, str]:
    """The files that are not as they were written."""
    out = {}
    for name, check in checks.items():
        try:
            if digest(home / name) != check:
                out[name] = "has changed"
        except OSError as error:
            out[name] = f"cannot be read ({error.strerror or error})"
    return out


def _file(path: Path) -> Report:
    """Check a joined netCDF file by the checksums that it carries."""
    if plan_of(path) is None:
        raise UserError(f"{path} cannot be read, or has no attribute scigen_plan, the record of how it was made.")
    with LOCK, netCDF4.Dataset(path) as file:
        checks = json.loads(file.getncattr("scigen_checksums"))
        complete = bool(file.getncattr("scigen_complete"))
    report = Report(path, items=joined_summary(path)["items"], complete=complete)
    for name, check in checks.items():
        total, parts = hashlib.blake2b(digest_size=16), []
        try:
            for values in blocks_of(path, name, 8):
                total.update(values.data)
                parts.append({name: statistics(values)})
        except (OSError, RuntimeError, IndexError) as error:
            report.damaged[name] = f"cannot be read ({error})"
            continue
        if total.hexdigest() != check:
            report.damaged[name] = "has changed"
        report.variables |= gather(parts)
    report.done = 0 if report.damaged else report.items
    return report


def _few(names: list[str]) -> str:
    return f"{len(names)} items, " + ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
