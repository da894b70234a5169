"""Laws of clusters, percolation and the Euler number: known bodies, scikit-image's counts, symmetries."""

import itertools

import numpy as np
import pytest

from scigen.materials.topology import clusters, connected, euler, percolates, percolating_fraction, spanning

R = np.arange(24) - 11.5
SQUARE = R[:, None, None] ** 2 + R[:, None] ** 2 + R**2
BALL = SQUARE <= 81
SHELL = BALL & (SQUARE > 36)
TORUS = (np.sqrt(R[:, None] ** 2 + R**2) - 7)[None] ** 2 + (R**2)[:, None, None] <= 9
TWO = np.concatenate([BALL, BALL])


def whole(phase, periodic):
    """Euler number of the whole block."""
    corners = phase.size if periodic else np.prod([n - 1 for n in phase.shape])
    return euler(phase, periodic) * corners


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize(
    ("body", "number"), [(BALL, 1), (TORUS, 0), (SHELL, 2), (TWO, 2), (TWO | TWO.transpose(0, 2, 1), 2)]
)
def test_parts_less_tunnels_plus_voids(body, number, periodic):
    assert whole(body, periodic) == pytest.approx(number, abs=1e-9)


def test_random_voxels_have_the_number_that_scikit_image_counts():
    """scikit-image 0.26.0, euler_number(connectivity=3)."""
    phase = np.pad(np.random.default_rng(0).random((12, 13, 14)) < 0.3, 1)
    assert whole(phase, False) == pytest.approx(-157, abs=1e-9) and phase.sum() == 665
    assert whole(phase, True) == pytest.approx(-157, abs=1e-9)


def test_voxels_that_share_a_corner_or_an_edge_are_one():
    for step in ((1, 1, 1), (0, 1, 1), (0, 0, 1)):
        pair = np.zeros((6, 6, 6), bool)
        pair[2, 2, 2] = pair[tuple(2 + s for s in step)] = True
        assert whole(pair, False) == pytest.approx(1)
        assert clusters(pair)[1] == (1 if sum(step) == 1 else 2)  # which by faces they are not


def test_on_the_torus_a_rod_a_sheet_and_all_of_it_have_none():
    rod, sheet = np.zeros((2, 6, 7, 8), bool)
    rod[:, 2, 3] = sheet[2] = True
    for phase in (rod, sheet, np.ones((6, 7, 8), bool)):
        assert whole(phase, True) == pytest.approx(0, abs=1e-9)
    cut = rod.copy()
    cut[0] = False
    assert whole(cut, True) == pytest.approx(1)


def test_open_blocks_have_no_bias_from_their_border():
    """Windows of one torus that meet at shared layers add up to the torus."""
    phase = np.random.default_rng(0).random((8, 9, 10)) < 0.3
    around = np.concatenate([phase, phase[:1]])
    halves = [around[:5], around[4:]]
    flags = (False, True, True)
    total = sum(euler(h, flags) * (len(h) - 1) * 90 for h in halves)
    assert total == pytest.approx(whole(phase, True), abs=1e-9)


@pytest.mark.parametrize("periodic", [False, True, (True, False, True)])
def test_turning_mirroring_and_rolling_leave_the_number_alone(periodic):
    phase = np.random.default_rng(1).random((7, 8, 9)) < 0.4
    flags = [periodic] * 3 if isinstance(periodic, bool) else periodic
    plain = euler(phase, periodic)
    for order in itertools.permutations(range(3)):
        assert euler(phase.transpose(order), [flags[a] for a in order]) == pytest.approx(plain)
    assert euler(phase[::-1, :, ::-1], periodic) == pytest.approx(plain)
    if flags[0]:
        assert euler(np.roll(phase, 3, 0), periodic) == pytest.approx(plain)
    assert euler(np.stack([phase, ~phase]), periodic)[0] == pytest.approx(plain)


def test_euler_of_nothing_is_none_and_without_corners_unknown():
    assert euler(np.zeros((4, 4, 4), bool)) == 0
    assert np.isnan(euler(np.ones((1, 4, 4), bool)))


def flooded(phase, flags):
    """Clusters by flooding from voxel to voxel, as sets."""
    left, out = {tuple(int(i) for i in v) for v in np.argwhere(phase)}, set()
    while left:
        edge = [left.pop()]
        found = set(edge)
        while edge:
            at = edge.pop()
            for axis, step in itertools.product(range(3), (-1, 1)):
                to = list(at)
                to[axis] += step
                if flags[axis]:
                    to[axis] %= phase.shape[axis]
                if tuple(to) in left:
                    left.remove(tuple(to))
                    found.add(tuple(to))
                    edge.append(tuple(to))
        out.add(frozenset(found))
    return out


@pytest.mark.parametrize("periodic", [False, True, (False, True, False)])
@pytest.mark.parametrize("phi", [0.15, 0.3, 0.5])
def test_clusters_spans_and_shares_are_those_of_flooding(periodic, phi):
    phase = np.random.default_rng(2).random((6, 7, 8)) < phi
    flags = [periodic] * 3 if isinstance(periodic, bool) else list(periodic)
    labels, count = clusters(phase, periodic)
    truth = flooded(phase, flags)
    assert count == len(truth) and set(np.unique(labels)) == {0, *range(1, count + 1)}
    assert {
        frozenset(zip(*(i.tolist() for i in np.nonzero(labels == k)), strict=True)) for k in range(1, count + 1)
    } == truth
    assert connected(phase, periodic) == max(map(len, truth)) / phase.sum()
    for axis in range(3):
        across = flooded(phase, [f and a != axis for a, f in enumerate(flags)])
        through = [c for c in across if {0, phase.shape[axis] - 1} <= {v[axis] for v in c}]
        share = sum(map(len, through)) / phase.sum()
        assert percolating_fraction(phase, periodic)[axis] == pytest.approx(share)
        assert percolates(phase, periodic)[axis] == bool(through)
        assert spanning(phase, axis, periodic).sum() == sum(map(len, through))


def test_a_way_that_leaves_by_one_side_and_comes_back_by_the_other_counts_where_sides_wrap():
    way = np.zeros((4, 2, 6), bool)
    way[:2, 0, 0] = way[1:, 0, -1] = True
    assert not percolates(way)[0] and percolates(way, True)[0] and percolates(way, (True, False, True))[0]
    assert list(percolating_fraction(way, True)) == [1, 0, 0]


def test_axis_itself_is_open_though_it_is_periodic():
    """Voxels at both faces that touch only around the back do not percolate."""
    ends = np.zeros((5, 3, 3), bool)
    ends[[0, -1]] = True
    assert clusters(ends, True)[1] == 1 and not percolates(ends, True)[0]
    assert list(percolates(ends, True)[1:]) == [True, True]


def test_a_missing_phase_percolates_nowhere_and_has_no_cluster():
    none = np.zeros((3, 4, 5), bool)
    assert not percolates(none, True).any() and not percolating_fraction(none).any() and np.isnan(connected(none))
    assert percolates(~none).all() and connected(~none) == 1
