import json
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from scigen.errors import UserError
from scigen.mri.export import export

M, H, W = 4, 12, 10
RNG = np.random.default_rng(0)
AFFINE = np.diag([2.0, 1.5, 3, 1])
KEYS = ["a/1", "a/4", "b/0"]
X = (RNG.standard_normal((3, M, H, W)) + 1j * RNG.standard_normal((3, M, H, W))).astype(np.complex64)


def archive(keys: list[str] = KEYS, members: int = M, **attrs: object) -> xr.Dataset:
    n = len(keys)
    dims = ("slice", "member", "y", "x")
    coords = {"slice": keys, "subject": ("slice", [k.split("/")[0] for k in keys])}
    images = {"image_re": (dims, X[:n, :members].real), "image_im": (dims, X[:n, :members].imag)}
    return xr.Dataset(images, coords, {"scigen_role": "student", **attrs})


def test_hdf5_is_a_file_a_subject_with_the_magnitude_of_the_mean(tmp_path: Path) -> None:
    paths = export(archive(), tmp_path / "out", ["h5"])
    assert [p.name for p in paths] == ["out-a.h5", "out-b.h5"]
    with h5py.File(paths[0]) as file:
        np.testing.assert_allclose(file["reconstruction"][()], np.abs(X[:2].mean(1)), rtol=1e-6)
        np.testing.assert_allclose(file["mean"][()], np.abs(X[:2]).mean(1), rtol=1e-6)
        np.testing.assert_allclose(file["std"][()], np.abs(X[:2]).std(1, ddof=1), rtol=1e-5)
        np.testing.assert_array_equal(file["ensemble"][()], np.abs(X[:2]))
        assert file.attrs["notice"] == "Research use only, not for diagnosis"
        assert file.attrs["scigen_role"] == "student"
        assert file.attrs["subject"] == "a"


def test_hdf5_is_cropped_to_the_shape_of_the_targets(tmp_path: Path) -> None:
    path = export(archive(KEYS[:2], recon_shape={"a": [7, 40]}), tmp_path / "out", ["h5"])[0]
    with h5py.File(path) as file:
        np.testing.assert_allclose(file["reconstruction"][()], np.abs(X[:2].mean(1))[:, 3:10], rtol=1e-6)


@pytest.mark.parametrize("affine", [{"a": AFFINE.tolist()}, json.dumps({"a": AFFINE.tolist()})])
def test_nifti_has_slices_at_their_places_and_the_affine(tmp_path: Path, affine: object) -> None:
    paths = export(archive(affine=affine, depth=6), tmp_path / "out", ["nii"])
    names = [f"out-{s}{e}" for s in "ab" for e in ("_mean.nii.gz", "_std.nii.gz", ".json")]
    assert [p.name for p in paths] == names
    mean, std = (nibabel.load(p) for p in paths[:2])
    values = np.asarray(mean.dataobj).transpose(2, 1, 0)
    assert values.shape == (6, H, W)
    np.testing.assert_allclose(values[[1, 4]], np.abs(X[:2]).mean(1), rtol=1e-6)
    assert not values[[0, 2, 3, 5]].any()
    np.testing.assert_allclose(np.asarray(std.dataobj).transpose(2, 1, 0)[4], np.abs(X[1]).std(0, ddof=1), rtol=1e-5)
    np.testing.assert_array_equal(mean.affine, AFFINE)
    np.testing.assert_array_equal(nibabel.load(paths[3]).affine, np.eye(4))
    assert json.loads(paths[5].read_text())["AffineIsIdentity"]
    told = json.loads(paths[2].read_text())
    assert told["Members"] == M and told["Slices"] == ["a/1", "a/4"] and not told["AffineIsIdentity"]


def test_an_affine_that_is_not_known_is_told(tmp_path: Path) -> None:
    paths = export(archive(KEYS[:2]), tmp_path / "out", ["nii"])
    assert json.loads(paths[-1].read_text())["AffineIsIdentity"]
    np.testing.assert_array_equal(nibabel.load(paths[0]).affine, np.eye(4))


def test_a_single_member_has_no_spread(tmp_path: Path) -> None:
    one = archive(KEYS[:2], 1)
    for ds in (one, one.isel(member=0)):
        paths = export(ds, tmp_path / "out", ["h5", "nii", "png"])
        assert [p.name for p in paths] == ["out.h5", "out_mean.nii.gz", "out.json", "out.png"]
        with h5py.File(paths[0]) as file:
            assert "std" not in file
            np.testing.assert_allclose(file["reconstruction"][()], np.abs(X[:2, 0]), rtol=1e-6)


def test_the_picture_has_as_many_panels_as_there_is_to_show(tmp_path: Path) -> None:
    with Image.open(export(archive(), tmp_path / "four", ["png"])[0]) as wide:
        width = wide.size[0]
        assert len(np.unique(np.asarray(wide.convert("RGB")).reshape(-1, 3), axis=0)) > 100
    with Image.open(export(archive(members=1), tmp_path / "one", ["png"])[0]) as narrow:
        assert width > 1.5 * narrow.size[0]


@pytest.mark.parametrize(
    ("ds", "formats", "message"),
    [
        (archive(), ["dcm"], "expected some of h5, nii, png"),
        (archive(), "png", "in a list"),
        (archive().drop_vars("image_im"), ["h5"], "no variable 'image_im': it has image_re"),
        (archive().rename(y="row"), ["h5"], "has the dimensions"),
        (archive().isel(slice=[]), ["h5"], "none empty"),
        (archive().drop_vars(["slice", "subject"]), ["h5"], "no coordinate 'slice'"),
        (archive(["a", "b", "c"]), ["nii"], "'a' has no number"),
        (archive(affine=[1, 2]), ["nii"], "four rows of four"),
    ],
)
def test_what_is_refused(tmp_path: Path, ds: xr.Dataset, formats: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        export(ds, tmp_path / "out", formats)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        export(archive(), tmp_path / "file" / "out", ["png"])
