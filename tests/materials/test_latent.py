"""The latent codec: round trips, sizes, what it refuses."""

import numpy as np
import pytest
import torch
import xarray as xr

from scigen.core.bundle import Bundle, load
from scigen.core.networks.autoencoder import Autoencoder
from scigen.core.networks.unet import UNet
from scigen.core.sampling import Sampling
from scigen.errors import UserError
from scigen.materials.latent import Indicators, LatentCodec, encode_each, indicators, latent_codec, with_latents

FRACTIONS = {2: {"pore": 0.4, "solid": 0.6}, 3: {"pore": 0.3, "solid": 0.3, "binder": 0.4}}


def volumes(phases: int, count: int = 3, size: int = 16) -> xr.Dataset:
    labels = np.random.default_rng(0).integers(0, phases, (count, size, size, size)).astype(np.uint8)
    return xr.Dataset({"phase": (("specimen", "z", "y", "x"), labels)}, coords={"specimen": np.arange(count)})


@pytest.fixture(params=[2, 3])
def made(request, codec, targets):
    """A latent codec of an untrained network with its inputs, truth and latents."""
    phases = request.param
    torch.manual_seed(0)
    network = Autoencoder(phases, latent=3, widths=(8, 8), periodic=True)
    voxels = codec(phases)
    truth, inputs = (
        volumes(phases),
        voxels.prepare(targets(3, **{f"volume_fraction_{k}": v for k, v in FRACTIONS[phases].items()})),
    )
    latents = encode_each(network, indicators(voxels).encode(truth, inputs, slice(None))).numpy()
    return latent_codec(voxels, network, latents), inputs, truth, latents


def bundle_of(own: LatentCodec) -> Bundle:
    args = dict(
        channels=own.shape[0], space=3, condition_scalars=own.scalars, widths=[8, 8], embedding=8, periodic=[True] * 3
    )
    torch.manual_seed(1)
    sampling = Sampling("few_step", (10.0,))
    return Bundle(UNet(**args), "scigen.core.networks.unet.UNet", args, 1.0, own, sampling, "materials", "student")


def test_indicators_are_one_where_the_phase_is(codec):
    own, truth = indicators(codec(3)), volumes(3)
    x = own.encode(truth, truth, slice(None))
    assert x.shape[1:] == own.shape == (3, 16, 16, 16)
    assert np.array_equal(x.argmax(1).numpy(), truth["phase"].values) and float(x.sum(1).min()) == 1
    assert isinstance(own, Indicators)


def test_network_samples_have_mean_0_and_variance_1(made):
    own, inputs, truth, _ = made
    x = own.encode(truth, inputs, slice(None))
    assert x.shape[1:] == own.shape == (3, 4, 4, 4)
    torch.testing.assert_close(x.mean((0, 2, 3, 4)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(x.std((0, 2, 3, 4), correction=0), torch.ones(3), rtol=1e-3, atol=0)


def test_latents_that_are_kept_are_those_of_the_labels(made):
    own, inputs, truth, latents = made
    kept = own.encode(with_latents(truth, latents), inputs, [2, 0])
    torch.testing.assert_close(kept, own.encode(truth, inputs, [2, 0]))


def test_decoding_undoes_the_normalisation(made):
    own, inputs, truth, latents = made
    back = own.decode(own.encode(truth, inputs, slice(None)), own.condition(inputs, slice(None)))[:, 0]
    with torch.no_grad():
        direct = own.autoencoder.decode(torch.from_numpy(latents)).argmax(1)
    assert float((back == direct).float().mean()) > 0.999  # ties aside


def test_exact_fractions(made):
    own, inputs, *_ = made
    own = own.adapt({"exact": True})
    labels = own.decode(torch.randn(3, *own.shape), own.condition(inputs, slice(None)))
    for p, share in enumerate(FRACTIONS[len(own.phases)].values()):
        assert abs(int((labels[0] == p).sum()) - share * 16**3) <= 1


def test_a_volume_does_not_depend_on_its_batch(made):
    own, inputs, *_ = made
    x, condition = torch.randn(3, *own.shape), own.condition(inputs, slice(None))
    alone = own.decode(x[1:2], {k: v[1:2] for k, v in condition.items()})
    assert torch.equal(alone[0], own.decode(x, condition)[1])


def test_a_bundle_with_it_comes_back(made, tmp_path):
    own, inputs, *_ = made
    bundle = bundle_of(own)
    again = load(bundle.save(tmp_path / "student.safetensors"))
    assert again.fingerprint() == bundle.fingerprint() and isinstance(again.codec, LatentCodec)
    one, other = (b.sample(inputs, members=2, batch=4)["phase"] for b in (bundle, again))
    assert np.array_equal(one.values, other.values) and one.dtype == np.uint8
    with torch.no_grad():
        next(again.codec.autoencoder.parameters()).add_(1)
    assert again.fingerprint() != bundle.fingerprint()


def test_a_bundle_may_name_no_other_class(made):
    settings, arrays = made[0].state()
    settings["autoencoder"]["class"] = "os.system"
    with pytest.raises(UserError, match="unknown autoencoder"):
        LatentCodec.restore(settings, arrays)


def test_larger_and_open_volumes(made):
    own, inputs, *_ = made
    bundle = bundle_of(own)
    large = bundle.placed(own.adapt({"size": [24, 16, 32]}))
    assert large.sample(inputs.isel(specimen=[0]), members=1, batch=1)["phase"].shape == (1, 1, 24, 16, 32)
    opened = bundle.placed(own.adapt({"boundary": "open"}))
    assert opened.codec.shape == (3, 12, 12, 12)
    out = opened.sample(inputs.isel(specimen=[0]), members=1, batch=1)
    assert out["phase"].shape == (1, 1, 16, 16, 16) and list(out.attrs["periodic"]) == [0, 0, 0]


def test_sizes_that_do_not_fit(made):
    own, *_ = made
    with pytest.raises(UserError, match="multiples of 4"):
        own.adapt({"size": [18, 16, 16]})
    with pytest.raises(UserError, match="multiples of 8 cells"):  # the U-Net halves the latent once
        bundle_of(own).placed(own.adapt({"size": [20, 16, 16]}))


def test_known_voxels_are_refused(codec):
    with pytest.raises(UserError, match=r"data\.known=0"):
        indicators(codec(2, inpaint=True))
