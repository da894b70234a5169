"""Moments in one pass are numpy's over all cells, exact where sums of squares would cancel, in bounded pieces."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.weather.moments import Moments, blocks

DIMS = ("time", "y", "x")


def dataset(values: np.ndarray, chunk: int) -> xr.Dataset:
    return xr.Dataset({"t2m": (DIMS, values), "u10": (DIMS, -3 * values)}).chunk(time=chunk)


def moments(ds: xr.Dataset, length: int) -> Moments:
    found = Moments(len(ds.data_vars))
    for truth, inputs in blocks(ds, ds, "time", length * ds.nbytes // ds.sizes["time"]):
        assert not any(v.chunks for part in (truth, inputs) for v in part.data_vars.values())
        found.add(np.stack([v.values for v in truth.data_vars.values()], axis=1))
    return found


@pytest.mark.parametrize(("chunk", "length"), [(1, 1), (3, 4), (7, 100), (50, 8)])
def test_moments_are_those_of_all_cells(chunk, length):
    values = 280 + np.random.default_rng(0).standard_normal((50, 4, 5)) * np.linspace(0.1, 9, 50)[:, None, None]
    found = moments(dataset(values, chunk), length)
    expected = [[values.mean(), -3 * values.mean()], [values.std(), 3 * values.std()]]
    np.testing.assert_allclose(found.both, expected, rtol=1e-12)
    np.testing.assert_allclose(found.largest, [np.abs(values).max(), np.abs(3 * values).max()], rtol=0)


def test_nothing_cancels_where_the_mean_is_large():
    values = 1e8 + np.random.default_rng(0).standard_normal((64, 4, 4))
    np.testing.assert_allclose(moments(dataset(values, 4), 4).std[0], values.std(), rtol=1e-7)


def test_an_archive_in_memory_and_one_of_constants():
    found = moments(dataset(np.full((5, 2, 2), 7.0), 5).load(), 2)
    assert found.mean[0] == 7.0 and found.std[0] == 0.0


def test_whole_chunks_are_read_once_for_truth_and_inputs():
    reads = []

    def read(values, block_info=None):
        reads.append(block_info[0]["chunk-location"][0])
        return values

    values = da.map_blocks(read, da.zeros((40, 2, 2), chunks=(4, 2, 2)), dtype=float, meta=np.zeros((0, 0, 0)))
    truth = xr.Dataset({"t2m": (DIMS, values)})
    lengths = [part.sizes["time"] for part, _ in blocks(truth, 2 * truth, "time", 10 * 32)]
    assert lengths == [8] * 5, "whole chunks, two at a time"
    assert sorted(reads) == list(range(10)), "every chunk is read once for both"


def test_a_damaged_archive_is_said():
    def broken(values):
        raise OSError("bad chunk")

    values = da.map_blocks(broken, da.zeros((8, 2, 2), chunks=(4, 2, 2)), dtype=float, meta=np.zeros((0, 0, 0)))
    ds = xr.Dataset({"t2m": (DIMS, values)})
    with pytest.raises(UserError, match="t2m at time 0 to 3: bad chunk"):
        list(blocks(ds, ds, "time", 4 * 32))
