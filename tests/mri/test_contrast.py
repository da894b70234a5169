"""Signal equations against what they must be in their limits."""

import numpy as np
import pytest

from scigen.mri.contrast import (
    CONTRASTS,
    PROPERTIES,
    RANGES,
    TISSUES,
    Pulses,
    draw,
    gradient_echo,
    inversion_recovery,
    null_time,
    spin_echo,
)

T1, T2, T2STAR, PD = PROPERTIES.T
LONG = 1e9


def test_spin_echo_limits():
    np.testing.assert_allclose(spin_echo(T1, T2, PD, LONG, 0), PD)
    np.testing.assert_allclose(spin_echo(T1, T2, PD, LONG, 80), PD * np.exp(-80 / T2))
    np.testing.assert_allclose(spin_echo(T1, T2, PD, 1e-3, 0), PD * 1e-3 / T1, rtol=1e-5)
    assert spin_echo(np.array(700.0), np.array(70.0), np.array(1.0), 700 * np.log(2), 70 * np.log(2)) == pytest.approx(
        0.25
    )


def test_inversion_recovery_limits():
    """Inverted at once, recovered after long, and nothing at TI = T1 ln 2."""
    np.testing.assert_allclose(inversion_recovery(T1, T2, PD, LONG, 0, 0), PD)
    np.testing.assert_allclose(inversion_recovery(T1, T2, PD, LONG, 30, 1e6), PD * np.exp(-30 / T2))
    for t1 in T1:
        assert null_time(t1, LONG) == pytest.approx(t1 * np.log(2))
        for tr in (3000.0, LONG):
            one = np.array([1.0])
            assert inversion_recovery(t1 * one, one, one, tr, 0, null_time(t1, tr))[0] == pytest.approx(0, abs=1e-12)


def test_gradient_echo_limits():
    np.testing.assert_allclose(gradient_echo(T1, T2STAR, PD, LONG, 0, 30), PD * 0.5)
    np.testing.assert_allclose(
        gradient_echo(T1, T2STAR, PD, 500, 10, 90), PD * (1 - np.exp(-500 / T1)) * np.exp(-10 / T2STAR)
    )
    angles = np.linspace(1, 90, 8901)
    signal = [float(gradient_echo(np.array(800.0), np.array(50.0), np.array(1.0), 30, 5, a)) for a in angles]
    ernst = np.rad2deg(np.arccos(np.exp(-30 / 800)))
    assert angles[np.argmax(signal)] == pytest.approx(ernst, abs=0.02)


def test_tissues_are_plausible():
    assert PROPERTIES.shape == (len(TISSUES), 4)
    assert (T2STAR <= T2).all() and (T2 <= T1).all() and (PD >= 0).all() and (PD <= 1).all()
    assert PD[0] == 0
    of = dict(zip(TISSUES, T1, strict=True))
    assert of["fat"] < of["white"] < of["grey"] < of["csf"]


def test_contrasts_are_weighted_as_their_names_say():
    grey, white, csf, lesion = (TISSUES.index(t) for t in ("grey", "white", "csf", "lesion"))
    seen = {}
    for i in range(150):
        pulses, tissues = draw(np.random.default_rng(i))
        assert all(low <= getattr(pulses, k) <= high for k, (low, high) in RANGES[pulses.contrast].items())
        seen.setdefault(pulses.contrast, []).append(pulses.signal(tissues))
    assert set(seen) == set(CONTRASTS)
    mean = {k: np.mean(v, 0) for k, v in seen.items()}
    for name in ("T1", "GRE"):
        assert mean[name][white] > mean[name][grey] > mean[name][csf]
    assert mean["T2"][csf] > 1.5 * mean["T2"][grey] > 1.5 * mean["T2"][white]
    assert mean["FLAIR"][csf] < 0.2 * mean["FLAIR"][white]
    assert mean["FLAIR"][lesion] > 1.3 * mean["FLAIR"][white]
    assert np.ptp(mean["PD"][[grey, white, csf]]) < 0.35 * mean["PD"][grey]
    assert all(m[0] == 0 and (m >= 0).all() for m in mean.values())


def test_pulses_use_their_own_equation():
    np.testing.assert_array_equal(Pulses("T2", 4000, 90).signal(PROPERTIES), spin_echo(T1, T2, PD, 4000, 90))
    np.testing.assert_array_equal(
        Pulses("FLAIR", 9000, 90, ti=2300).signal(PROPERTIES), inversion_recovery(T1, T2, PD, 9000, 90, 2300)
    )
    np.testing.assert_array_equal(
        Pulses("GRE", 30, 5, flip=25).signal(PROPERTIES), gradient_echo(T1, T2STAR, PD, 30, 5, 25)
    )
