import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from scigen.errors import UserError
from scigen.mri.nifti import place, read_nifti, write_maps, write_nifti

REAL = os.environ.get("SCIGEN_TEST_DATA")
real = pytest.mark.skipif(REAL is None, reason="SCIGEN_TEST_DATA is not set")

VOLUME = np.random.default_rng(0).random((4, 6, 5), np.float32)
AFFINE = np.array([[2, 0, 0, -9], [0, 1.5, 0, -8], [0, 0, 3, -7], [0, 0, 0, 1]], float)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    path = write_nifti(tmp_path / f"a{suffix}", VOLUME, AFFINE)
    volume, affine, size = read_nifti(path)
    np.testing.assert_array_equal(volume, VOLUME)
    np.testing.assert_array_equal(affine, AFFINE)
    assert size == (3, 1.5, 2)
    assert nibabel.load(path).header.get_data_dtype() == np.float32
    assert b"Research use only" in nibabel.load(path).header["descrip"].tobytes()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_volume_that_is_stored_otherwise_is_turned_to_the_axes_of_the_world(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOLUME.transpose(2, 1, 0), AFFINE)
    turned = image.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    assert turned.shape != image.shape
    nibabel.save(turned, tmp_path / "a.nii")
    volume, affine, size = read_nifti(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume, VOLUME)
    np.testing.assert_allclose(affine, AFFINE)
    assert size == (3, 1.5, 2)


def test_scaled_integers_are_decoded_and_a_last_axis_of_one_is_dropped(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1), AFFINE)
    image.header.set_slope_inter(0.5, 3)
    nibabel.save(image, tmp_path / "a.nii")
    told = np.asarray(nibabel.load(tmp_path / "a.nii").dataobj)[..., 0]
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii")[0], told.transpose(2, 1, 0).astype(np.float32))


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "text.nii").write_text("no volume")
    with pytest.raises(UserError, match="is no NIfTI file"):
        read_nifti(tmp_path / "text.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 3, 4, 5), np.float32), AFFINE), tmp_path / "four.nii")
    with pytest.raises(UserError, match="2×3×4×5, expected a volume with three axes"):
        read_nifti(tmp_path / "four.nii")
    wrong = VOLUME.copy()
    wrong[0, 0, 0] = np.nan
    with pytest.raises(UserError, match="NaN or infinite\\) at 1 of 120"):
        read_nifti(write_nifti(tmp_path / "nan.nii", wrong, None))
    whole = write_nifti(tmp_path / "cut.nii.gz", np.random.default_rng(1).random((20, 30, 30)), None)
    whole.write_bytes(whole.read_bytes()[:-3000])
    with pytest.raises(UserError, match="damaged or cut short"):
        read_nifti(whole)


def test_slices_go_back_to_their_places() -> None:
    volume = place(VOLUME, ["a/5", "a/1", "a/2", "a/7"], 9)
    np.testing.assert_array_equal(volume[[5, 1, 2, 7]], VOLUME)
    assert not volume[[0, 3, 4, 6, 8]].any()
    assert len(place(VOLUME, ["a/5", "a/1", "a/2", "a/7"])) == 8
    for keys, message in ((["a/0"] * 4, "do not fit"), (["a/0", "a/1", "a/2", "a/9"], "do not fit")):
        with pytest.raises(UserError, match=message):
            place(VOLUME, keys, 9)
    with pytest.raises(UserError, match="'knee' has no number"):
        place(VOLUME[:1], ["knee"])


@pytest.mark.parametrize("affine", [None, AFFINE])
def test_maps_and_the_sidecar(tmp_path: Path, affine: np.ndarray | None) -> None:
    paths = write_maps(tmp_path / "s.1", {"mean": VOLUME, "std": 2 * VOLUME}, affine, {"Seed": 3})
    assert [p.name for p in paths] == ["s.1_mean.nii.gz", "s.1_std.nii.gz", "s.1.json"]
    volume, got, _ = read_nifti(paths[1])
    np.testing.assert_array_equal(volume, 2 * VOLUME)
    np.testing.assert_array_equal(got, np.eye(4) if affine is None else affine)
    told = json.loads(paths[2].read_text())
    assert told["AffineIsIdentity"] is (affine is None)
    assert told["Notice"] == "Research use only, not for diagnosis"
    assert told["Seed"] == 3


@real
def test_the_brain_of_the_mni(tmp_path: Path) -> None:
    path = Path(REAL or "") / "mri" / "mni152_2009a_t1.nii.gz"
    volume, affine, size = read_nifti(path)
    assert volume.shape == (189, 233, 197)
    assert size == (1, 1, 1)
    np.testing.assert_array_equal(affine[:3, 3], [-98, -134, -72])
    again = nibabel.load(write_nifti(tmp_path / "again.nii.gz", volume, affine))
    source = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(again.dataobj), np.asarray(source.dataobj))
    np.testing.assert_array_equal(again.affine, source.affine)
