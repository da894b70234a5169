"""Blocks, splits and what is told of them."""

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.materials.blocks import cut
from scigen.materials.data import measure, tell, training, whole
from scigen.materials.diffusion import effective_diffusivity
from scigen.materials.known import UNKNOWN
from scigen.materials.quantities import quantities
from scigen.materials.specimens import Specimens
from scigen.materials.volumes import Volume


def many(groups: int = 12, each: int = 2, size: int = 8, periodic: bool = True) -> Specimens:
    """Specimens whose groups can be told from their labels: voxel 0 on is group mod 2, the rest random."""
    rng = np.random.default_rng(0)
    volumes = [
        Volume(f"v{i}", rng.integers(0, 2, (size,) * 3).astype(np.uint8), periodic=(periodic,) * 3)
        for i in range(groups * each)
    ]
    time = {"coarsening_time": 1.0 + np.arange(groups * each)}
    return Specimens(volumes, ["pore", "solid"], time, [f"g{i // each}" for i in range(groups * each)])


def one(shape=(40, 20, 24), periodic: bool = False) -> Specimens:
    """A single volume whose voxels could be told apart by a smooth label."""
    labels = (np.random.default_rng(1).random(shape) < 0.5).astype(np.uint8)
    return Specimens([Volume("rock", labels, periodic=(periodic,) * 3)], ["pore", "solid"], {}, ["rock"])


def test_a_simulation_never_straddles_a_split():
    specimens = many()
    cutting = cut(specimens, None, (0.6, 0.15, 0.25), 10, seed=3)
    where = {name: {specimens.groups[b.specimen] for b in part} for name, part in cutting.blocks.items()}
    assert sum(len(g) for g in where.values()) == 12
    assert not (where["train"] & where["test"] or where["train"] & where["validation"])
    assert not where["test"] & where["validation"]
    assert sum(len(b) for b in cutting.blocks.values()) == 24 and cutting.periodic == (True,) * 3


@pytest.mark.parametrize("shape", [(40, 20, 24), (20, 48, 24), (40, 40, 40)])
def test_parts_of_one_volume_never_share_a_voxel(shape):
    cutting = cut(one(shape), 8, (0.6, 0.1, 0.3), 50)
    seen = {}
    for name, part in cutting.blocks.items():
        seen[name] = np.zeros(shape, bool)
        for b in part:
            seen[name][tuple(slice(a, a + 8) for a in b.low)] = True
    assert all(v.any() for v in seen.values())
    assert not (seen["train"] & seen["test"]).any() and not (seen["validation"] & seen["test"]).any()
    assert not (seen["train"] & seen["validation"]).any()
    assert cutting.periodic == (False,) * 3


@pytest.mark.parametrize(
    ("size", "shares", "match"),
    [
        (32, (0.7, 0.05, 0.25), "larger than rock"),
        (4, (0.7, 0.05, 0.25), "at least 8"),
        (20, (0.6, 0.2, 0.2), "smaller blocks"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(size, shares, match):
    with pytest.raises(UserError, match=match):
        cut(one(), size, shares, 10)


def test_specimens_of_different_size_need_a_block():
    mixed = Specimens([*one().volumes, *one((30, 30, 30)).volumes], ["pore", "solid"], {}, ["a", "b"])
    with pytest.raises(UserError, match=r"data\.block="):
        cut(mixed, None, (0.7, 0.05, 0.25), 10)


def test_measured_quantities_are_the_blocks_own(tmp_path):
    specimens = one()
    cutting = cut(specimens, 8, (0.6, 0.1, 0.3), 5)
    blocks = cutting.blocks["train"]
    values = measure(specimens, cutting, blocks, ["solid"], tmp_path, 1)
    for i, b in enumerate(blocks):
        labels = cutting.labels(specimens, b)
        assert values["volume_fraction_solid"][i] == labels.mean()
        assert values["volume_fraction_pore"][i] == 1 - labels.mean()
        own = effective_diffusivity(labels == 1, 2)
        assert values["effective_diffusivity_solid_x"][i] == own
    again = measure(specimens, cutting, blocks, ["solid"], tmp_path, 1)  # from the cache
    assert all(np.array_equal(again[k], v) for k, v in values.items())


@pytest.mark.parametrize("known", [0.0, 0.5])
def test_training_copies_are_turned_blocks_that_remember_their_quantities(tmp_path, known):
    specimens = many()
    cutting = cut(specimens, None, (0.7, 0.05, 0.25), 10)
    blocks = cutting.blocks["train"]
    values = measure(specimens, cutting, blocks, ["pore"], tmp_path, 1)
    asked = quantities(["pore", "solid"], ["pore"], ["coarsening_time"])
    split = training(specimens, cutting, blocks, values, asked, copies=3, symmetry="transverse", known=known, seed=0)
    labels = split.truth["phase"].values
    assert len(labels) == 3 * len(blocks)
    np.testing.assert_array_equal((labels == 0).mean((1, 2, 3)), split.truth["volume_fraction_pore"].values)
    assert len({v.tobytes() for v in labels}) == len(labels)  # no copy is the same
    for q in asked:
        told = split.inputs[q.name].values
        shown = np.isfinite(told)
        assert 0 < shown.sum() < len(told)  # sometimes told, sometimes free
        np.testing.assert_array_equal(told[shown], split.truth[q.name].values[shown])
    if known:
        part = split.inputs["known"].values
        told = part != UNKNOWN
        np.testing.assert_array_equal(part[told], labels[told])
        assert 0.2 < told.any((1, 2, 3)).mean() < 0.8
    else:
        assert "known" not in split.inputs
    again = training(specimens, cutting, blocks, values, asked, copies=3, symmetry="transverse", known=known, seed=0)
    assert again.truth.identical(split.truth) and again.inputs.identical(split.inputs)


def test_judged_samples_are_told_what_was_asked(tmp_path):
    specimens = many()
    cutting = cut(specimens, None, (0.7, 0.05, 0.25), 10)
    values = measure(specimens, cutting, cutting.blocks["test"], ["pore"], tmp_path, 1)
    truth = whole(specimens, cutting, cutting.blocks["test"], values)
    asked = quantities(["pore", "solid"], ["pore"], ["coarsening_time"])
    inputs = tell(truth, asked, ["volume_fraction", "effective_diffusivity_pore_z"])
    assert np.isfinite(inputs["effective_diffusivity_pore_z"]).all()
    assert np.isnan(inputs["effective_diffusivity_pore_x"]).all() and np.isnan(inputs["coarsening_time"]).all()
    with pytest.raises(UserError, match="porosity"):
        tell(truth, asked, ["porosity"])
