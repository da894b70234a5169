"""An archive made in pieces: by several at once, killed at any time, and always the same rows."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from filelock import FileLock

from scigen.errors import UserError
from scigen.io.pieces import PieceArchive

IDENTITY = {"teacher": "abc", "seed": 0, "levels": [1.5]}


def make(rows: np.ndarray) -> np.ndarray:
    """Rows as a function of their positions."""
    return np.stack([np.random.default_rng(int(r)).standard_normal((2, 3)) for r in rows]).astype(np.float32)


def opened(folder, rows: int = 11, piece: int = 4, identity=None) -> PieceArchive:
    coords = {"sigma": ("level", np.array([1.5, 0.0])), "member": ("pair", np.arange(rows))}
    return PieceArchive(folder, (rows, 2, 3), ("pair", "level", "x"), piece, identity or IDENTITY, coords)


class Death(BaseException):
    """What no code catches: as near to SIGKILL as a test in the same process comes."""


@pytest.mark.parametrize(("rows", "piece"), [(11, 4), (12, 4), (3, 8), (5, 1)])
def test_all_rows_are_made_once_and_read_as_they_were_made(tmp_path, rows, piece):
    met, told = Counter(), []

    def counted(index):
        met.update(index.tolist())
        return make(index)

    archive = opened(tmp_path, rows, piece)
    archive.fill(counted, told.append)
    np.testing.assert_array_equal(archive.array[:], make(np.arange(rows)))
    assert met == Counter(range(rows)) and archive.left() == []
    assert told == sorted(told) and told[-1] == rows
    archive.fill(counted)
    opened(tmp_path, rows, piece).fill(counted)
    assert met == Counter(range(rows))  # repeating makes nothing again


def test_it_is_an_archive_that_xarray_opens(tmp_path):
    archive = opened(tmp_path)
    archive.fill(make)
    found = xr.open_zarr(archive.store).set_coords(["sigma", "member"])
    assert found["rows"].dims == ("pair", "level", "x") and found["rows"].dtype == np.float32
    assert found["sigma"].values.tolist() == [1.5, 0.0]
    assert found.attrs == IDENTITY
    np.testing.assert_array_equal(found["rows"].values, make(np.arange(11)))


def test_rows_that_nobody_made_read_as_missing(tmp_path):
    archive = opened(tmp_path)
    assert archive.left() == [0, 1, 2] and np.isnan(archive.array[:]).all()


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_killed_fill_is_gone_on_with_and_ends_bit_identical(tmp_path, at):
    def dying(index):
        if index[0] == 4 * at:
            raise Death
        return make(index)

    with pytest.raises(Death):
        opened(tmp_path).fill(dying)
    again = []

    def counted(index):
        again.append(int(index[0]) // 4)
        return make(index)

    archive = opened(tmp_path)
    assert archive.left() == list(range(at, 3))
    archive.fill(counted)
    assert again == list(range(at, 3))
    assert archive.array[:].tobytes() == make(np.arange(11)).tobytes()


def test_a_piece_whose_writing_was_cut_short_is_made_again(tmp_path):
    """Killed between the shard and its marker, or in the middle of the shard: garbage there does not count."""
    archive = opened(tmp_path)
    archive.fill(make)
    (archive.marks / "1.done").unlink()
    (shard,) = (p for p in archive.store.glob("rows/c/1/**/*") if p.is_file())
    shard.write_bytes(shard.read_bytes()[:50])
    (shard.parent / "0.deadbeef.partial").write_bytes(b"half")
    archive = opened(tmp_path)
    assert archive.left() == [1]
    archive.fill(make)
    np.testing.assert_array_equal(archive.array[:], make(np.arange(11)))


def test_rows_that_the_disk_lost_are_not_read_as_if_they_were_whole(tmp_path):
    """A power cut may leave a marker without its data; the checksum tells."""
    archive = opened(tmp_path)
    archive.fill(make)
    (shard,) = (p for p in archive.store.glob("rows/c/1/**/*") if p.is_file())
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=r"[Cc]hecksum"):
        opened(tmp_path).array[4:8]


def test_two_at_once_share_the_pieces(tmp_path):
    """Each piece is made by one of them, and both leave when all is there."""
    met, together = Counter(), threading.Barrier(2, timeout=20)

    def counted(index):
        if sum(met.values()) < 2:
            met.update([int(index[0])])
            together.wait()  # both have a piece in hand at the same time
        else:
            met.update([int(index[0])])
        return make(index)

    archives = [opened(tmp_path, 40, 4) for _ in range(2)]
    threads = [threading.Thread(target=a.fill, args=(counted,)) for a in archives]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert met == Counter({4 * i: 1 for i in range(10)})
    for archive in archives:
        np.testing.assert_array_equal(archive.array[:], make(np.arange(40)))


def test_two_that_make_the_archive_at_once_find_one(tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(opened(tmp_path))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert len(found) == 4 and not list(tmp_path.glob("*.partial"))
    found[0].fill(make)
    np.testing.assert_array_equal(found[3].array[:], make(np.arange(11)))


def test_a_piece_in_other_hands_is_waited_for_and_taken_over_when_they_die(tmp_path):
    archive = opened(tmp_path)
    other = FileLock(archive.marks / "1.lock", thread_local=False)
    other.acquire()
    timer = threading.Timer(0.5, lambda: other.release(force=True))
    timer.start()
    began = time.monotonic()
    archive.fill(make)
    assert time.monotonic() - began >= 0.4
    timer.join()
    np.testing.assert_array_equal(archive.array[:], make(np.arange(11)))


SLOW = """
import sys, time
import numpy as np
from pathlib import Path
from scigen.io.pieces import PieceArchive

def make(rows):
    time.sleep(0.15)
    return np.stack([np.random.default_rng(int(r)).standard_normal((2, 3)) for r in rows]).astype(np.float32)

coords = {"sigma": ("level", np.array([1.5, 0.0])), "member": ("pair", np.arange(40))}
identity = {"teacher": "abc", "seed": 0, "levels": [1.5]}
PieceArchive(Path(sys.argv[1]), (40, 2, 3), ("pair", "level", "x"), 4, identity, coords).fill(make)
"""


def test_sigkill_of_one_of_two_processes_leaves_the_other_to_finish(tmp_path):
    """The same command twice; one is killed in the middle of a piece; the rows are those of an undisturbed run."""
    first, second = (subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)]) for _ in range(2))
    try:
        deadline = time.monotonic() + 30
        while len(list((tmp_path / "pieces").glob("*.done"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGKILL)
        first.wait(30)
        at_kill = len(list((tmp_path / "pieces").glob("*.done")))
        assert 3 <= at_kill < 10, "it was too fast to be killed"
        assert second.wait(60) == 0
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
    archive = opened(tmp_path, 40, 4)
    assert archive.left() == []
    assert archive.array[:].tobytes() == make(np.arange(40)).tobytes()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teacher": "other"}, "another teacher"),
        ({"seed": 1}, "another seed"),
        ({"levels": [1.5, 0.3]}, "another levels"),
        ({"seed": 1, "teacher": "other"}, "another seed, teacher"),
    ],
)
def test_an_archive_of_other_rows_is_refused_and_left_as_it_is(tmp_path, changed, message):
    opened(tmp_path).fill(make)
    with pytest.raises(UserError, match=message):
        opened(tmp_path, identity=IDENTITY | changed)
    with pytest.raises(UserError, match="another shape"):
        opened(tmp_path, rows=12)
    np.testing.assert_array_equal(opened(tmp_path).array[:], make(np.arange(11)))


def test_a_damaged_archive_is_named(tmp_path):
    archive = opened(tmp_path)
    (archive.store / "zarr.json").write_text("{")
    with pytest.raises(UserError, match=r"damaged.*remove"):
        opened(tmp_path)


def test_a_disk_that_fills_up_is_named_with_the_size_needed_and_what_was_made_stays(tmp_path):
    make_large = lambda: PieceArchive(tmp_path, (8, 3, 2**16), ("pair", "level", "x"), 4, IDENTITY, {})  # noqa: E731
    archive = make_large()
    whole = archive.array

    class Full:
        shape = whole.shape

        def __setitem__(self, key, values):
            if key.start:
                raise OSError(errno.ENOSPC, "No space left on device")
            whole[key] = values

    archive.array = Full()
    with pytest.raises(UserError, match=r"No space left.*6\.0 MiB in all.*Make room"):
        archive.fill(lambda rows: np.ones((len(rows), 3, 2**16), np.float32))
    assert make_large().left() == [1]


def test_too_small_a_disk_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    archive = opened(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(UserError, match=r"It takes .* in all; 0\.0 MiB are free"):
        archive.fill(lambda rows: pytest.fail("made"))
    monkeypatch.undo()
    archive.fill(make)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    opened(tmp_path).fill(make)  # nothing is missing


def test_errors_of_the_maker_are_its_own(tmp_path):
    """A file of the input that cannot be read is no full disk."""

    def broken(rows):
        raise OSError("the input is gone")

    with pytest.raises(OSError, match="the input is gone"):
        opened(tmp_path).fill(broken)
    with pytest.raises(ValueError, match="do not fit"):
        opened(tmp_path).fill(lambda rows: make(rows)[:, :1])
