"""The MRI field through the verbs: fit, sample, in miniature."""

import json

import h5py
import nibabel
import numpy as np
import pytest
import xarray as xr

from scigen.cli import main
from scigen.core.bundle import load
from scigen.mri import synth

TINY = [
    "domain=mri", "data.synth={size: 32, subjects: 6, slices: 2, seed: 0}", "data.split=[0.5, 0.2, 0.3]",
    "data.copies=1", "trainer=smoke", "network.widths=[8,8]", "network.embedding=8", "batch=8", "sampler.steps=4",
    "trainer.limits={steps: 4, pairs: 8, samples: 4, members: 3}", "trainer.checkpoint_every=2",
    "validation={samples: 2, members: 2}", "teaching.training.batch=4", "method.training.batch=4",
    "+teaching.training.snapshots=1", "+method.training.snapshots=1",
    "baseline.training.batch=4", "+baseline.training.snapshots=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder where a fit has run; its stage."""
    home = tmp_path_factory.mktemp("mri")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["fit", *TINY, "run=r"]) == 0
    (stage,) = (p for p in (home / "r").iterdir() if p.name.startswith("regression-"))
    return home, stage


def test_the_report_judges_everybody(fitted):
    _, stage = fitted
    numbers = json.loads((stage / "metrics.json").read_text())["models"]
    assert {"zero-filled", "CG-SENSE", "Gaussian prior", "total variation"} < set(numbers)
    assert {m["all"]["role"] for m in numbers.values()} == {"teacher", "student", "baseline"}
    network = numbers["U-Net regression"]["all"]
    assert (network["nfe"], network["members"], network["role"]) == (1, 1, "baseline")
    assert all(m["all"]["held_out"]["residual"] > 0 for m in numbers.values())
    page = (stage / "report.html").read_text()
    assert "esearch use only" in page and "PSNR" in page


def test_the_baseline_gives_one_answer_and_is_not_trained_again(fitted):
    home, _ = fitted
    (path,) = (home / "r").glob("baseline-*/baseline.safetensors")
    heads = synth.make(size=32, subjects=1, slices=2, seed=9)
    scans = synth.scan(heads["image"].values, [str(s) for s in heads["slice"].values], 3, most=4).drop_vars("mask_kind")
    bundle = load(path)
    made = bundle.sample(scans, members=2, seed=0)["image_re"].values
    assert np.array_equal(made[:, 0], made[:, 1]) and bundle.role == "baseline" and bundle.nfe() == 1
    before = path.stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["fit", *TINY, "run=r"]) == 0
    assert path.stat().st_mtime_ns == before


def test_scans_without_a_target_are_sampled(fitted, tmp_path, monkeypatch):
    home, stage = fitted
    monkeypatch.chdir(home)
    heads = synth.make(size=32, subjects=1, slices=3, seed=9)
    keys = [str(s) for s in heads["slice"].values]
    scans = synth.scan(heads["image"].values, keys, 3, most=4).drop_vars("mask_kind")
    scans = scans.assign_coords(slice=np.array(keys, object), subject=("slice", heads["subject"].values.astype(object)))
    scans.attrs |= {"affine": np.diag([2.0, 2.0, 3.0, 1.0]).tolist(), "depth": 5}
    scans.to_zarr(tmp_path / "scans.zarr", consolidated=False)
    out = tmp_path / "made.zarr"
    assert main([
        "sample", f"bundle={stage / 'student.safetensors'}", f"input={tmp_path / 'scans.zarr'}", f"output={out}",
        "members=2", "also=[h5,nii,png]", "batch=2",
    ]) == 0  # fmt: skip
    with xr.open_zarr(out) as ds:
        assert ds["image_re"].dims == ("slice", "member", "y", "x") and ds["image_re"].shape == (3, 2, 32, 32)
        assert np.isfinite(ds["image_im"].values).all()
        assert list(ds["slice"].values) == keys
        assert "not for diagnosis" in ds.attrs["notice"]
        again = load(stage / "student.safetensors").sample(scans, members=2, batch=2)
        assert np.array_equal(again["image_re"].values, ds["image_re"].values)
    assert {p.suffix for p in tmp_path.iterdir()} >= {".h5", ".gz", ".png"}
    volume = nibabel.load(tmp_path / "made_std.nii.gz")
    assert volume.shape == (32, 32, 5) and np.array_equal(volume.affine, np.diag([2.0, 2.0, 3.0, 1.0]))


def test_a_file_of_fastmri_is_sampled(fitted, tmp_path):
    """Neither mask, maps, noise nor target: k-space alone."""
    _, stage = fitted
    heads = synth.make(size=32, subjects=1, slices=2, seed=8)
    keys = [str(s) for s in heads["slice"].values]
    scans = synth.scan(heads["image"].values, keys, 3, coils=(1,), accelerations=(4,), kinds=("equispaced",))
    with h5py.File(tmp_path / "file1.h5", "w") as file:
        file["kspace"] = scans["kspace"].values[:, 0] * np.float32(1e-5)
    out = tmp_path / "made.zarr"
    words = [f"bundle={stage / 'student.safetensors'}", f"input={tmp_path / 'file1.h5'}", f"output={out}", "members=2"]
    assert main(["sample", *words, "batch=2"]) == 0
    with xr.open_zarr(out) as ds:
        assert ds.sizes["slice"] == 2 and np.isfinite(ds["image_re"].values).all()
        assert 1e-7 < np.abs(ds["image_re"].values).max() < 1e-3  # in the units of the file
