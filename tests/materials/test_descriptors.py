"""The descriptors of one volume: shapes, units, symmetries, missing phases, bad labels."""

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.materials.descriptors import describe


def labels(shape=(12, 13, 14), seed=0):
    return np.random.default_rng(seed).choice(3, shape, p=(0.5, 0.3, 0.2))


@pytest.mark.parametrize("periodic", [False, True])
def test_shapes_and_what_phases_share(periodic):
    found = describe(labels(), 3, periodic=periodic, transport=[0, 2])
    p, r, t = 3, 7, 2
    assert {name: values.shape for name, values in found.items()} == {
        "volume_fraction": (p,),
        "two_point": (p, 3, r),
        "two_point_radial": (p, r),
        "lineal_path": (p, 3, r),
        "mean_chord": (p, 3),
        "surface": (p,),
        "triple_line": (),
        "euler": (p,),
        "connected": (p,),
        "percolates": (p, 3),
        "effective_diffusivity": (t, 3),
        "tortuosity_factor": (t, 3),
    }
    phi = found["volume_fraction"]
    assert phi.sum() == pytest.approx(1)
    for name in ("two_point", "lineal_path"):
        np.testing.assert_allclose(found[name][:, 0, 0], phi, atol=1e-12)
    np.testing.assert_allclose(found["two_point_radial"][:, 0], phi, atol=1e-12)
    np.testing.assert_allclose(found["two_point"][..., 1], found["lineal_path"][..., 1], atol=1e-12)
    open_ = found["percolates"][[0, 2]]
    product = np.where(open_, found["effective_diffusivity"], 1) * np.where(open_, found["tortuosity_factor"], 1)
    np.testing.assert_allclose(product, np.where(open_, phi[[0, 2], None], 1))
    assert np.isinf(found["tortuosity_factor"][~open_]).all() and open_.any() and not open_.all()
    np.testing.assert_array_equal(found["effective_diffusivity"] > 0, open_)


def test_lengths_are_in_units_of_the_voxel_size():
    one, other = (describe(labels(), 3, voxel_size=h) for h in (1, 0.5))
    power = {"mean_chord": 1, "surface": -1, "triple_line": -2, "euler": -3}
    for name, values in one.items():
        np.testing.assert_allclose(other[name], values * 0.5 ** power.get(name, 0), err_msg=name)


def test_axes_keep_their_own_edges():
    edges = np.array([1.0, 2.0, 3.0])
    plain, long = (describe(labels(), 3, periodic=True, voxel_size=h) for h in (1, edges))
    np.testing.assert_allclose(long["mean_chord"], plain["mean_chord"] * edges)
    np.testing.assert_allclose(long["euler"], plain["euler"] / 6)


def test_rolling_a_torus_changes_nothing_and_renaming_phases_renames():
    volume = labels()
    plain = describe(volume, 3, periodic=True, transport=[0])
    rolled = describe(np.roll(volume, (3, 4, 5), (0, 1, 2)), 3, periodic=True)
    for name, values in rolled.items():
        if name not in ("percolates", "effective_diffusivity", "tortuosity_factor"):  # between plates, which are places
            np.testing.assert_allclose(values, plain[name], atol=1e-12, err_msg=name)
    names = np.array([2, 0, 1])
    renamed = describe(names[volume], 3, periodic=True, transport=[2])
    for name, values in plain.items():
        same = (
            values if values.ndim == 0 or name in ("effective_diffusivity", "tortuosity_factor") else values[[1, 2, 0]]
        )
        np.testing.assert_allclose(renamed[name], same, atol=1e-12, err_msg=name)


def test_a_way_around_the_back_counts_where_the_volume_is_periodic():
    way = np.ones((4, 3, 6), int)
    way[:2, 0, 0] = way[1:, 0, -1] = 0
    open_, round_ = (describe(way, 2, periodic=p, transport=[0]) for p in (False, True))
    assert not open_["percolates"][0, 0] and open_["effective_diffusivity"][0, 0] == 0
    assert round_["percolates"][0, 0] and round_["effective_diffusivity"][0, 0] > 0
    assert open_["connected"][0] == 3 / 5 and round_["connected"][0] == 1


@pytest.mark.parametrize("periodic", [False, True])
def test_a_missing_phase_counts_nothing_and_averages_to_nan(periodic):
    """Warnings are errors."""
    found = describe(np.zeros((6, 6, 6), np.uint8), 2, periodic=periodic, transport=[0, 1])
    gone = {name: values[1] for name, values in found.items() if values.ndim}
    for name in ("volume_fraction", "two_point", "two_point_radial", "lineal_path", "surface", "euler", "percolates"):
        assert not np.any(gone[name]), name
    for name in ("mean_chord", "connected", "tortuosity_factor"):
        assert np.isnan(gone[name]).all(), name
    assert not gone["effective_diffusivity"].any() and found["triple_line"] == 0
    assert (found["effective_diffusivity"][0] == 1).all() and (found["tortuosity_factor"][0] == 1).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (2, 3, 1)])
def test_thin_volumes_are_described_without_warnings(shape):
    for periodic in (False, True):
        found = describe(np.ones(shape, int), 2, periodic=periodic, transport=[1])
        assert found["volume_fraction"][1] == 1 and (found["effective_diffusivity"] == 1).all()


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (np.array([[[0, 255]]], np.uint8), "0 … 255"),
        (np.array([[[0, -1]]]), "-1 … 0"),
        (np.zeros((4, 4, 4)), "float64"),
        (np.full((4, 4, 4), np.nan), "float64"),
        (np.zeros((4, 4), int), r"\(4, 4\)"),
        (np.zeros((4, 4, 4, 3), int), r"\(4, 4, 4, 3\)"),
        (np.zeros((0, 4, 4), int), r"\(0, 4, 4\)"),
    ],
)
def test_what_is_no_labelled_volume_is_refused(volume, message):
    with pytest.raises(UserError, match=message):
        describe(volume, 2)


def test_transport_of_an_unknown_phase_is_refused():
    with pytest.raises(UserError, match="3"):
        describe(np.zeros((4, 4, 4), int), 2, transport=[3])
