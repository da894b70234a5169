import os
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.mri.checks import check_scans
from scigen.mri.finding import find
from scigen.mri.fourier import fft2c
from scigen.mri.layout import assemble
from scigen.mri.pairs import merged, paired
from scigen.mri.reading import is_scan, open_anatomy, open_scans

REAL = os.environ.get("SCIGEN_TEST_DATA")
real = pytest.mark.skipif(REAL is None, reason="SCIGEN_TEST_DATA is not set")

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")  # words, as xarray has them

S, C, H, W = 2, 2, 20, 17
Y, X = np.mgrid[-1 : 1 : H * 1j, -1 : 1 : W * 1j]
IMAGE = np.stack([(Y**2 + X**2 < 0.5) * np.exp(1j * (X + s)) for s in range(1, S + 1)]).astype(np.complex64)
MAPS = np.stack([np.full((H, W), 0.6), np.full((H, W), 0.8j)]).astype(np.complex64)
MASK = (np.arange(W) % 3 == 0) | (abs(np.arange(W) - W // 2) < 3)
KSPACE = (fft2c(MAPS * IMAGE[:, None]) * MASK).astype(np.complex64)
ARRAYS = {"mask": MASK, "sens_maps": MAPS, "noise_std": np.float64(0.1), "image": IMAGE}


def scans(subject: str = "a") -> xr.Dataset:
    return check_scans(assemble(KSPACE, "n", subject, **ARRAYS))  # type: ignore[arg-type]


def npz(path: Path, **more: np.ndarray) -> Path:
    np.savez(path, **{"kspace": KSPACE, **ARRAYS, **more})  # type: ignore[arg-type]
    return path


def hdf5(path: Path, kspace: np.ndarray = KSPACE, mask: np.ndarray = MASK) -> Path:
    with h5py.File(path, "w") as file:
        file["kspace"], file["mask"] = kspace[:, 0], mask
    return path


LAYOUT = "slice,coil,ky,kx"


def same(ds: xr.Dataset, other: xr.Dataset) -> None:
    for name in other.data_vars:
        assert ds[name].dims == other[name].dims
        assert ds[name].dtype == other[name].dtype
        np.testing.assert_array_equal(ds[name].values, other[name].values)
    for name in ("slice", "subject"):
        assert ds[name].values.tolist() == other[name].values.tolist()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_gives_the_same_bits(tmp_path: Path, zarr_format: int) -> None:
    scans().to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=False)
    same(open_scans(tmp_path / "a.zarr"), scans())
    assert is_scan(tmp_path / "a.zarr")


def test_netcdf_in_pairs_gives_the_same_bits(tmp_path: Path) -> None:
    paired(scans()).to_netcdf(tmp_path / "a.nc")
    same(open_scans(tmp_path / "a.nc"), scans())
    assert is_scan(tmp_path / "a.nc")
    same(merged(paired(scans())), scans())


def test_numpy_gives_the_same_bits(tmp_path: Path) -> None:
    same(open_scans(npz(tmp_path / "a.npz"), layout=LAYOUT), scans())
    assert is_scan(tmp_path / "a.npz")
    np.save(tmp_path / "k.npy", KSPACE[:, :1])
    ds = open_scans(tmp_path / "k.npy", layout=LAYOUT)
    np.testing.assert_array_equal(ds["kspace"].values, KSPACE[:, :1])
    assert "image" not in ds
    assert is_scan(tmp_path / "k.npy")


def test_layout_centring_and_repair_reach_the_checks(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", kspace=KSPACE.transpose(0, 2, 3, 1), **ARRAYS)  # type: ignore[arg-type]
    same(open_scans(tmp_path / "a.npz", layout="slice,ky,kx,coil"), scans())
    corner = np.fft.ifftshift(KSPACE, (-2, -1))
    path = npz(tmp_path / "c.npz", kspace=corner, mask=np.fft.ifftshift(MASK))
    with pytest.raises(UserError, match="fft_centred=false"):
        open_scans(path, layout=LAYOUT)
    same(open_scans(path, layout=LAYOUT, fft_centred=False), scans("c"))
    damaged = KSPACE.copy()
    damaged[0, 1, 4, 9] = np.inf
    path = npz(tmp_path / "d.npz", kspace=damaged)
    with pytest.raises(UserError, match=r"d.npz: k-space is NaN or infinite at slice d/0, coil 1, line kx=9"):
        open_scans(path, layout=LAYOUT)
    repaired = open_scans(path, layout=LAYOUT, repair=True)
    assert not repaired["mask"].values[0, :, 9].any()
    assert repaired["mask"].values[1, :, 9].all()


def test_folders_globs_and_lists(tmp_path: Path) -> None:
    for name in ("b", "a"):
        hdf5(tmp_path / f"{name}.h5")
    (tmp_path / "notes.txt").write_text("left alone")
    for path in (tmp_path, tmp_path / "*.h5", [tmp_path / "a.h5", tmp_path / "b.h5"]):
        ds = open_scans(path)
        assert ds["slice"].values.tolist() == ["a/0", "a/1", "b/0", "b/1"]
        assert ds["patient"].values.tolist() == ["a", "a", "b", "b"]
        np.testing.assert_array_equal(ds["kspace"].values[2:], KSPACE[:, :1])


def test_files_of_fewer_coils_get_coils_without_map_and_signal(tmp_path: Path) -> None:
    npz(tmp_path / "b.npz")
    np.savez(tmp_path / "a.npz", kspace=KSPACE[:, :1], mask=MASK)
    ds = open_scans(tmp_path, layout=LAYOUT)
    assert ds["kspace"].shape == (4, 2, H, W)
    assert not ds["kspace"].values[:2, 1].any() and not ds["sens_maps"].values[:2, 1].any()
    np.testing.assert_array_equal(ds["kspace"].values[2:], KSPACE)
    assert ds["mask"].dtype == bool and ds["kspace"].dtype == np.complex64
    assert "image" not in ds
    assert check_scans(ds).identical(check_scans(check_scans(ds)))


def test_files_of_other_sizes_are_refused(tmp_path: Path) -> None:
    hdf5(tmp_path / "a.h5")
    hdf5(tmp_path / "b.h5", KSPACE[..., 1:-1], MASK[1:-1])
    with pytest.raises(UserError, match="several sizes, 20×15, 20×17"):
        open_scans(tmp_path)


def text(path: Path) -> Path:
    path.write_text("no numbers")
    return path


def pickled(path: Path) -> Path:
    np.save(path, np.array([{}], object), allow_pickle=True)
    return path


def without_part(path: Path) -> Path:
    paired(scans()).drop_vars("kspace_im").to_netcdf(path)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "no.h5", "is not there: the folder holds no scan"),
        (lambda p: p / "no" / "no.h5", "nor is its folder"),
        (lambda p: p, "folder without scans"),
        (lambda p: p / "*.h5", "is not there"),
        (lambda p: [], "names no file"),
        (lambda p: p / "a.h5.partial", "unfinished"),
        (lambda p: text(p / "a.dcm"), "do not come in this format"),
        (lambda p: text(p / "a.npz"), "a.npz"),
        (lambda p: pickled(p / "a.npy"), "Cannot read"),
        (lambda p: text(p / "a.nc"), "is no netCDF file"),
        (lambda p: text(p / "a.nii"), "NIfTI, which holds images and no k-space"),
        (lambda p: npz(p / "a.npz"), "its axes have no names: say which.*layout=slice,coil,ky,kx"),
        (lambda p: [npz(p / "a.npz")] * 2, "name each file once"),
        (lambda p: [npz(p / "a.npz"), hdf5(p / "a.h5")], "are one subject by their names"),
        (lambda p: without_part(p / "a.nc"), "has kspace_re, but no kspace_im"),
    ],
)
def test_what_is_refused(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_scans(make(tmp_path))


def test_the_wrong_number_of_coils_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="maps are of 1 coils, the k-space is of 2"):
        open_scans(npz(tmp_path / "a.npz", sens_maps=MAPS[:1]), layout=LAYOUT)


STACK = np.stack([np.full((6, 5), v) for v in (0, 0.05, 1, 0.5)]).astype(np.float32)


def test_anatomies_lose_their_empty_slices_only(tmp_path: Path) -> None:
    affine = np.diag([2.0, 1, 3, 1])
    nibabel.save(nibabel.Nifti1Image(STACK.transpose(2, 1, 0), affine), tmp_path / "v.nii.gz")
    np.save(tmp_path / "n.npy", STACK)
    np.savez(tmp_path / "z.npz", image=STACK * 1j)
    for name, factor in (("v.nii.gz", 1), ("n.npy", 1), ("z.npz", 1j)):
        ds = open_anatomy(tmp_path / name)
        stem = name.split(".")[0]
        assert ds["slice"].values.tolist() == [f"{stem}/2", f"{stem}/3"]  # 0.05² is below one hundredth
        assert set(ds["subject"].values) == {stem}
        assert ds["image"].dtype == np.complex64
        np.testing.assert_array_equal(ds["image"].values, STACK[2:] * np.complex64(factor))
        assert not is_scan(tmp_path / name)
    ds = open_anatomy(tmp_path / "v.nii.gz")
    assert ds.attrs == {"affine": affine.tolist(), "voxel_size": [3, 1, 2], "depth": 4}
    both = open_anatomy([tmp_path / "v.nii.gz", tmp_path / "n.npy"])
    assert both.attrs["affine"] == {"v": affine.tolist()}
    assert both.sizes["slice"] == 4


def test_volumes_of_one_person_are_known_by_their_names(tmp_path: Path) -> None:
    for name in ("sub-01_T1w", "sub-01_T2w", "sub-02_ses-1_T1w", "head"):
        np.save(tmp_path / f"{name}.npy", STACK)
    ds = open_anatomy(tmp_path)
    owner = dict(zip(ds["subject"].values.tolist(), ds["patient"].values.tolist(), strict=True))
    assert owner == {"head": "head", "sub-01_T1w": "sub-01", "sub-01_T2w": "sub-01", "sub-02_ses-1_T1w": "sub-02"}
    assert "patient" not in open_anatomy(tmp_path / "head.npy").coords


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_anatomies_in_stores_keep_their_names_and_attributes(tmp_path: Path, suffix: str) -> None:
    image = STACK[2:] * np.exp(1j).astype(np.complex64)
    coords = {"slice": ["s/7", "s/9"], "subject": ("slice", ["s", "s"]), "patient": ("slice", ["p", "p"])}
    ds = xr.Dataset({"image": (("slice", "y", "x"), image)}, coords)
    path = tmp_path / f"a.{suffix}"
    if suffix == "zarr":
        ds.assign_attrs(affine=np.eye(4).tolist()).to_zarr(path, consolidated=False)
    else:
        paired(ds).to_netcdf(path)
    out = open_anatomy(path)
    np.testing.assert_array_equal(out["image"].values, image)
    assert out["slice"].values.tolist() == ["s/7", "s/9"] and out["patient"].values.tolist() == ["p", "p"]
    assert not is_scan(path)
    assert out.attrs == ({"affine": np.eye(4).tolist()} if suffix == "zarr" else {})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 4, 4)), "zero everywhere"),
        (np.ones((2, 2, 4, 4)), "expected images"),
        (np.where(np.eye(4, dtype=bool), np.nan, 1.0)[None], "NaN or infinite in 1 slices, a/0 first"),
        (np.array(["x"]), "expected images"),
    ],
)
def test_anatomies_that_are_refused(tmp_path: Path, values: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(UserError, match=message):
        open_anatomy(tmp_path / "a.npy")


def test_scans_and_images_are_told_apart_by_names(tmp_path: Path) -> None:
    assert is_scan(hdf5(tmp_path / "a.h5"))
    np.save(tmp_path / "i.npy", IMAGE)
    assert not is_scan(tmp_path / "i.npy")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["reconstruction"] = STACK
    assert not is_scan(tmp_path / "b.h5")
    with pytest.raises(UserError, match="HDF5 without a k-space"):
        open_anatomy(tmp_path / "b.h5")


@real
def test_the_brain_of_the_mni() -> None:
    path = Path(REAL or "") / "mri" / "mni152_2009a_t1.nii.gz"
    ds = open_anatomy(path)
    source = nibabel.load(path)
    assert ds["image"].shape[1:] == (233, 197)
    assert 130 < ds.sizes["slice"] < 160
    assert ds.attrs["depth"] == 189
    np.testing.assert_array_equal(ds.attrs["affine"], source.affine)
    z = int(str(ds["slice"].values[50]).rsplit("/", 1)[1])
    np.testing.assert_array_equal(ds["image"].values[50].real, np.asarray(source.dataobj)[:, :, z].T)
    assert not is_scan(path)
    assert find(path) == [path]
