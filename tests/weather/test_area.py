"""Areas of cells and area-weighted block means."""

import numpy as np
import pytest
import xarray as xr

from scigen.weather.area import block_means, cell_weights, latitude


def grid(y="latitude", x="longitude", rows=(70.0, 50.0, 30.0), **attrs):
    return xr.Dataset(coords={y: (y, list(rows), attrs), x: (x, [0.0, 1.0])})


def test_weights_are_cosines_of_latitude_with_mean_one():
    weights = cell_weights(grid(), ("latitude", "longitude"))
    cosine = np.cos(np.deg2rad([70, 50, 30]))
    np.testing.assert_allclose(weights, np.repeat(cosine / cosine.mean(), 2).reshape(3, 2), rtol=1e-12)


@pytest.mark.parametrize("rows", [np.linspace(-90, 90, 46), np.linspace(90, -90, 181), np.arange(-88, 90, 4.0)])
def test_areas_add_up_to_the_sphere(rows):
    """Exact bands: with a row at the pole, which has half a cell, as without."""
    weights = cell_weights(grid(rows=rows), ("latitude", "longitude"))[:, 0]
    step = abs(rows[1] - rows[0])
    low, high = (np.sin(np.deg2rad(np.clip(rows + s * step / 2, -90, 90))) for s in (-1, 1))
    assert (high - low).sum() == pytest.approx(2)
    np.testing.assert_allclose(weights, (high - low) / 2 * len(rows), rtol=1e-12)
    assert weights.min() > 0


def test_a_row_at_the_pole_has_its_half_cell():
    """Its disc of half a step, 2π (1 − cos(Δ/2)); the cosine would give it nothing."""
    weights = cell_weights(grid(rows=np.linspace(-90, 90, 46)), ("latitude", "longitude"))[:, 0]
    assert weights[0] / weights.sum() == pytest.approx((1 - np.cos(np.deg2rad(2))) / 2, rel=1e-10)


def test_rows_of_a_gaussian_grid_have_the_quadratures_weights():
    """Gauss–Legendre weights are areas of bands, nearly; cosines of unevenly spaced rows are farther off."""
    nodes, exact = np.polynomial.legendre.leggauss(64)
    weights = cell_weights(grid(rows=np.rad2deg(np.arcsin(nodes))), ("latitude", "longitude"))[:, 0]
    np.testing.assert_allclose(weights, exact / exact.mean(), rtol=0.03)
    assert np.abs(weights / (exact / exact.mean()) - 1)[5:-5].max() < 1e-4


def test_rotated_poles_have_bands_of_their_own_latitude():
    turned = cell_weights(grid(y="rlat", x="rlon", standard_name="grid_latitude"), ("rlat", "rlon"))
    np.testing.assert_allclose(turned, cell_weights(grid(), ("latitude", "longitude")))


def test_cells_told_by_2d_coordinates_alone_have_spherical_areas(lambert):
    """On a conformal projection they are dx² / m², m the scale factor, which is 1 along the standard parallel."""
    ds = lambert(40, 40, 50e3, kind="counted")
    weights = cell_weights(ds, ("south_north", "west_east"))
    lat = np.deg2rad(ds["XLAT"].values.astype(float))
    n, tangent = np.sin(np.deg2rad(38.5)), np.deg2rad(38.5)
    scale = np.cos(tangent) / np.cos(lat) * (np.tan(np.pi / 4 + tangent / 2) / np.tan(np.pi / 4 + lat / 2)) ** n
    np.testing.assert_allclose(weights, scale**-2 / (scale**-2).mean(), rtol=2e-3)
    assert np.ptp(weights) > 0.02
    transposed = cell_weights(ds.transpose("west_east", "south_north", "time"), ("south_north", "west_east"))
    np.testing.assert_array_equal(transposed, weights)


def test_metres_make_cells_equal(lambert):
    np.testing.assert_array_equal(cell_weights(lambert(), ("y", "x")), np.ones((12, 16)))
    one = lambert(kind="counted").isel(south_north=[0])
    np.testing.assert_array_equal(cell_weights(one, ("south_north", "west_east")), np.ones((1, 16)))


def test_latitude_is_known_by_standard_name_and_along_either_dimension():
    weights = cell_weights(grid(y="rows", standard_name="latitude"), ("rows", "longitude"))
    turned = cell_weights(grid(y="rows", standard_name="latitude"), ("longitude", "rows"))
    np.testing.assert_allclose(weights, turned.T)
    assert weights[0, 0] < weights[-1, 0]


def test_projected_grids_have_equal_cells():
    ds = xr.Dataset(coords={"y": [0.0, 1.0], "x": [0.0, 1.0], "latitude": (("y", "x"), np.full((2, 2), 60.0))})
    assert latitude(ds, ("y", "x")) is None
    np.testing.assert_array_equal(cell_weights(ds, ("y", "x")), np.ones((2, 2)))


def test_block_means_are_weighted_and_leave_incomplete_blocks_out():
    rng = np.random.default_rng(0)
    field, weights = rng.standard_normal((2, 5, 7)), rng.uniform(0.5, 1, (5, 7))
    means, area = block_means(field, weights, 2)
    assert means.shape == (2, 2, 3) and area.shape == (2, 3) and area.mean() == pytest.approx(1)
    one = np.average(field[1, 2:4, 4:6], weights=weights[2:4, 4:6])
    assert means[1, 1, 2] == pytest.approx(one) != pytest.approx(field[1, 2:4, 4:6].mean())


def test_area_means_survive_coarsening():
    rng = np.random.default_rng(0)
    field, weights = rng.standard_normal((6, 8)), rng.uniform(0.5, 1, (6, 8))
    means, area = block_means(field, weights, 2)
    assert (means * area).mean() == pytest.approx(np.average(field, weights=weights))
