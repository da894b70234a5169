"""The samples where an ensemble does worst are found: by CRPS of numbers, by shares of labels."""

import numpy as np
import pytest
import xarray as xr

from scigen.metrics.worst import alike, fields, worst


def test_a_shifted_sample_is_the_worst_and_the_score_is_its_crps():
    rng = np.random.default_rng(0)
    truth, members = rng.normal(size=(6, 4, 5)), rng.normal(size=(6, 7, 4, 5))
    truth[4] += 10.0
    found = worst(xr.DataArray(truth), xr.DataArray(members), 2)
    assert found[0][0] == 4 and len(found) == 2 and found[0][1] > found[1][1]
    assert found[0][1] == pytest.approx(10.0, abs=1.0)


def test_labels_are_judged_by_their_shares_not_their_places():
    truth = np.zeros((3, 4, 4, 4), np.uint8)
    truth[:, 2:] = 1
    members = np.stack([truth[:, ::-1], truth[:, :, ::-1]], 1)  # moved, with the shares kept
    members[1, :, :3] = 1
    (first, score), (_, second), _ = worst(xr.DataArray(truth), xr.DataArray(members))
    assert first == 1 and score > 0.2 and second == 0


def test_complex_images_are_looked_at_by_their_magnitude():
    ds = xr.Dataset({"image_re": ("x", [3.0, 0.0]), "image_im": ("x", [4.0, 1.0]), "phase_im": ("x", [1.0, 1.0])})
    found = fields(ds)
    assert list(found) == ["|image|", "phase_im"] and np.array_equal(found["|image|"], [5.0, 1.0])


def test_a_truth_of_other_samples_that_runs_the_other_way_is_brought_to_the_samples():
    rng = np.random.default_rng(3)
    y, x = np.arange(4.0), np.arange(5.0)
    true = xr.DataArray(
        rng.standard_normal((8, 4, 5)), coords={"time": np.arange(8), "y": y, "x": x}, dims=("time", "y", "x")
    )
    drawn = true.isel(time=[6, 2, 3], y=slice(None, None, -1)).expand_dims(member=3, axis=1).copy(deep=True)
    drawn.values[1] += 5
    own, found = alike(true, drawn)
    assert [own["time"].values[i] for i, _ in worst(own, found, 1)] == [2]
    assert worst(own, found, 3)[1][1] == 0  # the others are the truth itself, cell by cell
    assert alike(true, drawn.assign_coords(x=x + 1)) is None
    assert alike(true, drawn.assign_coords(time=[90, 91, 92])) is None
