"""A fit in a latent space, in miniature: the stage, its resumption, samples, contradictions."""

import numpy as np
import pytest
import torch
import xarray as xr

from scigen.cli import main
from scigen.core.bundle import load
from scigen.materials.latent import LatentCodec

LATENT = [
    "domain=materials", "experiment=materials_latent", "trainer=smoke", "network.widths=[8,8]", "network.embedding=8",
    "data.synth={size: 16, simulations: 10, snapshots: 2, time: [10, 30]}", "data.workers=1", "batch=4",
    "trainer.limits={steps: 4, pairs: 8, samples: 3, members: 2}", "trainer.checkpoint_every=2", "sampler.steps=4",
    "validation={samples: 2, members: 2}", "teaching.training.batch=8", "method.training.batch=8",
    "+teaching.training.snapshots=1", "+method.training.snapshots=1", "autoencoder.widths=[8,8]",
    "+autoencoder.training.snapshots=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder where a fit has run, up to the student."""
    home = tmp_path_factory.mktemp("latent")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr("scigen.workflows.fit.judge", lambda *args, **_: args[4] / "report.html")
        assert main(["fit", *LATENT, "run=r"]) == 0
    return home


@pytest.fixture
def inside(fitted, monkeypatch):
    monkeypatch.chdir(fitted)
    return fitted


def test_teacher_and_student_live_in_the_latent_space(inside):
    (stage,) = (inside / "r").glob("autoencoder-*")
    (student,) = (inside / "r").glob("regression-*/student.safetensors")
    weights = load(inside / "r" / "teacher.safetensors").codec.autoencoder.state_dict()
    for bundle in (load(inside / "r" / "teacher.safetensors"), load(student)):
        assert isinstance(bundle.codec, LatentCodec) and bundle.codec.shape == (8, 4, 4, 4)
        assert all(torch.equal(v, weights[k]) for k, v in bundle.codec.autoencoder.state_dict().items())
    latents = np.load(stage / "latents.npy")
    np.testing.assert_allclose(latents.mean((0, 2, 3, 4)), bundle.codec.centre, atol=1e-4)
    assert "wrong" in (stage / "validation.csv").read_text().splitlines()[0]


def test_the_student_makes_larger_volumes(inside):
    (student,) = (inside / "r").glob("regression-*/student.safetensors")
    words = ["condition={volume_fraction_pore: 0.4}", "size=[16,24,32]", "members=2", "batch=2", "output=out.zarr"]
    assert main(["sample", f"bundle={student}", *words]) == 0
    assert xr.open_zarr("out.zarr")["phase"].shape == (1, 2, 16, 24, 32)


def test_a_repeated_fit_trains_nothing_again(inside, monkeypatch, unjudged):
    monkeypatch.setattr("scigen.workflows.autoencoder.run", lambda *_, **__: pytest.fail("trained again"))
    assert main(["fit", *LATENT, "run=r"]) == 0
    (stage,) = (inside / "r").glob("autoencoder-*")
    before = np.load(stage / "latents.npy")
    (stage / "latents.npy").unlink()  # as if killed before it was whole
    assert main(["fit", *LATENT, "run=r"]) == 0
    np.testing.assert_array_equal(np.load(stage / "latents.npy"), before)


WRONG = {
    "data.known=0.2": "data.known=0 with autoencoder=",
    "teacher=r/teacher.safetensors": "leave autoencoder= out",
    "crop=8": "a latent space has no crop",
    "autoencoder.patch=3": "choose multiples of 6",
    "autoencoder.kl=-1": "autoencoder.kl=-1",
}


@pytest.mark.parametrize("word", WRONG)
def test_contradictions_are_refused(inside, capsys, word):
    assert main(["fit", *LATENT, word, "run=other-" + word.split("=")[0]]) == 2
    assert WRONG[word] in " ".join(capsys.readouterr().err.split())


def test_a_field_without_a_latent_space(inside, capsys):
    words = ["domain=weather", "data.synth={size: 16, times: 240, step_hours: 12, seed: 0}", "data.factor=4"]
    stage = "autoencoder={kl: 0.01, training: {steps: 4, batch: 8, lr: 1e-3}}"
    assert main(["fit", *words, "trainer=smoke", stage, "run=weather"]) == 2
    assert "has no latent space" in " ".join(capsys.readouterr().err.split())
