"""Areas and directions on the sphere against closed forms."""

import numpy as np
import pytest

from scigen.weather.sphere import cell_areas, cell_size, degrees, unit_vectors


def test_areas_are_those_of_the_bands() -> None:
    """Cells of a regular grid, by their centres alone: A = Δλ (sin φ₂ − sin φ₁), but for the second order."""
    lat, lon = np.meshgrid(np.arange(40, 60, 0.5), np.arange(170, 190, 0.5), indexing="ij")
    band = np.deg2rad(0.5) * (np.sin(np.deg2rad(lat + 0.25)) - np.sin(np.deg2rad(lat - 0.25)))
    np.testing.assert_allclose(cell_areas(lat, lon), band, rtol=1e-4)
    assert cell_areas(lat, lon)[0, 0] / cell_areas(lat, lon)[-1, 0] == pytest.approx(band[0, 0] / band[-1, 0], rel=1e-4)


def test_small_cells_keep_their_digits() -> None:
    """A square of 25 m at the equator."""
    side = np.rad2deg(25 / 6371229)
    lat, lon = np.meshgrid(side * np.arange(4), side * np.arange(5), indexing="ij")
    np.testing.assert_allclose(cell_areas(lat, lon) * 6371229**2, 625, rtol=1e-6)


def test_areas_do_not_depend_on_the_convention_or_the_pole() -> None:
    """The same cells turned onto the pole and across the date line are as large."""
    lat, lon = np.meshgrid(np.arange(-4, 4, 0.5), np.arange(-3, 3, 0.5), indexing="ij")
    points = unit_vectors(lat, lon)[..., [2, 1, 0]]  # the axis of the poles changes places with that of Greenwich
    turned = degrees(points, np.zeros(lat.shape))
    assert turned[0].max() > 89
    np.testing.assert_allclose(cell_areas(*turned), cell_areas(lat, lon), rtol=1e-9)
    np.testing.assert_allclose(cell_areas(lat, (lon + 180) % 360), cell_areas(lat, lon), rtol=1e-9)


def test_directions_give_degrees_back_in_the_convention_asked_for() -> None:
    lat, lon = np.array([10.0, -80.0]), np.array([190.0, -170.0])
    back = degrees(unit_vectors(lat, lon), lon)
    np.testing.assert_allclose(back, [lat, lon], rtol=1e-13)
    assert cell_size(unit_vectors(*np.meshgrid([0.0, 1.0], [0.0, 3.0], indexing="ij"))) == pytest.approx(
        np.deg2rad(1), rel=1e-3
    )
