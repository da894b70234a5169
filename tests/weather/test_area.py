"""Areas of cells and area-weighted block means."""

import numpy as np
import pytest
import xarray as xr

from scigen.weather.area import block_means, cell_weights, latitude


def grid(y="latitude", x="longitude", **attrs):
    return xr.Dataset(coords={y: (y, [70.0, 50.0, 10.0], attrs), x: (x, [0.0, 1.0])})


def test_weights_are_cosines_of_latitude_with_mean_one():
    weights = cell_weights(grid(), ("latitude", "longitude"))
    cosine = np.cos(np.deg2rad([70, 50, 10]))
    np.testing.assert_allclose(weights, np.repeat(cosine / cosine.mean(), 2).reshape(3, 2))


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
