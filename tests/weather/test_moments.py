"""Moments in one pass are numpy's over all cells, exact where sums of squares would cancel, in bounded pieces."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.weather.moments import stream_moments


def dataset(values: np.ndarray, chunk: int) -> xr.Dataset:
    dims = ("time", "y", "x")
    return xr.Dataset({"t2m": (dims, values), "u10": (dims, -3 * values)}).chunk(time=chunk)


@pytest.mark.parametrize(("chunk", "block"), [(1, 1), (3, 4), (7, 100), (50, 8)])
def test_moments_are_those_of_all_cells(chunk, block):
    values = 280 + np.random.default_rng(0).standard_normal((50, 4, 5)) * np.linspace(0.1, 9, 50)[:, None, None]
    found = stream_moments(dataset(values, chunk), ["u10", "t2m"], block)
    np.testing.assert_allclose(found.mean, [-3 * values.mean(), values.mean()], rtol=1e-12)
    np.testing.assert_allclose(found.std, [3 * values.std(), values.std()], rtol=1e-12)
    np.testing.assert_allclose(found.largest, [np.abs(3 * values).max(), np.abs(values).max()], rtol=0)


def test_nothing_cancels_where_the_mean_is_large():
    values = 1e8 + np.random.default_rng(0).standard_normal((64, 4, 4))
    np.testing.assert_allclose(stream_moments(dataset(values, 4), ["t2m"], 4).std, values.std(), rtol=1e-7)


def test_an_archive_in_memory_and_one_of_constants():
    found = stream_moments(dataset(np.full((5, 2, 2), 7.0), 5).load(), ["t2m"], 2)
    assert found.mean == 7.0 and found.std == 0.0


def test_a_block_at_a_time_is_read_of_all_variables_together():
    alive, most = set(), []

    def read(values, block_info=None):
        alive.add(block_info[0]["chunk-location"][0])
        most.append(len(alive))
        return values

    values = da.map_blocks(read, da.zeros((40, 2, 2), chunks=(4, 2, 2)), dtype=float, meta=np.zeros((0, 0, 0)))
    ds = xr.Dataset({"t2m": (("time", "y", "x"), values), "u10": (("time", "y", "x"), 2 * values)})
    starts = []
    original = np.square

    def square(v, *args):  # called once a variable and block, after its read
        starts.append(len(v))
        return original(v, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scigen.weather.moments.np.square", square)
        stream_moments(ds, ["t2m", "u10"], 10)
    assert starts == [8] * 10, "whole chunks, two at a time"
    assert len(most) == 10, "every chunk is read once for both variables"


def test_a_damaged_archive_is_said():
    def broken(values):
        raise OSError("bad chunk")

    values = da.map_blocks(broken, da.zeros((8, 2, 2), chunks=(4, 2, 2)), dtype=float, meta=np.zeros((0, 0, 0)))
    with pytest.raises(UserError, match="t2m at time 0 to 3: bad chunk"):
        stream_moments(xr.Dataset({"t2m": (("time", "y", "x"), values)}), ["t2m"], 4)
