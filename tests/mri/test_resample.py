"""Images with fewer pixels: band-limited images keep their values, and the affine the place of every one."""

import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.mri.resample import low_passed


def wave(shape, centre, period) -> np.ndarray:
    """A plane wave of a period in pixels, in phase at the centre."""
    y, x = np.indices(shape)
    return np.exp(2j * np.pi * ((y - centre[0]) / period + (x - centre[1]) / (2 * period)))


@pytest.mark.parametrize("shape", [(16, 16), (12, 16), (15, 11)])
@pytest.mark.parametrize("size", [8, 7])
def test_what_the_centre_of_k_space_holds_stays(shape, size):
    full = max(shape)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = [10, 20, 30]
    blob = np.zeros(shape, np.complex64)
    y, x = np.indices(shape)
    centre = np.array([shape[0] // 2 + 1, shape[1] // 2 - 1])
    blob[...] = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 2 / (full / size) ** 2 / 1.2)
    ds = xr.Dataset(
        {"image": (("slice", "y", "x"), blob[None])}, attrs={"affine": affine.tolist(), "voxel_size": [4, 3, 2]}
    )
    made = low_passed(ds, size)
    values = np.abs(made["image"].values[0])
    assert values.shape == (size, size)
    assert values.sum() * (full / size) ** 2 == pytest.approx(np.abs(blob).sum(), rel=0.02)
    weight = values**4 / (values**4).sum()  # ripples count little
    place = np.array([(weight * i).sum() for i in np.indices(values.shape)])
    new = np.asarray(made.attrs["affine"]) @ [place[1], place[0], 0, 1]
    np.testing.assert_allclose(new, affine @ [centre[1], centre[0], 0, 1], atol=0.25)
    np.testing.assert_allclose(made.attrs["voxel_size"], [4, 3 * full / size, 2 * full / size])


def test_a_wave_that_is_resolved_has_the_same_values_at_the_same_places():
    image = wave((32, 32), (16, 16), 16)
    made = low_passed(xr.Dataset({"image": (("slice", "y", "x"), image[None].astype("complex64"))}), 16)
    np.testing.assert_allclose(made["image"].values[0], image[::2, ::2], atol=1e-5)


def test_more_pixels_than_there_are_is_refused():
    ds = xr.Dataset({"image": (("slice", "y", "x"), np.ones((1, 8, 6), "complex64"))})
    with pytest.raises(UserError, match=r"data.size=9: the images have 8 × 6"):
        low_passed(ds, 9)
