"""Coil maps: simulated, normalised, estimated."""

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.mri.coils import birdcage, calibration, estimate, normalise
from scigen.mri.fourier import fft2c, ifft2c
from scigen.mri.masks import mask
from scigen.mri.synth import make


def energy(maps):
    return (np.abs(maps.astype(np.complex128)) ** 2).sum(-3)


@pytest.mark.parametrize("coils", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(64, 64), (33, 50)])
def test_maps_of_the_birdcage_have_unit_energy_everywhere(coils, shape):
    maps = birdcage(coils, shape, np.random.default_rng(1))
    assert maps.shape == (coils, *shape) and maps.dtype == np.complex64
    np.testing.assert_allclose(energy(maps), 1, atol=1e-6)


def test_one_coil_sees_everything_alike():
    assert (birdcage(1, (8, 9), np.random.default_rng(0)) == 1).all()


def test_coils_differ_and_are_smooth():
    maps = birdcage(4, (64, 64), np.random.default_rng(2))
    flat = maps.reshape(4, -1)
    gram = np.abs(flat.conj() @ flat.T) / np.sqrt(np.outer(*[(np.abs(flat) ** 2).sum(1)] * 2))
    assert gram[~np.eye(4, dtype=bool)].max() < 0.9
    assert np.abs(np.diff(maps, axis=-1)).max() < 0.1 and np.abs(np.diff(maps, axis=-2)).max() < 0.1
    peaks = [np.unravel_index(np.abs(m).argmax(), m.shape) for m in maps]
    assert len(set(peaks)) == 4 and all(y in (0, 63) or x in (0, 63) for y, x in peaks)


def test_maps_are_those_of_small_loops_on_a_ring():
    """The ratio of two maps is g (w - p) / (w - q), w = x - iy, for coils at the conjugates of q and p."""
    maps = birdcage(4, (64, 64), np.random.default_rng(2)).astype(np.complex128)
    z = (np.arange(-32, 32) / 32)[None] + 1j * (np.arange(-32, 32) / 32)[:, None]
    w, radii = z.conj(), []
    for other in (1, 2, 3):
        ratio = maps[0] / maps[other]
        design = np.stack([w, np.ones_like(w), ratio], -1).reshape(-1, 3)
        (g, h, q), *_ = np.linalg.lstsq(design, (ratio * w).ravel(), rcond=None)
        assert np.abs(ratio * (w - q) - g * w - h).max() < 1e-3
        loudest = z.ravel()[np.abs(maps[0]).argmax()]
        assert np.abs(loudest - q.conj()) < 0.7 * np.abs(loudest - (-h / g).conj())
        radii += [abs(q), abs(h / g)]
    assert np.ptp(radii) < 0.01 and 1.5 <= radii[0] <= 2.0


def test_normalise():
    rng = np.random.default_rng(3)
    maps = 1e-7 * (rng.standard_normal((2, 3, 8, 8)) + 1j * rng.standard_normal((2, 3, 8, 8)))
    maps[:, :, :2] = 0
    out = normalise(maps)
    np.testing.assert_allclose(energy(out)[:, 2:], 1, atol=1e-6)
    assert (out[:, :, :2] == 0).all()
    np.testing.assert_allclose(np.angle(out[:, :, 2:]), np.angle(maps[:, :, 2:]), atol=1e-5)
    np.testing.assert_allclose(normalise(out), out, atol=1e-6)
    with pytest.raises(UserError, match="in 1 places"):
        normalise(np.where(np.arange(8) == 3, np.nan, np.ones((1, 1, 8))))
    with pytest.raises(UserError, match="zero everywhere"):
        normalise(np.zeros((2, 4, 4)))


def test_calibration_is_the_largest_rectangle_around_the_centre():
    m = np.zeros((16, 15), bool)
    assert calibration(m) == (0, 0)
    m[:, 5:9] = True  # 7 is the centre: columns 5 … 8 are 4 around it
    assert calibration(m) == (16, 4)
    m[:, 9] = True
    assert calibration(m) == (16, 5)
    m[:, 11:] = True  # not adjacent
    assert calibration(m) == (16, 5)
    m[3] = False  # rows 4 … 11 are 8 around row 8, and so are 9
    assert calibration(m) == (9, 5)
    m[:, 7] = False
    assert calibration(m) == (0, 0)
    assert calibration(np.ones((9, 7), bool)) == (9, 7)


def setting(coils, kind, acceleration, seed=0):
    image = make(64, 1, 1, seed)["image"].values[0].astype(np.complex128)
    maps = birdcage(coils, image.shape, np.random.default_rng(seed))
    taken = mask(kind, image.shape, acceleration, None, np.random.default_rng(seed))
    return image, maps, taken, taken * fft2c(maps * image)


@pytest.mark.parametrize(("kind", "acceleration", "most"), [
    ("random", 4, 0.01), ("equispaced", 8, 0.016), ("poisson", 4, 0.001), ("random", 1, 0.0005)
])  # fmt: skip
@pytest.mark.parametrize("coils", [2, 4, 8])
def test_estimated_maps_are_the_true_ones_on_the_object(kind, acceleration, most, coils):
    """Up to one phase a pixel, which is that of the virtual coil."""
    errors = []
    for seed in range(4):
        image, maps, taken, kspace = setting(coils, kind, acceleration, seed)
        found = estimate(kspace, taken)
        assert found.dtype == np.complex64
        np.testing.assert_allclose(energy(found), 1, atol=1e-6)
        overlap = np.abs((found.conj() * maps).sum(0))
        errors.append((1 - overlap**2)[np.abs(image) > 0.1 * np.abs(image).max()].mean())
    assert np.mean(errors) < most


def test_an_estimate_leaves_the_image_its_phase():
    """Σ conj(S) x_c has the phase of the image times one that is as smooth as the coils' maps, however rough x is."""
    image, maps, _, _ = setting(4, "random", 1)
    image = np.abs(image) * np.exp(2j * np.sin(np.arange(64) / 2.5))
    full = np.ones((64, 64), bool)
    combined = (estimate(fft2c(maps * image), full).conj() * ifft2c(fft2c(maps * image))).sum(0)
    there = np.abs(image) > 0.2 * np.abs(image).max()
    left = combined * image.conj()
    step = np.angle(left[:, 1:] * left[:, :-1].conj())[there[:, 1:] & there[:, :-1]]
    own = np.angle(image[:, 1:] * image[:, :-1].conj())[there[:, 1:] & there[:, :-1]]
    assert np.sqrt((step**2).mean()) < 0.3 * np.sqrt((own**2).mean())


def test_an_estimate_scales_with_nothing_and_needs_a_centre():
    _, _, taken, kspace = setting(3, "random", 4)
    np.testing.assert_allclose(estimate(1e-6 * kspace, taken), estimate(kspace, taken), atol=1e-4)
    lines = np.zeros((64, 64), bool)
    lines[:, 31:34] = lines[:, ::4] = True
    with pytest.raises(UserError, match=r"3 fully sampled lines.*sens_maps"):
        estimate(kspace, lines)
    with pytest.raises(UserError, match="zero around its centre"):
        estimate(np.zeros_like(kspace), taken)
    with pytest.raises(UserError, match="expected"):
        estimate(kspace[0], taken)
    with pytest.raises(UserError, match="coils=0"):
        birdcage(0, (8, 8), np.random.default_rng(0))
