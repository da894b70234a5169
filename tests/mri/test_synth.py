"""The default data and simulated scans."""

import numpy as np
import pytest

from scigen.errors import UserError
from scigen.mri.fourier import fft2c, ifft2c
from scigen.mri.masks import effective_acceleration
from scigen.mri.synth import make, phantom, scan, strength


@pytest.fixture(scope="module")
def heads():
    return make(48, 6, 3, seed=4)


@pytest.fixture(scope="module")
def scans(heads):
    return scan(heads["image"].values, list(heads["slice"].values), 5)


def test_layout(heads):
    assert dict(heads.sizes) == {"slice": 18, "y": 48, "x": 48}
    assert heads["image"].dtype == np.complex64
    assert list(heads["slice"].values[:4]) == ["s000/0", "s000/1", "s000/2", "s001/0"]
    assert list(heads["subject"].values[2:4]) == ["s000", "s001"]
    assert heads.attrs["synthetic"] == 1
    for _, own in heads.groupby("subject"):
        assert len(set(own["contrast"].values)) == 1 and (np.diff(own["depth"].values) > 0).all()


def test_a_subject_depends_on_seed_and_number_alone(heads):
    assert make(48, 2, 3, seed=4)["image"].equals(heads["image"][:6])
    assert not make(48, 1, 3, seed=5)["image"].equals(heads["image"][:3].values)
    assert np.abs(heads["image"].values[0] - heads["image"].values[3]).max() > 0.1


def test_images_are_of_order_one_and_have_a_smooth_phase(heads):
    image = heads["image"].values
    peak = np.quantile(np.abs(image), 0.99, axis=(1, 2))
    assert (peak > 0.3).all() and (peak < 6).all()
    for x in image:
        there = np.abs(x) > 0.3 * np.abs(x).max()
        phase = np.angle(x[:, 1:] * x[:, :-1].conj())[there[:, 1:] & there[:, :-1]]
        assert 1e-3 < np.abs(phase).mean() < 0.25
        spread = np.abs((x / np.abs(x))[there].mean())
        assert spread < 0.99  # no constant phase: k-space has no conjugate symmetry
        k = fft2c(x.astype(np.complex128))[1:, 1:]
        assert np.abs(np.abs(k) - np.abs(k[::-1, ::-1])).sum() > 0.1 * np.abs(k).sum()


def test_sizes_show_the_same_head():
    """k-space of the small image is the centre of the large one's."""
    small, large = (make(n, 1, 1, seed=1)["image"].values[0].astype(np.complex128) for n in (64, 128))
    a, b = fft2c(small), fft2c(large)[32:96, 32:96] / 2
    inner = np.s_[16:48, 16:48]
    assert np.linalg.norm((a - b)[inner]) < 0.05 * np.linalg.norm(a[inner])


def test_scan_layout(heads, scans):
    assert scans["kspace"].dims == ("slice", "coil", "ky", "kx") and scans["kspace"].dtype == np.complex64
    assert scans["mask"].dtype == bool and scans["noise_std"].dtype == np.float64
    assert scans["image"].equals(heads["image"].drop_vars(["contrast", "depth"]))
    assert list(scans["subject"].values) == list(heads["subject"].values)
    assert set(scans["coils"].values) == {1, 4} and set(scans["acceleration"].values) == {4.0, 8.0}
    assert set(scans["mask_kind"].values) == {"random", "equispaced"}
    energy = (np.abs(scans["sens_maps"].values) ** 2).sum(1)
    np.testing.assert_allclose(energy, 1, atol=1e-5)
    for k, maps, count in zip(scans["kspace"].values, scans["sens_maps"].values, scans["coils"].values, strict=True):
        assert (k[count:] == 0).all() and (maps[count:] == 0).all()
        assert all(m.any() for m in maps[:count]) and all(m.any() for m in k[:count])
    assert (scans["kspace"].values[~np.broadcast_to(scans["mask"].values[:, None], scans["kspace"].shape)] == 0).all()


def test_a_scan_is_the_operator_of_the_image_and_noise(scans):
    """What is not M F S x is white noise of the std that is told, on the sampled positions of the coils there are."""
    x, maps = scans["image"].values.astype(np.complex128), scans["sens_maps"].values
    clean = scans["mask"].values[:, None] * fft2c(maps * x[:, None])
    rest = (scans["kspace"].values - clean) / scans["noise_std"].values[:, None, None, None]
    for r, taken, count in zip(rest, scans["mask"].values, scans["coils"].values, strict=True):
        own = r[:count, taken]
        n = own.size
        for part in (own.real, own.imag):
            assert abs(part.var() - 1) < 5 * np.sqrt(2 / n) and abs(part.mean()) < 5 / np.sqrt(n)
        assert abs((own.real * own.imag).mean()) < 5 / np.sqrt(n)
    pooled = np.concatenate([r[:c, m].ravel() for r, m, c in zip(
        rest, scans["mask"].values, scans["coils"].values, strict=True)])  # fmt: skip
    assert pooled.real.var() == pytest.approx(1, abs=5 * np.sqrt(2 / pooled.size))


def test_one_coil_without_noise_is_the_masked_transform(heads):
    image = heads["image"].values[:2]
    ds = scan(image, ["a/0", "a/1"], 0, coils=(1,), snr=(240, 240))
    assert (ds["sens_maps"].values == 1).all()
    expected = ds["mask"].values[:, None] * fft2c(image.astype(np.complex128))[:, None]
    np.testing.assert_allclose(ds["kspace"].values, expected, atol=1e-5)
    full = scan(image, ["a/0", "a/1"], 0, coils=(1,), accelerations=(1,), snr=(240, 240))
    np.testing.assert_allclose(ifft2c(full["kspace"].values[:, 0]), image, atol=1e-5)


def test_the_noise_is_as_strong_as_said(heads):
    image, keys = heads["image"].values, list(heads["slice"].values)
    ds = scan(image, keys, 1, snr=(20, 20))
    np.testing.assert_allclose(ds["noise_std"].values, [0.1 * strength(x) for x in image])
    ratio = [
        20 * np.log10(strength(x) / s) for x, s in zip(image, scan(image, keys, 1)["noise_std"].values, strict=True)
    ]
    assert 20 <= min(ratio) < 25 and 30 < max(ratio) <= 35
    square = np.zeros((20, 20))
    square[5:10, 5:10] = 3
    assert strength(square) == pytest.approx(3)


def test_order_and_company_of_slices_change_nothing(heads, scans):
    image, keys = heads["image"].values, list(heads["slice"].values)
    order = np.random.default_rng(0).permutation(18)[:7]
    some = scan(image[order], [keys[i] for i in order], 5)
    for name in scans.data_vars:
        assert (some[name].values == scans[name].values[order]).all(), name
    wider = scan(image[:3], keys[:3], 5, most=6)
    assert (wider["kspace"].values[:, :4] == scans["kspace"].values[:3]).all() and (wider["kspace"][:, 4:] == 0).all()
    other = scan(image, keys, 6)
    assert all((other["kspace"].values[i] != scans["kspace"].values[i]).any() for i in range(18))


def test_accelerations_are_nominal_in_the_mean():
    image = np.broadcast_to(phantom(64), (300, 64, 64))
    ds = scan(image, [f"p/{i}" for i in range(300)], 0, coils=(1,))
    for nominal in (4, 8):
        own = ds["mask"].values[ds["acceleration"].values == nominal]
        assert len(own) > 100
        assert np.mean([1 / effective_acceleration(m) for m in own]) == pytest.approx(1 / nominal, rel=0.04)


def test_phantom():
    x = phantom(128)
    assert x.min() == pytest.approx(0, abs=1e-12) and x.max() == pytest.approx(1)
    assert x[64, 64] == pytest.approx(0.2) and x[0, 0] == 0
    assert x[64 - 22, 64] == pytest.approx(0.3)  # the large ellipse lies above the centre
    assert x.mean() * 4 == pytest.approx(
        np.pi * (0.69 * 0.92 - 0.8 * 0.6624 * 0.874 - 0.2 * (0.11 * 0.31 + 0.16 * 0.41) + 0.1 * 0.21 * 0.25
                 + 0.1 * (2 * 0.046**2 + 2 * 0.046 * 0.023 + 0.023**2)), rel=0.02
    )  # fmt: skip


@pytest.mark.parametrize(("change", "told"), [
    ({"size": 8}, "size=8"), ({"subjects": 0}, "subjects=0"), ({"slices": 0}, "slices=0"), ({"seed": -1}, "seed=-1")
])  # fmt: skip
def test_numbers_that_make_no_images_are_refused(change, told):
    with pytest.raises(UserError, match=told):
        make(**{"size": 16, "subjects": 1, "slices": 1, **change})


def test_scans_that_cannot_be_are_refused(heads):
    image = heads["image"].values[:2]
    bad = image.copy()
    bad[1, 3, 4] = np.nan
    with pytest.raises(UserError, match=r"'b/1'.*NaN"):
        scan(bad, ["b/0", "b/1"], 0)
    with pytest.raises(UserError, match=r"'b/0'.*zero everywhere"):
        scan(0 * image, ["b/0", "b/1"], 0)
    with pytest.raises(UserError, match=r"'b/0' is there more than once"):
        scan(image, ["b/0", "b/0"], 0)
    with pytest.raises(UserError, match="1 keys"):
        scan(image, ["b/0"], 0)
    with pytest.raises(UserError, match=r"coils=\[1, 4\].*1 to 2"):
        scan(image, ["b/0", "b/1"], 0, most=2)
    with pytest.raises(UserError, match="one choice each"):
        scan(image, ["b/0", "b/1"], 0, kinds=())
    with pytest.raises(UserError, match=r"snr=\[30, 20\]"):
        scan(image, ["b/0", "b/1"], 0, snr=(30, 20))
    with pytest.raises(UserError, match=r"spiral"):
        scan(image, ["b/0", "b/1"], 0, kinds=("spiral",))
