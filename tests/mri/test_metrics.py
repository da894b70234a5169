"""Judging reconstructions: what is known of the answer."""

import json
import math

import numpy as np
import pytest
import xarray as xr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from scigen.errors import UserError
from scigen.mri.fourier import fft2c
from scigen.mri.metrics import evaluate, to_json
from scigen.mri.statistics import maxima, statistics

SIZE = 24
SIGMA = 0.05


def complex_noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def archive(images: np.ndarray, truth: xr.Dataset, role: str = "student", nfe: float = 1) -> xr.Dataset:
    """Samples (slice, member, y, x)."""
    dims = ("slice", "member", "y", "x")
    parts = {"image_re": (dims, images.real.astype("f4")), "image_im": (dims, images.imag.astype("f4"))}
    return xr.Dataset(parts, {"slice": truth["slice"]}, {"scigen_role": role, "scigen_nfe": nfe})


def scans(centre: np.ndarray, seed: int = 0, scale: float = 1.0) -> xr.Dataset:
    """Truths (slice, y, x), four slices a subject, measured by 1 and 2 of 3 coils with noise of SIGMA."""
    rng = np.random.default_rng(seed)
    count = len(centre)
    coils = np.where(np.arange(count) % 2, 2, 1)
    columns = rng.random((count, 1, SIZE)) < np.where(np.arange(count) % 4 < 2, 0.5, 0.25)[:, None, None]
    columns[..., SIZE // 2] = True
    mask = np.broadcast_to(columns, (count, SIZE, SIZE)).copy()
    maps = np.zeros((count, 3, SIZE, SIZE), complex)
    maps[:, 0] = 1
    ramp = np.linspace(0.2, 1.2, SIZE)
    maps[1::2, 0], maps[1::2, 2] = np.cos(ramp), np.sin(ramp) * np.exp(1j * ramp)[:, None]
    live = np.abs(maps).max((2, 3)) > 0
    kspace = fft2c(maps * centre[:, None]) + SIGMA * complex_noise(rng, *maps.shape)
    kspace = np.where(mask[:, None] & live[:, :, None, None], kspace, 0)
    subjects = np.array([f"head{i // 4}" for i in range(count)])
    return xr.Dataset(
        {
            "image_re": (("slice", "y", "x"), (scale * centre.real).astype("f4")),
            "image_im": (("slice", "y", "x"), (scale * centre.imag).astype("f4")),
            "kspace": (("slice", "coil", "ky", "kx"), (scale * kspace).astype("c8")),
            "mask": (("slice", "ky", "kx"), mask),
            "sens_maps": (("slice", "coil", "y", "x"), maps.astype("c8")),
            "noise_std": ("slice", np.full(count, scale * SIGMA)),
            "acceleration": ("slice", np.where(np.arange(count) % 4 < 2, 2.0, 4.0)),
            "coils": ("slice", coils),
        },
        {"slice": [f"{s}/{i}" for i, s in enumerate(subjects)], "subject": ("slice", subjects)},
    )


def world(members: int = 9, count: int = 16, spread: float = 1.0, seed: int = 0, scale: float = 1.0):
    """Truths and ensembles drawn from one Gaussian law about a disc; `spread` scales the members' about its mean."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    disc = (np.hypot(y, x) < 0.8) * np.exp(0.5j * x)
    # where errors are large is known; none outside, so that the truth's own noise does not say what is the object
    wide = np.where(np.abs(disc) > 0, 0.02 + 0.08 * (x > 0), 0.002)
    law = np.broadcast_to(disc, (count, SIZE, SIZE))
    truth = scans(law + wide * complex_noise(rng, count, SIZE, SIZE), seed, scale)
    return truth, scale * (law[:, None] + spread * wide * complex_noise(rng, count, members, SIZE, SIZE))


def image_of(truth: xr.Dataset) -> np.ndarray:
    return truth["image_re"].values + 1j * truth["image_im"].values


@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_chi_square_of_the_truth_is_one(scale):
    truth, _ = world(scale=scale)
    report = evaluate(truth, {"truth": archive(image_of(truth)[:, None], truth)})
    one = report.sel(model="truth", group="all")
    numbers = 2 * (truth["mask"].sum(("ky", "kx")) * truth["coils"]).values
    assert float(one["chi_square"]) == pytest.approx(1, abs=4 * math.sqrt(2 / numbers.sum()))
    assert float(one["within"]) > 0.9 and float(one["worst_chi"]) < 1.3
    residual = SIGMA * scale * np.sqrt(numbers / (np.abs(truth["kspace"].values) ** 2).sum((1, 2, 3)))
    assert float(one["residual"]) == pytest.approx(residual.mean(), rel=0.05)


def test_chi_square_finds_what_leaves_the_data_and_what_fits_noise():
    truth, _ = world()
    off = archive(1.1 * image_of(truth)[:, None], truth)
    one_coil = truth.isel(slice=slice(0, None, 2))
    noise = np.fft.ifftshift(one_coil["kspace"].values[:, 0], axes=(1, 2))
    fitted = archive(np.fft.fftshift(np.fft.ifft2(noise, norm="ortho"), axes=(1, 2))[:, None], one_coil)
    report = evaluate(one_coil, {"off": off, "fitted": fitted}).sel(group="all")
    assert float(report["chi_square"].sel(model="off")) > 1.5 and float(report["worst_chi"].sel(model="off")) > 3
    assert float(report["chi_square"].sel(model="fitted")) < 1e-6 and float(report["within"].sel(model="fitted")) == 0


def test_gaussian_ensembles_of_the_truths_law_are_calibrated_and_narrow_ones_are_not():
    truth, fair = world(members=19, count=32)
    _, narrow = world(members=19, count=32, spread=0.5)
    report = evaluate(truth, {"fair": archive(fair, truth), "narrow": archive(narrow, truth)}).sel(group="all")
    one, other = report.sel(model="fair"), report.sel(model="narrow")
    assert float(one["spread_skill"]) == pytest.approx(1, abs=0.02)
    cover = one["coverage"].sel(level=0.9)
    assert float(one["coverage_nominal"].sel(level=0.9)) == pytest.approx(0.9)
    assert float(cover) == pytest.approx(0.9, abs=0.01)
    assert float(one["rank_deviation"]) < 0.05
    assert float(one["correlation"]) > 0.4
    # in k-space spread and error agree, on the mask and off it: the law knows nothing of the mask
    for key in ("sampled", "unsampled"):
        ratio = float(one[f"spread_{key}"] / one[f"error_{key}"])
        assert ratio * math.sqrt(20 / 19) == pytest.approx(1, abs=0.03)
    assert float(other["spread_skill"]) < 0.6 and float(other["coverage"].sel(level=0.9)) < 0.7
    assert float(other["crps"]) > 1.05 * float(one["crps"])


def test_binned_spread_tells_the_error():
    truth, fair = world(members=19, count=32)
    one = evaluate(truth, {"fair": archive(fair, truth)}).sel(model="fair", group="all")
    wide = one["spread_count"] > 200
    assert int(one["spread_count"].sum()) == _pixels(truth)
    narrow, broad = (one["error_binned"].where(wide, drop=True)[i] for i in (0, -1))
    assert float(broad) > 2.5 * float(narrow)


def _pixels(truth: xr.Dataset) -> int:
    image = np.abs(image_of(truth))
    top = np.repeat(image.reshape(-1, 4 * SIZE * SIZE).max(1), 4)[:, None, None]
    return int((image / top > 0.05).sum())


def test_a_spread_off_the_mask_is_found_there():
    truth, _ = world()
    rng = np.random.default_rng(5)
    free = np.where(truth["mask"].values[:, None], 0, complex_noise(rng, 16, 6, SIZE, SIZE))
    members = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(free, axes=(2, 3)), norm="ortho"), axes=(2, 3))
    image = image_of(truth)
    report = evaluate(truth, {"x": archive(image[:, None] + 0.1 * members, truth)}).sel(model="x", group="all")
    top = np.repeat(np.abs(image).reshape(-1, 4 * SIZE * SIZE).max(1), 4)
    assert float(report["spread_sampled"]) < 1e-6
    free_numbers = (~truth["mask"].values).sum((1, 2))
    due = math.sqrt((2 * 0.01 / top**2 * free_numbers).sum() / free_numbers.sum())
    assert float(report["spread_unsampled"]) == pytest.approx(due, rel=0.03)


def test_volumes_are_judged_as_fastmri_does():
    truth, fair = world(members=5)
    report = evaluate(truth, {"x": archive(fair, truth)}).sel(model="x")
    image, mean = np.abs(image_of(truth)), np.abs(fair.mean(1))
    volumes = [slice(4 * i, 4 * i + 4) for i in range(4)]
    tops = [image[v].max() for v in volumes]
    one = report.sel(group="all")
    due = [peak_signal_noise_ratio(image[v], mean[v], data_range=t) for v, t in zip(volumes, tops, strict=True)]
    assert float(one["psnr"]) == pytest.approx(np.mean(due), abs=1e-4)
    each = [structural_similarity(image[i], mean[i], data_range=tops[i // 4]) for i in range(16)]
    assert float(one["ssim"]) == pytest.approx(np.mean(each), abs=1e-5)
    nmse = [((mean[v] - image[v]) ** 2).sum() / (image[v] ** 2).sum() for v in volumes]
    assert float(one["nmse"]) == pytest.approx(np.mean(nmse), rel=1e-4)
    own = [peak_signal_noise_ratio(image[i], mean[i], data_range=image[i].max()) for i in range(16)]
    assert float(one["psnr_slice"]) == pytest.approx(np.mean(own), abs=1e-4)
    single = [
        peak_signal_noise_ratio(image[v], np.abs(fair[v, m]), data_range=t)
        for v, t in zip(volumes, tops, strict=True)
        for m in range(5)
    ]
    assert float(one["psnr_member"]) == pytest.approx(np.mean(single), abs=1e-4)
    # a group is the volume of its slices, with the maximum of the whole volume
    group = report.sel(group="4×, 2 coils")
    pick = [4 * i + 3 for i in range(4)]
    due = [peak_signal_noise_ratio(image[i], mean[i], data_range=tops[i // 4]) for i in pick]
    assert float(group["psnr"]) == pytest.approx(np.mean(due), abs=1e-4) and int(group["slices"]) == 4


def test_units_and_gains_of_subjects_do_not_matter():
    truth, fair = world()
    gain = np.repeat([1.0, 1e-5, 30.0, 0.2], 4)
    other = truth.copy()
    for name in ("image_re", "image_im", "kspace", "noise_std"):
        other[name] = truth[name] * xr.DataArray(gain.astype("f4"), dims="slice")
    reports = [
        evaluate(t, {"x": archive(f, t)})
        for t, f in ((truth, fair), (other, fair * gain[:, None, None, None]))
    ]  # fmt: skip
    for key in ("psnr", "ssim", "crps", "crps_everywhere", "spread", "chi_square", "residual", "error_unsampled"):
        np.testing.assert_allclose(*(r[key].values for r in reports), rtol=2e-4)


def test_differences_are_taken_volume_by_volume_against_the_teacher_with_most_calls():
    truth, fair = world(members=5)
    shift = np.repeat([0.0, 0.05, 0.1, 0.2], 4)[:, None, None, None]
    samples = {
        "few": archive(fair + 0.3, truth, "teacher", 1),
        "teacher": archive(fair, truth, "teacher", 20),
        "student": archive(fair + shift, truth, "student", 1),
    }
    report = evaluate(truth.isel(slice=slice(3, None)), samples)  # subjects of different size
    apart, ratio = report["psnr_difference"], report["crps_ratio"]
    assert (apart.sel(model="teacher") == 0).all() and (ratio.sel(model="teacher") == 1).all()
    own = apart.sel(model="student", group="all").values
    psnr = report["psnr"].sel(group="all")
    assert own[0] == pytest.approx(float(psnr.sel(model="student") - psnr.sel(model="teacher")))
    assert own[1] < own[0] < own[2] <= 0
    one = ratio.sel(model="student", group="all").values
    crps = report["crps"].sel(group="all")
    assert one[0] == pytest.approx(float(crps.sel(model="student") / crps.sel(model="teacher")))
    assert 1 <= one[1] < one[0] < one[2]


def test_repeated_members_are_found():
    truth, fair = world(members=4)
    twice = fair.copy()
    twice[3, 2] = twice[3, 0]
    same = np.repeat(fair[:, :1], 4, 1)
    report = evaluate(truth, {n: archive(v, truth) for n, v in (("fair", fair), ("twice", twice), ("same", same))})
    assert report["distinct"].values.tolist() == [4, 3, 1]
    assert float(report["spread_skill"].sel(model="same", group="all")) == 0
    assert float(report["coverage"].sel(model="same", group="all", level=0.9)) < 0.05


def test_a_perfect_answer_is_infinitely_good():
    truth, fair = world(members=3)
    perfect = archive(image_of(truth)[:, None], truth, "teacher", 20)
    report = evaluate(truth, {"perfect": perfect, "same": perfect, "fair": archive(fair, truth)}).sel(group="all")
    assert float(report["psnr"].sel(model="perfect")) == math.inf
    assert report["psnr_difference"].sel(model="same").values.tolist() == [0, 0, 0]
    assert float(report["psnr_difference"].sel(model="fair", interval="estimate")) == -math.inf
    assert float(report["crps"].sel(model="perfect")) == 0 and float(report["nmse"].sel(model="perfect")) == 0
    assert to_json(evaluate(truth, {"perfect": perfect}))["perfect"]["all"]["psnr"] is None


def test_one_member_says_nothing_on_spread():
    truth, fair = world(members=1)
    one = evaluate(truth, {"x": archive(fair, truth)}).sel(model="x", group="all")
    for key in ("spread", "spread_skill", "rank_deviation", "correlation", "spread_sampled", "spread_unsampled"):
        assert math.isnan(float(one[key])), key
    assert one["coverage"].isnull().all() and int(one["spread_count"].sum()) == 0
    error = np.abs(np.abs(fair[:, 0]) - np.abs(image_of(truth)))
    assert float(one["crps"]) < 0.2 * error.max() and np.isfinite(float(one["error_unsampled"]))


def test_without_measurement_or_noise_the_rest_is_judged():
    truth, fair = world()
    bare = truth[["image_re", "image_im"]].drop_vars("subject")
    report = evaluate(bare, {"x": archive(fair, truth)})
    assert report["group"].values.tolist() == ["all"] and report.attrs["subjects"] == 4
    assert report["chi_square"].isnull().all() and report["residual"].isnull().all()
    full = evaluate(truth, {"x": archive(fair, truth)})
    assert float(report["psnr"].sel(group="all", model="x")) == float(full["psnr"].sel(group="all", model="x"))
    quiet = truth.assign(noise_std=("slice", np.full(16, np.nan)))
    report = evaluate(quiet, {"x": archive(fair, truth)})
    assert report["chi_square"].isnull().all()
    np.testing.assert_array_equal(report["residual"], full["residual"])


def test_slices_are_matched_by_name():
    truth, fair = world()
    order = np.random.default_rng(0).permutation(16)[:11]
    mixed = archive(fair, truth).isel(slice=order)
    sorted_ = truth.isel(slice=np.sort(order))
    a, b = evaluate(truth, {"x": mixed}), evaluate(sorted_, {"x": archive(fair, truth)})
    xr.testing.assert_equal(a, b)
    assert a.attrs["samples"] == 11


def test_archives_on_disk_give_the_same(tmp_path):
    truth, fair = world()
    made = archive(fair, truth)
    made.to_netcdf(tmp_path / "x.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "x.nc", engine="scipy") as lazy:
        xr.testing.assert_equal(evaluate(truth, {"x": lazy}), evaluate(truth, {"x": made}))


def test_bad_archives_are_told():
    truth, fair = world(count=4)
    good = archive(fair, truth)
    cases = {
        "no samples": ({}, truth),
        "image_im": ({"x": good.drop_vars("image_im")}, truth),
        "no slice": ({"x": good.assign_coords(slice=list("abcd"))}, truth),
        "different names": ({"x": good.assign_coords(slice=list("aabc"))}, truth),
        "24, 3": ({"x": good.isel(x=slice(3))}, truth),
        "head0/2": ({"x": good.where(good["slice"] != "head0/2")}, truth),
        "zero everywhere": ({"x": good}, truth.assign(image_re=0 * truth["image_re"], image_im=0 * truth["image_im"])),
    }
    for told, (samples, of) in cases.items():
        with pytest.raises(UserError, match=told):
            evaluate(of, samples)


def test_json_has_every_group_and_no_nan():
    truth, fair = world(members=3)
    out = to_json(evaluate(truth, {"x": archive(fair, truth), "y": archive(fair[:, :1], truth)}))
    json.dumps(out, allow_nan=False)
    assert list(out["x"]) == ["all", "2×, 1 coil", "2×, 2 coils", "4×, 1 coil", "4×, 2 coils"]
    assert len(out["x"]["all"]["rank_histogram"]) == 4 and out["y"]["all"]["spread_skill"] is None
    assert out["x"]["all"]["samples"] == 16 and out["x"]["4×, 1 coil"]["samples"] == 4


def test_parts_judged_apart_are_the_whole_in_any_order():
    truth, members = world(count=8)
    truth[["image_re", "image_im"]] = (4 * truth[["image_re", "image_im"]]).round() / 4  # truth and members often equal
    samples, top = archive(np.round(4 * members) / 4, truth), maxima(truth)
    whole = statistics(truth, samples, top, "a", 0)
    order = [slice(5, 8), slice(0, 1), slice(1, 5)]
    parts = [statistics(truth.isel(slice=p), samples.isel(slice=p), top[p], "a", 0) for p in order]
    merged = xr.concat(parts, "slice").sel(slice=truth["slice"].values)
    xr.testing.assert_identical(merged, whole)  # ties included


def test_all_slices_may_come_in_any_order():
    truth, members = world(count=8)
    samples = archive(members, truth)
    mixed = [3, 0, 7, 1, 2, 6, 5, 4]
    one = evaluate(truth, {"a": samples}).sel(model="a", group="all")
    other = evaluate(truth.isel(slice=mixed), {"a": samples}).sel(model="a", group="all")
    for key in ("psnr", "ssim", "crps", "spread_skill", "chi_square", "coverage", "rank_histogram", "error_binned"):
        np.testing.assert_allclose(other[key], one[key], rtol=1e-12, err_msg=key)
