from pathlib import Path

import h5py
import numpy as np
import pytest

from scigen.errors import UserError
from scigen.mri.fastmri import is_kspace, parse_header, read_fastmri, without_oversampling, write_reconstruction
from scigen.mri.fourier import fft2c, ifft2c
from scigen.mri.reading import open_scans

S, C, H, W = 3, 2, 24, 18
RNG = np.random.default_rng(0)
K = (RNG.standard_normal((S, C, H, W)) + 1j * RNG.standard_normal((S, C, H, W))).astype(np.complex64)


def header(encoded: int = W, center: int = W // 2, maximum: int = W - 1, recon: tuple[int, int] = (H, W)) -> bytes:
    return f"""<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
    <encodedSpace><matrixSize><x>{H}</x><y>{encoded}</y><z>1</z></matrixSize></encodedSpace>
    <reconSpace><matrixSize><x>{recon[0]}</x><y>{recon[1]}</y><z>1</z></matrixSize></reconSpace>
    <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{maximum}</maximum><center>{center}</center>
    </kspace_encoding_step_1></encodingLimits></encoding></ismrmrdHeader>""".encode()


def write(path: Path, attrs: dict[str, object] | None = None, **arrays: object) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
        file.attrs.update(attrs or {})
    return path


def test_many_coils(tmp_path: Path) -> None:
    mask = np.tile([1.0, 0, 1], W // 3).astype(np.float32)
    rss = RNG.random((S, H, W)).astype(np.float32)
    about = {"acquisition": "AXT2", "patient_id": "p7", "acceleration": 4, "max": 0.5, "other": "left out"}
    path = write(tmp_path / "brain_1.h5", about, kspace=K, mask=mask, reconstruction_rss=rss)
    ds = read_fastmri(path)
    np.testing.assert_array_equal(ds["kspace"].values, K)
    np.testing.assert_array_equal(ds["mask"].values, np.broadcast_to(mask != 0, (S, H, W)))
    np.testing.assert_array_equal(ds["image"].values, rss)
    assert ds["slice"].values.tolist() == ["brain_1/0", "brain_1/1", "brain_1/2"]
    assert set(ds["subject"].values) == {"brain_1"}
    assert set(ds["patient"].values) == {"p7"}
    assert ds.attrs == {"acquisition": "AXT2", "patient_id": "p7", "acceleration": 4, "max": 0.5, "recon_shape": [H, W]}
    assert is_kspace(path)


def test_a_single_coil_without_mask_target_and_header(tmp_path: Path) -> None:
    ds = read_fastmri(write(tmp_path / "a.h5", kspace=K[:, 0]))
    np.testing.assert_array_equal(ds["kspace"].values, K[:, :1])
    assert set(ds.data_vars) == {"kspace"}
    assert ds["patient"].values[0] == "a"


@pytest.mark.parametrize("given", [False, True])
def test_columns_that_the_scanner_filled_with_zeros_are_not_sampled(tmp_path: Path, given: bool) -> None:
    left, right = 2, 15
    kspace = K.copy()
    kspace[..., :left] = kspace[..., right:] = 0
    arrays = {"mask": np.ones(W, np.uint8)} if given else {}
    about = header(center=W // 2 - left, maximum=right - left - 1)
    assert parse_header(about, Path("a.h5"))["padding"] == (left, right)
    path = write(tmp_path / "a.h5", kspace=kspace, ismrmrd_header=about, **arrays)
    columns = np.arange(W)
    expected = (columns >= left) & (columns < right)
    np.testing.assert_array_equal(read_fastmri(path)["mask"].values, np.broadcast_to(expected, (S, H, W)))


@pytest.mark.parametrize("bad", [b"<no xml", b"<a/>", header().replace(b"<center>9", b"<center>nine")])
def test_a_bad_header_is_done_without(tmp_path: Path, bad: bytes, caplog: pytest.LogCaptureFixture) -> None:
    ds = read_fastmri(write(tmp_path / "a.h5", kspace=K, ismrmrd_header=bad))
    assert "done without" in caplog.text
    assert "mask" not in ds


@pytest.mark.parametrize(("rows", "kept"), [(24, 12), (24, 11), (25, 12), (25, 13)])
def test_the_readout_is_cropped_in_image_space(rows: int, kept: int) -> None:
    image = RNG.standard_normal((2, rows, 7)) + 1j * RNG.standard_normal((2, rows, 7))
    first = rows // 2 - kept // 2
    cut = ifft2c(without_oversampling(fft2c(image), kept))
    np.testing.assert_allclose(cut, image[:, first : first + kept], atol=1e-5)


def test_the_target_tells_of_oversampling_and_columns_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    small = read_fastmri(write(tmp_path / "a.h5", kspace=K, reconstruction_rss=np.ones((S, H // 2, W), np.float32)))
    assert small["kspace"].shape == (S, C, H // 2, W)
    assert small["image"].shape == (S, H // 2, W)
    narrow = np.ones((S, H // 2, W - 6), np.float32)
    ds = read_fastmri(write(tmp_path / "b.h5", kspace=K, reconstruction_esc=narrow))
    assert ds["kspace"].shape == (S, C, H // 2, W)
    assert "image" not in ds
    assert ds.attrs["recon_shape"] == [H // 2, W - 6]


def test_a_fully_sampled_scan_gets_the_image_with_its_phase(tmp_path: Path) -> None:
    y, x = np.mgrid[-1 : 1 : H * 1j, -1 : 1 : W * 1j]
    image = ((y**2 + x**2 < 0.5) * np.exp(1j * (x + y)))[None].astype(np.complex64)
    path = write(tmp_path / "a.h5", kspace=fft2c(image), reconstruction_esc=np.abs(image))
    ds = open_scans(path)
    np.testing.assert_allclose(ds["image"].values, image, atol=1e-6)
    assert ds.attrs["image"] == "complex"
    mask = np.ones(W)
    mask[[1, 3]] = 0
    path = write(tmp_path / "b.h5", kspace=fft2c(image) * mask, reconstruction_esc=np.abs(image), mask=mask)
    ds = open_scans(path)
    np.testing.assert_array_equal(ds["image"].values, np.abs(image).astype(np.complex64))
    assert ds.attrs["image"] == "magnitude"
    partial = np.arange(W) >= 5
    ds = open_scans(write(tmp_path / "c.h5", kspace=fft2c(image) * partial, mask=partial))
    assert "image" not in ds


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no dataset 'kspace': it has images"):
        read_fastmri(write(tmp_path / "a.h5", images=np.ones(3)))
    (tmp_path / "text.h5").write_text("no file")
    with pytest.raises(UserError, match="is no HDF5 file"):
        read_fastmri(tmp_path / "text.h5")
    path = write(tmp_path / "cut.h5", kspace=K)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match="damaged or cut short"):
        read_fastmri(path)
    with pytest.raises(UserError, match="layout=slice,ky,kx,coil"):
        read_fastmri(write(tmp_path / "last.h5", kspace=K.transpose(0, 2, 3, 1)))
    ds = read_fastmri(tmp_path / "last.h5", "slice,ky,kx,coil")
    np.testing.assert_array_equal(ds["kspace"].values, K)


def test_a_reconstruction_is_written_whole(tmp_path: Path) -> None:
    image = RNG.random((S, H, W)).astype(np.float32)
    ensemble = RNG.random((S, 2, H, W)).astype(np.float32)
    attrs = {"acquisition": "AXT2", "seed": 0, "affine": np.eye(4).tolist()}
    path = write_reconstruction(tmp_path / "new" / "a.h5", image, attrs, mean=2 * image, ensemble=ensemble)
    with h5py.File(path) as file:
        assert set(file) == {"reconstruction", "mean", "ensemble"}
        assert file["reconstruction"].dtype == np.float32
        np.testing.assert_array_equal(file["reconstruction"][()], image)
        np.testing.assert_array_equal(file["mean"][()], 2 * image)
        np.testing.assert_array_equal(file["ensemble"][()], ensemble)
        assert file.attrs["notice"] == "Research use only, not for diagnosis"
        assert file.attrs["seed"] == 0
        assert file.attrs["affine"].startswith("[[1.0, 0.0")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="could not convert"):
        write_reconstruction(path, np.array(["no number"]), {})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.h5"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        write_reconstruction(tmp_path / "file" / "a.h5", image, {})
