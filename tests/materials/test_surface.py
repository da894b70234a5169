"""Laws of surfaces and triple lines: spheres, planes, correlations, symmetries."""

import itertools

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.materials.correlation import mean_chord, two_point
from scigen.materials.levelcut import gaussian_field
from scigen.materials.surface import DIRECTIONS, surface, triple_line, weights

FACE, EDGE, CORNER = 0.045778, 0.036981, 0.035196  # Lang, Ohser & Hilfer 2001, of one direction of 26


def ball(n, radius, voxel_size=(1.0, 1.0, 1.0), shift=0.2):
    z, y, x = ((np.arange(n) - (n - 1) / 2 + shift) * h for h in voxel_size)
    return z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= radius**2


def random_block(shape=(8, 9, 10), phi=0.4):
    return np.random.default_rng(0).random(shape) < phi


def test_weights_of_cubes_are_those_of_the_literature():
    known = {1: FACE, 2: EDGE, 3: CORNER}
    expected = [2 * known[sum(map(abs, d))] for d in DIRECTIONS]
    assert len(DIRECTIONS) == 13 and not set(DIRECTIONS) & {tuple(-i for i in d) for d in DIRECTIONS}
    np.testing.assert_allclose(weights((3.0, 3.0, 3.0)), expected, atol=2e-6)


@pytest.mark.parametrize("edges", [(1.0, 1.0, 2.0), (0.5, 2.0, 1.0)])
def test_weights_are_the_shares_of_random_directions_that_are_nearest(edges):
    random = np.random.default_rng(0).standard_normal((40_000, 3))
    lattice = np.array(DIRECTIONS) * edges
    lattice /= np.linalg.norm(lattice, axis=1, keepdims=True)
    shares = np.bincount(np.abs(random @ lattice.T).argmax(1), minlength=13) / len(random)
    np.testing.assert_allclose(weights(edges), shares, atol=0.006)


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (0.5, 1.0, 1.0), (1.0, 0.5, 1.5)])
def test_a_ball_has_its_area(voxel_size):
    """A smooth surface in all directions alike, to 2 %; counting faces gives 3/2 of it."""
    phase = ball(72, 13.0, voxel_size)
    volume = phase.size * np.prod(voxel_size)
    area = 4 * np.pi * 13.0**2
    assert surface(phase, voxel_size, True) * volume == pytest.approx(area, rel=0.02)
    if voxel_size == (1.0, 1.0, 1.0):
        faces = sum(np.count_nonzero(np.diff(phase, axis=a)) for a in range(3))
        assert faces == pytest.approx(1.5 * area, rel=0.02)


PLANE = 4 * (FACE + 4 * EDGE / np.sqrt(2) + 4 * CORNER / np.sqrt(3))  # of a plane along axes, 0.927


def test_planes_along_axes_have_the_weighted_mean_of_cosines_and_a_cube_its_six():
    layers = np.zeros((12, 8, 8), bool)
    layers[:4] = True
    assert surface(layers, 1.0, True) == pytest.approx(PLANE * 2 / 12, rel=1e-4)
    assert surface(layers, 2.0, True) == pytest.approx(PLANE * 2 / 24, rel=1e-4)
    assert PLANE == pytest.approx(0.9267, abs=1e-4)
    cube = np.zeros((120, 120, 120), bool)
    cube[20:100, 20:100, 20:100] = True
    # edges hide a little from the diagonals: two voxels of a row of faces of 80
    assert surface(cube, 1.0, True) * cube.size == pytest.approx(PLANE * 6 * 80**2, rel=0.02)


def test_tilted_planes_have_their_area_in_the_mean_of_directions():
    """A periodic stack of planes of a whole-number normal is a plane of that tilt; the mean over tilts is 1."""
    n, ratios, tilts = 24, [], []
    z, y, x = np.meshgrid(*[np.arange(n) + 0.31] * 3, indexing="ij", sparse=True)
    for normal in itertools.product(range(-2, 3), repeat=3):
        if normal > (0, 0, 0) and np.gcd.reduce(normal) == 1:
            phase = (normal[0] * z + normal[1] * y + normal[2] * x) / n % 1 < 0.5
            ratios.append(float(surface(phase, 1.0, True)) / (2 * np.linalg.norm(normal) / n))
            tilts.append(np.array(normal) / np.linalg.norm(normal))
    assert 0.9 < min(ratios) and max(ratios) < 1.1
    nearest = np.abs(np.random.default_rng(0).standard_normal((20_000, 3)) @ np.array(tilts).T).argmax(1)
    assert np.array(ratios)[nearest].mean() == pytest.approx(1, abs=0.02)


def test_chords_of_layers_tell_their_surface():
    """Each chord ends at two faces: along the normal a surface is 2 φ a mean chord."""
    layers = np.zeros((24, 8, 8), bool)
    for start, width in ((0, 3), (6, 2), (12, 7)):
        layers[start : start + width] = True
    mean = mean_chord(layers, True)[0]
    assert mean == pytest.approx(4)
    assert surface(layers, 1.0, True) == pytest.approx(PLANE * 2 * layers.mean() / mean, rel=1e-4)


@pytest.mark.parametrize("periodic", [True, (False, True, False), False])
def test_it_is_the_slope_of_the_two_point_probability(periodic):
    """Pairs with ends on either side: 2 (φ − S2) on the torus, counted in open blocks."""
    phase = random_block()
    if periodic is True:
        s2 = two_point(phase, True)
        changes = [2 * (s2[0, 0, 0] - s2[d]) for d in DIRECTIONS]
    else:
        both, neither = (two_point(p, periodic) for p in (phase, ~phase))
        changes = [1 - both[d] - neither[d] for d in DIRECTIONS]
    steps = np.linalg.norm(np.array(DIRECTIONS), axis=1)
    expected = 2 * sum(w * c / s for w, c, s in zip(weights((1.0, 1.0, 1.0)), changes, steps, strict=True))
    assert surface(phase, 1.0, periodic) == pytest.approx(expected, rel=1e-12)


def test_a_phase_and_the_rest_share_their_surface_and_turning_changes_nothing():
    phase, edges = random_block(), (1.0, 2.0, 0.7)
    for periodic in (False, True):
        plain = surface(phase, edges, periodic)
        assert surface(~phase, edges, periodic) == pytest.approx(plain)
        assert surface(phase[::-1, :, ::-1], edges, periodic) == pytest.approx(plain)
        for order in itertools.permutations(range(3)):
            turned = surface(phase.transpose(order), [edges[a] for a in order], periodic)
            assert turned == pytest.approx(plain, rel=1e-6)
    assert surface(np.roll(phase, 3, 0), edges, True) == pytest.approx(surface(phase, edges, True))
    both = surface(np.stack([phase, ~phase]), edges, True)
    assert both.shape == (2,) and both[0] == surface(phase, edges, True)


def test_without_border_there_is_no_surface_and_without_pairs_no_answer():
    assert surface(np.zeros((4, 4, 4), bool)) == 0 == surface(np.ones((4, 4, 4), bool), 1.0, True)
    assert np.isnan(surface(np.ones((1, 1, 1), bool)))
    page = random_block((1, 32, 32))
    assert 0 < surface(page) == pytest.approx(surface(page[::-1, ::-1]))


def prisms(n=12):
    """Three phases in quarters, whose lines run along z: two where three meet, two where all neighbours differ."""
    labels = np.zeros((n, n, n), int)
    labels[:, n // 2 :, : n // 2] = 1
    labels[:, n // 2 :, n // 2 :] = 2
    return labels


def test_lines_along_an_axis_have_their_length():
    labels = prisms()
    open_ = triple_line(labels, (1.0, 2.0, 3.0))  # one line, in the middle; (n − 1)² places for it
    assert open_ == pytest.approx(1 / (11**2 * 6))
    # on the torus the quarters 0 0 / 1 2 meet again at the other seams: 4 corners, all of three phases
    assert triple_line(labels, 1.0, True) == pytest.approx(4 / 144)
    for order in itertools.permutations(range(3)):
        edges = np.array((1.0, 2.0, 3.0))[list(order)]
        assert triple_line(labels.transpose(order), edges) == pytest.approx(open_)


def test_two_phases_have_no_triple_line():
    assert triple_line(random_block().astype(int)) == 0 == triple_line(random_block(), 1.0, True)


def test_a_ring_is_over_counted_by_stairs():
    """Where a ball dips into a flat interface: a circle in the plane of two axes, of which stairs have 4/π."""
    radius, n = 20.0, 64
    labels = np.zeros((n, n, n), int)
    labels[n // 2 :] = 1
    labels[ball(n, radius, shift=0.0)] = 2
    assert triple_line(labels) * (n - 1) ** 2 * n == pytest.approx(8 * radius, rel=0.03)


def test_an_isotropic_tangle_is_over_counted_by_three_halves(spectrum):
    """The greatest of three Gaussian fields: three phases meet where two fields, their differences, both vanish.

    Such lines have the length −ρ''(0) / π a volume (Berry & Dennis 2000, Proc. R. Soc. A 456, 2059: k₂ / 3π).
    """
    n = 48
    power = spectrum((n, n, n), 0.0, 0.05)
    k = np.meshgrid(*[2 * np.pi * np.fft.fftfreq(n)] * 3, indexing="ij", sparse=True)
    minus_rho2 = (power * sum(a**2 for a in k)).sum() / power.sum() / 3
    tangles = np.stack(
        [np.argmax([gaussian_field((n, n, n), power, 3 * s + i) for i in range(3)], axis=0) for s in range(12)]
    )
    found = triple_line(tangles, 1.0, True)
    error = found.std(ddof=1) / np.sqrt(len(found))
    law = 1.5 * 1.055 * minus_rho2 / np.pi  # where voxels of a phase touch diagonally an edge counts, too: 4 to 8 %
    assert abs(found.mean() - law) < 0.03 * law and error < 0.015 * law


def test_a_block_has_the_triple_line_that_taufactor_counts(waves):
    """taufactor 1.2.1, triple_phase_boundary: so many edges of all that lie within."""
    edges = np.array([20 * 23 * 27, 19 * 24 * 27, 19 * 23 * 28])
    sizes = np.array([(1, 1, 1), (2, 1, 1), (1, 2, 1)])
    shares = np.linalg.solve(sizes / sizes.prod(1, keepdims=True), [float(triple_line(waves, h)) for h in sizes])
    assert shares @ edges == pytest.approx(1327, abs=1e-6)


def test_labels_that_are_no_whole_numbers_are_refused():
    with pytest.raises(UserError, match="whole numbers"):
        triple_line(np.ones((4, 4, 4)))
    with pytest.raises(UserError, match="0 and 1"):
        surface(np.full((4, 4, 4), 2))
