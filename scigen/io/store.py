"""The output of batch inference: made item by item by any number of processes, gone on with after a kill.

    out.zarr   a zarr store at its place from the start, with `.scigen/` in it
    out.nc     item files in out.nc.partial/, joined when all are there
    out        a folder of netCDF files, out-000012.nc for an item, with `.scigen/` in it

An item's files are written in a scratch folder, synced, renamed into their places, and count when its marker, made
last, is there. So what a killed process leaves is never taken for data, and an item made twice is harmless. Nothing in
the data depends on clock, host or order: two runs of one job give the same bytes, `.scigen/` aside.
"""

import json
import logging
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from filelock import FileLock

from scigen.errors import UserError
from scigen.io.archive import PARTIAL
from scigen.io.disk import check_room, digest, files_in, remove, storing, sync, sync_folders
from scigen.io.formats import Format, NetcdfFiles, ZarrShards, joined_summary, mark_complete, plan_of
from scigen.io.ledger import NAME, VERSION, Ledger, differences
from scigen.io.plan import Item, plan
from scigen.io.template import template
from scigen.io.verify import statistics, verify

log = logging.getLogger(__name__)


class EnsembleStore:
    """An ensemble archive that is written item by item.

    Attributes:
        path: of the output.
        items: of the job, in order; block and group of a store that is gone on with are those it was begun with.
    """

    def __init__(
        self,
        path: str | Path,
        coords: xr.Dataset,
        variables: Mapping[str, Mapping[str, Any]],
        members: Sequence[int],
        dims: Sequence[str] | None = None,
        *,
        identity: Mapping[str, Any],
        attrs: Mapping[str, Any] | None = None,
        dtypes: Mapping[str, str] | None = None,
        block: int,
        group: int,
        overwrite: bool = False,
    ) -> None:
        """Make the store, or go on with the one that is there.

        Args:
            path: ends with `.zarr`, `.nc`, or has no suffix.
            coords: coordinates of the output; data variables are ignored. Units and calendar of times are kept.
            variables: CF attributes by name.
            members: their numbers.
            dims: dimension of samples first, then those of space; None for those of `coords`, time first, Y and X last.
            identity: all that the values are a function of, as JSON.
            attrs: global attributes; a store that is gone on with keeps those it has. Must not tell time or host.
            dtypes: by variable; float32 for the others. Whole numbers have no missing value: until `scigen_complete`
                is 1, what is not written reads 0.
            block: samples of an item.
            group: members of an item; all of them for netCDF.
            overwrite: whether the output of another job, or something else of this name, is replaced.

        Raises:
            UserError: if another output is there, the suffix is unknown, the folder cannot be written or is full.
            ValueError: if the items of netCDF have not all members, or a dimension has no coordinate.
        """
        self.path, self.overwrite = Path(path).expanduser(), overwrite
        suffix = self.path.suffix
        if suffix not in (".zarr", ".nc", ""):
            raise UserError(
                f"Output {self.path}: expected a name that ends with .zarr or .nc, or a folder without a suffix for "
                f"many netCDF files; got {suffix!r}."
            )
        self.home = self.path.with_name(self.path.name + PARTIAL) if suffix == ".nc" else self.path
        self.template = template(coords, variables, members, dims, attrs or {}, dtypes or {})
        samples, count = self.template.shape[:2]
        block, group = min(block, samples), min(group, count)
        if suffix != ".zarr" and group < count:
            raise ValueError(f"group={group}: items of netCDF files have all {count} members")
        plan(samples, count, block, group)
        asked = {"identity": json.loads(json.dumps(identity, default=str)), "layout": self.template.layout()}
        with storing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open(asked, block, group)
        begun = self._joined() or self.ledger.plan
        self.template.coords.attrs = dict(begun.get("attrs", {}))
        self.items = plan(samples, count, begun["block"], begun["group"])
        self.format = self._format(begun["block"], begun["group"])
        left = sum(i.fields for i in self.left())
        if left:
            size = self.template.field_bytes
            check_room(self.home, size * (left + (samples * count if suffix == ".nc" else 0)))

    @property
    def notes(self) -> Path:
        """Folder of the records: markers, errors, facts."""
        return self.ledger.folder

    def left(self) -> list[Item]:
        """The items that are not there; those whose files are missing or of another size count among them."""
        return [] if self._joined() else [i for i in self.items if self.ledger.marker(i) is None]

    def write(self, item: Item, fields: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None) -> None:
        """Write an item and its marker; one that another process has written meanwhile is kept.

        Args:
            item: one of `items`.
            fields: (samples, members, *space) of every variable, physical units.
            facts: kept in the marker, JSON.

        Raises:
            UserError: if the disk is full or fails, or the store was replaced meanwhile.
            ValueError: if names or shapes are not those of the template.
        """
        values = self._fitting(item, fields)
        if self._joined():
            return
        scratch = self.ledger.scratch / f"{item.name}-{uuid.uuid4().hex}"
        try:
            with storing(self.path):
                self._put(item, values, facts or {}, scratch)
        except UserError:
            if not self._joined() and self.ledger.marker(item) is None:
                raise
        finally:
            remove(scratch)
            if self._joined():
                self._tidy()

    def failed(self, item: Item, error: BaseException) -> None:
        """Record the error of an item that could not be made; the record goes when it is done."""
        with storing(self.path):
            if self._still_ours() and self.ledger.marker(item) is None:
                self.ledger.fail(item, error)

    def failures(self) -> dict[str, str]:
        """Errors of items that are still to be made, by name."""
        return self.ledger.failures()

    def note(self, key: str, value: Any) -> None:
        """Keep a small fact of the job, JSON, for a repeated command."""
        with storing(self.path):
            if self._still_ours():
                self.ledger.note(key, value)

    def noted(self, key: str) -> Any:
        """A fact that was kept; None if there is none, or the output is a joined file."""
        return self.ledger.noted(key)

    def finish(self) -> dict[str, Any]:
        """Check all that was written, say that it is complete, and give netCDF its name; again, it does nothing.

        Returns:
            "items", "samples", "members", "bytes" on the disk, and "variables": min, max, mean, nan, infinite by name.

        Raises:
            UserError: if items are missing or damaged: their markers are taken back, the command repeated makes them.
        """
        if self._joined():
            return self._end(joined_summary(self.path))
        with storing(self.path), self.ledger.lock("finish"):
            if not self._still_ours():  # another process has joined the files in this moment
                return self._end(joined_summary(self.path))
            left = [i.name for i in self.left()]
            if left:
                raise UserError(self._say_left(left, "are missing"))
            summary = self.ledger.complete
            if summary is None:
                report = verify(self.home, repair=True)
                bad = [i.name for i in self.items if i.name in report.damaged or i.name in report.missing]
                if bad:
                    raise UserError(self._say_left(bad, "were damaged after they had been written"))
                if report.damaged:
                    raise UserError(
                        f"{self.path} is damaged: {', '.join(report.damaged)}. These files describe the archive: "
                        "restore them from a copy, or remove the archive, and repeat the command."
                    )
                self.ledger.clean()
                summary = self._summary(report.variables)
                if self.path != self.home:
                    self._join(summary)
                    return self._end(summary)
                self.ledger.close(summary)
            mark_complete(self.home, 1)
        return self._end(summary)

    # ------------------------------------------------------------------------------------------------------- opening

    def _open(self, asked: dict[str, Any], block: int, group: int) -> None:
        """Make the store or find that the one there is the same job's."""
        self.ledger = Ledger(self.home)
        self._wanted = asked
        if self.path != self.home and self._occupied(self.path):
            there = plan_of(self.path)
            if there is not None and not self._differences(there):
                return self._tidy()
            if not self.overwrite:
                self._refuse(self.path, there)
        content = {"version": VERSION, **asked, "block": block, "group": group, "attrs": self.template.coords.attrs}
        while not self.ledger.ours or self._differences(self.ledger.plan):
            if self._occupied(self.home):
                self._make_way()
            if not self._occupied(self.home):
                self._make(content)
            self.ledger = Ledger(self.home)
        if self._joined():  # another process has finished in this moment
            self._tidy()

    def _make(self, content: dict[str, Any]) -> None:
        """Make the template under another name, and give it its own unless another process was quicker."""
        partial = self.home.with_name(f".{self.home.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            self._format(content["block"], content["group"]).make(partial)
            partial.mkdir(exist_ok=True)
            checks = {p.relative_to(partial).as_posix(): digest(p) for p in files_in(partial)}
            Ledger.begin(partial, {**content, "template": checks})
            sync(files_in(partial))
            try:
                os.rename(partial, self.home)
            except OSError:
                if not (self._occupied(self.home) or self._joined()):
                    raise
            sync_folders([self.home])
        finally:
            remove(partial)

    def _make_way(self) -> None:
        """Remove what lies at the place of the store, if that is allowed and it is not the same job's."""
        ledger = Ledger(self.home)
        if not self.overwrite:
            self._refuse(self.home, ledger.plan or None)
        if self.path.suffix == "" and not ledger.ours:
            raise UserError(
                f"The output {self.path} holds something that scigen has not made, which overwrite=true does not remove"
                " either: choose another output=, or remove it yourself."
            )
        lock = self.home.with_name(f".{self.home.name}.lock")
        with FileLock(lock):
            ledger = Ledger(self.home)
            other = not ledger.ours or self._differences(ledger.plan)
            if other and self._occupied(self.home):  # another process may have replaced it
                aside = self.home.with_name(f".{self.home.name}.{uuid.uuid4().hex}{PARTIAL}")
                os.replace(self.home, aside)
                log.info("%s is replaced.", self.home)
                remove(aside)
            lock.unlink(missing_ok=True)

    def _refuse(self, path: Path, there: Mapping[str, Any] | None) -> None:
        """Raise because something else lies at a path."""
        if there is None:
            raise UserError(
                f"The output {path} exists and is not an output that can be gone on with: choose another output=, or "
                "set overwrite=true to replace it."
            )
        lines = self._differences(there)
        shown = "\n  ".join(lines[:12] + ([f"and {len(lines) - 12} more"] if len(lines) > 12 else []))
        raise UserError(
            f"The output {path} belongs to another job:\n  {shown}\n"
            "Choose another output=, or set overwrite=true to replace it."
        )

    def _differences(self, there: Mapping[str, Any]) -> list[str]:
        if there.get("version") != VERSION:
            return [f"version: there {there.get('version')!r}, asked for {VERSION!r}"]
        return [line for key in ("identity", "layout") for line in differences(there.get(key), self._wanted[key])]

    @staticmethod
    def _occupied(path: Path) -> bool:
        """Whether something other than an empty folder lies at a path."""
        return os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir()))

    def _format(self, block: int, group: int) -> Format:
        if self.path.suffix == ".zarr":
            return ZarrShards(self.template, block, group)
        return NetcdfFiles(self.template, "" if self.path.suffix == ".nc" else f"{self.path.name}-")

    # ----------------------------------------------------------------------------------------------- writing, the end

    def _fitting(self, item: Item, fields: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The fields as they are stored, in the order of the template."""
        dtypes = self.template.dtypes
        if set(fields) != set(dtypes):
            raise ValueError(f"got the variables {sorted(fields)}, the template has {sorted(dtypes)}")
        if not 0 <= item.number < len(self.items) or self.items[item.number] != item:
            raise ValueError(f"{item} is not one of the {len(self.items)} items of {self.path}")
        shape = (item.stop - item.start, item.high - item.low, *self.template.shape[2:])
        for name, values in fields.items():
            if values.shape != shape:
                raise ValueError(f"{name} {values.shape} of item {item.name} does not fit: expected {shape}")
        return {name: np.asarray(fields[name], dtype=dtype) for name, dtype in dtypes.items()}

    def _put(self, item: Item, values: dict[str, np.ndarray], facts: Mapping[str, Any], scratch: Path) -> None:
        """Write the files of an item into the scratch folder, give them their places, and mark the item as done."""
        began = time.perf_counter()
        self.format.encode(item, values, self.home, scratch)
        files = {p.relative_to(scratch).as_posix(): p for p in files_in(scratch)}
        sync(files.values())
        content = {
            "files": {name: [digest(p), p.stat().st_size] for name, p in files.items()},
            "statistics": {name: statistics(v) for name, v in values.items()},
            "seconds": round(time.perf_counter() - began, 3),
            "facts": json.loads(json.dumps(dict(facts), default=str)),
        }
        with self.ledger.lock("commit"):
            if not self._still_ours() or self.ledger.marker(item) is not None:
                return
            if self.ledger.complete is not None:  # while something is made again, it is not complete
                mark_complete(self.home, 0)
                self.ledger.reopen()
            places = {self.home / name: p for name, p in files.items()}
            for place, source in places.items():
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, place)
            sync_folders(places)
            self.ledger.mark(item, content)

    def _still_ours(self) -> bool:
        """Whether the store is the one that was opened; not any more if another process has joined its files.

        Raises:
            UserError: if it was removed or replaced.
        """
        if self.ledger.same:
            return True
        if self._joined():
            return False
        raise UserError(f"{self.path} was removed or replaced by another run while this one was writing it.")

    def _joined(self) -> dict[str, Any] | None:
        """The plan of the joined file, once it is there."""
        if self.path == self.home or not self.path.is_file():
            return None
        there = plan_of(self.path)
        return there if there is not None and not self._differences(there) else None

    def _join(self, summary: dict[str, Any]) -> None:
        """Put all items into the one file, and give it its name."""
        assert isinstance(self.format, NetcdfFiles)
        plan_kept = {k: v for k, v in self.ledger.plan.items() if k not in ("template", "attrs")}
        about = {"scigen_plan": json.dumps(plan_kept), "scigen_summary": json.dumps(summary)}
        target = self.ledger.folder / f".{self.path.name}"
        try:
            self.format.join(self.items, self.home, target, about)
            sync([target])
            if self._occupied(self.path) and not self.overwrite:
                self._refuse(self.path, plan_of(self.path))
            if self.path.is_dir():
                remove(self.path)
            os.replace(target, self.path)
        finally:
            target.unlink(missing_ok=True)
        sync_folders([self.path])

    def _summary(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        samples, members = self.template.shape[:2]
        return dict(items=len(self.items), samples=samples, members=members, variables=dict(variables))

    def _end(self, summary: dict[str, Any]) -> dict[str, Any]:
        """The summary with the size on the disk, after all that is not part of the output is removed."""
        self._tidy()
        files = [self.path] if self.path.is_file() else files_in(self.home, beside=NAME)
        return {**summary, "bytes": sum(p.stat().st_size for p in files)}

    def _tidy(self) -> None:
        """Remove what killed processes have left beside the output, and the item files of a joined one."""
        if self._joined():
            remove(self.home)
        for path in self.home.parent.glob(f".{self.home.name}.*{PARTIAL}"):
            remove(path)

    def _say_left(self, names: list[str], what: str) -> str:
        few = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        failures = self.failures()
        why = "".join(f"\n  {n}: {failures[n]}" for n in names[:8] if n in failures)
        return (
            f"{self.path}: {len(names)} of {len(self.items)} items {what}: {few}. Repeat the command, which makes only "
            f"these.{why}"
        )
