"""Mean and residual in miniature: the stage, its resumption, and what the bundle makes of it."""

import numpy as np
import pytest
import xarray as xr

import scigen
from scigen.cli import main
from scigen.core.domain import Split
from scigen.weather.coarsen import coarsen
from scigen.weather.domain import Weather
from scigen.workflows import mean as stage

from .conftest import ONE

MEAN = "mean={folds: 2, training: {steps: 4, batch: 8, lr: 1e-3, warmup: 1, snapshots: 2}}"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A teacher of residuals."""
    home = tmp_path_factory.mktemp("mean")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["fit", *ONE, MEAN, "method=denoising", "run=run"]) == 0
    return home


def test_the_bundle_has_the_mean_and_samples_alone(fitted, tmp_path):
    bundle = scigen.load(fitted / "run" / "teacher.safetensors")
    assert bundle.codec.mean is not None
    (archive,) = (fitted / "runs" / "data").glob("*.zarr")
    ds = xr.open_zarr(archive)[["t2m"]].isel(time=slice(0, 3)).load()
    out = bundle.sample(ds, members=2, batch=6)
    means = coarsen(out, 4)["t2m"]
    np.testing.assert_allclose(means, coarsen(ds, 4)["t2m"].expand_dims(member=2, axis=1), atol=1e-3)


def test_training_residuals_are_out_of_fold(fitted):
    """Each part was predicted by the network that had not seen it, which is not the one in the bundle."""
    (folder,) = (fitted / "run").glob("mean-*")
    told = np.load(folder / "told.npy")
    bundle = scigen.load(fitted / "run" / "teacher.safetensors")
    (archive,) = (fitted / "runs" / "data").glob("*.zarr")
    data = Weather(str(archive), variables=["t2m"], factor=4).open(fitted)
    assert len(told) == data.train.truth.sizes["time"]
    own = stage._predict(bundle.codec.mean, data.codec, data.train, np.arange(4))
    assert own.shape == told[:4].shape and not np.allclose(own, told[:4])
    residual, _ = Weather(str(archive), variables=["t2m"], factor=4).residuals(
        data.codec, bundle.codec.mean, data.train, told
    )
    np.testing.assert_allclose(residual.statistics.residual, bundle.codec.statistics.residual)


def test_the_exact_law_is_known_over_a_mean_too(fitted):
    """Its members are the same fields, whatever they are residuals over."""
    bundle = scigen.load(fitted / "run" / "teacher.safetensors")
    (archive,) = (fitted / "runs" / "data").glob("*.zarr")
    domain = Weather(str(archive), variables=["t2m"], factor=4)
    data = domain.open(fitted)
    split = Split(data.test.truth.isel(time=slice(0, 3)), data.test.inputs.isel(time=slice(0, 3)))
    one, other = (next(iter(domain.exact(c, split, 2, 0)))[1] for c in (data.codec, bundle.codec))
    np.testing.assert_allclose(one, other, rtol=0, atol=2e-3)


def test_a_repeated_fit_trains_nothing_again(fitted, monkeypatch):
    monkeypatch.chdir(fitted)
    monkeypatch.setattr("scigen.workflows.mean.run", lambda *_, **__: pytest.fail("trained again"))
    assert main(["fit", *ONE, MEAN, "method=denoising", "run=run"]) == 0
    (folder,) = (fitted / "run").glob("mean-*")
    (folder / "told.npy").unlink()  # as if killed before it was whole
    before = scigen.load(fitted / "run" / "teacher.safetensors").fingerprint()
    assert main(["fit", *ONE, MEAN, "method=denoising", "run=run"]) == 0
    assert scigen.load(fitted / "run" / "teacher.safetensors").fingerprint() == before


def test_a_teacher_and_a_mean_contradict_each_other(fitted, monkeypatch, capsys):
    monkeypatch.chdir(fitted)
    assert main(["fit", *ONE, MEAN, "teacher=run/teacher.safetensors", "run=other"]) == 2
    assert "leave mean= out" in " ".join(capsys.readouterr().err.split())
    words = [MEAN.replace("folds: 2", "folds: 1"), "method=denoising", "run=third"]
    assert main(["fit", *ONE, *words]) == 2
    assert "mean.folds=1" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_network_that_overfits_is_found_out_by_folds(tmp_path, monkeypatch):
    """96 times, 300 steps: residuals in sample are far smaller than on new times; those out of fold are not."""
    monkeypatch.chdir(tmp_path)
    words = [w for w in ONE if not w.startswith(("trainer", "data.synth", "network"))]
    words += ["data.synth={size: 16, times: 300, step_hours: 48, seed: 0}", "data.split=[0.32,0.04,0.64]"]
    words += ["network.widths=[24,24]", "network.embedding=16", "trainer.limits.steps=2", "trainer.accelerator=cpu"]
    training = "mean={folds: 3, training: {steps: 300, batch: 16, lr: 3e-3, warmup: 20, snapshots: 1}}"
    assert main(["fit", *words, training, "validation.samples=0", "method=denoising", "run=run"]) == 0
    bundle = scigen.load("run/teacher.safetensors")
    (archive,) = (tmp_path / "runs" / "data").glob("*.zarr")
    data = Weather(str(archive), variables=["t2m"], factor=4, split=[0.32, 0.04, 0.64]).open(tmp_path)
    (folder,) = (tmp_path / "run").glob("mean-*")
    left = {}
    for name, split in (("inside", data.train), ("new", data.test)):
        whole = Split(split.truth, split.inputs)
        own = stage._predict(bundle.codec.mean, data.codec, whole, np.arange(90))
        left[name] = own - data.codec.encode(whole.truth, whole.inputs, np.arange(90)).numpy()
    told = np.load(folder / "told.npy")
    left["folds"] = told[:90] - data.codec.encode(data.train.truth, data.train.inputs, np.arange(90)).numpy()
    spread = {k: float(v.std()) for k, v in left.items()}
    assert spread["inside"] < 0.9 * spread["new"], spread
    assert spread["folds"] == pytest.approx(spread["new"], rel=0.1), spread
