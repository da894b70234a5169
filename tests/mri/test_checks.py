import logging
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.mri import receivers
from scigen.mri.centring import recentred
from scigen.mri.checks import check_scans
from scigen.mri.fourier import fft2c
from scigen.mri.layout import arranged, assemble, canonical_mask
from scigen.mri.receivers import estimate_noise

S, C, H, W = 2, 3, 36, 27
SIGMA = 0.01


def maps_of(coils: int = C) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : H * 1j, -1 : 1 : W * 1j]
    angle = 2 * np.pi * np.arange(coils) / coils
    raw = np.stack([np.exp(-((y - np.sin(a)) ** 2 + (x - np.cos(a)) ** 2) + 1j * (a + y)) for a in angle])
    return (raw / np.sqrt((np.abs(raw) ** 2).sum(0))).astype(np.complex64)


def objects() -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : H * 1j, -1 : 1 : W * 1j]
    disk = (y**2 + x**2 < 0.5).astype(float)
    return np.stack([disk * (1 + 0.3 * np.sin(5 * y + s)) * np.exp(1j * (x + 0.5 * y)) for s in range(S)])


def lines() -> np.ndarray:
    mask = np.zeros(W, bool)
    mask[::3] = True
    mask[W // 2 - 4 : W // 2 + 5] = True
    return mask


def scan(mask: np.ndarray | None = None, noise: float = SIGMA) -> xr.Dataset:
    """Two slices, three coils, odd columns, complex truth."""
    rng = np.random.default_rng(0)
    full = fft2c(maps_of()[None] * objects()[:, None])
    full = full + noise * (rng.standard_normal(full.shape) + 1j * rng.standard_normal(full.shape))
    mask = lines() if mask is None else mask
    kspace = (full * np.broadcast_to(mask, (S, H, W))[:, None]).astype(np.complex64)
    return assemble(kspace, "knee.h5", "knee", mask=mask, sens_maps=maps_of(), noise_std=noise, image=objects())


def test_a_good_scan_passes_without_a_word_and_bit_for_bit(caplog: pytest.LogCaptureFixture) -> None:
    ds = scan()
    with caplog.at_level(logging.INFO):
        out = check_scans(ds)
    assert not caplog.records
    for name in ds.data_vars:
        np.testing.assert_array_equal(out[name].values, ds[name].values.astype(out[name].dtype))
    assert {k: str(v.dtype) for k, v in out.data_vars.items()} == {
        "kspace": "complex64",
        "mask": "bool",
        "sens_maps": "complex64",
        "noise_std": "float64",
        "image": "complex64",
    }
    assert out["mask"].dims == ("slice", "ky", "kx")
    assert out["slice"].values.tolist() == ["knee/0", "knee/1"]


@pytest.mark.parametrize("factor", [1e-6, 1e4])
def test_scale_is_not_touched(factor: float) -> None:
    ds = scan()
    scaled = ds.assign(kspace=ds["kspace"] * np.float32(factor), noise_std=ds["noise_std"] * factor)
    out = check_scans(scaled)
    np.testing.assert_array_equal(out["kspace"].values, scaled["kspace"].values)
    unknown = check_scans(scaled.drop_vars("noise_std"))["noise_std"].values
    np.testing.assert_allclose(unknown, check_scans(ds.drop_vars("noise_std"))["noise_std"].values * factor, rtol=1e-5)


SHAPE = (S, H, W)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(W,), (H, W), (1, H, W), (S, H, W), (S, 1, H, W)])
def test_masks_of_every_shape_and_type_are_the_same(kind: type, shape: tuple[int, ...]) -> None:
    mask = canonical_mask(np.broadcast_to(lines(), shape).astype(kind), SHAPE, "m")
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, np.broadcast_to(lines(), SHAPE))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(H), "fits ky, not the 27 columns kx.*layout"),
        (np.ones((W, H)), "transposed.*mask.T"),
        (np.ones(W + 1), r"expected \(kx,\)"),
        (np.ones((S, W)), r"expected \(kx,\)"),
        (np.full(W, 0.5), "holds 0.5.*expected 0 and 1"),
        (np.full(W, np.nan), "holds nan"),
        (np.full(W, 2, np.uint8), "holds 2"),
        (np.ones(W, complex), "complex128, expected bool"),
    ],
)
def test_masks_that_are_refused(mask: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        canonical_mask(mask, SHAPE, "m")


def test_a_mask_is_inferred_from_what_all_coils_have(caplog: pytest.LogCaptureFixture) -> None:
    out = check_scans(scan().drop_vars("mask"))
    np.testing.assert_array_equal(out["mask"].values, np.broadcast_to(lines(), SHAPE))
    assert "inferred" in caplog.text
    ds = scan().drop_vars("mask").copy(deep=True)
    ds["kspace"].values[1, 2, :, 12] = 0
    with pytest.raises(UserError, match=r"coils of slice knee/1 disagree on .*%.*Give the mask"):
        check_scans(ds)


def test_a_dead_coil_has_no_say_in_the_mask() -> None:
    ds = scan().drop_vars("mask").copy(deep=True)
    ds["kspace"].values[:, 1] = 0
    np.testing.assert_array_equal(check_scans(ds)["mask"].values, np.broadcast_to(lines(), SHAPE))


def test_the_intersection_of_mask_and_kspace_is_used(caplog: pytest.LogCaptureFixture) -> None:
    ds = scan().copy(deep=True)
    ds["kspace"].values[..., 12] = 0  # was sampled
    ds["kspace"].values[..., 1] = 1  # was not
    out = check_scans(ds)
    expected = lines()
    expected[12] = False
    np.testing.assert_array_equal(out["mask"].values, np.broadcast_to(expected, SHAPE))
    assert not (out["kspace"].values[..., 1]).any()
    n = lines().sum()
    assert f"{100 / n:.3g}% of what the mask says is sampled is zero" in caplog.text
    assert f"{100 / n:.3g}% of the k-space is not zero where" in caplog.text


def test_a_fully_sampled_mask_passes() -> None:
    assert check_scans(scan(np.ones(W, bool)))["mask"].values.all()


def damaged(change: Callable[[xr.Dataset], None], *, without: tuple[str, ...] = ()) -> xr.Dataset:
    ds = scan().drop_vars(list(without)).copy(deep=True)
    change(ds)
    return ds


def put(name: str, index: tuple[object, ...], value: complex) -> Callable[[xr.Dataset], None]:
    def change(ds: xr.Dataset) -> None:
        ds[name].values[index] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("mask", (1,), False), "knee/1 has an empty mask"),
        (put("kspace", (1,), 0), "knee/1 is zero everywhere"),
        (put("kspace", (...,), 0), r"knee/0 is zero everywhere.*2 such slices"),
        (put("kspace", (1, 2, 7, 12), np.nan), "NaN or infinite at slice knee/1, coil 2, line kx=12.*repair=true"),
        (put("kspace", (0, 0, 0, 3), complex(0, np.inf)), "slice knee/0, coil 0, line kx=3"),
        (put("noise_std", (0,), -1), "noise_std=-1: expected"),
        (put("image", (0, 0, 0), np.nan), "'image' is NaN or infinite at 1 pixel"),
        (put("sens_maps", (0, 0, 0), np.nan), "sens_maps is NaN"),
        (put("sens_maps", (0,), 0), "knee/0 has no map"),
    ],
)
def test_damage_is_told(change: Callable[[xr.Dataset], None], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_scans(damaged(change))


def test_repair_drops_the_line_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    out = check_scans(damaged(put("kspace", (1, 2, 7, 12), np.nan)), repair=True)
    expected = np.broadcast_to(lines(), SHAPE).copy()
    expected[1, :, 12] = False
    np.testing.assert_array_equal(out["mask"].values, expected)
    np.testing.assert_array_equal(out["kspace"].values, scan()["kspace"].values * expected[:, None])
    assert "slice knee/1, coil 2, line kx=12" in caplog.text


def test_repair_of_scattered_samples_drops_the_sample_only() -> None:
    mask = np.random.default_rng(1).random((H, W)) < 0.5
    mask[H // 2 - 4 : H // 2 + 4, W // 2 - 4 : W // 2 + 4] = True
    y, x = map(int, np.argwhere(mask)[5])
    ds = scan(mask).copy(deep=True)
    ds["kspace"].values[0, 1, y, x] = np.nan
    expected = np.broadcast_to(mask, SHAPE).copy()
    expected[0, y, x] = False
    np.testing.assert_array_equal(check_scans(ds, repair=True)["mask"].values, expected)


def test_a_dead_coil_is_dropped_and_the_image_still_belongs_to_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    ds = scan(noise=0.0).copy(deep=True)
    ds["kspace"].values[1, 2] = 0
    out = check_scans(ds)
    assert "coil 2 has no signal in knee/1: dropped" in caplog.text
    assert not out["sens_maps"].values[1, 2].any()
    np.testing.assert_allclose((np.abs(out["sens_maps"].values) ** 2).sum(1), 1, atol=1e-5)
    again = fft2c(out["sens_maps"].values * out["image"].values[:, None]) * out["mask"].values[:, None]
    np.testing.assert_allclose(again, out["kspace"].values, atol=1e-4)


def test_maps_are_normalised_with_the_image(caplog: pytest.LogCaptureFixture) -> None:
    ds = scan(noise=0.0)
    factor = np.float32(2) + np.linspace(0, 1, W, dtype=np.float32)
    out = check_scans(ds.assign(sens_maps=ds["sens_maps"] * factor, image=ds["image"] / factor))
    assert "normalised" in caplog.text
    np.testing.assert_allclose(out["sens_maps"].values, ds["sens_maps"].values, atol=1e-6)
    np.testing.assert_allclose(out["image"].values, ds["image"].values, atol=1e-6)
    rss = ds["image"].copy(data=np.abs(ds["image"].values))
    same = check_scans(ds.assign(sens_maps=ds["sens_maps"] * factor, image=rss))
    np.testing.assert_array_equal(same["image"].values.real, rss.values.astype(np.float32))


def test_maps_of_zero_outside_the_support_stay_zero() -> None:
    ds = scan().copy(deep=True)
    ds["sens_maps"].values[..., :5, :] = 0
    out = check_scans(ds)
    assert not out["sens_maps"].values[..., :5, :].any()


def test_one_coil_has_a_map_of_ones() -> None:
    kspace = fft2c(objects())[:, None].astype(np.complex64)
    out = check_scans(assemble(kspace, "n", "n", mask=np.ones(W)))
    np.testing.assert_array_equal(out["sens_maps"].values, np.ones((S, 1, H, W), np.complex64))


def test_maps_are_estimated_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def estimate(kspace: np.ndarray, mask: np.ndarray) -> np.ndarray:
        assert mask.dtype == bool and mask.shape == (H, W)
        seen.append(kspace.shape)
        return np.full(kspace.shape, 1 / np.sqrt(len(kspace)), np.complex64)

    monkeypatch.setattr("scigen.mri.receivers.estimate", estimate)
    out = check_scans(damaged(put("kspace", (1, 2), 0), without=("sens_maps",)))
    assert seen == [(3, H, W), (2, H, W)]
    assert not out["sens_maps"].values[1, 2].any()

    def fail(kspace: np.ndarray, mask: np.ndarray) -> np.ndarray:
        raise UserError("no calibration region")

    monkeypatch.setattr("scigen.mri.receivers.estimate", fail)
    with pytest.raises(UserError, match=r"knee.h5, slice knee/0: no calibration region"):
        check_scans(scan().drop_vars("sens_maps"))


@pytest.mark.parametrize("sigma", [1e-6, 3.0])
def test_the_estimate_of_noise_is_right(sigma: float) -> None:
    rng = np.random.default_rng(2)
    kspace = sigma * (rng.standard_normal((4, 64, 48)) + 1j * rng.standard_normal((4, 64, 48)))
    kspace[:, 24:40, 16:32] += 1e3 * sigma  # the signal is in the middle
    assert estimate_noise(kspace, np.ones((64, 48), bool)) == pytest.approx(sigma, rel=0.05)


def test_unknown_noise_is_estimated_and_told(caplog: pytest.LogCaptureFixture) -> None:
    ds = scan(np.ones(W, bool), noise=0.3).copy(deep=True)
    ds["noise_std"].values[1] = np.nan
    with caplog.at_level(logging.INFO):
        out = check_scans(ds)["noise_std"].values
    assert out[0] == 0.3
    assert out[1] == pytest.approx(0.3, rel=0.15)
    assert "noise_std of 1 slices is not known" in caplog.text


UNCENTRED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "peak at the corner": lambda x: np.fft.fft2(np.fft.ifftshift(x, (-2, -1)), norm="ortho"),
    "image cut in four": lambda x: np.fft.fftshift(np.fft.fft2(x, norm="ortho"), (-2, -1)),
    "both": lambda x: np.fft.fft2(x, norm="ortho"),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", UNCENTRED)
def test_an_uncentred_fft_is_found_and_undone_for_odd_and_even_sizes(kind: str, masked: bool) -> None:
    mask = lines() if masked else np.ones(W, bool)
    right = scan(mask, noise=0.0)
    shifted = mask if kind == "image cut in four" else np.fft.ifftshift(mask)
    kspace = (UNCENTRED[kind](maps_of()[None] * objects()[:, None]) * shifted).astype(np.complex64)
    ds = assemble(kspace, "n", "knee", mask=shifted, sens_maps=maps_of(), noise_std=0.0)
    with pytest.raises(UserError, match="fft_centred=false"):
        check_scans(ds)
    out = check_scans(recentred(ds))
    np.testing.assert_array_equal(out["mask"].values, right["mask"].values)
    np.testing.assert_allclose(out["kspace"].values, right["kspace"].values, atol=2e-5)


def test_what_is_centred_stays() -> None:
    ds = scan()
    np.testing.assert_array_equal(recentred(ds)["kspace"].values, ds["kspace"].values)


def test_noise_alone_is_not_taken_for_uncentred() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        kspace = rng.standard_normal((1, 1, 16, 17)) + 1j * rng.standard_normal((1, 1, 16, 17))
        check_scans(assemble(kspace.astype(np.complex64), "n", "n", mask=np.ones(17)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.drop_vars("kspace"), "no variable 'kspace': it has"),
        (lambda ds: ds.rename(ky="row"), "'kspace' has the dimensions"),
        (lambda ds: ds.assign(kspace=ds["kspace"].real), "float32, expected complex64.*kspace_re"),
        (lambda ds: ds.isel(ky=slice(0, 0)), "'kspace' is empty"),
        (lambda ds: ds.isel(y=slice(4, 32)), "sens_maps is .*one grid|'image' is .*one grid"),
        (lambda ds: ds.assign_coords(slice=["a/0", "a/0"]), "'a/0' is there twice"),
        (lambda ds: ds.assign(kspace=ds["kspace"].isel(slice=0)), "no dimension 'slice'"),
    ],
)
def test_datasets_that_are_refused(change: Callable[[xr.Dataset], xr.Dataset], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_scans(change(scan()))


def test_named_axes_may_be_in_any_order_and_checking_twice_changes_nothing() -> None:
    ds = scan()
    turned = ds.transpose("kx", "x", "coil", "ky", "y", "slice").assign(mask=("kx", lines()))
    once = check_scans(turned)
    xr.testing.assert_identical(once, check_scans(ds))
    xr.testing.assert_identical(check_scans(once), once)


K = (scan()["kspace"].values).astype(np.complex64)
INTERLEAVED = np.stack([K.real, K.imag], -1)


@pytest.mark.parametrize(
    ("values", "layout"),
    [
        (K, None),
        (K, "slice,coil,ky,kx"),
        (K.transpose(0, 2, 3, 1), "slice,ky,kx,coil"),
        (K.transpose(3, 2, 1, 0), "kx, ky, coil, slice"),
        (INTERLEAVED, "slice,coil,ky,kx,reim"),
        (np.moveaxis(INTERLEAVED, 1, 3).reshape(S, H, W, 2 * C), "slice,ky,kx,coil+reim"),
        (K.astype(np.complex128), None),
    ],
)
def test_layouts(values: np.ndarray, layout: str | None) -> None:
    np.testing.assert_array_equal(arranged(values, layout, "n"), K)


def test_axes_that_a_layout_lacks_have_length_one() -> None:
    np.testing.assert_array_equal(arranged(K[0, 0], "ky,kx", "n"), K[:1, :1])
    np.testing.assert_array_equal(arranged(K[0], "coil,ky,kx", "n"), K[:1])
    np.testing.assert_array_equal(arranged(K[:, 0], None, "n"), K[:, :1])


@pytest.mark.parametrize(
    ("values", "layout", "message"),
    [
        (K.transpose(0, 2, 3, 1), None, "last axis looks like coils.*layout=slice,ky,kx,coil"),
        (K[0].transpose(1, 2, 0), None, "layout=ky,kx,coil"),
        (np.zeros((S, H, W, 2 * C)), None, r"real and imaginary parts of coils.*layout=slice,ky,kx,coil\+reim"),
        (INTERLEAVED, None, "layout=slice,coil,ky,kx,reim"),
        (INTERLEAVED[:, 0], None, "layout=slice,ky,kx,reim"),
        (K[0, 0], None, "name its axes"),
        (K.real, None, "expected complex numbers"),
        (K, "slice,coil,ky", "expected ky, kx and some of"),
        (K, "slice,coil,ky,z", "expected ky, kx and some of"),
        (K, "slice,ky,kx", "not the 3 axes"),
        (K, "slice,coil,ky,reim", "expected ky, kx"),
        (np.zeros((S, H, W, 5)), "slice,ky,kx,coil+reim", "an even number"),
    ],
)
def test_layouts_that_are_refused(values: np.ndarray, layout: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        arranged(values, layout, "n")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sens_maps": maps_of(4)}, "maps are of 4 coils, the k-space is of 3"),
        ({"sens_maps": maps_of()[:, :5]}, "sens_maps is"),
        ({"noise_std": np.ones(3)}, "noise_std is .*2 slices"),
        ({"image": np.ones((3, H, W))}, "image is"),
    ],
)
def test_arrays_that_do_not_fit(given: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(UserError, match=message):
        assemble(K, "n", "n", **given)  # type: ignore[arg-type]


def test_the_factor_of_the_median_is_that_of_the_normal_distribution() -> None:
    import scipy.stats

    assert pytest.approx(scipy.stats.norm.ppf(0.75)) == receivers.MAD
