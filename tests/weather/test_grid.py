import json

import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.weather.grid import Grid, wraps


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


def test_weights_are_areas() -> None:
    lat = np.array([60.0, 0.0])
    sines = np.sin(np.deg2rad([90, 30, -30]))
    areas = -np.diff(sines)
    np.testing.assert_allclose(grid(lat, [0, 1, 2]).weights, np.repeat(areas / areas.mean(), 3).reshape(2, 3))
    flat = grid([60.0, 0.0], [0, 1, 2], ("y", "x"))
    np.testing.assert_array_equal(flat.weights, np.ones((2, 3)))


def restored(one: Grid) -> Grid:
    """By way of a bundle: JSON, and arrays among others."""
    return Grid.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)), one.arrays() | {"static": np.ones(3)})


def test_curvilinear_grids_keep_all_they_have(lambert, kind) -> None:
    one = Grid.of(lambert(kind=kind))
    two = restored(one)
    assert one.counted == two.counted == (kind == "counted") and two.same(one)
    np.testing.assert_array_equal(two.latitude, one.latitude)
    assert not any(k in json.dumps(one.to_dict()) for k in ('latitude"', 'longitude"'))  # not in the JSON
    assert "grid.latitude" in one.arrays() and not grid([1, 2], [3, 4]).arrays()
    ds = xr.Dataset(coords=two.coordinates())
    assert Grid.of(ds).same(one) and set(one.dims) & set(ds.coords) == (set() if kind == "counted" else {"y", "x"})
    if kind == "projected":
        assert one.mapping is not None and two.mapping == one.mapping and ds["crs"].attrs == one.mapping[1]
    assert "latitude 38" in str(one) and ("from -15000 to 18000 by 3000" in str(one)) == (kind == "projected")


def test_curvilinear_grids_are_told_apart_by_their_2d_coordinates(lambert, kind) -> None:
    one, ds = Grid.of(lambert(kind=kind)), lambert(kind=kind)
    lat, lon = (n for n, v in ds.coords.items() if v.ndim == 2)
    shifted = ds.assign_coords({lat: ds[lat] + 0.002})  # 7 % of a cell of 3 km
    assert not one.same(Grid.of(shifted))
    assert one.same(Grid.of(ds.assign_coords({lon: ds[lon] % 360})))
    assert one.same(Grid.of(ds.assign_coords({lat: ds[lat] + 1e-5})))
    flipped = ds.isel({one.dims[0]: slice(None, None, -1)})
    assert not one.same(Grid.of(flipped))
    assert Grid.of(flipped).falls == (True, False) and one.falls == (False, False)


def test_numbers_of_cells_are_no_coordinates_where_2d_ones_tell(lambert) -> None:
    ds = lambert(kind="counted")
    counted = ds.assign_coords(south_north=np.arange(12) + 5, west_east=np.arange(16))
    assert Grid.of(counted).counted and Grid.of(counted).same(Grid.of(ds))
    metres = ds.assign_coords(south_north=3000.0 * np.arange(12), west_east=3000.0 * np.arange(16))
    assert not Grid.of(metres).counted


def test_projections_are_told_apart_where_there_are_no_2d_coordinates(lambert) -> None:
    ds = lambert().drop_vars(["latitude", "longitude"])
    other = ds.copy()
    other["crs"] = other["crs"].assign_attrs(longitude_of_central_meridian=-95.0)
    assert Grid.of(ds).same(Grid.of(ds)) and not Grid.of(ds).same(Grid.of(other))
    assert Grid.of(ds).same(Grid.of(other.drop_vars("crs")))  # which says nothing


def test_blocks_of_curvilinear_cells(lambert, kind) -> None:
    """Blocks lie where the plain means of latitude and longitude are, but for the curvature of the sphere."""
    one = Grid.of(lambert(kind=kind)).coarse(4)
    assert one.shape == (3, 4) and one.counted == (kind == "counted")
    fine = Grid.of(lambert())
    np.testing.assert_allclose(one.latitude, fine.latitude.reshape(3, 4, 4, 4).mean((1, 3)), atol=2e-4)
    np.testing.assert_allclose(one.longitude, fine.longitude.reshape(3, 4, 4, 4).mean((1, 3)), atol=2e-4)


def test_blocks_keep_the_convention_of_longitudes(lambert) -> None:
    ds = lambert()
    west, east = (Grid.of(ds.assign_coords(longitude=ds["longitude"] + turn)).coarse(4) for turn in (0, 360))
    assert west.longitude.max() < 0 and east.same(west)
    np.testing.assert_allclose(east.longitude, west.longitude + 360, atol=1e-4)


def test_blocks_across_the_date_line_keep_their_place(lambert) -> None:
    ds = lambert(kind="counted")
    lon = np.where(ds["XLONG"] + 277.25 > 180, ds["XLONG"] + 277.25 - 360, ds["XLONG"] + 277.25)  # cut at the date line
    assert lon.min() < -179 and lon.max() > 179
    one = Grid.of(ds.assign_coords(XLONG=(ds["XLONG"].dims, lon))).coarse(4)
    plain = Grid.of(ds).coarse(4)
    np.testing.assert_allclose((one.longitude - plain.longitude - 277.25 + 180) % 360, 180, atol=1e-4)
    np.testing.assert_allclose(one.latitude, plain.latitude, atol=1e-5)


def test_bad_2d_coordinates_are_refused(lambert) -> None:
    ds = lambert()
    with pytest.raises(UserError, match=r"2-D latitude holds 1 missing values.*drop_vars"):
        Grid.of(ds.assign_coords(latitude=ds["latitude"].where(ds["latitude"] > ds["latitude"].min())))
    with pytest.raises(UserError, match=r"2-D latitude holds 0 missing values and goes from .* expected degrees"):
        Grid.of(ds.assign_coords(latitude=ds["latitude"] * 111.0))


def test_latitude_and_longitude_of_every_cell(lambert) -> None:
    lat, lon = grid([50, 51], [1, 2, 3]).latlon()
    assert lat.tolist() == [[50] * 3, [51] * 3] and lon.tolist() == [[1, 2, 3]] * 2
    projected = Grid.of(lambert())
    assert projected.latlon() == (projected.latitude, projected.longitude)
    assert grid([50, 51], [1, 2, 3], ("y", "x")).latlon() is None


@pytest.mark.parametrize(
    ("lon", "closes"),
    [
        (np.arange(0, 360, 4.0), True),
        (np.arange(-180, 180, 0.25).astype(np.float32), True),
        (np.arange(360, 0, -30.0), True),
        (np.arange(0, 356, 4.0), False),
        (np.arange(0, 180, 4.0), False),
        (np.array([0.0, 100, 200, 250]), False),
        (np.array([0.0]), False),
    ],
)
def test_longitudes_that_go_around_the_globe(lon, closes) -> None:
    one = grid([0, 1], lon)
    assert one.closes == closes and not grid([0, 1], lon, ("y", "x")).closes
    assert wraps(xr.Dataset(coords=one.coordinates()), one.dims) == closes
    assert not wraps(xr.Dataset(), one.dims)


def test_a_meridian_that_is_there_twice() -> None:
    with pytest.raises(UserError, match=r"longitudes -180 to 180 hold a meridian twice.*slice\(-1\)"):
        grid([0, 1], np.arange(-180, 181, 4.0))


def test_latitudes_beyond_a_pole_are_refused():
    ds = xr.Dataset(coords={"latitude": 80.0 + 2 * np.arange(8), "longitude": np.arange(4.0)})
    with pytest.raises(UserError, match="80 to 94 lie beyond a pole"):
        Grid.of(ds)
