"""Where the cells of one grid lie in another."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from scigen.weather.containment import fit
from scigen.weather.grid import Grid


def grid(y: np.ndarray, x: np.ndarray, dims: tuple[str, str] = ("latitude", "longitude")) -> Grid:
    return Grid.of(xr.Dataset(coords={dims[0]: np.asarray(y, float), dims[1]: np.asarray(x, float)}))


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


@pytest.mark.parametrize("start", [0.0, -180.0, 130.0])
def test_a_globe_is_found_wherever_it_is_cut(start: float) -> None:
    lon = start + np.arange(0, 360, 10.0)
    ds = xr.Dataset({"a": (("lat", "lon"), np.tile(lon % 360, (2, 1)))}, coords={"lat": [0.0, 10.0], "lon": lon})
    want = grid([0, 10], np.arange(0, 360, 10.0))
    found = fit(Grid.of(ds), want, (10, 10))
    assert found is not None
    assert found.take(ds, want)["a"].values[0].tolist() == want.x.tolist()


TURNS = {
    "as it is": lambda ds, dims: ds,
    "rows flipped": lambda ds, dims: ds.isel({dims[0]: slice(None, None, -1)}),
    "columns flipped": lambda ds, dims: ds.isel({dims[1]: slice(None, None, -1)}),
    "transposed": lambda ds, dims: ds.transpose(dims[1], dims[0], "time"),
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_part_of_a_curvilinear_grid(turn, lambert, kind) -> None:
    """Found by its latitudes and longitudes, in either order, in either convention, with the values of its places."""
    ds = lambert(kind=kind)
    part = ds.isel({Grid.of(ds).dims[0]: slice(3, 9), Grid.of(ds).dims[1]: slice(2, 15)})
    want = Grid.of(part)
    lon = "longitude" if kind == "projected" else "XLONG"
    have = TURNS[turn](ds.assign_coords({lon: ds[lon] % 360}), want.dims)
    found = fit(Grid.of(have), want, (3000.0, 3000.0))
    assert found is not None
    taken = found.take(have, want).transpose(*part["t2m"].dims)
    np.testing.assert_array_equal(taken["t2m"], part["t2m"])
    assert Grid.of(taken).same(want)
    assert not {"XLAT", "XLONG"} & set(taken.coords)


def test_2d_coordinates_tell_grids_of_the_same_metres_apart(lambert) -> None:
    ds = lambert()
    other = ds.assign_coords(longitude=ds["longitude"] + 1)
    assert fit(Grid.of(ds), Grid.of(other), (3000, 3000)) is None
    assert fit(Grid.of(ds), Grid.of(other.drop_vars("longitude")), (3000, 3000)) is not None


def test_curvilinear_grids_that_do_not_fit(lambert) -> None:
    have = Grid.of(lambert(kind="counted"))
    for other in (lambert(24, 32, 1500.0, "counted"), lambert(14, 16, kind="counted")):
        assert fit(have, Grid.of(other), (1, 1)) is None
    one = Grid.of(lambert(kind="counted").isel(south_north=[4]))
    assert fit(have, one, (1, 1)) is None and fit(one, one, (1, 1)) is not None
    regular = grid(have.latitude[:, 0], have.longitude[0])
    assert fit(have, regular, (1, 1)) is None  # of which one has no 2-D coordinates, the other no 1-D ones
