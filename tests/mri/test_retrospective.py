"""Lines are left out of real k-space: nothing else changes, and the truth is its image."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.mri import synth
from scigen.mri.coils import birdcage
from scigen.mri.domain import Mri
from scigen.mri.fourier import fft2c
from scigen.mri.reading import open_scans
from scigen.mri.retrospective import combined, complete, undersampled

SIZE, COILS = 48, 3


def kspace(subject: int, slices: int = 2, padding: int = 0, noise: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """Fully sampled k-space of a head with the columns at both ends not acquired, and its maps."""
    heads = synth.make(size=SIZE, subjects=1, slices=slices, seed=subject)
    rng = np.random.default_rng(subject)
    maps = birdcage(COILS, (SIZE, SIZE), rng)
    k = fft2c(maps * heads["image"].values[:, None])
    k = k + noise * (rng.standard_normal(k.shape) + 1j * rng.standard_normal(k.shape))
    k[..., :padding] = k[..., SIZE - padding :] = 0
    return k.astype(np.complex64), maps


def volume(path: Path, subject: int, padding: int = 0) -> Path:
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace(subject, padding=padding, noise=0.03)[0]
        file["reconstruction_rss"] = np.ones((2, SIZE, SIZE), np.float32)
    return path


@pytest.fixture(scope="module")
def scans() -> xr.Dataset:
    k, maps = kspace(0, slices=4, padding=3)
    mask = np.zeros((4, SIZE, SIZE), bool)
    mask[..., 3 : SIZE - 3] = True
    return xr.Dataset(
        {
            "kspace": (("slice", "coil", "ky", "kx"), k),
            "mask": (("slice", "ky", "kx"), mask),
            "sens_maps": (("slice", "coil", "y", "x"), np.broadcast_to(maps, k.shape)),
            "noise_std": ("slice", np.full(4, 1e-3)),
        },
        {"slice": [f"a/{i}" for i in range(4)], "subject": ("slice", ["a"] * 4)},
    )


def test_what_is_kept_is_the_scan_s_own_and_the_truth_is_its_image(scans: xr.Dataset) -> None:
    made = undersampled(scans, 0, accelerations=(4,), kinds=("random",))
    mask = made["mask"].values
    np.testing.assert_array_equal(made["kspace"].values, scans["kspace"].values * mask[:, None])
    assert not mask[..., :3].any() and not mask[..., -3:].any()
    assert (mask == mask[:, :1]).all()  # lines
    assert 0.15 < mask.sum() / scans["mask"].values.sum() < 0.4
    image = made["image"].values
    np.testing.assert_allclose(image, combined(scans), atol=1e-6)
    model = mask[:, None] * fft2c(made["sens_maps"].values * image[:, None])
    gap = np.abs(model - made["kspace"].values)
    assert np.sqrt((gap**2).sum() / (2 * COILS * mask.sum())) < 5e-3  # the noise, and what the borders cut off
    np.testing.assert_array_equal(made["coils"], COILS)


def test_a_slice_s_mask_depends_on_the_seed_and_its_name_alone(scans: xr.Dataset) -> None:
    whole = undersampled(scans, 7)
    alone = undersampled(scans.isel(slice=[2]), 7)
    np.testing.assert_array_equal(alone["mask"].values[0], whole["mask"].values[2])
    assert (undersampled(scans, 8)["mask"].values != whole["mask"].values).any()
    assert undersampled(scans, 7, copy=1)["slice"].values.tolist() == [f"a/{i}|1" for i in range(4)]


def test_estimated_maps_know_no_more_than_what_is_kept(scans: xr.Dataset) -> None:
    """k-space that is left out changes neither maps nor data; maps that were given stay."""
    told = scans.assign_attrs(sens_maps="estimated")
    made = undersampled(told, 0)
    other = told.assign(kspace=told["kspace"].where(made["mask"], 5 * told["kspace"]).astype(np.complex64))
    again = undersampled(other, 0)
    for name in ("kspace", "mask", "sens_maps"):
        np.testing.assert_array_equal(again[name].values, made[name].values)
    assert np.abs(again["image"].values - made["image"].values).max() > 0.01  # it is the truth that has changed
    assert np.abs(made["sens_maps"].values - scans["sens_maps"].values).max() > 1e-3
    np.testing.assert_array_equal(undersampled(scans, 0)["sens_maps"].values, scans["sens_maps"].values)


def test_which_scans_are_complete() -> None:
    mask = np.ones((5, 16, 32), bool)
    mask[1, :, :4] = mask[1, :, -4:] = False  # ends that no scanner fills
    mask[2, :, ::2] = False
    mask[3, :, :10] = False  # partial Fourier
    mask[4] = np.random.default_rng(0).random((16, 32)) < 0.5  # points
    assert complete(mask).tolist() == [True, True, False, False, False]


def test_a_folder_of_fully_sampled_volumes_is_learnt_from(tmp_path: Path) -> None:
    for i in range(3):
        volume(tmp_path / f"file{i}.h5", i, padding=2 * i)
    domain = Mri(str(tmp_path), split=(1, 1, 1), copies=2, scan={"accelerations": [4], "coils": [1], "snr": [20, 30]})
    data = domain.open(tmp_path)
    assert [len(s.inputs["slice"]) for s in (data.train, data.validation, data.test)] == [4, 2, 2]
    assert {"kspace", "acceleration", "coils"} <= set(data.test.truth)
    assert len(set(data.train.inputs["slice"].values.tolist())) == 4
    noise = open_scans(tmp_path)["noise_std"].values
    assert noise == pytest.approx(0.03, rel=0.2)  # found in the scan
    first, second = data.train.inputs["mask"].values[:2], data.train.inputs["mask"].values[2:]
    assert (first != second).any()


def test_undersampled_scans_without_images_are_refused(tmp_path: Path, scans: xr.Dataset) -> None:
    made = undersampled(scans, 0).drop_vars(["image", "mask_kind"])
    words = {"slice": made["slice"].values.astype(object), "subject": ("slice", made["subject"].values.astype(object))}
    made.assign_coords(words).to_zarr(tmp_path / "a.zarr", consolidated=False)
    with pytest.raises(UserError, match=r"has no images, .* Give fully sampled"):
        Mri(str(tmp_path / "a.zarr")).open(tmp_path)
    with pytest.raises(UserError, match="a/0 is not fully sampled"):
        undersampled(undersampled(scans, 0), 0)
