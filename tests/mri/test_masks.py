"""Masks: what they promise of acceleration, calibration region, extent and distances."""

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.mri.coils import calibration
from scigen.mri.masks import KINDS, SLOPE, acs_share, effective_acceleration, mask

LINES, POINTS = ("random", "equispaced"), ("gaussian", "poisson")


def draw(kind, shape=(64, 64), acceleration=4.0, acs=None, seed=0, extent=None):
    return mask(kind, shape, acceleration, acs, np.random.default_rng(seed), extent)


@pytest.mark.parametrize("shape", [(64, 64), (40, 65), (33, 90)])
@pytest.mark.parametrize("acceleration", [3, 4, 8])
@pytest.mark.parametrize("kind", LINES)
def test_lines_reach_the_acceleration_in_the_mean(kind, acceleration, shape):
    taken = np.stack([draw(kind, shape, acceleration, seed=i)[0] for i in range(400)])
    assert taken.mean() == pytest.approx(1 / acceleration, rel=0.03)
    outside = np.ones(shape[1], bool)
    low = max(4, round(acs_share(acceleration) * shape[1]))
    start = shape[1] // 2 - low // 2
    outside[start : start + low] = False
    chance = (shape[1] / acceleration - low) / (shape[1] - low)
    assert (taken[:, ~outside]).all()
    assert np.abs(taken[:, outside].mean(0) - chance).max() < 5 * np.sqrt(chance / 400)  # every line alike


@pytest.mark.parametrize("shape", [(64, 64), (33, 90)])
@pytest.mark.parametrize("acceleration", [2.5, 4, 8])
@pytest.mark.parametrize("kind", POINTS)
def test_points_reach_the_acceleration_to_the_sample(kind, acceleration, shape):
    assert draw(kind, shape, acceleration).sum() == pytest.approx(shape[0] * shape[1] / acceleration, abs=0.51)


def test_lines_run_along_ky():
    for kind in LINES:
        m = draw(kind)
        assert m.dtype == bool and (m == m[:1]).all()
    for kind in POINTS:
        m = draw(kind)
        assert not (m == m[:1]).all() and not (m == m[:, :1]).all()


def test_equispaced_lines_are_equispaced():
    """Without a centre the gaps are the acceleration, rounded; and every line is a first one's follower."""
    for acceleration in (4, 5.5):
        gaps = np.diff(np.flatnonzero(draw("equispaced", (8, 330), acceleration, acs=0)[0]))
        assert set(gaps) <= {int(np.floor(acceleration)), int(np.ceil(acceleration))}
    assert len({int(np.argmax(draw("equispaced", (8, 330), 6, acs=0, seed=i)[0])) for i in range(60)}) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_the_calibration_region_is_whole(kind):
    for n, acceleration in ((64, 4), (64, 8), (48, 8), (128, 4)):
        height, width = calibration(draw(kind, (n, n), acceleration))
        if kind in LINES:
            assert height == n and width >= max(4, round(acs_share(acceleration) * n))
        else:
            side = round(acs_share(acceleration) ** 0.5 * n)
            assert height >= side and width >= side
    assert acs_share(4) == pytest.approx(0.08) and acs_share(8) == pytest.approx(0.04)


@pytest.mark.parametrize("kind", KINDS)
def test_an_acceleration_of_one_takes_all(kind):
    assert draw(kind, acceleration=1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_extent_is_sampled_and_counts(kind):
    extent = (10, 58)
    drawn = [draw(kind, (32, 64), 4, seed=i, extent=extent) for i in range(300 if kind in LINES else 4)]
    assert not np.stack(drawn)[:, :, :10].any() and not np.stack(drawn)[:, :, 58:].any()
    assert np.mean([1 / effective_acceleration(m, extent) for m in drawn]) == pytest.approx(1 / 4, rel=0.03)
    assert effective_acceleration(drawn[0]) == pytest.approx(effective_acceleration(drawn[0], extent) * 64 / 48)
    assert all(m[:, 30:34].all() if kind in LINES else m[16, 32] for m in drawn)


def test_density_falls_from_the_centre():
    y, x = np.ogrid[-32:32, -32:32]
    radius = np.hypot(y, x)
    for kind in POINTS:
        mean = np.mean([draw(kind, acceleration=8, seed=i) for i in range(8)], 0)
        rings = [mean[(radius >= a) & (radius < b)].mean() for a, b in ((0, 6), (9, 14), (18, 24), (28, 32))]
        assert rings[0] == 1 and (np.diff(rings) < 0).all()
        assert rings[1] > 1.5 * rings[3]


def test_poisson_points_keep_their_distance():
    """No two nearer than a distance that grows from the centre; random points of that density are nearer."""
    y, x = np.mgrid[-32:32, -32:32]
    grown = 1 + SLOPE * np.hypot(y, x) / 32

    def nearest(m):
        points = np.argwhere(m)
        d = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1)).astype(float)
        d[d == 0] = np.inf
        own = grown[m]
        return (d / np.minimum(own[:, None], own[None])).min()

    outside = np.hypot(y, x) > 15  # without the calibration square
    poisson, gaussian = (nearest(draw(kind, acceleration=8) & outside) for kind in ("poisson", "gaussian"))
    assert poisson > 0.9 and gaussian < 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_masks_differ_with_the_random_numbers_alone(kind):
    assert (draw(kind, seed=3) == draw(kind, seed=3)).all()
    assert any((draw(kind, seed=3) != draw(kind, seed=i)).any() for i in range(4, 8))


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"spiral.*random, equispaced, gaussian, poisson"):
        draw("spiral")
    with pytest.raises(UserError, match=r"acceleration=0\.5: expected 1"):
        draw("random", acceleration=0.5)
    with pytest.raises(UserError, match="acceleration=nan"):
        draw("random", acceleration=float("nan"))
    with pytest.raises(UserError, match="Choose at most 8"):
        draw("random", (32, 32), 16)
    with pytest.raises(UserError, match=r"acs=1\.5"):
        draw("random", acs=1.5)
    with pytest.raises(UserError, match=r"extent=\[40, 64\].*central column 32"):
        draw("random", extent=(40, 64))
    with pytest.raises(UserError, match="is empty"):
        draw("gaussian", (4, 4), 64, acs=0)
    with pytest.raises(UserError, match="empty"):
        effective_acceleration(np.zeros((8, 8), bool))
    with pytest.raises(UserError, match="empty"):
        effective_acceleration(np.eye(8, dtype=bool)[:1] > 0, (3, 8))
