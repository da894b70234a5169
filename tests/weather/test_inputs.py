import logging

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.weather.coarsen import coarsen
from scigen.weather.grid import Grid
from scigen.weather.inputs import orientation, to_coarse
from scigen.weather.variables import find_variables

F = 2
LAT, LON = np.linspace(53.5, 50, 8), np.linspace(-1, 1.75, 12)


def place(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """A field that tells where it is, whatever the order of rows and the convention of longitudes."""
    lon = (np.asarray(lon) + 180) % 360 - 180
    return 270 + np.asarray(lat)[:, None] ** 2 / 100 + lon[None] ** 3


def archive(lat: np.ndarray = LAT, lon: np.ndarray = LON) -> xr.Dataset:
    values = place(lat, lon)[None] + np.arange(3.0)[:, None, None]
    coords = {"time": pd.date_range("2020", periods=3, freq="h"), "latitude": lat, "longitude": lon}
    return xr.Dataset({"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})}, coords=coords)


GRID = Grid.of(archive())
COARSE = coarsen(archive(), F)
VARIANTS = {
    "as it is": lambda ds: ds,
    "flipped": lambda ds: ds.isel(latitude=slice(None, None, -1)),
    "mirrored": lambda ds: ds.isel(longitude=slice(None, None, -1)),
    "0 to 360": lambda ds: ds.assign_coords(longitude=ds["longitude"] % 360),
    "0 to 360, sorted": lambda ds: ds.assign_coords(longitude=ds["longitude"] % 360).sortby("longitude"),
    "0 to 360, sorted, flipped": lambda ds: (
        ds.assign_coords(longitude=ds["longitude"] % 360).sortby("longitude").isel(latitude=slice(None, None, -1))
    ),
    "named otherwise": lambda ds: ds.rename(latitude="lat", longitude="lon").transpose("lon", "lat", "time"),
    "in float32": lambda ds: ds.assign_coords(
        latitude=ds["latitude"].astype("f4"), longitude=ds["longitude"].astype("f4")
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fine", [True, False])
def test_every_way_to_store_the_input_gives_the_same(
    variant: str, fine: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ds = VARIANTS[variant](archive() if fine else COARSE)
    with caplog.at_level(logging.INFO, "scigen"):
        found, coarsened = to_coarse(ds.chunk(), GRID, F, ["t2m"])
    assert coarsened == fine and ("coarsened by 2" in caplog.text) == fine
    assert dask.is_dask_collection(found["t2m"].data)
    assert found["t2m"].dims == ("time", "latitude", "longitude")
    np.testing.assert_allclose(found["t2m"], COARSE["t2m"], rtol=1e-7 if variant == "in float32" else 1e-13)
    assert Grid.of(found).to_dict() == GRID.coarse(F).to_dict()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fine", [True, False])
def test_outputs_run_as_the_input_does(variant: str, fine: bool) -> None:
    """Each output cell holds the value of its place; rows and longitudes go the way of the input."""
    ds = VARIANTS[variant](archive() if fine else COARSE)
    out = orientation(ds, GRID, F)
    fields = out.apply(place(GRID.y, GRID.x)[None])
    np.testing.assert_allclose(fields[0], place(out.grid.y, out.grid.x), rtol=1e-6)
    y, x = (ds[d].values for d in (("lat", "lon") if "lat" in ds.dims else ("latitude", "longitude")))
    if fine:
        np.testing.assert_array_equal(out.grid.y, y)
        np.testing.assert_array_equal(out.grid.x, x)
    else:
        assert (np.sign(np.diff(out.grid.y)) == np.sign(y[1] - y[0])).all()
        assert (np.sign(np.diff(out.grid.x).reshape(-1)[::F]) == np.sign(x[1] - x[0])).all()
        np.testing.assert_allclose(out.grid.y.reshape(-1, F).mean(1), y, rtol=1e-6)
        np.testing.assert_allclose(out.grid.x.reshape(-1, F).mean(1), x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fine", [True, False])
def test_missing_cells_of_the_region_are_filled_if_the_archive_says_so(fine: bool) -> None:
    lat, lon = np.arange(48, 56, 0.5), np.arange(-4, 5, 0.25)
    ds = archive(lat, lon) if fine else coarsen(archive(lat, lon), F)
    ds["t2m"] = ds["t2m"].where(ds["latitude"] < 54).where(ds["latitude"] > 50.4)  # most of the rows lie outside
    missing, _ = to_coarse(ds, GRID, F, ["t2m"])
    assert int(np.isnan(missing["t2m"]).sum()) == 3 * 6
    ds.encoding["missing"] = "fill"
    filled, _ = to_coarse(ds.chunk(), GRID, F, ["t2m"])
    assert dask.is_dask_collection(filled["t2m"].data)
    there = np.isfinite(missing["t2m"])
    np.testing.assert_array_equal(filled["t2m"].where(there), missing["t2m"])
    assert np.isfinite(filled["t2m"]).all()


def test_larger_regions_are_cropped() -> None:
    lat, lon = np.arange(48, 56, 0.5), np.arange(0, 360, 0.25)
    found, coarsened = to_coarse(archive(lat, lon), GRID, F, ["t2m"])
    assert coarsened
    np.testing.assert_allclose(found["t2m"], COARSE["t2m"], rtol=1e-13)
    block = GRID.coarse(F)
    lat = np.concatenate([block.y[0] + [2.0, 1.0], block.y, [block.y[-1] - 1]])
    ds = archive(lat, block.x)
    found, coarsened = to_coarse(ds, GRID, F, ["t2m"])
    assert not coarsened
    xr.testing.assert_allclose(found, ds.isel(latitude=slice(2, -1)))


@pytest.mark.parametrize(
    ("lat", "lon"),
    [
        (LAT + 0.1, LON),
        (LAT[1:], LON),
        (LAT, LON + 0.125),
        (np.linspace(53.5, 50, 15), LON),
        (np.linspace(53, 50, 4), np.linspace(-1, 1.5, 6)),
    ],
)
def test_other_grids_are_refused(lat: np.ndarray, lon: np.ndarray) -> None:
    for function in (lambda ds: to_coarse(ds, GRID, F, ["t2m"]), lambda ds: orientation(ds, GRID, F)):
        with pytest.raises(
            UserError, match=r"neither of the bundle's: it has .* by .*fine grid, 8 latitude .*coarse grid, 4"
        ):
            function(archive(lat, lon))


CELLS = {
    "as it is": lambda ds, y, x: ds,
    "flipped": lambda ds, y, x: ds.isel({y: slice(None, None, -1)}),
    "mirrored": lambda ds, y, x: ds.isel({x: slice(None, None, -1)}),
    "turned": lambda ds, y, x: ds.isel({y: slice(None, None, -1), x: slice(None, None, -1)}),
    "transposed": lambda ds, y, x: ds.transpose(x, y, "time"),
}


@pytest.mark.parametrize("variant", CELLS)
@pytest.mark.parametrize("fine", [True, False])
def test_curvilinear_inputs_give_the_same_and_outputs_run_as_they_do(lambert, kind, variant, fine) -> None:
    """In any order, cut out of a larger archive: the same coarse fields, and outputs with values of their places."""
    whole = lambert(20, 24, kind=kind)
    dims = whole["t2m"].dims[1:]
    part = whole.isel({dims[0]: slice(4, 16), dims[1]: slice(4, 20)})
    grid = Grid.of(part)
    expected = coarsen(find_variables(part, ["t2m"]), 4)
    source = find_variables(whole, ["t2m"])
    ds = CELLS[variant](source if fine else coarsen(source, 4), *dims)
    found, coarsened = to_coarse(ds, grid, 4, ["t2m"])
    assert coarsened == fine
    # areas of the outer cells are extrapolated, which a cut changes a little
    np.testing.assert_allclose(found["t2m"], expected["t2m"], rtol=1e-8)
    assert Grid.of(found).same(grid.coarse(4))
    way = orientation(ds, grid, 4)
    fields = way.apply(grid.latitude + grid.longitude / 10)
    assert way.grid.latlon() is not None
    np.testing.assert_allclose(fields, way.grid.latitude + way.grid.longitude / 10, rtol=1e-12)
    assert way.grid.falls == (variant in ("flipped", "turned"), variant in ("mirrored", "turned"))


def test_other_curvilinear_grids_are_refused(lambert, kind) -> None:
    grid = Grid.of(lambert(kind=kind))
    lon = "longitude" if kind == "projected" else "XLONG"
    other = lambert(kind=kind)
    for ds in (other.assign_coords({lon: other[lon] + 0.1}), archive(), lambert(24, 32, 2000.0, kind)):
        with pytest.raises(UserError, match=r"neither of the bundle's.*latitude 38"):
            to_coarse(ds, grid, 4, ["t2m"])


def test_an_input_on_another_grid_is_regridded_if_the_bundle_says_so(caplog: pytest.LogCaptureFixture) -> None:
    lat, lon = np.arange(49.0, 55, 0.7), np.arange(-3.0, 4, 0.7)
    values = (2 * lat[:, None] - lon)[None] + np.arange(3.0)[:, None, None]
    ds = archive(lat, lon)
    ds["t2m"] = (ds["t2m"].dims, values, {"units": "K"})
    with caplog.at_level(logging.INFO, "scigen"):
        found, coarsened = to_coarse(ds.chunk(time=1), GRID, F, ["t2m"], "linear")
    assert not coarsened and "is regridded (linear) to the bundle's coarse grid" in caplog.text
    block = GRID.coarse(F)
    np.testing.assert_allclose(found["t2m"][0], 2 * block.y[:, None] - block.x, rtol=1e-12)
    assert Grid.of(found).to_dict() == block.to_dict() and dask.is_dask_collection(found["t2m"].data)
    way = orientation(ds, GRID, F, "linear")
    assert way.grid is GRID and way.apply(place(GRID.y, GRID.x)).tolist() == place(GRID.y, GRID.x).tolist()
    np.testing.assert_array_equal(to_coarse(COARSE, GRID, F, ["t2m"], "linear")[0]["t2m"], COARSE["t2m"])  # as it is
    with pytest.raises(UserError, match=r"with data\.coarse= and data\.regrid= bundles regrid their inputs"):
        to_coarse(ds, GRID, F, ["t2m"])


@pytest.mark.parametrize("start", [0.0, -180.0])
@pytest.mark.parametrize("fine", [True, False])
def test_a_globe_may_be_cut_anywhere(start: float, fine: bool) -> None:
    lat, lon = np.linspace(-90, 90, 6), np.arange(0, 360, 30.0)
    grid = Grid.of(archive(lat, lon))
    expected = coarsen(archive(lat, lon), F)
    ds = archive(lat, lon) if fine else expected
    ds = ds.assign_coords(longitude=(ds["longitude"] - start) % 360 + start).sortby("longitude")
    found, _ = to_coarse(ds, grid, F, ["t2m"])
    np.testing.assert_allclose(found["t2m"], expected["t2m"], rtol=1e-12)
    out = orientation(ds, grid, F)
    np.testing.assert_allclose(out.apply(place(grid.y, grid.x)), place(out.grid.y, out.grid.x), rtol=1e-12)
    if fine:
        np.testing.assert_array_equal(out.grid.x, ds["longitude"])


def test_what_a_bundle_asks_of_variables_and_times() -> None:
    ds = archive()
    attrs = {"units": "K", "original_name": "heat"}
    xr.testing.assert_allclose(
        to_coarse(ds.rename(t2m="heat"), GRID, F, {"t2m": attrs})[0]["t2m"], COARSE["t2m"], rtol=1e-13
    )
    with pytest.raises(UserError, match="no variable 'u10'"):
        to_coarse(ds, GRID, F, ["u10"])
    with pytest.raises(UserError, match="holds 1 time more than once"):
        to_coarse(ds.isel(time=[0, 0]), GRID, F, ["t2m"])
    assert to_coarse(ds.isel(time=[1]), GRID, F, ["t2m"])[0].sizes["time"] == 1
    with pytest.raises(UserError, match=r"select along \['member'\]"):
        to_coarse(xr.concat([ds, ds], "number"), GRID, F, ["t2m"])
