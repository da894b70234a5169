"""The verb fit on an archive that is treated as larger than memory."""

import dask.array as da
import numpy as np
import pytest
from hydra.utils import instantiate

import scigen
from scigen.cli import main
from scigen.config import compose
from scigen.core.datamodule import ArchiveStream
from scigen.core.streaming import BlockStream

from .conftest import ONE


def test_small_archives_are_loaded_and_large_ones_stay_on_disk(taught):
    data = {}
    for size in ("2GB", "1kB"):
        cfg = compose("fit", [*ONE, f"data.in_memory={size}"])
        data[size] = instantiate(cfg.domain, **cfg.data).open(taught / "runs" / "data")
    for part in ("train", "validation", "test"):
        small, large = (getattr(data[k], part) for k in ("2GB", "1kB"))
        for ds in (large.truth, large.inputs):
            assert all(isinstance(v.data, da.Array) for v in ds.values())
        for ds in (small.truth, small.inputs):
            assert all(isinstance(v.data, np.ndarray) for v in ds.values())
    for key, value in data["2GB"].codec.state()[1].items():
        np.testing.assert_allclose(value, data["1kB"].codec.state()[1][key], rtol=1e-6, atol=1e-9)


def test_a_fit_reads_from_disk_and_repeats_bit_identically(taught, tmp_path, unjudged, monkeypatch):
    """Teacher and student, pairs and judged snapshots; nobody holds the archive."""
    monkeypatch.chdir(taught)
    streams, get = [], BlockStream._batch
    monkeypatch.setattr(BlockStream, "_batch", lambda self, *args: streams.append(self) or get(self, *args))
    monkeypatch.setattr(ArchiveStream, "get", lambda *_: pytest.fail("from memory"))
    words = [*ONE, "data.in_memory=0", "validation={samples: 2, members: 2}"]
    for name in ("a", "b"):
        assert main(["fit", *words, f"run={tmp_path / name}"]) == 0
    assert streams
    for pattern in ("teacher.safetensors", "regression-*/student.safetensors"):
        a, b = (scigen.load(next((tmp_path / n).glob(pattern))) for n in ("a", "b"))
        assert a.fingerprint() == b.fingerprint()


@pytest.mark.parametrize("size", ["plenty", "-1", "2 furlongs"])
def test_sizes_that_are_none_are_refused(taught, monkeypatch, capsys, size):
    monkeypatch.chdir(taught)
    assert main(["fit", *ONE, f"data.in_memory={size}"]) == 2
    assert f"data.in_memory={size}" in capsys.readouterr().err.replace("\n", " ")
