"""A prior that has not seen the measurement: not in its input, not in its loss, and at sampling in every step."""

import numpy as np
import pytest
import torch
import xarray as xr

from scigen.core.bundle import Bundle, load
from scigen.core.denoise import DenoiserModule
from scigen.core.guide import Weighed
from scigen.core.methods.base import Batch
from scigen.core.methods.denoising import Denoising
from scigen.core.networks.unet import UNet
from scigen.core.noise import LogUniform
from scigen.core.sampling import Sampling
from scigen.mri import synth
from scigen.mri.operator import fft2c, ifft2c, to_channels, to_complex
from scigen.mri.physics import ReconstructionCodec, fitted, truth_of
from scigen.mri.spectrum import on_grid

ARGS = dict(channels=2, condition_fields=5, condition_scalars=3, widths=[8], embedding=8)
NAME = "scigen.core.networks.unet.UNet"


@pytest.fixture(scope="module")
def scans() -> xr.Dataset:
    heads = synth.make(size=24, subjects=2, slices=2, seed=1)
    return synth.scan(
        heads["image"].values, [str(s) for s in heads["slice"].values], 0, coils=(1, 3), accelerations=(3,)
    )


@pytest.fixture(scope="module")
def codec(scans) -> ReconstructionCodec:
    return fitted(scans, scans["image"].values, conditional=False)[0]


def other(scans: xr.Dataset) -> xr.Dataset:
    """Other measurements of the same low frequencies, so that scale and phase are as before."""
    where = np.abs(np.arange(24) - 12) > 6
    return scans.assign(kspace=scans["kspace"] * np.where(where, -3, 1).astype(np.float32))


def test_the_network_s_samples_are_scaled_images_that_are_told_nothing(scans, codec):
    inputs = codec.prepared(scans)
    condition = codec.condition(inputs, slice(None))
    assert not condition["fields"].any() and not condition["scalars"].any() and not condition["mean"].any()
    x = codec.encode(truth_of(scans["image"].values), inputs, slice(None))
    assert float(x.square().mean()) == pytest.approx(1, rel=1e-3)
    scale = codec.std * condition["scale"][:, None, None]
    assert torch.allclose(to_complex(x).abs() * scale, torch.from_numpy(np.abs(scans["image"].values)), atol=1e-5)
    settings, arrays = codec.state()
    assert ReconstructionCodec.restore(settings, arrays).conditional is False


def test_the_loss_does_not_look_at_the_measurement(scans, codec, tmp_path):
    torch.manual_seed(0)
    network = UNet(**ARGS)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    bundle = Bundle(network, NAME, ARGS, 1.0, codec, Sampling("euler", (5.0, 1.0)), "mri", "teacher")
    bundle = load(bundle.save(tmp_path / "b.safetensors"))
    x = torch.randn(4, 2, 24, 24)
    losses = []
    for ds in (scans, other(scans)):
        torch.manual_seed(1)
        batch = Batch(x, codec.condition(codec.prepared(ds), slice(None)))
        losses.append(float(Denoising(bundle.denoiser, LogUniform(0.1, 5.0)).loss("student", batch)["loss"]))
    assert losses[0] == losses[1]
    one, two = (bundle.sample(ds, members=1, seed=0) for ds in (scans, other(scans)))
    gap = np.abs(one["image_re"].values - two["image_re"].values).max()
    assert gap > 0.1 * np.abs(one["image_re"].values).max()  # it is guided by it, though


class Images(DenoiserModule):
    """The exact denoiser of Gaussian images with the codec's spectrum."""

    sigma_data = 1.0

    def __init__(self, codec: ReconstructionCodec) -> None:
        super().__init__()
        self.spectrum, self.std = torch.from_numpy(on_grid(codec.profile, codec.size)), codec.std

    def forward(self, x, sigma, condition=None, to=None):
        level = (self.std * torch.as_tensor(sigma).double().expand(len(x)))[:, None, None] ** 2
        image = self.std * condition["phase"] * to_complex(x)
        u = ifft2c(self.spectrum / (self.spectrum + level) * fft2c(image))
        return to_channels(condition["phase"].conj() * u / self.std).float()


def test_guided_in_every_step_an_exact_prior_ends_on_the_exact_posterior(scans, codec):
    """The mean of its members is E[x | y] of the Gaussian prior, which the conditional codec has in closed form."""
    grid = tuple(float(s) for s in np.geomspace(80, 1e-2, 24))
    bundle = Bundle(UNet(**ARGS), NAME, ARGS, 1.0, codec, Sampling("dpm_solver", grid), "mri", "teacher")
    bundle.denoiser = Weighed(Images(codec), codec.measured)
    made = bundle.sample(scans, members=48, seed=3)
    mean = (made["image_re"] + 1j * made["image_im"]).mean("member").values
    known = ReconstructionCodec(codec.size, codec.coils, codec.profile, codec.std)
    inputs = known.prepared(scans)
    want = inputs["scale"].values[:, None, None] * inputs["prior_mean"].values
    spread = np.sqrt((made["image_re"].var("member") + made["image_im"].var("member")).mean(("y", "x")).values / 48)
    gap = np.sqrt((np.abs(mean - want) ** 2).mean((1, 2)))
    assert (gap < 1.5 * spread).all() and (gap > 0.5 * spread).all()
