"""The MRI field through the verbs: fit, sample, in miniature."""

import json
import os
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import xarray as xr

from scigen.cli import main
from scigen.core.bundle import load
from scigen.mri import synth
from scigen.mri.weighted import open_tissues

REAL = os.environ.get("SCIGEN_TEST_DATA")

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
    (stage,) = (p for p in (home / "r").iterdir() if p.name.startswith("crps-"))
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


def box(folder: Path) -> dict[str, str]:
    """Maps of a brain with a bright corner, with x stored from right to left and voxels of three sizes."""
    affine = np.array([[-2.0, 0, 0, 40], [0, 2.5, 0, -70], [0, 0, 4, 10], [0, 0, 0, 1]])
    grey, white = np.zeros((38, 46, 9), np.float32), np.zeros((38, 46, 9), np.float32)
    grey[8:30, 10:38, 1:8] = 0.3
    white[22:27, 30:35, 3:6] = 0.7
    out = {name: str(folder / f"box_{name}.nii.gz") for name in ("gm", "wm")}
    for name, values in (("gm", grey), ("wm", white)):
        nibabel.save(nibabel.Nifti1Image(values, affine), out[name])
    return out


def brain(folder: Path) -> dict[str, str]:
    """That of the MNI."""
    stem = f"{REAL}/mri/mni152_2009a_"
    return {"gm": f"{stem}gm.nii.gz", "wm": f"{stem}wm.nii.gz", "brain": f"{stem}t1.nii.gz"}


def world(affine, voxel):
    """Where a voxel is [mm]."""
    return (affine @ [*voxel, 1])[:3]


def mass_centre(values, affine):
    """Centre of mass [mm]."""
    weight = np.square(values, dtype=np.float64)
    return world(affine, [(weight * i).sum() / weight.sum() for i in np.indices(values.shape)])


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(box, id="box"),
        pytest.param(brain, id="mni", marks=pytest.mark.skipif(REAL is None, reason="SCIGEN_TEST_DATA is not set")),
    ],
)
def test_a_volume_comes_back_where_it_was(fitted, tmp_path, source):
    """Maps, contrasts, fewer pixels, k-space, ensemble, NIfTI: corners and a landmark keep their place in the world."""
    _, stage = fitted
    tissues = source(tmp_path)
    told = ", ".join(f"{k}: {v}" for k, v in tissues.items())
    scans, out = tmp_path / "scans.zarr", tmp_path / "made.zarr"
    assert main([
        "synth", "domain=mri", f"data.tissues={{{told}}}", "data.contrasts=[T1,PD]", "data.size=32", f"output={scans}",
        "data.scan={coils: [4], accelerations: [1.5], kinds: [random], snr: [30, 30]}",
    ]) == 0  # fmt: skip
    words = [f"bundle={stage / 'student.safetensors'}", f"input={scans}", f"output={out}", "members=2", "steps=1"]
    assert main(["sample", *words, "batch=32", "also=[nii]"]) == 0
    subject = Path(tissues["gm"]).name.removesuffix("_gm.nii.gz")
    given = nibabel.as_closest_canonical(nibabel.load(tissues["gm"]))
    full_size = open_tissues(tissues, ["T1", "PD"])
    step = max(given.shape[:2]) / 32
    for contrast in ("T1", "PD"):
        mean, std = (nibabel.load(tmp_path / f"made-{subject}-{contrast}_{m}.nii.gz") for m in ("mean", "std"))
        values = np.asarray(mean.dataobj)
        assert values.shape == std.shape == (32, 32, given.shape[2])
        assert np.array_equal(mean.affine, std.affine) and np.asarray(std.dataobj).max() > 0
        size = np.array(given.header.get_zooms()[:3]) * [step, step, 1]
        np.testing.assert_allclose(mean.header.get_zooms(), size, rtol=1e-6)
        centre = [n // 2 for n in given.shape[:2]]
        for z in (0, given.shape[2] - 1):  # the origin of image and k-space, at n // 2
            there = world(given.affine, [*centre, z])
            np.testing.assert_allclose(world(mean.affine, [16, 16, z]), there, atol=1e-3)
        corner = [c - 16 * step for c in centre]  # voxel 0 of the output, in voxels of the source: half the field away
        np.testing.assert_allclose(world(mean.affine, [0, 0, 0]), world(given.affine, [*corner, 0]), atol=1e-3)
        with xr.open_zarr(scans) as ds:  # what was scanned is there, at its own places
            own = ds.isel(slice=np.flatnonzero(ds["contrast"].values == contrast))
            truth = np.zeros(values.shape)
            z = [int(str(k).rsplit("/", 1)[1]) for k in own["slice"].values]
            truth[..., z] = np.abs(own["image"].values).transpose(2, 1, 0)
        assert np.corrcoef(values.ravel(), truth.ravel())[0, 1] > 0.97
        fine = np.abs(full_size["image"].values[full_size["contrast"].values == contrast])
        magnitude = np.zeros((*given.shape[1::-1], given.shape[2]))
        magnitude[..., z] = fine.transpose(1, 2, 0)
        np.testing.assert_allclose(
            mass_centre(values, mean.affine),
            mass_centre(magnitude.swapaxes(0, 1), given.affine),
            atol=0.15 * size.max(),
        )
