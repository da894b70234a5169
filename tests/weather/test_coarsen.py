import logging

import dask
import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.weather.area import cell_weights
from scigen.weather.coarsen import coarsen, trim


def archive(rows: int = 8, columns: int = 12, chunk: bool = True, dims=("latitude", "longitude")) -> xr.Dataset:
    values = np.random.default_rng(0).normal(280, 5, (4, rows, columns)).astype(np.float32)
    coords = {dims[0]: np.linspace(30, 70, rows), dims[1]: np.linspace(0, 20, columns)}
    ds = xr.Dataset({"t2m": (("time", *dims), values, {"units": "K"})}, coords=coords, attrs={"title": "kept"})
    return ds.chunk(time=2, **{dims[0]: 3}) if chunk else ds


def area_mean(ds: xr.Dataset) -> np.ndarray:
    dims = tuple(map(str, ds["t2m"].dims[1:]))
    return (ds["t2m"].astype(float) * xr.DataArray(cell_weights(ds, dims), dims=dims)).mean(dims).values


def block_area_mean(coarse: xr.Dataset, fine: xr.Dataset, factor: int) -> np.ndarray:
    """Area mean of block means, each weighted by the area of its cells."""
    dims = fine["t2m"].dims[1:]
    weights = cell_weights(fine, dims).reshape(coarse.sizes[dims[0]], factor, -1, factor).sum((1, 3))
    return (coarse["t2m"] * xr.DataArray(weights, dims=dims)).sum(dims).values / weights.sum()


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_block_means_conserve_the_mean_of_the_region(factor: int) -> None:
    fine = archive()
    coarse = coarsen(fine, factor)
    np.testing.assert_allclose(block_area_mean(coarse, fine, factor), area_mean(fine), rtol=1e-12)


def test_plain_means_do_not_conserve_it() -> None:
    fine = archive()
    plain = fine.astype(float).coarsen(latitude=4, longitude=4).mean()
    assert np.abs(block_area_mean(plain, fine, 4) - area_mean(fine)).max() > 1e-3


def test_a_constant_stays_it() -> None:
    ds = archive()
    ds["t2m"] = xr.full_like(ds["t2m"], 273.15)
    np.testing.assert_allclose(coarsen(ds, 4)["t2m"], np.float32(273.15), rtol=1e-14)


def test_order_of_rows_does_not_matter() -> None:
    ds = archive()
    flipped = ds.isel(latitude=slice(None, None, -1))
    xr.testing.assert_allclose(coarsen(flipped, 4), coarsen(ds, 4).isel(latitude=slice(None, None, -1)), rtol=1e-13)


@pytest.mark.parametrize("dims", [("y", "x"), ("latitude", "longitude")])
def test_projected_grids_have_equal_weights(dims: tuple[str, str]) -> None:
    ds = archive(dims=dims)
    plain = ds.astype(float).compute().coarsen({d: 4 for d in dims}).mean()
    equal = np.allclose(coarsen(ds, 4)["t2m"], plain["t2m"], rtol=1e-12, atol=0)
    assert equal == (dims == ("y", "x"))


def test_it_is_lazy_and_keeps_attributes_and_coordinates() -> None:
    ds = archive()
    coarse = coarsen(ds, 4)
    assert dask.is_dask_collection(coarse["t2m"].data) and coarse["t2m"].dims == ds["t2m"].dims
    assert coarse["t2m"].attrs == {"units": "K"} and coarse.attrs == ds.attrs
    np.testing.assert_allclose(coarse["latitude"], ds["latitude"].values.reshape(-1, 4).mean(1))
    np.testing.assert_array_equal(coarse["t2m"], coarsen(archive(chunk=False), 4)["t2m"])


def test_trim_keeps_the_same_cells_whatever_their_order(caplog: pytest.LogCaptureFixture) -> None:
    ds = archive(9, 13)
    with caplog.at_level(logging.INFO, "scigen"):
        kept = trim(ds, 4)
    assert dict(kept.sizes) == {"time": 4, "latitude": 8, "longitude": 12}
    assert "1 of 9 latitude fill no block of 4 and are left out: 70 to 70" in caplog.text
    flipped = trim(ds.isel(latitude=slice(None, None, -1), longitude=slice(None, None, -1)), 4)
    xr.testing.assert_identical(flipped.isel(latitude=slice(None, None, -1), longitude=slice(None, None, -1)), kept)
    xr.testing.assert_identical(trim(kept, 4), kept)


@pytest.mark.parametrize("factor", [0, -1, 2.0, 2.5, "8", True, None])
def test_factors_that_are_none(factor: object) -> None:
    for function in (trim, coarsen):
        with pytest.raises(UserError, match=r"factor=.*expected a whole number from 1 up"):
            function(archive(), factor)


def test_factor_that_leaves_no_coarse_cell() -> None:
    for function in (trim, coarsen):
        with pytest.raises(
            UserError, match="factor=9 leaves no coarse cell of a grid of 8 × 12 cells: choose at most 8"
        ):
            function(archive(), 9)


def test_a_rest_must_be_trimmed_first() -> None:
    with pytest.raises(UserError, match="no multiple of factor=5"):
        coarsen(archive(), 5)
