"""Smoothing and biases bring what is wrong on average to what it is in the truth, and leave alone what is right."""

import numpy as np
import pytest
import torch
import xarray as xr

from scigen.materials.calibration import Calibration, calibrate, smooth
from scigen.materials.physics import MicrostructureCodec
from scigen.materials.quantities import quantities
from scigen.materials.surface import surface

PERIODIC = (True, True, True)


def fields(count: int, seed: int) -> np.ndarray:
    """Smooth periodic Gaussian fields of unit variance, (N, 24, 24, 24)."""
    k2 = sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(24) * 24] * 3, indexing="ij"))
    noise = np.fft.fftn(np.random.default_rng(seed).standard_normal((count, 24, 24, 24)), axes=(1, 2, 3))
    out = np.fft.ifftn(noise * np.exp(-0.5 * k2 / 3**2), axes=(1, 2, 3)).real
    return out / out.std(axis=(1, 2, 3), keepdims=True)


@pytest.fixture(scope="module")
def level():
    """Level cuts with 35 % of phase 0; scores that have these for their largest."""
    g = fields(12, 0)
    cut = np.quantile(g, 0.35, axis=(1, 2, 3), keepdims=True)
    labels = (g > cut).astype(np.uint8)
    return labels, np.stack([cut - g, g - cut], axis=1), np.tile([0.35, 0.65], (12, 1))


def test_what_is_right_is_left_alone(level):
    labels, scores, share = level
    found = calibrate(scores, labels, share, PERIODIC)
    assert found.width == 0 and np.abs(found.bias).max() < 1e-2
    assert np.abs((found.apply(scores, PERIODIC).argmax(1) == 0).mean() - 0.35) < 5e-4


def test_a_bias_of_the_mean_is_found_and_mended(level):
    labels, scores, share = level
    wrong = scores + np.array([-0.1, 0.1])[:, None, None, None]
    assert 0.35 - (wrong.argmax(1) == 0).mean() > 0.03
    found = calibrate(wrong, labels, share, PERIODIC)
    assert np.allclose(found.bias, [0.1, -0.1], atol=0.01)
    assert np.abs((found.apply(wrong, PERIODIC).argmax(1) == 0).mean() - 0.35) < 3e-3


def test_speckle_at_interfaces_is_smoothed_to_the_right_surface(level):
    labels, scores, share = level
    noisy = scores + 0.8 * np.random.default_rng(1).standard_normal(scores.shape)
    want = surface(labels == 0, 1.0, True).mean()
    assert surface(noisy.argmax(1) == 0, 1.0, True).mean() > 1.2 * want
    found = calibrate(noisy, labels, share, PERIODIC)
    assert found.width > 0.3
    after = surface(found.apply(noisy, PERIODIC).argmax(1) == 0, 1.0, True).mean()
    assert abs(after / want - 1) < 0.05


def test_free_fractions_move_nothing(level):
    labels, scores, _ = level
    found = calibrate(scores + np.array([-0.1, 0.1])[:, None, None, None], labels, np.full((12, 2), np.nan), PERIODIC)
    assert found.bias == (0, 0)


def test_periodic_smoothing_has_no_seam():
    x = np.random.default_rng(2).standard_normal((1, 2, 8, 8, 8))
    there = np.roll(smooth(np.roll(x, 3, -1), 0.6, PERIODIC), -3, -1)
    assert np.allclose(there, smooth(x, 0.6, PERIODIC), atol=1e-12)
    open_ = np.roll(smooth(np.roll(x, 3, -1), 0.6, (True, True, False)), -3, -1)
    assert not np.allclose(open_, smooth(x, 0.6, (True, True, False)), atol=1e-3)


def test_told_voxels_keep_their_phase_and_a_bundle_s_state_keeps_the_numbers_of_every_call():
    made = MicrostructureCodec(
        (8, 8, 8), ["pore", "solid"], quantities(["pore", "solid"], [], []), mean=[0.5, 0.5], inpaint=True,
        periodic=PERIODIC, calibrations={1: Calibration(0.8, (2.0, -2.0)), 2: Calibration(0.5, (1.0, -1.0))},
    )  # fmt: skip
    again = MicrostructureCodec.restore(*made.state())
    assert again.calibrations == made.calibrations
    one, two = (made.calibrations[n] for n in (1, 2))
    assert [again.after(n).calibration for n in (1, 2, 8)] == [one, two, two] and again.calibration == two
    assert made.uncalibrated.calibration == made.uncalibrated.after(1).calibration == Calibration()
    known = np.full((1, 8, 8, 8), 255)
    known[0, 2] = np.random.default_rng(3).integers(0, 2, (8, 8))
    inputs = made.prepare(xr.Dataset({"known": (("specimen", "z", "y", "x"), known)}))
    condition = made.condition(inputs, slice(None))
    out = made.decode(condition["measurement"] * condition["known"], condition)[0, 0]
    assert torch.equal(out[2], torch.from_numpy(known[0, 2]).float())
    assert (out[[0, 1, 3, 4]] == 0).all()  # the bias rules where nothing is told
