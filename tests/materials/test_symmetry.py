"""Turning a block turns what is known of it."""

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.materials.diffusion import effective_diffusivities
from scigen.materials.levelcut import gaussian_field
from scigen.materials.symmetry import group


@pytest.mark.parametrize(("kind", "shape", "count"), [
    ("isotropic", (8, 8, 8), 48), ("transverse", (8, 8, 8), 16), ("none", (8, 8, 8), 1),
    ("isotropic", (4, 8, 8), 16), ("isotropic", (4, 6, 8), 8), ("transverse", (8, 8, 4), 8),
])  # fmt: skip
def test_the_group_has_its_order_and_keeps_the_shape(kind, shape, count):
    marked = np.arange(np.prod(shape)).reshape(shape)
    turned = {t.volume(marked).tobytes() for t in group(kind, shape)}
    assert len(turned) == len(group(kind, shape)) == count
    assert all(t.volume(marked).shape == shape for t in group(kind, shape))


def test_axes_of_different_steps_are_not_exchanged():
    assert len(group("isotropic", (8, 8, 8), (2.0, 1.0, 1.0))) == 16


def test_diffusivities_move_with_their_axes():
    """What the solver finds in the turned block is what the turn says."""
    rng = np.random.default_rng(0)
    field = gaussian_field((12, 12, 12), lambda k: np.exp(-((k * 2) ** 2)), 3) + rng.normal(size=(12, 1, 1))
    labels = (field > 0).astype(np.uint8)
    own = effective_diffusivities(labels[None], [1])[0, 0]
    values = {f"effective_diffusivity_solid_{a}": own[i] for i, a in enumerate("zyx")} | {"coarsening_time": 3.0}
    assert len(set(np.round(own, 4))) == 3
    for turn in group("isotropic", labels.shape)[::7]:
        found = effective_diffusivities(turn.volume(labels)[None], [1])[0, 0]
        told = turn.values(values)
        np.testing.assert_allclose([told[f"effective_diffusivity_solid_{a}"] for a in "zyx"], found, rtol=3e-3)
        assert told["coarsening_time"] == 3.0


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="isotropic, transverse, none"):
        group("cubic", (8, 8, 8))
