"""Held-out lines: an exact posterior predicts them to its own spread and the noise, a collapsed ensemble does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from scigen.core.bundle import Bundle
from scigen.core.denoise import DenoiserModule
from scigen.core.guide import Weighed
from scigen.core.networks.unet import UNet
from scigen.core.sampling import Sampling
from scigen.errors import UserError
from scigen.mri import masks, preparation
from scigen.mri.audit import audit
from scigen.mri.coils import birdcage, calibration
from scigen.mri.fourier import fft2c, ifft2c
from scigen.mri.heldout import compared, divided
from scigen.mri.operator import fft2c as torch_fft2c
from scigen.mri.operator import ifft2c as torch_ifft2c
from scigen.mri.operator import to_channels, to_complex
from scigen.mri.physics import ReconstructionCodec
from scigen.mri.spectrum import on_grid

SIZE, NOISE = 24, 0.3
PROFILE = 8 * np.exp(-np.linspace(0, 4, 48)) + 0.05


def draw(coils: int, slices: int) -> xr.Dataset:
    """Scans of Gaussian images with the spectrum of `PROFILE`."""
    rng = np.random.default_rng(coils)
    spectrum = on_grid(PROFILE, (SIZE, SIZE))

    def unit(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    image = ifft2c(np.sqrt(spectrum) * unit(slices, SIZE, SIZE))
    maps = np.stack([birdcage(coils, (SIZE, SIZE), rng) for _ in range(slices)])
    mask = np.stack([masks.mask("random", (SIZE, SIZE), 2, 0.16, rng) for _ in range(slices)])
    kspace = mask[:, None] * (fft2c(maps * image[:, None]) + NOISE * unit(*maps.shape))
    return xr.Dataset(
        {
            "kspace": (("slice", "coil", "ky", "kx"), kspace.astype(np.complex64)),
            "mask": (("slice", "ky", "kx"), mask),
            "sens_maps": (("slice", "coil", "y", "x"), maps),
            "noise_std": ("slice", np.full(slices, NOISE)),
        },
        {"slice": [f"{coils}/{i}" for i in range(slices)]},
    )


class Prior(DenoiserModule):
    """The exact denoiser of Gaussian images that knows nothing of the measurement."""

    sigma_data = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = torch.from_numpy(on_grid(PROFILE, (SIZE, SIZE)))

    def forward(self, x, sigma, condition=None, to=None):
        level = torch.as_tensor(sigma).double().expand(len(x))[:, None, None] ** 2
        image = condition["mean"] + condition["phase"] * to_complex(x)
        u = torch_ifft2c(self.spectrum / (self.spectrum + level) * torch_fft2c(image))
        return to_channels(condition["phase"].conj() * (u - condition["mean"])).float()


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A teacher that is the truth: samples of the posterior."""
    monkeypatch.setattr(preparation, "scales", lambda aliased: torch.ones(len(aliased)))
    codec = ReconstructionCodec((SIZE, SIZE), 4, PROFILE, 1.0)
    args = dict(channels=2, condition_fields=5, condition_scalars=3, widths=[8], embedding=8)
    grid = tuple(float(s) for s in np.geomspace(60, 1e-2, 24))
    name = "scigen.core.networks.unet.UNet"
    bundle = Bundle(UNet(**args), name, args, 1.0, codec, Sampling("dpm_solver", grid), "mri", "teacher")
    bundle.denoiser = Weighed(Prior(), codec.measured)
    return bundle


@pytest.mark.parametrize(("coils", "slices"), [(1, 40), (4, 16)])
def test_the_ratio_is_one_for_the_exact_posterior_and_above_for_a_collapsed_one(exact, coils, slices):
    scans = draw(coils, slices)
    rest, held = divided(scans, 0.3, 1)
    made = exact.sample(rest, members=12, seed=1)
    ratio = compared(scans, held, made)["ratio"].values
    error = ratio.std() / slices**0.5
    assert ratio.mean() == pytest.approx(1, abs=4 * error) and error < 0.06
    mean = made.mean("member")
    sure = made.copy()
    for name in ("image_re", "image_im"):
        sure[name] = mean[name] + 0.3 * (made[name] - mean[name])
    assert float(compared(scans, held, sure)["ratio"].mean()) > 1.2
    one = compared(scans, held, made.isel(member=[0]))  # without a spread: χ² of a single image
    assert float(one["ratio"].mean()) > 1.5


def test_what_is_held_out_is_not_seen(exact):
    scans = draw(4, 2)
    _, held = divided(scans, 0.3, 1)
    other = scans.assign(kspace=scans["kspace"] * np.where(held, 3, 1)[:, None].astype(np.float32))
    one, two = (audit(exact, s, members=2, share=0.3, seed=1) for s in (scans, other))
    spreads = [ds["spread"].values * np.sqrt(power(s, held)) for ds, s in ((one, scans), (two, other))]
    np.testing.assert_allclose(*spreads, rtol=1e-9)
    assert (two["ratio"] > one["ratio"]).all()
    rest = divided(scans, 0.3, 1)[0]
    np.testing.assert_array_equal(one["ratio"], compared(scans, held, exact.sample(rest, members=2, seed=1))["ratio"])
    assert one.attrs["mean_ratio"] == pytest.approx(float(one["ratio"].mean())) and one.attrs["scigen_nfe"] == 24


def power(scans: xr.Dataset, held: np.ndarray) -> np.ndarray:
    return np.array(
        [(np.abs(k[:, h].astype(complex)) ** 2).sum() for k, h in zip(scans["kspace"].values, held, strict=True)]
    )


def test_lines_outside_the_calibration_region_are_held_out():
    scans = draw(1, 6)
    rest, held = divided(scans, 0.3, 0)
    mask = scans["mask"].values
    assert (held <= mask).all() and (held == held[:, :1]).all()
    for m, h, left in zip(mask, held, rest["mask"].values, strict=True):
        assert (left == (m & ~h)).all()
        assert calibration(left) == calibration(m)
        free = m[0].sum() - calibration(m)[1]
        assert h[0].sum() == max(1, round(0.3 * free))
    assert not rest["kspace"].values[:, 0][held].any()
    alone = divided(scans.isel(slice=[3]), 0.3, 0)[1]
    np.testing.assert_array_equal(alone[0], held[3])
    assert (divided(scans, 0.3, 1)[1] != held).any()


def test_points_are_held_out_of_masks_of_points_and_nothing_of_a_bare_centre():
    scans = draw(1, 2)
    mask = scans["mask"].values.copy()
    mask[0] = masks.mask("gaussian", (SIZE, SIZE), 3, 0.05, np.random.default_rng(0))
    mask[1] = False
    mask[1, :, SIZE // 2 - 3 : SIZE // 2 + 3] = True
    scans = scans.assign(mask=(scans["mask"].dims, mask), kspace=scans["kspace"] + 1)
    scans["kspace"] = scans["kspace"] * mask[:, None]
    _, held = divided(scans, 0.25, 0)
    rows, columns = calibration(mask[0])
    assert held[0].sum() == round(0.25 * (mask[0].sum() - rows * columns))
    assert not held[1].any()
    images = xr.Dataset(
        {n: (("slice", "member", "y", "x"), np.zeros((2, 3, SIZE, SIZE), np.float32)) for n in ("image_re", "image_im")}
    )
    found = compared(scans, held, images)
    assert np.isnan(found["ratio"].values[1]) and found["samples"].values.tolist() == [held[0].sum(), 0]
    assert found["residual"].values[0] == pytest.approx(1)
    with pytest.raises(UserError, match="no lines to hold out"):
        divided(scans.isel(slice=[1]), 0.25, 0)
    with pytest.raises(UserError, match="share=1"):
        divided(scans, 1.0, 0)


def test_bundles_of_other_fields_are_refused(exact):
    other = replace(exact)
    other.codec, other.domain = object(), "weather"
    with pytest.raises(UserError, match="not of domain=weather"):
        audit(other, draw(1, 1))
