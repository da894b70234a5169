import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from scigen.errors import UserError
from scigen.weather.containment import fit
from scigen.weather.grid import Grid


def grid(y: np.ndarray, x: np.ndarray, dims: tuple[str, str] = ("latitude", "longitude")) -> Grid:
    return Grid.of(xr.Dataset(coords={dims[0]: np.asarray(y, float), dims[1]: np.asarray(x, float)}))


def test_json_round_trip_is_exact() -> None:
    one = grid(np.linspace(50, 58, 33)[::-1], np.linspace(-10, 2, 49))
    two = Grid.from_dict(json.loads(json.dumps(one.to_dict())))
    assert two.dims == one.dims and two.attrs == one.attrs and two.same(one)
    np.testing.assert_array_equal(two.y, one.y)
    np.testing.assert_array_equal(two.x, one.x)
    assert str(two) == "33 latitude from 58 to 50 by 0.25 × 49 longitude from -10 to 2 by 0.25"


def test_coordinates_give_the_grid_back() -> None:
    one = grid([3, 2, 1], [0, 1])
    assert Grid.of(xr.Dataset(coords=one.coordinates())).to_dict() == one.to_dict()


def test_same_needs_the_same_order_and_cells() -> None:
    one = grid([1, 2, 3], [0, 1])
    assert one.same(grid([1, 2, 3.0005], [0, 1]))
    assert not one.same(grid([3, 2, 1], [0, 1])) and not one.same(grid([1, 2], [0, 1]))
    assert not one.same(grid([1, 2, 3.01], [0, 1]))


def test_coarse_coordinates_are_plain_means() -> None:
    coarse = grid([4, 3, 2, 1], [0, 1, 2, 3]).coarse(2)
    assert coarse.y.tolist() == [3.5, 1.5] and coarse.x.tolist() == [0.5, 2.5]


def test_coordinates_that_are_no_grid() -> None:
    with pytest.raises(UserError, match=r"'y' has no coordinate with numbers.*assign_coords"):
        Grid.of(xr.Dataset({"a": (("y", "x"), np.zeros((2, 2)))}, coords={"x": [0, 1]}))
    with pytest.raises(UserError, match=r"'latitude' neither rises nor falls.*sortby"):
        grid([1, 3, 2], [0, 1])
    with pytest.raises(UserError, match="'latitude' neither rises"):
        grid([1, np.nan, 2], [0, 1])


def test_area_weights() -> None:
    lat = np.array([60.0, 0.0])
    weights = area_weights(lat, grid(lat, [0, 1, 2]).attrs, 3)
    np.testing.assert_allclose(weights, [[2 / 3] * 3, [4 / 3] * 3])
    flat = grid([60.0, 0.0], [0, 1, 2], ("y", "x"))
    np.testing.assert_array_equal(area_weights(flat.y, flat.attrs, 3), np.ones((2, 3)))


@given(
    rows=st.integers(1, 6), columns=st.integers(1, 6), south=st.integers(0, 4), west=st.integers(0, 4),
    flip=st.booleans(), turn=st.sampled_from([0, 360, -360]), data=st.data(),
)  # fmt: skip
def test_a_part_is_found_in_a_larger_grid(rows, columns, south, west, flip, turn, data) -> None:
    """Taking the part from the whole gives the same values at the same places, however either is stored."""
    north, east = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))
    y, x = 40 + 0.5 * np.arange(south + rows + north), -3 + 0.5 * np.arange(west + columns + east)
    want = grid(y[south : south + rows], x[west : west + columns])
    stored = y[::-1] if flip else y
    ds = xr.Dataset({"a": (("lat", "lon"), 1000 * stored[:, None] + x[None])}, coords={"lat": stored, "lon": x + turn})
    found = fit(Grid.of(ds), want, (0.5, 0.5))
    assert found is not None
    part = found.take(ds, want)
    np.testing.assert_allclose(part["a"], 1000 * want.y[:, None] + want.x[None])
    assert Grid.of(part).to_dict() == want.to_dict()


def test_a_region_across_the_end_of_a_global_grid() -> None:
    lon = np.arange(0, 360, 10.0)
    ds = xr.Dataset({"a": (("lat", "lon"), np.tile(lon, (2, 1)))}, coords={"lat": [0.0, 10.0], "lon": lon})
    want = grid([0, 10], [-20, -10, 0, 10])
    found = fit(Grid.of(ds), want, (10, 10))
    assert found is not None
    assert found.take(ds, want)["a"].values[0].tolist() == [340, 350, 0, 10]


def test_another_grid_does_not_fit() -> None:
    have = grid(np.arange(8.0), np.arange(8.0))
    assert fit(have, grid([1, 2], [3, 4]), (1, 1)) is not None
    for y, x in (([1, 3], [3, 4]), ([1.1, 2.1], [3, 4]), ([7, 8], [3, 4]), ([1, 2], [7, 8])):
        assert fit(have, grid(y, x), (1, 1)) is None
    assert fit(have, grid([3], [3]), (4, 4)) is None
    metres = grid([1, 2], [363, 364], ("y", "x"))
    assert fit(metres, grid([1, 2], [3, 4], ("y", "x")), (1, 1)) is None
