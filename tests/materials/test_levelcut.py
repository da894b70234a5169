"""Level-cut Gaussian fields: their laws against each other and against fields that were cut."""

import numpy as np
import pytest
from scipy import integrate, stats

from scigen.errors import UserError
from scigen.materials import correlation, levelcut, topology
from scigen.materials import surface as metrics

N, WIDTH, FIELDS = 48, 0.042, 24
THRESHOLDS = [0.0, 0.8, -0.5]


@pytest.fixture(scope="module")
def power(spectrum):
    return spectrum((N, N, N), 0.0, WIDTH)


@pytest.fixture(scope="module")
def rho(power):
    out = np.fft.ifftn(power).real
    return out / out[0, 0, 0]


@pytest.fixture(scope="module")
def fields(power):
    """Each with its opposite, which has the same law: odd errors cancel."""
    one = np.stack([levelcut.gaussian_field((N, N, N), power, seed) for seed in range(FIELDS)])
    return np.stack([one, -one], axis=1)


def curvature(power):
    k = np.meshgrid(*[2 * np.pi * np.fft.fftfreq(N)] * 3, indexing="ij", sparse=True)
    return float((power * sum(a**2 for a in k)).sum() / power.sum() / 3)


def assert_mean(values, law, bias=0.0):
    """Within four standard errors of pairs (fields, 2), and a share that voxels of this size may cost."""
    pairs = values.mean(1)
    error = pairs.std(0, ddof=1) / np.sqrt(len(pairs))
    np.testing.assert_array_less(np.abs(pairs.mean(0) - law), 4 * error + bias * np.abs(law) + 1e-12)
    assert np.all(error < 0.1 * np.abs(law))  # so that this tells something


@pytest.mark.parametrize("t", THRESHOLDS)
def test_cut_fields_have_the_statistics_of_the_law(t, fields, power, rho):
    cut, m = fields > t, curvature(power)
    assert_mean(cut.mean((2, 3, 4)), levelcut.volume_fraction(t))
    s2 = correlation.two_point(cut, True)[..., 0, 0, :12]
    assert_mean(s2, levelcut.two_point(rho[0, 0, :12], t))
    assert_mean(metrics.surface(cut, 1.0, True), levelcut.surface(t, m), bias=0.012)
    assert_mean(metrics.surface(cut, 0.5, True), 2 * levelcut.surface(t, m), bias=0.012)
    assert_mean(topology.euler(cut, True), levelcut.euler(t, m), bias=0.02)


@pytest.mark.parametrize("t", THRESHOLDS)
def test_surface_is_the_law_of_pairs_at_the_distance_of_voxels(t, fields, rho):
    """Without the bias of voxels: Crofton's sum of 2 (φ − S2) a step."""
    phi = levelcut.volume_fraction(t)
    shares = metrics.weights((1.0, 1.0, 1.0))
    law = 4 * sum(
        w * (phi - levelcut.two_point(rho[d], t)) / np.linalg.norm(d)
        for w, d in zip(shares, metrics.DIRECTIONS, strict=True)
    )
    assert_mean(metrics.surface(fields > t, 1.0, True), law)


@pytest.mark.parametrize("t", THRESHOLDS)
def test_the_two_point_law_is_the_bivariate_normal_distribution(t):
    for r in (-0.95, -0.4, 0.0, 0.3, 0.7, 0.99):
        truth = stats.multivariate_normal([0, 0], [[1, r], [r, 1]]).cdf([-t, -t])
        assert levelcut.two_point(r, t) == pytest.approx(truth, abs=2e-5)
    integral = integrate.quad(lambda u: np.exp(-t * t / (1 + u)) / (2 * np.pi * np.sqrt(1 - u * u)), 0, 0.6)[0]
    phi = levelcut.volume_fraction(t)
    assert levelcut.two_point(0.6, t) == pytest.approx(phi**2 + integral, abs=1e-10)
    assert levelcut.two_point(1.0, t) == pytest.approx(phi, abs=1e-6)
    assert levelcut.volume_fraction(levelcut.threshold(phi)) == pytest.approx(phi)


def test_at_half_the_law_is_an_arcsine():
    r = np.linspace(-1, 1, 9)
    np.testing.assert_allclose(levelcut.two_point(r, 0.0), 0.25 + np.arcsin(r) / (2 * np.pi), atol=1e-12)


def test_surface_is_the_slope_of_the_law_of_pairs():
    """S_V = −4 S2'(0) of ρ = 1 − m r² / 2."""
    m, r = 0.3, 1e-4
    for t in THRESHOLDS:
        slope = (levelcut.two_point(1 - m * r * r / 2, t) - levelcut.two_point(1.0, t)) / r
        assert -4 * slope == pytest.approx(float(levelcut.surface(t, m)), rel=1e-3)


def test_the_euler_number_is_that_of_the_second_hermite_polynomial():
    t = np.linspace(-8, 8, 2001)
    assert levelcut.euler(1.0, 0.3) == 0 == levelcut.euler(-1.0, 0.3)
    assert integrate.trapezoid(levelcut.euler(t, 0.3), t) == pytest.approx(0, abs=1e-9)  # sponges and grains cancel
    assert levelcut.euler(0.0, 0.3) == pytest.approx(-(0.3**1.5) / (4 * np.pi**2))
    assert (levelcut.euler(t[np.abs(t) > 1.01], 0.3) > 0).all()


def test_fields_have_unit_variance_and_their_spectrum():
    def spectrum(k):
        return np.exp(-((k / 0.1) ** 2))

    some = np.stack([levelcut.gaussian_field((24, 20, 22), spectrum, seed) for seed in range(12)])
    assert some.std() == pytest.approx(1, abs=0.02) and some.mean() == pytest.approx(0, abs=0.05)
    k = np.sqrt(sum(a**2 for a in np.meshgrid(*map(np.fft.fftfreq, some.shape[1:]), indexing="ij", sparse=True)))
    measured = (np.abs(np.fft.fftn(some, axes=(1, 2, 3))) ** 2).mean(0) / some[0].size
    ratio = measured / spectrum(k) * spectrum(k).mean()
    rings = np.minimum((k * 20).astype(int), 5)
    rings = (np.bincount(rings.ravel(), ratio.ravel()) / np.bincount(rings.ravel()))[1:]
    np.testing.assert_allclose(rings, 1, atol=0.08)


def test_a_seed_is_a_field_and_a_function_is_its_array(power):
    def law(k):
        return np.where(k > 0, np.exp(-((k / WIDTH) ** 2)), 0)

    one, other, third = (levelcut.gaussian_field((N,) * 3, p, s) for p, s in ((power, 5), (law, 5), (power, 6)))
    np.testing.assert_allclose(one, other, atol=1e-10)
    assert abs(np.corrcoef(one.ravel(), third.ravel())[0, 1]) < 0.5


@pytest.mark.parametrize("phi", [0.2, 0.5, 0.7])
def test_the_correlation_is_found_again_from_two_point_statistics(phi, rho):
    s2 = levelcut.two_point(rho, float(levelcut.threshold(phi)))
    np.testing.assert_allclose(levelcut.matched(s2, phi), rho, atol=2e-4)


def test_an_imitation_has_the_exact_fraction_and_the_two_point_statistics_of_its_sample(ring):
    shape = (32, 36, 40)
    phi = 0.3
    sample = levelcut.levelcut(shape, ring(shape), phi, 1)
    s2 = correlation.two_point(sample, True)
    rho = levelcut.matched(s2, sample.mean())
    assert rho[0, 0, 0] == 1 and np.fft.fftn(rho).real.min() > -1e-9
    cuts = np.stack([levelcut.levelcut(shape, rho, phi, seed) for seed in range(8)])
    np.testing.assert_array_equal(cuts.sum((1, 2, 3)), round(phi * sample.size))
    ours, theirs = correlation.two_point_radial(cuts, True).mean(0), correlation.two_point_radial(sample, True)
    np.testing.assert_allclose(ours, theirs, atol=0.006)
    noise = correlation.two_point_radial(np.random.default_rng(0).random(shape) < phi, True)
    assert np.abs(noise - theirs).max() > 0.1


@pytest.fixture(scope="module")
def ring(spectrum):
    """Correlation of a ring of waves."""

    def correlation_of(shape):
        out = np.fft.ifftn(spectrum(shape, 0.1, 0.03)).real
        return out / out[0, 0, 0]

    return correlation_of


@pytest.mark.parametrize("phi", [0, 1, 1e-9])
def test_all_or_nothing_can_be_cut(phi, ring):
    assert levelcut.levelcut((6, 7, 8), ring((6, 7, 8)), phi, 0).mean() == round(phi)


def test_what_cannot_be_is_refused():
    flat = np.ones((4, 4, 4))
    with pytest.raises(UserError, match="own grid"):
        levelcut.gaussian_field((4, 4, 5), flat, 0)
    with pytest.raises(UserError, match="own grid"):
        levelcut.levelcut((4, 4, 5), flat, 0.5, 0)
    for power in (-flat, 0 * flat, flat * np.nan):
        with pytest.raises(UserError, match="nowhere negative"):
            levelcut.gaussian_field((4, 4, 4), power, 0)
    for phi in (0, 1, np.nan):
        with pytest.raises(UserError, match="some and not all"):
            levelcut.matched(flat, phi)
    for phi in (-0.1, 1.1, np.nan):
        with pytest.raises(UserError, match="in \\[0, 1\\]"):
            levelcut.levelcut((4, 4, 4), flat, phi, 0)
