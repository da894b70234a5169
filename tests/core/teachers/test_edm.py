"""EDM's weights as safetensors: the network that their names and shapes tell is the one that they are of."""

import re
import warnings
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file

from scigen.core.denoise import Denoiser
from scigen.core.networks.physicsnemo import library
from scigen.core.sample import heun
from scigen.core.teachers import edm
from scigen.errors import UserError

BASE = dict(img_resolution=16, img_channels=2, model_channels=32, num_blocks=1)
CASES = {
    "ddpm++": ("EDMPrecond", BASE | dict(model_type="SongUNet", channel_mult=[1, 2], attn_resolutions=[8])),
    "ncsn++": (
        "VEPrecond",
        BASE | dict(
            model_type="SongUNet", channel_mult=[2, 2], attn_resolutions=[], embedding_type="fourier",
            channel_mult_noise=2, encoder_type="residual", decoder_type="standard", resample_filter=[1, 3, 3, 1],
        ),
    ),
    "skips": (
        "EDMPrecond",
        BASE | dict(
            model_type="SongUNet", channel_mult=[1, 1], attn_resolutions=[], encoder_type="skip", decoder_type="skip",
            label_dim=3,
        ),
    ),
    "vp": ("VPPrecond", BASE | dict(model_type="SongUNet", channel_mult=[1, 2], attn_resolutions=[16], num_blocks=2)),
    "adm": ("EDMPrecond", BASE | dict(model_type="DhariwalUNet", channel_mult=[1, 2], attn_resolutions=[8])),
    "iddpm": ("iDDPMPrecond", BASE | dict(model_type="DhariwalUNet", channel_mult=[1, 2], attn_resolutions=[])),
}  # fmt: skip


def made(case):
    kind, args = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = library()[kind](**args)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return kind, net.eval()


def published(net, path):
    """The weights by EDM's own names: attention without a module of its own, no constants of the preconditioner."""
    state = {k: v.contiguous().clone() for k, v in net.state_dict().items() if k.startswith("model.") or k == "u"}
    if not any("aux_residual" in k for k in state):  # its frequencies are fixed, and not stored
        state = {k: v for k, v in state.items() if not k.endswith("map_noise.freqs")}
    save_file({re.sub(r"attn\.norm\.", "norm2.", k).replace("attn.", ""): v for k, v in state.items()}, path)
    return path


@pytest.mark.parametrize("case", CASES)
def test_the_denoiser_is_that_of_the_network_that_was_saved(case, tmp_path):
    kind, theirs = made(case)
    path = published(theirs, tmp_path / "net.safetensors")
    teacher = edm.load(path, None if kind in ("EDMPrecond", "iDDPMPrecond") else kind)
    sigma = torch.tensor([teacher.sigmas[0], 0.3, 1.0, 0.9 * teacher.sigmas[1]])
    x = torch.randn(4, 2, 16, 16, generator=torch.Generator().manual_seed(1)) * (1 + sigma).reshape(-1, 1, 1, 1)
    labels = torch.eye(3)[[0, 1, 2, 0]]
    with torch.no_grad():
        expected = theirs(x, sigma, **({"class_labels": labels} if case == "skips" else {}))
        own = Denoiser(teacher.network, teacher.network.sigma_data)(x, sigma.double(), {"scalars": labels})
    worst = (own - expected).abs().amax((1, 2, 3)) / expected.abs().amax((1, 2, 3))
    assert worst.max() < 1e-5


@pytest.mark.parametrize("case", ["ddpm++", "ncsn++", "iddpm"])
def test_heun_samples_are_those_of_edms_own_loop(case, tmp_path):
    kind, theirs = made(case)
    teacher = edm.load(published(theirs, tmp_path / "net.safetensors"), kind)
    steps = torch.arange(6, dtype=torch.float64)
    times = (50 ** (1 / 7) + steps / 5 * (0.05 ** (1 / 7) - 50 ** (1 / 7))) ** 7  # arXiv:2206.00364, formula (5)
    times = theirs.round_sigma(times).double()
    x = noise = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x * times[0]
    with torch.no_grad():
        for now, then in pairwise([*times, torch.zeros(())]):  # its algorithm 1
            slope = (x - theirs(x, now).double()) / now
            ahead = x + (then - now) * slope
            x = ahead if then == 0 else x + (then - now) * (slope + (ahead - theirs(ahead, then).double()) / then) / 2
        denoiser = Denoiser(teacher.network, teacher.network.sigma_data)
        own = heun(denoiser, (noise * times[0]).float(), times.tolist())
    torch.testing.assert_close(own.double(), x, rtol=1e-4, atol=5e-5 * float(x.abs().max()))


def test_fixed_frequencies_that_are_stored_are_known_as_such():
    state = {k.removeprefix("model."): v for k, v in made("ddpm++")[1].state_dict().items()}
    assert "map_noise.freqs" in state and edm.network_of(state)["embedding_type"] == "positional"


def test_other_weights_are_refused(tmp_path):
    save_file({"layer.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="no weights of EDM's U-Nets"):
        edm.load(tmp_path / "other.safetensors")
    path = published(made("ddpm++")[1], tmp_path / "net.safetensors")
    with pytest.raises(UserError, match="precond=DDPM: expected one of"):
        edm.load(path, "DDPM")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="no whole safetensors"):
        edm.load(path)
