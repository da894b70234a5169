"""Laws of two-point and lineal statistics: counting by hand, layers, symmetries."""

import itertools

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.materials.correlation import (
    chord_lengths,
    lineal_path,
    mean_chord,
    reach,
    two_point,
    two_point_axes,
    two_point_radial,
)

PERIODIC = [False, True, (False, True, False), (True, False, True)]
SHAPE = (5, 6, 7)


def random_block(shape=SHAPE, phi=0.4, seed=0):
    return np.random.default_rng(seed).random(shape) < phi


def counted(phase, lag, periodic):
    """Share of the pairs one lag apart of which both ends are in the phase, one by one."""
    flags = [periodic] * 3 if isinstance(periodic, bool) else periodic
    both = pairs = 0
    for start in np.ndindex(phase.shape):
        end = [s + d for s, d in zip(start, lag, strict=True)]
        end = [e % n if wrap else e for e, n, wrap in zip(end, phase.shape, flags, strict=True)]
        if all(0 <= e < n for e, n in zip(end, phase.shape, strict=True)):
            pairs += 1
            both += phase[start] and phase[tuple(end)]
    return both / pairs


@pytest.mark.parametrize("periodic", PERIODIC)
def test_two_point_probability_is_the_share_of_pairs(periodic):
    phase = random_block()
    s2 = two_point(phase, periodic)
    flags = [periodic] * 3 if isinstance(periodic, bool) else periodic
    assert s2.shape == tuple(n if wrap else 2 * n - 1 for n, wrap in zip(SHAPE, flags, strict=True))
    for lag in itertools.product((0, 1, 3, -2, -4), (0, 2, -5), (0, 1, 6, -3)):
        assert s2[lag] == pytest.approx(counted(phase, lag, periodic), abs=1e-12)
    assert s2[0, 0, 0] == pytest.approx(phase.mean(), abs=1e-12)


@pytest.mark.parametrize("periodic", PERIODIC)
def test_along_axes_it_is_the_map_and_radially_the_mean_of_the_map(periodic):
    phase = np.stack([random_block(), random_block(seed=1)])
    axes, radial, maps = (f(phase, periodic) for f in (two_point_axes, two_point_radial, two_point))
    r = reach(SHAPE)
    assert r == 3 and axes.shape == (2, 3, r) and radial.shape == (2, r)
    sums, counts = np.zeros((2, r)), np.zeros(r)
    for lag in itertools.product(*(range(-(n // 2), n // 2 + 1) for n in SHAPE)):
        if lag.count(0) == 2 and max(lag) > 0 and max(lag) < r:
            axis = int(np.flatnonzero(lag)[0])
            np.testing.assert_allclose(axes[:, axis, max(lag)], [counted(p, lag, periodic) for p in phase], atol=1e-12)
        length = int(np.floor(np.linalg.norm(lag) + 0.5))
        if length < r:  # short lags: no two of them are the same one around a periodic axis
            sums[:, length] += [counted(p, lag, periodic) for p in phase]
            counts[length] += 1
    np.testing.assert_allclose(radial, sums / counts, atol=1e-12)
    np.testing.assert_allclose(maps[:, 0, 0, 0], phase.mean((1, 2, 3)), atol=1e-12)


def test_white_noise_is_uncorrelated():
    phi = 0.3
    s2 = two_point_radial(random_block((48,) * 3, phi), True)
    assert s2[0] == pytest.approx(phi, abs=0.01)
    np.testing.assert_allclose(s2[1:], s2[0] ** 2, atol=0.002)


@pytest.mark.parametrize("periodic", [False, True])
def test_layers_have_triangles_across_and_constants_along(periodic):
    layers = np.zeros((16, 12, 12), bool)
    layers[::4] = layers[1::4] = True
    s2, path = two_point_axes(layers, periodic), lineal_path(layers, periodic)
    np.testing.assert_allclose(s2[1:], 0.5, atol=1e-12)
    np.testing.assert_allclose(path[1:], 0.5)
    if periodic:
        np.testing.assert_allclose(s2[0], [0.5, 0.25, 0, 0.25, 0.5, 0.25, 0], atol=1e-12)
        np.testing.assert_allclose(path[0], [0.5, 0.25, 0, 0, 0, 0, 0])
    else:
        np.testing.assert_allclose(path[0][:2], [0.5, 4 / 15])
    across = chord_lengths(layers, 0, periodic)
    assert set(across) == {2} and len(across) == 12 * 12 * (4 if periodic else 3)
    along = chord_lengths(layers, 1, periodic)
    assert list(along) == ([12] * 8 * 12 if periodic else [])


ROW = np.array([1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1, 1], bool)


@pytest.mark.parametrize("axis", range(3))
def test_chords_of_a_row_made_by_hand(axis):
    row = np.moveaxis(ROW[None, None], -1, axis)
    assert sorted(chord_lengths(row, axis)) == [1, 3]
    assert sorted(chord_lengths(row, axis, border=True)) == [1, 2, 2, 3]
    assert sorted(chord_lengths(row, axis, periodic=True)) == [1, 3, 4]
    assert list(chord_lengths(row[..., :0:-1] if axis == 2 else row, (axis + 1) % 3)) == []
    assert mean_chord(row, True)[axis] == pytest.approx(8 / 3)


def test_lineal_path_of_a_row_made_by_hand():
    row = np.tile(ROW, (12, 12, 1))
    np.testing.assert_allclose(lineal_path(row)[2], [8 / 12, 4 / 11, 1 / 10, 0, 0, 0, 0])
    np.testing.assert_allclose(lineal_path(row, True)[2], [8 / 12, 5 / 12, 2 / 12 + 1 / 12, 1 / 12, 0, 0, 0])


@pytest.mark.parametrize("axis", range(3))
def test_lineal_path_counts_the_room_within_chords(axis):
    """On the torus a chord of ℓ voxels holds ℓ − r segments of r + 1."""
    phase = random_block((11, 12, 13), 0.6)
    chords = chord_lengths(phase, axis, True)
    r = np.arange(reach(phase.shape))
    expected = np.maximum(chords[:, None] - r, 0).sum(0) / phase.size
    np.testing.assert_allclose(lineal_path(phase, True)[axis], expected)


@pytest.mark.parametrize("statistic", [two_point_axes, lineal_path, mean_chord])
def test_axes_turn_with_the_volume_and_periodic_ones_roll(statistic):
    phase = random_block((8, 9, 10), 0.6)
    for order in itertools.permutations(range(3)):
        turned = statistic(phase.transpose(order), True)
        np.testing.assert_allclose(turned, statistic(phase, True)[list(order)], atol=1e-12)
    rolled = np.roll(phase, (3, 4, 5), (0, 1, 2))
    np.testing.assert_allclose(statistic(rolled, True), statistic(phase, True), atol=1e-12)
    assert not np.allclose(statistic(rolled, False), statistic(phase, False), atol=1e-3)


@pytest.mark.parametrize("periodic", [False, True])
def test_a_missing_phase_is_never_met_and_a_full_one_always(periodic):
    none, full = np.zeros((4, 5, 6), bool), np.ones((4, 5, 6), bool)
    for statistic in (two_point_axes, two_point_radial, lineal_path):
        assert not np.any(statistic(none, periodic))
        np.testing.assert_allclose(statistic(full, periodic), 1, atol=1e-12)
    assert np.isnan(mean_chord(none, periodic)).all()
    assert np.isnan(mean_chord(full, False)).all()
    np.testing.assert_array_equal(mean_chord(full, True), [4, 5, 6])


def test_a_block_has_the_two_point_probability_that_porespy_gives(waves):
    """porespy 3.2.0, two_point_correlation, probability_scaled, whose bins are lags of the same whole part."""
    s2 = two_point(waves == 0)
    lags = np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in s2.shape), indexing="ij", sparse=True)
    whole = np.floor(np.sqrt(sum(a**2 for a in lags)))
    golden = [0.4953125, 0.39806737, 0.33664022, 0.28285422, 0.24396608, 0.22437865, 0.22088574, 0.22786347]
    np.testing.assert_allclose([s2[whole == r].mean() for r in range(8)], golden, atol=1e-8)


def test_labels_and_grey_levels_are_refused():
    with pytest.raises(UserError, match="labels == phase"):
        two_point(np.arange(27).reshape(3, 3, 3))
    with pytest.raises(UserError, match="three, for z, y, x"):
        lineal_path(np.ones((3, 3, 3), bool), (True, False))
