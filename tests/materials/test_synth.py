"""The default specimens."""

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.materials.assign import counts
from scigen.materials.descriptors import describe
from scigen.materials.specimens import open_specimens
from scigen.materials.synth import Process, make


@pytest.mark.parametrize("phases", [2, 3])
def test_fractions_are_exact_and_shared_by_the_snapshots_of_a_simulation(phases):
    ds = make(Process(size=16, phases=phases, simulations=3, snapshots=2, time=(20, 60)))
    labels, run = ds["phase"].values, ds["simulation"].values
    found = np.stack([np.bincount(v.ravel(), minlength=phases) for v in labels])
    for s in range(3):
        own = found[run == s]
        assert (own == own[0]).all()
        assert (counts(own[0] / own[0].sum(), 16**3) == own[0]).all()
    assert found.min() / 16**3 > (0.24)
    assert (np.diff(ds["coarsening_time"].values.reshape(3, 2)) > 0).all()
    assert (ds["anisotropy"].values.reshape(3, 2) == ds["anisotropy"].values[::2, None]).all()


def test_structures_coarsen_and_follow_the_anisotropy():
    """Surface falls with time; gradients that cost more along z make longer chords there."""
    common = dict(size=24, simulations=3, snapshots=1, fraction=0.4)
    surface = {}
    chords = {}
    for name, time, ratio in (("early", 40, 1.0), ("late", 160, 1.0), ("layers", 80, 0.5), ("columns", 80, 2.0)):
        ds = make(Process(**common, time=(time, time), anisotropy=(ratio, ratio)))
        rows = [describe(v, 2, periodic=True) for v in ds["phase"].values]
        surface[name] = np.mean([r["surface"][0] for r in rows])
        chords[name] = np.mean([r["mean_chord"].mean(0) for r in rows], axis=0)
    assert surface["late"] < 0.9 * surface["early"]
    assert chords["columns"][0] > 1.2 * chords["columns"][1:].mean()
    assert chords["layers"][0] < 0.8 * chords["layers"][1:].mean()


def test_a_seed_is_a_simulation():
    a, b, c = (make(Process(size=8, simulations=3, snapshots=1, time=(5, 5), seed=s)) for s in (0, 0, 1))
    assert a.identical(b)
    assert not np.array_equal(a["phase"], c["phase"])


def test_the_archive_is_read_back(tmp_path):
    ds = make(Process(size=8, simulations=3, snapshots=2, time=(5, 9)))
    ds.to_zarr(tmp_path / "made.zarr")
    specimens = open_specimens(tmp_path / "made.zarr")
    assert list(specimens.phases) == ["pore", "solid"]
    assert np.array_equal([v.labels for v in specimens.volumes], ds["phase"])
    assert all(v.periodic == (True,) * 3 for v in specimens.volumes)
    assert specimens.groups == ["0", "0", "1", "1", "2", "2"]
    assert np.array_equal(specimens.process["coarsening_time"], ds["coarsening_time"])
    with pytest.raises(UserError, match="temperature"):
        open_specimens(tmp_path / "made.zarr", process=["temperature"])


@pytest.mark.parametrize(
    "wrong", [{"phases": 4}, {"size": 4}, {"fraction": 0.5}, {"time": (50, 10)}, {"simulations": 1}, {"kappa": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UserError, match=r"data\.synth"):
        Process(**wrong)
