"""Laws of effective diffusivity: layers, bounds, a direct solution, taufactor's and porespy's numbers."""

import itertools

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import spsolve

from scigen.errors import UserError
from scigen.materials.diffusion import (
    effective_diffusivities,
    effective_diffusivity,
    hashin_shtrikman,
    parallel,
    tortuosity_factor,
)
from scigen.materials.levelcut import gaussian_field
from scigen.materials.topology import spanning

OPEN = (False, False, False)


def random_block(shape=(12, 11, 13), phi=0.5, seed=0):
    return np.random.default_rng(seed).random(shape) < phi


@pytest.fixture(scope="module")
def smooth(spectrum):
    """A level cut of a ring of waves, periodic and isotropic."""

    def cut(n=32, phi=0.5, seed=0):
        field = gaussian_field((n, n, n), spectrum((n, n, n), 0.15, 0.04), seed)
        return field > np.quantile(field, 1 - phi)

    return cut


def direct(phase, axis, periodic=OPEN, voxel_size=(1, 1, 1)):
    """D_eff by elimination, voxel by voxel, written apart from the code under test."""
    sides = phase.shape
    phase = spanning(phase, axis, periodic)
    number = {tuple(v): i for i, v in enumerate(np.argwhere(phase))}
    if not number:
        return 0.0
    matrix, b = sparse.lil_array((len(number), len(number))), np.zeros(len(number))
    area = np.prod(voxel_size) / np.array(voxel_size)
    for voxel, i in number.items():
        for a, step in itertools.product(range(3), (-1, 1)):
            bond = area[a] / voxel_size[a]
            to = list(voxel)
            to[a] += step
            if a == axis and not 0 <= to[a] < sides[a]:
                matrix[i, i] += 2 * bond
                b[i] += 2 * bond * (step < 0)
                continue
            if periodic[a]:
                to[a] %= sides[a]
            j = number.get(tuple(to))
            if j is not None and j != i:
                matrix[i, i] += bond
                matrix[i, j] -= bond
    u = spsolve(matrix.tocsc(), b)
    current = sum(2 * area[axis] / voxel_size[axis] * (1 - u[i]) for v, i in number.items() if v[axis] == 0)
    length = sides[axis] * voxel_size[axis]
    section = area[axis] * np.prod(sides) / sides[axis]
    return current * length / section


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("periodic", [False, True])
def test_a_full_block_conducts_all_and_an_empty_one_nothing(axis, periodic):
    assert effective_diffusivity(np.ones((4, 5, 6), bool), axis, periodic=periodic) == 1.0
    assert effective_diffusivity(np.zeros((4, 5, 6), bool), axis, periodic=periodic) == 0.0


def test_layers_conduct_along_and_block_across():
    layers = np.zeros((8, 6, 7), bool)
    layers[[1, 2, 5]] = True
    for axis in (1, 2):
        assert tortuosity_factor(3 / 8, effective_diffusivity(layers, axis)) == pytest.approx(1, rel=1e-12)
    assert effective_diffusivity(layers, 0) == 0.0
    assert tortuosity_factor(3 / 8, 0.0) == np.inf and np.isnan(tortuosity_factor(0, 0))


def test_a_voxel_of_wall_in_the_way_blocks_exactly_however_much_lies_beside(smooth):
    phase = smooth()
    phase[17] = False
    assert effective_diffusivity(phase, 0) == 0.0


def test_a_winding_channel_is_a_chain_of_bonds():
    """Resistors in series: n − 1 bonds between n voxels and half a bond at either plate."""
    path = np.zeros((5, 1, 9), bool)
    path[0], path[2], path[4] = True, True, True
    path[1, 0, -1] = path[3, 0, 0] = True
    path[0, 0, :-1], path[4, 0, 1:] = False, False
    voxels = 1 + 1 + 9 + 1 + 1
    assert path.sum() == voxels
    expected = 1 / (voxels - 1 + 0.5 + 0.5) * 5 / 9  # times length over section
    assert effective_diffusivity(path, 0) == pytest.approx(expected, rel=1e-6)


def snake(n=10):
    """One channel to and fro through every other row of every other layer, of which each plate meets one end."""
    layer = []
    for y in range(0, n, 2):
        row = [(y, x) for x in range(n)][:: 1 if y % 4 == 0 else -1]
        layer += [*row, (y + 1, row[-1][1])]
    layer.pop()
    way = [(0, *layer[0])]
    for z in range(1, 2 * n, 2):
        way += [(z, *at) for at in layer]
        layer.reverse()
        way.append((z + 1, *layer[0]))
    path = np.zeros((2 * n + 1, n, n), bool)
    path[tuple(np.transpose(way))] = True
    return path, len(way)


def test_a_long_winding_channel_is_solved_to_the_default_tolerance():
    """Iterations learn of its far end only after half of its length: an early stop would be far off."""
    path, voxels = snake()
    assert path.sum() == voxels > 500 and spanning(path, 0).sum() == voxels
    expected = len(path) / path[0].size / voxels
    assert effective_diffusivity(path, 0) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_blocks_at_the_edge_of_percolation_are_solved_to_the_default_tolerance(seed):
    phase = random_block((24, 24, 24), 0.35, seed)
    tight = effective_diffusivity(phase, 0, tolerance=1e-9)
    assert 0 < tight < 0.02
    assert effective_diffusivity(phase, 0) == pytest.approx(tight, rel=1e-3)


def test_halls_behind_narrow_doors_are_solved_to_the_default_tolerance():
    """What is left to balance between large halls is slow, and small beside what the first steps are busy with."""
    halls, doors = np.ones((32, 32, 32), bool), ((3, 3), (28, 28), (3, 28), (28, 3), (3, 3), (28, 28), (16, 2))
    for z, door in zip(range(4, 32, 4), doors, strict=True):
        halls[z] = False
        halls[(z, *door)] = True
    tight = effective_diffusivity(halls, 0, tolerance=1e-10)
    assert effective_diffusivity(halls, 0) == pytest.approx(tight, rel=1e-3)


@pytest.mark.parametrize("z", [8, 12, 18, 27])
@pytest.mark.parametrize("neck", [4, 10])
def test_a_cave_beside_a_channel_carries_nothing(z, neck):
    """It hangs on a thread, and takes on the potential of its mouth last of all."""
    cave = np.zeros((32, 32, 32), bool)
    cave[:, :4, :4] = cave[8:28, 4 + neck :] = True
    cave[z, 1, 3:6] = cave[z, 1 : 4 + neck, 5] = True
    assert effective_diffusivity(cave, 0) == pytest.approx(16 / 1024, rel=1e-3)


def test_conductances_beside_each_other_add_and_dead_ends_carry_nothing():
    channels = np.zeros((6, 3, 4), bool)
    channels[:, 1, [0, 3]] = True
    assert effective_diffusivity(channels, 0) == pytest.approx(2 / 12, rel=1e-12)
    channels[2, 2, :2] = channels[4, 0, 3] = True  # pits
    assert effective_diffusivity(channels, 0) == pytest.approx(2 / 12, rel=1e-9)


def test_a_constriction_by_hand():
    """Two columns, one of which is cut in its middle voxel: by symmetry two equal halves, each solved on paper.

    A half: from the plate half a bond to A1 and B1, bonds A1–B1, A1–A2, B2 missing; A2, in the middle layer, is at 1/2.
    """
    pair = np.ones((3, 1, 2), bool)
    pair[1, 0, 1] = False
    # A1: 2 (1 − a) + (b − a) + (1/2 − a) = 0;  B1: 2 (1 − b) + (a − b) = 0;  current 2 (1 − a) + 2 (1 − b)
    a, b = np.linalg.solve([[4, -1], [-1, 3]], [2.5, 2])
    assert effective_diffusivity(pair, 0, tolerance=1e-10) == pytest.approx((4 - 2 * a - 2 * b) * 3 / 2, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("periodic", "voxel_size"),
    [(OPEN, (1, 1, 1)), ((True, True, True), (1, 1, 1)), ((False, True, False), (2, 0.5, 1)), ((True,) * 3, (1, 2, 3))],
)
def test_random_blocks_agree_with_a_direct_solution(seed, periodic, voxel_size):
    phase = random_block(phi=0.55, seed=seed)
    for axis in range(3):
        flags = [p and a != axis for a, p in enumerate(periodic)]
        truth = direct(phase, axis, flags, voxel_size)
        given = {"periodic": periodic, "voxel_size": voxel_size}
        assert truth <= effective_diffusivity(phase, axis, **given) * (1 + 1e-9)  # an energy: from above
        assert effective_diffusivity(phase, axis, **given) == pytest.approx(truth, rel=1e-3)
        assert effective_diffusivity(phase, axis, **given, tolerance=1e-10) == pytest.approx(truth, rel=1e-8)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 4), (2, 2, 2), (7, 2, 3), (2, 1, 5), (3, 3, 1)])
def test_thin_blocks_with_wrapping_sides_agree_with_a_direct_solution(shape):
    for seed in range(6):
        phase = random_block(shape, 0.7, seed)
        for axis, periodic in itertools.product(range(3), (False, True)):
            truth = direct(phase, axis, [periodic and a != axis for a in range(3)])
            assert effective_diffusivity(phase, axis, periodic=periodic) == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize("phi", [0.3, 0.5, 0.7, 0.9])
def test_isotropic_blocks_lie_below_hashin_and_shtrikman_and_within_the_tolerance(phi, smooth):
    values, tight = (
        effective_diffusivities(smooth(24, phi)[None], [1], periodic=True, tolerance=t)[0, 0] for t in (1e-3, 1e-9)
    )
    assert (0 < values).all() and (values < parallel(phi)).all()
    assert values.mean() < hashin_shtrikman(phi)
    np.testing.assert_allclose(values, tight, rtol=1e-3)


@pytest.mark.parametrize(
    ("periodic", "golden"),
    [(False, (0.21176645, 0.24972272, 0.26056856)), (True, (0.23250471, 0.271164, 0.28708836))],
)
def test_a_block_has_the_diffusivity_that_taufactor_gives(periodic, golden, waves):
    """taufactor 1.2.1, Solver and PeriodicSolver, conv_crit=1e-5."""
    values = [effective_diffusivity(waves == 0, axis, periodic=periodic, tolerance=1e-6) for axis in range(3)]
    np.testing.assert_allclose(values, golden, rtol=2e-6)


def test_a_block_has_nearly_the_diffusivity_that_porespy_gives(waves):
    """porespy 3.2.0 with openpnm, tortuosity_fd, 1 / formation_factor: its plates are half a voxel further in."""
    values = [effective_diffusivity(waves == 0, axis) for axis in range(3)]
    np.testing.assert_allclose(values, (0.20871292, 0.24704287, 0.25848879), rtol=0.02)


def test_spheres_far_apart_approach_maxwells_law_as_voxels_shrink():
    """Few obstacles that are spheres, in a cubic lattice, are at the bound of Hashin and Shtrikman; stairs obstruct."""
    gap = []
    for n in (16, 32, 64):
        r = (np.arange(n) - (n - 1) / 2) / n
        rest = r[:, None, None] ** 2 + r[:, None] ** 2 + r**2 > (9 / 32) ** 2
        gap.append(hashin_shtrikman(rest.mean()) - effective_diffusivity(rest, 0, periodic=True, tolerance=1e-6))
    assert 0 < gap[2] < 0.006 and gap[1] / gap[2] == pytest.approx(2, rel=0.2)  # of first order in the voxel
    assert 2 * gap[2] - gap[1] == pytest.approx(0, abs=1e-3)


def test_turning_the_volume_turns_the_result_and_rolling_a_periodic_one_does_nothing(smooth):
    phase = smooth(16, 0.45, seed=4)
    for order in itertools.permutations(range(3)):
        for axis in range(3):
            turned = effective_diffusivity(phase.transpose(order), axis, tolerance=1e-8)
            assert turned == pytest.approx(effective_diffusivity(phase, order[axis], tolerance=1e-8), rel=1e-7)
    plain, rolled = (effective_diffusivity(p, 0, periodic=True, tolerance=1e-8) for p in (phase, np.roll(phase, 5, 1)))
    assert rolled == pytest.approx(plain, rel=1e-7)
    assert effective_diffusivity(np.roll(phase, 5, 1), 0) != pytest.approx(plain, rel=1e-3)


def test_only_the_shape_of_a_voxel_counts_and_longer_ones_conduct_less_sideways():
    phase = random_block(phi=0.6)
    one, other = (effective_diffusivity(phase, 0, voxel_size=h, tolerance=1e-8) for h in (2e-6, (1, 1, 1)))
    assert one == pytest.approx(other, rel=1e-7)
    assert effective_diffusivity(phase, 0, voxel_size=(1, 3, 3)) < 0.98 * other


def test_many_volumes_come_in_order_whatever_the_workers(smooth):
    labels = np.stack([smooth(12, phi).astype(int) for phi in (0.4, 0.6, 0.8)])
    told = []
    one = effective_diffusivities(labels, [1, 0], progress=told.append)
    assert one.shape == (3, 2, 3) and told == [1, 2, 3]
    assert (np.diff(one[:, 0], axis=0) > 0).all() and (np.diff(one[:, 1], axis=0) <= 0).all()
    assert one[1, 0, 2] == effective_diffusivity(labels[1] == 1, 2)
    np.testing.assert_array_equal(effective_diffusivities(labels, [1, 0], workers=2), one)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.full((4, 4, 4), 255, np.uint8), "255"),
        (np.full((4, 4, 4), np.nan), "nan"),
        (np.ones((4, 4), bool), r"\(4, 4\)"),
        (np.ones((2, 4, 4, 4), bool), "One volume"),
        (np.ones((0, 4, 4), bool), "at least one voxel"),
    ],
)
def test_what_is_no_indicator_is_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        effective_diffusivity(wrong, 0)


def test_wrong_axes_sizes_and_tolerances_are_refused():
    block = np.ones((4, 4, 4), bool)
    for given in (
        {"axis": 3},
        {"voxel_size": (1, 0, 1)},
        {"voxel_size": (1, 2)},
        {"periodic": (True,)},
        {"tolerance": 0},
    ):
        with pytest.raises(UserError, match="got"):
            effective_diffusivity(block, **{"axis": 0, **given})
    with pytest.raises(UserError, match="N, Z, Y, X"):
        effective_diffusivities(block, [1])
