"""Maps of tissue fractions: whose they are, whether they fit, and what is left for the fluid."""

import logging
from pathlib import Path

import nibabel
import numpy as np
import pytest

from scigen.errors import UserError
from scigen.mri.tissues import read_anatomy, subjects

SHAPE = (5, 6, 7)
"""z, y, x."""

AFFINE = np.array([[2, 0, 0, -9], [0, 1.5, 0, -8], [0, 0, 3, -7], [0, 0, 0, 1]], float)
GREY = np.zeros(SHAPE, np.float32)
GREY[1:4, 1:5, 1:6] = 0.25
WHITE = np.zeros(SHAPE, np.float32)
WHITE[1:4, 2:4, 2:5] = 0.5
BRAIN = np.zeros(SHAPE, np.float32)
BRAIN[:4, :5, :6] = 37.0


def saved(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), affine), path)
    return path


def maps(folder: Path, prefix: str = "a_") -> dict[str, Path]:
    return {
        "gm": saved(folder / f"{prefix}gm.nii.gz", GREY),
        "wm": saved(folder / f"{prefix}wm.nii.gz", WHITE),
        "brain": saved(folder / f"{prefix}t1.nii.gz", BRAIN),
    }


def read(tissues):
    found = subjects(tissues)
    assert len(found) == 1
    return read_anatomy(*next(iter(found.items())))


def test_the_fluid_is_what_is_left_of_the_brain(tmp_path):
    found = read(maps(tmp_path))
    assert found.subject == "a" and set(found.fractions) == {"grey", "white", "csf"}
    np.testing.assert_array_equal(found.fractions["grey"], GREY)
    np.testing.assert_allclose(sum(found.fractions.values()), BRAIN > 0, atol=1e-6)
    np.testing.assert_array_equal(found.affine, AFFINE)
    assert found.voxel_size == (3, 1.5, 2)


def test_a_fluid_that_is_given_is_kept(tmp_path):
    fluid = saved(tmp_path / "a_csf.nii.gz", GREY)
    found = read(maps(tmp_path) | {"CSF": fluid})
    np.testing.assert_array_equal(found.fractions["csf"], GREY)


def test_without_brain_and_fluid_that_is_said(tmp_path, caplog):
    own = maps(tmp_path)
    del own["brain"]
    assert set(read(own).fractions) == {"grey", "white"}
    assert "neither csf nor brain is given" in caplog.text


def test_nothing_lies_outside_the_brain(tmp_path):
    half = BRAIN.copy()
    half[2:] = 0
    found = read(maps(tmp_path) | {"brain": saved(tmp_path / "a_t1.nii.gz", half)})
    assert not any(f[2:].any() for f in found.fractions.values())
    np.testing.assert_array_equal(found.fractions["grey"][:2], GREY[:2])


def test_bytes_are_fractions_of_255(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    stored = np.round(GREY * 4 * 255).astype(np.uint8)
    found = read({"gm": saved(tmp_path / "a.nii", stored)})
    np.testing.assert_allclose(found.fractions["grey"], 4 * GREY, atol=1e-6)
    assert "divided by 255" in caplog.text


def test_what_interpolation_has_left_beyond_the_range_is_brought_back(tmp_path):
    rough = np.where(GREY > 0, np.float32(1.02), np.float32(-0.01))
    found = read({"gm": saved(tmp_path / "a_gm.nii", rough), "wm": saved(tmp_path / "a_wm.nii", 0.04 * (WHITE > 0))})
    total = sum(found.fractions.values())
    assert total.max() <= 1 + 1e-6 and min(f.min() for f in found.fractions.values()) == 0
    assert found.fractions["white"].max() == pytest.approx(0.04 / 1.04, abs=1e-6)


def test_a_scalp_taken_for_fluid_is_doubted(tmp_path, caplog):
    read(maps(tmp_path) | {"brain": saved(tmp_path / "a_t1.nii.gz", np.ones(SHAPE, np.float32))})
    assert "is data.tissues.brain brain-extracted?" in caplog.text


def test_several_subjects_are_paired_by_their_paths(tmp_path):
    for who in ("sub-02", "sub-01"):
        maps(tmp_path, f"{who}_")
    found = subjects({"gm": str(tmp_path / "*_gm.nii.gz"), "wm": str(tmp_path / "*_wm.nii.gz")})
    assert list(found) == ["sub-01", "sub-02"]
    assert found["sub-02"]["white"].name == "sub-02_wm.nii.gz"


@pytest.mark.parametrize(
    ("names", "subject"),
    [
        (("mni152_2009a_gm", "mni152_2009a_wm"), "mni152_2009a"),
        (("sub-01_c1", "sub-01_c2"), "sub-01"),
        (("c1head", "c2head"), "c1head"),
        (("gm", "wm"), "gm"),
    ],
)
def test_a_subject_is_called_what_its_maps_share(tmp_path, names, subject):
    paths = [saved(tmp_path / f"{n}.nii.gz", v) for n, v in zip(names, (GREY, WHITE), strict=True)]
    assert list(subjects(dict(zip(("gm", "wm"), paths, strict=True)))) == [subject]
    assert list(subjects({"gm": paths[0]})) == [names[0]]


def wrong(tmp_path: Path, name: str) -> dict[str, object]:
    """Maps with one fault."""
    own: dict[str, object] = dict(maps(tmp_path))
    values = WHITE.copy()
    if name == "grid":
        own["wm"] = saved(tmp_path / "a_wm.nii.gz", WHITE[:-1])
    elif name == "affine":
        own["wm"] = saved(tmp_path / "a_wm.nii.gz", WHITE, AFFINE + _shift())
    elif name == "range":
        own["wm"] = saved(tmp_path / "a_wm.nii.gz", 3 * WHITE)
    elif name == "negative":
        own["wm"] = saved(tmp_path / "a_wm.nii.gz", -WHITE)
    elif name == "percent":
        own["wm"] = saved(tmp_path / "a_wm.nii.gz", 200 * WHITE)
    elif name == "nan":
        values[2, 2, 2] = np.nan
        own["wm"] = saved(tmp_path / "a_wm.nii.gz", values)
    elif name == "sum":
        own["csf"] = saved(tmp_path / "a_csf.nii.gz", 2 * WHITE)
    elif name == "unknown":
        own["cortex"] = own["gm"]
    elif name == "twice":
        own["grey"] = own["gm"]
    elif name == "text":
        (tmp_path / "a.npy").write_text("x")
        own["wm"] = tmp_path / "a.npy"
    elif name == "only":
        own = {"brain": own["brain"]}
    elif name == "empty":
        own = {"gm": saved(tmp_path / "a_gm.nii.gz", 0 * GREY)}
    elif name == "missing":
        own["wm"] = tmp_path / "b.nii.gz"
    elif name == "counts":
        own["wm"] = [own["wm"], saved(tmp_path / "b_wm.nii.gz", WHITE)]
    elif name == "names":
        own = {
            "gm": [saved(tmp_path / f"a_{i}g.nii", GREY) for i in "12"],
            "wm": [saved(tmp_path / f"a_{i}w.nii", WHITE) for i in "34"],
        }
    return own


def _shift() -> np.ndarray:
    out = np.zeros((4, 4))
    out[0, 3] = 0.5
    return out


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("grid", "a_wm.nii.gz has 7×6×4 voxels, .*a_gm.nii.gz 7×6×5: bring the maps to one grid"),
        ("affine", "affines differ by 0.5 mm"),
        ("range", "holds values from 0 to 1.5, expected fractions 0 to 1"),
        ("negative", "holds values from -0.5 to 0"),
        ("percent", "holds values from 0 to 100"),
        ("nan", r"not finite \(NaN or infinite\) at 1 of 210"),
        ("sum", r"the maps of a sum to 1.75 at voxel \(2, 2, 1\)"),
        ("unknown", "'cortex' is no tissue: expected gm, wm, skin"),
        ("twice", "'grey' is there twice"),
        ("text", "data.tissues.wm: .*a.npy is no NIfTI file"),
        ("only", "has no tissue"),
        ("empty", "zero everywhere"),
        ("missing", "b.nii.gz is not there"),
        ("counts", "there are 1 of grey, 2 of white, 1 of brain: give one map of each tissue for each subject"),
        ("names", "share the name 'a' with other files"),
    ],
)
def test_what_is_refused(tmp_path, name, told):
    with pytest.raises(UserError, match=told) as caught:
        read(wrong(tmp_path, name))
    assert "\n" not in str(caught.value)
