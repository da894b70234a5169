"""Reading in order: every chunk of the file is read once, and what is held does not grow."""

import dask.array
import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.io import blocks
from scigen.io.blocks import Forward
from scigen.materials.statistics import describe_all
from scigen.metrics.worst import worst
from scigen.mri.statistics import maxima
from scigen.mri.statistics import statistics as of_slices
from scigen.weather.statistics import statistics as of_times


def counted(ds: xr.Dataset, chunks: dict[str, int], dim: str, reads: list[tuple[str, int]]) -> xr.Dataset:
    """The dataset as dask blocks that note when they are made."""

    def lazily(name: str) -> xr.DataArray:
        array = ds[name]

        def make(block_info=None):
            spans = block_info[None]["array-location"]
            reads.append((name, spans[array.dims.index(dim)][0]))
            return array.values[tuple(slice(a, b) for a, b in spans)]

        pieces = dask.array.core.normalize_chunks(tuple(chunks.get(d, n) for d, n in array.sizes.items()), array.shape)
        made = dask.array.map_blocks(
            make, chunks=pieces, dtype=array.dtype, meta=np.empty((0,) * array.ndim, array.dtype)
        )
        return array.copy(data=made)

    return ds.assign({name: lazily(name) for name in ds.data_vars})


@pytest.fixture
def series():
    rng = np.random.default_rng(0)
    return xr.Dataset({"a": (("time", "y"), rng.random((40, 3))), "b": ("time", np.arange(40)), "c": ("y", np.ones(3))})


@pytest.mark.parametrize("step", [1, 3, 40])
def test_what_is_read_is_what_is_there_and_each_chunk_is_read_once(series, step, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    reads: list = []
    source = Forward(counted(series[["a", "b"]], {"time": 7}, "time", reads), "time")
    parts, most = [], 0
    for lo in range(0, 40, step):
        parts.append(source[slice(lo, min(lo + step, 40))].load())
        most = max(most, *(kept.sizes["time"] for _, kept in source.held.values()))
    assert most <= 7 + step
    xr.testing.assert_identical(xr.concat(parts, "time"), series[["a", "b"]])
    assert len(reads) == len(set(reads)) == 12


def test_what_has_no_such_dimension_is_passed_through_and_damage_is_told(series):
    xr.testing.assert_identical(Forward(series, "time")[slice(4, 6)], series.isel(time=slice(4, 6)))

    def broken(block):
        raise OSError("bad magic number")

    lazy = series[["a"]].chunk(time=5)
    lazy["a"] = lazy["a"].copy(data=lazy["a"].data.map_blocks(broken, meta=np.empty((0, 0))))
    with pytest.raises(UserError, match=r"'a' of out.zarr.*bad magic"):
        Forward(lazy, "time", "out.zarr")[slice(0, 1)]


def test_fields_read_the_samples_once(monkeypatch):
    """The metrics of a field, however many samples a chunk holds."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    rng, reads = np.random.default_rng(0), []
    coords = {"time": np.arange("2020-01-01", "2020-01-25", dtype="datetime64[D]")}
    truth = xr.Dataset({"t2m": (("time", "y", "x"), rng.random((24, 6, 6)), {"units": "K"})}, coords)
    drawn = xr.Dataset({"t2m": (("time", "member", "y", "x"), rng.random((24, 3, 6, 6)), {"units": "K"})}, coords)
    lazy = counted(drawn, {"time": 5}, "time", reads)
    xr.testing.assert_identical(of_times(truth, lazy), of_times(truth, drawn))
    assert len(reads) == len(set(reads)) == 5
    reads.clear()
    assert worst(truth["t2m"], lazy["t2m"]) == worst(truth["t2m"], drawn["t2m"])
    assert len(reads) == len(set(reads)) == 5

    names = [f"s{i // 4}/{i}" for i in range(12)]
    coords = {"slice": names, "subject": ("slice", [n.split("/")[0] for n in names])}
    parts = ("image_re", "image_im")
    truth = xr.Dataset({k: (("slice", "y", "x"), rng.random((12, 16, 16))) for k in parts}, coords)
    drawn = xr.Dataset({k: (("slice", "member", "y", "x"), rng.random((12, 3, 16, 16))) for k in parts}, coords)
    reads.clear()
    lazy = counted(drawn, {"slice": 5}, "slice", reads)
    xr.testing.assert_identical(
        of_slices(truth, lazy, maxima(truth), "a", 0), of_slices(truth, drawn, maxima(truth), "a", 0)
    )
    assert len(reads) == len(set(reads)) == 6

    about = {"flag_meanings": "pore solid"}
    labels = (rng.random((6, 2, 8, 8, 8)) > 0.4).astype("u1")
    drawn = xr.Dataset({"phase": (("specimen", "member", "z", "y", "x"), labels, about)}, {"specimen": np.arange(6)})
    reads.clear()
    lazy = counted(drawn, {"specimen": 4}, "specimen", reads)
    xr.testing.assert_identical(describe_all(lazy), describe_all(drawn))
    assert len(reads) == len(set(reads)) == 2
