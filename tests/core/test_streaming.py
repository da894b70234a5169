"""Batches from disk: those that memory would give, each block read once an epoch, ahead, and nothing left hanging."""

import threading
import time

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from scigen.core import streaming
from scigen.core.datamodule import ArchiveStream
from scigen.core.streaming import Ahead, BlockStream, Use, archive_stream, block_edges
from scigen.errors import UserError
from scigen.weather.coarsen import coarsen

TIMES, CHUNK = 70, 8


class Disk:
    """An array that notes what is read of it, and may fail or be slow."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.reads, self.broken, self.delay = values, [], None, 0.0
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key):
        if self.broken is not None and key[0].start <= self.broken < key[0].stop:
            raise OSError("chunk is gone")
        time.sleep(self.delay)
        if key[0].stop > key[0].start:  # and no question about the type
            self.reads.append((key[0].start, key[0].stop))
        return self.values[key]


@pytest.fixture
def disk(archive) -> tuple[list[Disk], xr.Dataset, xr.Dataset]:
    """An archive of 70 times in chunks of 8: what is read of each variable, fine fields, block means, all lazy."""
    rng = np.random.default_rng(1)
    times = pd.date_range("2020-01-01", periods=TIMES, freq="6h")
    disks, fine = [], archive.drop_vars(["t2m", "u10"]).drop_vars("time").assign_coords(time=times)
    for name in ("t2m", "u10"):
        disks.append(Disk(rng.standard_normal((TIMES, 8, 8)).astype("float32")))
        values = da.from_array(disks[-1], chunks=(CHUNK, 8, 8), asarray=True, fancy=False)
        fine[name] = (("time", "latitude", "longitude"), values, archive[name].attrs)
    return disks, fine, coarsen(fine, 4)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Windows of three blocks, a chunk each."""
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 1)
    monkeypatch.setattr(streaming, "WINDOW", (3, 3))


def same(a, b) -> bool:
    return (
        torch.equal(a.x, b.x)
        and a.samples == b.samples
        and a.condition.keys() == b.condition.keys()
        and all(torch.equal(v, b.condition[k]) for k, v in a.condition.items())
    )


def test_every_epoch_sees_every_sample_once_within_a_window_of_blocks(bundle, disk):
    _, fine, coarse = disk
    stream = BlockStream(bundle.codec, fine, coarse, 4, 100, seed=3)
    orders = [stream.order(e) for e in range(3)]
    assert all(sorted(o) == list(range(TIMES)) for o in orders)
    assert not np.array_equal(orders[0], orders[1])
    for order in orders:
        blocks = stream.blocks_of(order)
        live = [len({*blocks[: i + 1]} & {*blocks[i:]}) for i in range(TIMES)]
        assert max(live) <= stream.window + 1
        assert np.mean([len({*blocks[i : i + 8]}) for i in range(8, TIMES - 8)]) > 2, "a batch mixes blocks"
    assert not np.array_equal(BlockStream(bundle.codec, fine, coarse, 4, 100, seed=4).order(0), orders[0])


def test_batches_from_disk_are_those_of_the_archive_in_memory(bundle, disk):
    """Also across the ends of epochs, and when several blocks, epochs or the whole archive lie in one batch."""
    _, fine, coarse = disk
    for batch in (4, 33, 150):
        stream = archive_stream(bundle.codec, fine, coarse, batch, 6, seed=3)
        whole = archive_stream(bundle.codec, fine.compute(), coarse.compute(), batch, 6)
        assert isinstance(stream, BlockStream) and type(whole) is ArchiveStream
        for i, found in enumerate(stream):
            assert same(found, whole.get(stream.indices(i))), i
            assert same(found, stream.get(stream.indices(i)))
    assert i == 5


@pytest.mark.parametrize("start", [1, 16, 17, 18, 23, 34, 35])
def test_a_batch_is_a_function_of_its_number(bundle, disk, start):
    """What a resumed run relies on."""
    _, fine, coarse = disk
    whole = list(BlockStream(bundle.codec, fine, coarse, 4, 36, seed=3))
    stream = BlockStream(bundle.codec, fine, coarse, 4, 36, seed=3)
    stream.start = start
    rest = list(stream)
    assert len(rest) == 36 - start and all(same(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_each_block_is_read_once_an_epoch_for_fields_and_block_means_together(bundle, disk):
    disks, fine, coarse = disk
    stream = BlockStream(bundle.codec, fine, coarse, 7, 30, seed=3)  # three epochs
    seen = 0
    for _ in stream:
        seen += 1
        assert len(stream.held) <= stream.window + 1 + streaming.BLOCKS_AHEAD + 1
    assert seen == 30 and not stream.held
    for one in disks:
        assert sorted(one.reads) == sorted([(i, min(i + CHUNK, TIMES)) for i in range(0, TIMES, CHUNK)] * 3)


def test_ranks_share_every_batch(bundle, disk):
    _, fine, coarse = disk
    whole = list(BlockStream(bundle.codec, fine, coarse, 6, 20))
    shares = []
    for rank in range(3):
        stream = BlockStream(bundle.codec, fine, coarse, 6, 20)
        stream.share = (rank, 3)
        shares.append(list(stream))
    for batch, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(batch.x, torch.cat([p.x for p in parts]))
        assert batch.samples == tuple(k for p in parts for k in p.samples)


def test_blocks_are_read_while_batches_are_used(bundle, disk):
    """Waiting for no batch but the first, whose blocks nobody could read before."""
    disks, fine, coarse = disk
    stream = iter(BlockStream(bundle.codec, fine, coarse, 4, 30, seed=3))
    next(stream)
    deadline = time.monotonic() + 10
    while len(disks[0].reads) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(disks[0].reads) >= 2, "the second block is read though nobody has asked for it"
    stream.close()


def threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith("scigen-")}


def gone() -> bool:
    deadline = time.monotonic() + 10
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not threads()


def test_nothing_is_left_when_a_stream_ends_or_is_given_up(bundle, disk):
    disks, fine, coarse = disk
    stream = BlockStream(bundle.codec, fine, coarse, 4, 30)
    list(stream)
    assert gone()
    disks[0].delay = 0.05
    batches = iter(stream)
    next(batches)
    stream.close()  # as a training that stops early does
    assert gone() and not stream.held
    reads = len(disks[0].reads)
    time.sleep(0.15)
    assert len(disks[0].reads) == reads
    with pytest.raises(KeyboardInterrupt):
        for _ in stream:
            raise KeyboardInterrupt
    del batches
    assert gone()


def test_a_read_that_fails_is_said_where_the_batch_is_asked_for(bundle, disk):
    disks, fine, coarse = disk
    disks[1].broken = 20
    stream = BlockStream(bundle.codec, fine, coarse, 4, 30)
    with pytest.raises(UserError, match=r"samples 2020-01-05T00:00:00 to 2020-01-06T18:00:00: chunk is gone"):
        list(stream)
    assert gone()


def test_a_missing_value_is_said_too(bundle, disk):
    disks, fine, coarse = disk
    disks[0].values[33, 2, 2] = np.nan
    with pytest.raises(UserError, match="missing values"):
        list(BlockStream(bundle.codec, fine, coarse, 4, 30))


def test_blocks_keep_chunks_whole():
    def part(*chunks):
        size = sum(chunks[0])
        return xr.Dataset({f"v{i}": ("time", da.zeros(size, chunks=(c,))) for i, c in enumerate(chunks)})

    assert block_edges([part((4, 4, 4, 4, 1))], "time", 8).tolist() == [0, 8, 16, 17]
    assert block_edges([part((4, 4, 4, 4, 1))], "time", 7).tolist() == [0, 4, 8, 12, 17]
    assert block_edges([part((9, 5))], "time", 1).tolist() == [0, 9, 14]
    assert block_edges([part((2,) * 6, (4,) * 3)], "time", 1).tolist() == [0, 4, 8, 12]
    assert block_edges([part((5, 5, 2), (7, 5))], "time", 1).tolist() == [0, 5, 10, 12], (
        "nothing in common but the ends"
    )
    assert block_edges([part((3,))], "time", 100).tolist() == [0, 3]


def test_blocks_are_handed_out_when_needed_and_one_ahead():
    uses = [Use(k, first, first + 9) for k, first in enumerate((0, 5, 6, 20, 30))]
    ahead = Ahead(iter(uses))
    assert ahead.until(3) == uses[:2]
    assert ahead.until(4) == []
    assert ahead.until(7) == uses[2:4]
    assert ahead.until(50) == uses[4:] and ahead.until(60) == []


def test_inputs_may_be_in_memory_and_hold_what_does_not_vary(bundle, disk):
    _, fine, coarse = disk
    inputs = coarse.compute().assign(orography=(("latitude", "longitude"), np.zeros((2, 2))))
    stream = BlockStream(bundle.codec, fine, inputs, 4, 5)
    whole = BlockStream(bundle.codec, fine, coarse, 4, 5)
    assert all(same(a, b) for a, b in zip(stream, whole, strict=True))
