"""Images made of tissue maps: the signal equations' own, a volume a contrast, split by anatomy, placed in the world."""

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.mri.appearance import SHADING, TEXTURE
from scigen.mri.contrast import CONTRASTS, TISSUES, draw, pulses, varied
from scigen.mri.domain import Mri
from scigen.mri.reading import open_scans
from scigen.mri.tissues import read_anatomy, subjects
from scigen.mri.weighted import _generator, open_tissues

REAL = os.environ.get("SCIGEN_TEST_DATA")
real = pytest.mark.skipif(REAL is None, reason="SCIGEN_TEST_DATA is not set")

DEPTH, HEIGHT, WIDTH = 40, 24, 20
AFFINE = np.array([[2, 0, 0, -19], [0, 2, 0, -23], [0, 0, 3, -57], [0, 0, 0, 1]], float)
SCAN = {"coils": [2], "accelerations": [2], "kinds": ["random"], "snr": [30, 30]}
FLAT = 5 * np.hypot(TEXTURE, SHADING)
"""What texture and shading add to a plain tissue at most, relative."""


def maps(folder: Path, prefix: str = "a_") -> dict[str, str]:
    """A box of white matter in one of grey matter, within a brain; the first three slices and the last are empty."""
    grey, white, brain = (np.zeros((DEPTH, HEIGHT, WIDTH), np.float32) for _ in range(3))
    brain[3:-1, 2:-2, 2:-2] = 1
    grey[3:-1, 4:-4, 4:-4] = 1
    white[3:-1, 7:-7, 7:-7] = 1
    out = {}
    for name, values in (("gm", grey - white), ("wm", white), ("brain", brain)):
        out[name] = str(folder / f"{prefix}{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), AFFINE), out[name])
    return out


@pytest.fixture(scope="module")
def tissues(tmp_path_factory):
    return maps(tmp_path_factory.mktemp("maps"))


@pytest.fixture(scope="module")
def images(tissues):
    return open_tissues(tissues, seed=3)


def regions() -> dict[str, tuple[slice, ...]]:
    """Where each tissue is alone."""
    return {"csf": np.s_[:, 2:4, 4:-4], "grey": np.s_[:, 4:7, 7:-7], "white": np.s_[:, 8:-8, 8:-8]}


def test_a_tissue_s_signal_is_that_of_the_equations(images):
    """The ratio of tissues in each contrast, of the properties and times that the seed and the name draw."""

    for contrast in CONTRASTS:
        magnitude = np.abs(images["image"].values[images["contrast"].values == contrast])
        properties = varied(_generator(3, "a"))
        signal = pulses(_generator(3, f"a-{contrast}|contrast"), contrast, properties).signal(properties)
        expected = {t: signal[TISSUES.index(t)] for t in regions()}
        strongest = max(expected, key=lambda t: expected[t])
        for tissue, where in regions().items():
            measured = magnitude[where].mean() / magnitude[regions()[strongest]].mean()
            assert measured == pytest.approx(expected[tissue] / expected[strongest], rel=0.15), (contrast, tissue)


def test_contrasts_are_those_of_the_brain(images):
    """T1: white over grey over fluid; T2: the reverse; FLAIR without fluid."""
    level = {
        c: {t: np.abs(images["image"].values[images["contrast"].values == c][w]).mean() for t, w in regions().items()}
        for c in CONTRASTS
    }
    assert level["T1"]["white"] > level["T1"]["grey"] > level["T1"]["csf"]
    assert level["T2"]["white"] < level["T2"]["grey"] < level["T2"]["csf"]
    assert level["FLAIR"]["csf"] < 0.2 * level["FLAIR"]["grey"]


def test_layout(images):
    kept = list(range(3, DEPTH - 1))
    assert images["slice"].values.tolist() == [f"a-{c}/{z}" for c in CONTRASTS for z in kept]
    assert set(images["patient"].values) == {"a"}
    assert list(dict.fromkeys(images["subject"].values.tolist())) == [f"a-{c}" for c in CONTRASTS]
    assert images["image"].dtype == np.complex64
    assert images.attrs == {"affine": AFFINE.tolist(), "voxel_size": [3, 2, 2], "depth": DEPTH}
    image = images["image"].values
    assert not image[:, :2].any() and not image[..., :2].any()
    phase = np.angle(image[:, 9:15, 8:12] * image[:, 8:14, 8:12].conj())
    assert 0.01 < np.abs(phase).mean() < 0.5  # it is there, and smooth
    assert 0.3 < np.abs(image).max() < 2 * (1 + FLAT)


def test_a_volume_depends_on_seed_subject_and_contrast_alone(tissues, images, tmp_path):
    one = open_tissues(tissues, ["FLAIR", "T1"], seed=3)
    for contrast in ("FLAIR", "T1"):
        a, b = (d["image"].values[d["contrast"].values == contrast] for d in (one, images))
        np.testing.assert_array_equal(a, b)
    more = {k: [v, maps(tmp_path, "b_")[k]] for k, v in tissues.items()}
    both = open_tissues(more, ["T1"], seed=3)
    a = both["image"].values[both["patient"].values == "a"]
    np.testing.assert_array_equal(a, one["image"].values[one["contrast"].values == "T1"])
    assert not np.allclose(a, both["image"].values[both["patient"].values == "b"])
    assert not np.allclose(a, open_tissues(tissues, ["T1"], seed=4)["image"].values)


def test_a_contrast_named_twice_is_made_with_other_times(tissues):
    ds = open_tissues(tissues, ["T1", "T1"], seed=3)
    first, second = (ds["image"].values[ds["subject"].values == n] for n in ("a-T1", "a-T12"))
    assert not np.allclose(np.abs(first), np.abs(second), rtol=0.01)


def test_unknown_contrasts_are_refused(tissues):
    for contrasts in (["T1", "SWI"], []):
        with pytest.raises(UserError, match=r"data.contrasts=.*expected some of T1, T2, PD, FLAIR, GRE"):
            open_tissues(tissues, contrasts)


def test_what_draws_the_default_heads_draws_the_same(tissues):
    one, own = draw(np.random.default_rng(7))
    rng = np.random.default_rng(7)
    properties = varied(rng)
    np.testing.assert_array_equal(own, properties)
    assert pulses(rng, CONTRASTS[rng.integers(len(CONTRASTS))], properties) == one
    with pytest.raises(UserError, match="contrast=SWI"):
        pulses(rng, "SWI", properties)


def test_no_slice_of_a_test_is_near_one_of_training_in_any_contrast(tissues, tmp_path):
    domain = Mri(tissues=tissues, contrasts=["T1", "T2"], size=16, gap=2, copies=2, scan=SCAN, split=(0.6, 0.15, 0.25))
    data = domain.open(tmp_path)
    z = {
        name: np.array([int(k.split("|")[0].rsplit("/", 1)[1]) for k in split.inputs["slice"].values])
        for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test))
    }
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert np.abs(z[one][:, None] - z[other]).min() == 3 or (one, other) == ("train", "test")
        assert np.abs(z[one][:, None] - z[other]).min() > 2
    assert len(z["train"]) == 2 * 2 * len(set(z["train"]))  # contrasts, copies
    assert set(data.test.inputs["subject"].values) == {"a-T1", "a-T2"}
    assert data.rule is not None and "1 subject is too few" in data.rule and "2 slices left out" in data.rule
    assert data.source.startswith("tissues gm=")


def test_scans_are_written_with_their_place(tissues, tmp_path):
    domain = Mri(tissues=tissues, contrasts=["T1", "PD"], size=16, scan=SCAN)
    scans = open_scans(domain.synth(tmp_path / "scans.zarr"))
    assert set(scans["patient"].values) == {"a"} and set(scans["contrast"].values) == {"T1", "PD"}
    assert scans.sizes["slice"] == 2 * (DEPTH - 4) and scans.attrs["depth"] == DEPTH
    step = HEIGHT / 16
    np.testing.assert_allclose(scans.attrs["voxel_size"], [3, 2 * step, 2 * step])
    images = open_tissues(tissues, ["T1", "PD"], size=16)
    np.testing.assert_array_equal(scans["image"].values, images["image"].values)
    again = open_scans(Mri(tissues=tissues, contrasts=["T1", "PD"], size=16, scan=SCAN).synth(tmp_path / "b.zarr"))
    xr.testing.assert_identical(scans.drop_attrs(), again.drop_attrs())


def test_images_or_maps_but_not_both(tissues):
    with pytest.raises(UserError, match=r"data.path=a\.nii and data.tissues"):
        Mri("a.nii", tissues=tissues)


@real
def test_the_brain_of_the_mni():
    """White over grey over fluid in T1; masses as anatomy has them, in litres."""
    stem = f"{REAL}/mri/mni152_2009a_"
    tissues = {"gm": f"{stem}gm.nii.gz", "wm": f"{stem}wm.nii.gz", "brain": f"{stem}t1.nii.gz"}
    found = read_anatomy(*next(iter(subjects(tissues).items())))
    assert found.subject == "mni152_2009a"
    litres = {t: f.sum() * np.prod(found.voxel_size) / 1e6 for t, f in found.fractions.items()}
    assert 0.7 < litres["grey"] < 1.3 and 0.4 < litres["white"] < 0.9 and 0.1 < litres["csf"] < 0.5
    ds = open_tissues(tissues, ["T1"], size=64)
    assert ds.sizes == {"slice": 149, "y": 64, "x": 64}
