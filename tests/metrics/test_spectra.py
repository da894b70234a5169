"""Laws of the power spectra: Parseval, single modes, white noise."""

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.metrics.spectra import annuli, power_spectrum

SHAPES = [(16, 16), (33, 49), (8, 40), (5, 2)]


@pytest.mark.parametrize("periodic", [False, True, (False, True), (True, False)])
@pytest.mark.parametrize("shape", SHAPES)
def test_power_adds_up_to_the_variance_about_the_mean(shape, periodic):
    field = 280 + np.random.default_rng(0).standard_normal((3, 2, *shape))
    wavenumber, power = power_spectrum(field, periodic)
    assert power.shape == (3, 2, len(wavenumber)) and wavenumber[0] == 1
    np.testing.assert_allclose(power.sum(-1), field.var((-2, -1)), rtol=1e-10)


@pytest.mark.parametrize("k", [1, 4, 15])
def test_a_cosine_of_k_half_waves_lands_in_bin_k(k):
    x = np.cos(np.pi * k * (np.arange(16) + 0.5) / 16)
    for field in (np.tile(x, (16, 1)), np.tile(x[:, None], (1, 16))):
        _, power = power_spectrum(field)
        assert power[k - 1] == pytest.approx(0.5) and power.sum() == pytest.approx(0.5)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_a_wave_of_k_periods_lands_in_bin_k_on_the_torus(k):
    field = np.tile(np.cos(2 * np.pi * k * np.arange(16) / 16), (16, 1))
    _, power = power_spectrum(field, periodic=True)
    assert power[k - 1] == pytest.approx(field.var()) and power.sum() == pytest.approx(field.var())


@pytest.mark.parametrize("k", [1, 3, 8])
def test_on_a_band_around_the_globe_one_wavenumber_is_one_wavelength_along_either_axis(k):
    """Half waves across, whole waves around: 2N/k cells both."""
    across = np.cos(np.pi * k * (np.arange(16) + 0.5) / 16)[:, None] * np.ones((16, 32))
    around = np.cos(2 * np.pi * k * np.arange(32) / 32 + 0.3)[None] * np.ones((16, 32))
    for field in (across, around):
        _, power = power_spectrum(field, (False, True))
        assert power[k - 1] == pytest.approx(0.5) and power.sum() == pytest.approx(0.5)


def test_turning_a_globe_leaves_its_spectrum_alone():
    field = np.random.default_rng(3).standard_normal((24, 48)).cumsum(1)
    turned = np.roll(field, 17, 1)
    np.testing.assert_allclose(*(power_spectrum(f, (False, True))[1] for f in (field, turned)), rtol=1e-10)
    assert not np.allclose(*(power_spectrum(f)[1] for f in (field, turned)), rtol=0.1)


def test_one_wavenumber_is_one_wavelength_along_either_side_of_a_rectangle():
    # 8 cells a half wave: one half wave over the short side of 8, three over the long one of 24
    y = np.cos(np.pi * (np.arange(8) + 0.5) / 8)[:, None] * np.ones((8, 24))
    x = np.cos(np.pi * (np.arange(24) + 0.5) / 8)[None] * np.ones((8, 24))
    assert power_spectrum(y)[1][0] == pytest.approx(0.5) == power_spectrum(x)[1][0]


@pytest.mark.parametrize("periodic", [False, True, (False, True)])
def test_white_noise_has_equal_power_in_every_mode(periodic):
    field = np.random.default_rng(1).standard_normal((400, 24, 32))
    _, power = power_spectrum(field, periodic)
    modes = np.bincount(annuli((24, 32), periodic).ravel())[1:]
    np.testing.assert_allclose(power.mean(0) / modes * 24 * 32, 1, atol=6 * np.sqrt(2 / 400 / modes.min()))
    # and is told from noise that has lost its small scales
    smooth = (field + np.roll(field, 1, -1)) / 2
    ratio = power_spectrum(smooth, periodic)[1].mean(0) / power.mean(0)
    assert ratio[0] > 0.8 and ratio[10] < 0.8


def test_a_trend_leaves_no_false_power_at_small_scales_as_it_would_with_fourier():
    trend = np.linspace(0, 1, 32)[None] * np.ones((32, 32))
    small = {p: power_spectrum(trend, p)[1][8:].sum() / trend.var() for p in (False, True)}
    assert small[False] < 1e-3 < small[True]


def test_every_mode_is_counted_once():
    for shape in SHAPES:
        index = annuli(shape)
        assert index[0, 0] == 0 and (index.ravel()[1:] >= 1).all()


def test_a_single_row_has_no_spectrum():
    with pytest.raises(UserError, match="2 x 2"):
        power_spectrum(np.zeros((1, 16)))
