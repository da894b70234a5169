"""The field's bad input, from the file to the ensemble: told in one line with a remedy, or mended, and said."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr

from scigen.core.bundle import Bundle
from scigen.core.networks.unet import UNet
from scigen.core.sampling import Sampling
from scigen.errors import UserError
from scigen.mri.coils import birdcage
from scigen.mri.domain import Mri
from scigen.mri.fourier import fft2c
from scigen.mri.physics import fitted
from scigen.mri.reading import open_scans

S, C, H, W = 2, 3, 27, 22
"""Odd and not square."""

LAYOUT = "slice,coil,ky,kx"


def lines(width: int = W, acs: int = 6) -> np.ndarray:
    k = np.arange(width)
    return (k % 3 == width // 2 % 3) | ((k >= width // 2 - acs // 2) & (k < width // 2 + acs // 2))


def picture(height: int = H, width: int = W) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    head = (x**2 / 0.4 + y**2 / 0.6 < 1) + 0.5 * ((x - 0.2) ** 2 + (y + 0.1) ** 2 < 0.1)
    return np.stack([head * np.exp(1j * (0.5 + 0.4 * x + 0.2 * s)) for s in range(1, S + 1)])


def parts(height: int = H, width: int = W, noise: float = 0.01) -> dict[str, np.ndarray]:
    """What a good .npz file holds."""
    rng = np.random.default_rng(0)
    maps = birdcage(C, (height, width), rng)
    whole = fft2c(maps * picture(height, width)[:, None])
    whole = whole + noise * (rng.standard_normal(whole.shape) + 1j * rng.standard_normal(whole.shape))
    taken = lines(width)
    return {
        "kspace": (whole * taken).astype(np.complex64),
        "mask": taken,
        "sens_maps": maps,
        "noise_std": np.float64(noise),
    }


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    own = parts()
    scans = xr.Dataset(
        {
            "kspace": (("slice", "coil", "ky", "kx"), own["kspace"]),
            "mask": (("slice", "ky", "kx"), np.broadcast_to(own["mask"], (S, H, W))),
            "sens_maps": (("slice", "coil", "y", "x"), np.broadcast_to(own["sens_maps"], (S, C, H, W))),
            "noise_std": ("slice", np.full(S, 0.01)),
        },
        {"slice": ["a/0", "a/1"]},
    )
    codec = fitted(scans, picture())[0]
    args = dict(channels=2, condition_fields=5, condition_scalars=3, widths=[8, 8], embedding=8)
    torch.manual_seed(0)
    name = "scigen.core.networks.unet.UNet"
    return Bundle(
        UNet(**args), name, args, 1.0, codec, Sampling("few_step", (20.0, 1.0), trained=True), "mri", "student"
    )


def sampled(bundle: Bundle, path: Path, **words: object) -> np.ndarray:
    """Complex members (slice, member, y, x) of a file."""
    out = bundle.sample(open_scans(path, **words), members=2, batch=2)  # type: ignore[arg-type]
    return out["image_re"].values + 1j * out["image_im"].values


def saved(path: Path, **changes: np.ndarray | None) -> Path:
    np.savez(path, **{k: v for k, v in (parts() | changes).items() if v is not None})  # type: ignore[arg-type]
    return path


@pytest.fixture
def good(bundle: Bundle, tmp_path: Path) -> np.ndarray:
    return sampled(bundle, saved(tmp_path / "scan.npz"), layout=LAYOUT)


def test_odd_sizes_that_are_not_square_are_sampled_without_a_target(good: np.ndarray) -> None:
    assert good.shape == (S, 2, H, W)
    x, truth = good.mean(1), picture()
    assert np.linalg.norm(x - truth) < 0.5 * np.linalg.norm(truth)


@pytest.mark.parametrize("factor", [1e-6, 1e4])
def test_a_scale_is_that_of_the_answer_and_changes_nothing_else(bundle, good, tmp_path, factor):
    scaled = saved(
        tmp_path / "scan.npz", kspace=parts()["kspace"] * np.float32(factor), noise_std=np.float64(0.01 * factor)
    )
    found = sampled(bundle, scaled, layout=LAYOUT) / factor
    np.testing.assert_allclose(found, good, atol=1e-3 * np.abs(good).max())


ALIKE: dict[str, Callable[[dict[str, np.ndarray]], tuple[dict[str, np.ndarray], dict[str, object]]]] = {
    "coils last": lambda p: ({"kspace": p["kspace"].transpose(0, 2, 3, 1)}, {"layout": "slice,ky,kx,coil"}),
    "interleaved": lambda p: (
        {"kspace": np.stack([p["kspace"].real, p["kspace"].imag], -1)}, {"layout": "slice,coil,ky,kx,reim"},
    ),
    "alternating": lambda p: (
        {"kspace": np.moveaxis(np.stack([p["kspace"].real, p["kspace"].imag], -1), 1, 3).reshape(S, H, W, 2 * C)},
        {"layout": "slice,ky,kx,coil+reim"},
    ),
    "mask of bytes (ky, kx)": lambda p: ({"mask": np.broadcast_to(p["mask"], (H, W)).astype(np.uint8)}, {}),
    "mask by slice": lambda p: ({"mask": np.broadcast_to(p["mask"], (S, H, W)).astype(np.float32)}, {}),
    "double precision": lambda p: ({"kspace": p["kspace"].astype(np.complex128)}, {}),
    "uncentred": lambda p: (
        {"kspace": np.fft.ifftshift(p["kspace"], (-2, -1)), "mask": np.fft.ifftshift(p["mask"])},
        {"fft_centred": False},
    ),
    "maps of each slice": lambda p: ({"sens_maps": np.broadcast_to(p["sens_maps"], (S, C, H, W))}, {}),
    "maps that are not normalised": lambda p: ({"sens_maps": 3 * p["sens_maps"]}, {}),
    "no mask": lambda p: ({"mask": None}, {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", ALIKE)
def test_what_is_mended_gives_the_same_images(bundle, good, tmp_path, kind):
    changes, words = ALIKE[kind](parts())
    found = sampled(bundle, saved(tmp_path / "scan.npz", **changes), **({"layout": LAYOUT} | words))
    np.testing.assert_allclose(found, good, atol=1e-4 * np.abs(good).max())


def _zeroed(**where: object) -> np.ndarray:
    kspace = parts()["kspace"].copy()
    kspace[tuple(where.get(k, slice(None)) for k in ("s", "c", "y", "x"))] = where.get("value", 0)  # type: ignore[index]
    return kspace


def _square(turned: bool) -> dict[str, np.ndarray]:
    """As many rows as columns; the mask is of columns, or what should be one of rows."""
    own = parts(24, 24)
    kspace = own["kspace"].swapaxes(-1, -2) if turned else own["kspace"]
    return own | {"kspace": kspace}


REFUSED: dict[str, tuple[Callable[[], dict[str, np.ndarray | None]], str]] = {
    "mask of rows": (lambda: {"mask": np.ones(H)}, "has 27 values, which fits ky.*by its layout"),
    "mask transposed": (lambda: {"mask": np.ones((W, H))}, "transposed.*Give mask.T"),
    "mask of rows, square": (lambda: _square(True), "with ky and kx exchanged.*give the mask transposed"),
    "mask of another size": (lambda: {"mask": np.ones(W + 2)}, r"the mask is \(24,\), expected"),
    "mask of words": (lambda: {"mask": np.array(["y"] * W)}, "the mask is of <U1, expected bool"),
    "complex mask": (lambda: {"mask": np.ones(W, complex)}, "complex128, expected bool"),
    "mask of another scan": (lambda: {"mask": ~lines()}, "no sample that mask and k-space agree on"),
    "no calibration lines": (
        lambda: {"kspace": _zeroed(x=slice(10, 12)), "sens_maps": None},
        "slice scan/0: The coil maps cannot be estimated: .* 0 fully sampled lines.*Give sens_maps",
    ),
    "nothing in the middle": (
        lambda: {"kspace": _zeroed(x=slice(9, 13))},
        "the middle of k-space is zero: the FFT was not centred, and .* or the scan has no calibration",
    ),
    "zeros": (lambda: {"kspace": _zeroed()}, "slice scan/0 is zero everywhere in k-space: leave this slice out"),
    "one slice of zeros": (lambda: {"kspace": _zeroed(s=1)}, "slice scan/1 is zero everywhere"),
    "NaN": (lambda: {"kspace": _zeroed(value=np.nan)}, r"NaN or infinite at slice scan/0, coil 0.*repair=true"),
    "one NaN": (lambda: {"kspace": _zeroed(s=1, c=2, y=5, x=11, value=np.nan)}, "slice scan/1, coil 2, line kx=11"),
    "coils last": (lambda: {"kspace": parts()["kspace"].transpose(0, 2, 3, 1)}, "22 coils|mask|sens_maps|maps are of"),
    "uncentred": (
        lambda: {"kspace": np.fft.ifftshift(parts()["kspace"], (-2, -1)), "mask": np.fft.ifftshift(lines())},
        "the FFT was not centred. fft_centred=false",
    ),
    "NaN in the maps": (lambda: {"sens_maps": parts()["sens_maps"] * np.nan}, "sens_maps is NaN.*Give none"),
    "negative noise": (lambda: {"noise_std": np.float64(-1)}, "noise_std=-1: expected"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_told_in_a_line_that_names_the_file(tmp_path, kind):
    make, told = REFUSED[kind]
    path = saved(tmp_path / "scan.npz", **make())
    with pytest.raises(UserError, match=told) as caught:
        open_scans(path, layout=LAYOUT)
    assert "scan.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_a_square_mask_of_columns_passes(tmp_path):
    own = _square(False)
    scans = open_scans(saved(tmp_path / "scan.npz", **own), layout=LAYOUT)
    np.testing.assert_array_equal(scans["mask"].values, np.broadcast_to(lines(24), (S, 24, 24)))


def test_a_mask_that_promises_more_than_there_is_is_cut_and_the_answer_as_without(bundle, tmp_path, caplog):
    """Columns that the mask says were sampled, and that hold zeros, are no measurement of zero."""
    kspace = _zeroed(x=slice(0, 4))
    honest = lines().copy()
    honest[:4] = False
    less = sampled(bundle, saved(tmp_path / "scan.npz", kspace=kspace, mask=honest), layout=LAYOUT)
    caplog.clear()
    found = sampled(bundle, saved(tmp_path / "scan.npz", kspace=kspace), layout=LAYOUT)
    np.testing.assert_array_equal(found, less)
    assert "of what the mask says is sampled is zero in k-space: not used" in caplog.text


def test_a_dead_coil_is_left_out(bundle, good, tmp_path, caplog):
    found = sampled(bundle, saved(tmp_path / "scan.npz", kspace=_zeroed(c=1)), layout=LAYOUT)
    assert "coil 1 has no signal in scan/0 and 1 more slices: dropped" in caplog.text
    assert np.isfinite(found).all() and np.abs(found).max() > 0.3 * np.abs(good).max()


def test_repair_samples_around_damaged_lines(bundle, good, tmp_path):
    path = saved(tmp_path / "scan.npz", kspace=_zeroed(s=1, c=2, y=5, x=11, value=np.inf))
    found = sampled(bundle, path, layout=LAYOUT, repair=True)
    np.testing.assert_allclose(found[0], good[0], atol=1e-5 * np.abs(good).max())
    assert np.isfinite(found).all() and not np.allclose(found[1], good[1], atol=1e-3)


def test_coils_last_in_hdf5_are_found_out(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["kspace"] = parts()["kspace"].transpose(0, 2, 3, 1)
    with pytest.raises(UserError, match=r"scan.h5: .*last axis looks like coils.*layout=slice,ky,kx,coil"):
        open_scans(tmp_path / "scan.h5")


def test_files_without_a_target_are_not_learnt_from(tmp_path):
    path = saved(tmp_path / "scan.npz")
    with pytest.raises(UserError, match="cannot be learnt from: it has no images"):
        Mri(str(path), layout=LAYOUT).open(tmp_path)


def test_scans_of_another_size_are_told_what_the_model_makes(bundle, tmp_path):
    path = saved(tmp_path / "scan.npz", **parts(24, 24))
    with pytest.raises(UserError, match="24 × 24 points of k-space, this model makes 27 × 22 pixels"):
        sampled(bundle, path, layout=LAYOUT)
