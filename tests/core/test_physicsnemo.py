"""PhysicsNeMo's networks behind scigen's interface, and the traps in each of them."""

import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_class
from torch import nn
from torch.nn import functional

from scigen.config import config_dir
from scigen.core.bundle import Bundle, load
from scigen.core.denoise import Denoiser
from scigen.core.methods import tangent
from scigen.core.methods.discriminator import bottleneck, features
from scigen.core.networks.dhariwal import DhariwalUNet
from scigen.core.networks.dit import DiT
from scigen.core.networks.physicsnemo import PhysicsNeMo, SongUNet
from scigen.core.networks.songunet_posembd import SongUNetPosEmbd
from scigen.core.networks.unet import UNet
from scigen.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # its own, of many kinds

F64 = torch.float64
SONG = dict(model_channels=8, channel_mult=[1, 2], resolution=8)
NETS: dict[str, tuple[type[PhysicsNeMo], dict[str, Any]]] = {
    "songunet": (SongUNet, SONG | dict(attn_resolutions=[4])),
    "songunet_posembd": (SongUNetPosEmbd, SONG | dict(N_grid_channels=3)),
    "dhariwal": (DhariwalUNet, dict(model_channels=32, channel_mult=[1, 2], resolution=8)),
    "dit": (DiT, dict(resolution=8, patch_size=4, hidden_size=16, depth=2, num_heads=2)),
}
ANY_SIZE, ONE_SIZE = ("songunet", "dhariwal"), ("songunet_posembd", "dit")


def random(name: str, channels: int = 2, fields: int = 0, scalars: int = 0, std: float = 0.1, **other) -> PhysicsNeMo:
    torch.manual_seed(0)
    kind, own = NETS[name]
    net = kind(channels, fields, scalars, **{**own, **other})
    for p in net.parameters():
        nn.init.normal_(p, std=std)
    return net


def batch(size: tuple[int, int] = (8, 8), channels: int = 2, fields: int = 0, scalars: int = 0, dtype=torch.float32):
    torch.manual_seed(1)
    condition = {}
    if fields:
        condition["fields"] = torch.randn(3, fields, *size, dtype=dtype)
    if scalars:
        condition["scalars"] = torch.randn(3, scalars, dtype=dtype)
    return torch.randn(3, channels, *size, dtype=dtype), torch.tensor([0.3, -0.4, 0.9], dtype=dtype), condition


# ------------------------------------------------------------------------------------------------- laws of all of them


@pytest.mark.parametrize("name", NETS)
def test_every_input_counts_and_every_weight_learns(name):
    net, (x, c, condition) = random(name, 2, 1, 3, std=0.3), batch(fields=1, scalars=3)
    out = net(x, c, condition)
    assert out.shape == x.shape
    for other in (
        net(x + 1, c, condition),
        net(x, c + 1, condition),
        *(net(x, c, condition | {k: v.flip(0)}) for k, v in condition.items()),
    ):
        assert not torch.allclose(other, out, atol=1e-3)
    out.square().sum().backward()
    assert [k for k, p in net.named_parameters() if p.grad is None or float(p.grad.abs().max()) == 0] == []


@pytest.mark.parametrize("name", NETS)
def test_the_same_function_in_training_and_evaluation(name):
    net, (x, c, _) = random(name), batch()
    out = net.train()(x, c)
    assert torch.equal(out, net.eval()(x, c))
    assert not net.training and net.inner.training


@pytest.mark.parametrize("name", ["songunet", "songunet_posembd", "dhariwal"])
def test_an_inner_network_in_evaluation_would_be_another_function(name):
    """GroupNorm's other variance: why the inner network stays in training mode."""
    net, (x, c, _) = random(name), batch()
    out = net(x, c)
    net.inner.eval()
    assert not torch.allclose(net(x, c), out, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", NETS)
def test_autocast_chooses_the_precision(name):
    """bf16 where training is mixed, to its rounding; without autocast nothing changes."""
    net, (x, c, condition) = random(name, scalars=1), batch(scalars=1)
    full = net(x, c, condition)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(x, c, condition)
        mixed.float().sum().backward()
    assert full.dtype == torch.float32 and mixed.dtype == torch.bfloat16
    assert 0 < float((mixed - full).abs().max()) < 0.05 * float(full.abs().max())
    assert all(p.grad.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize("name", NETS)
def test_forward_mode_is_the_central_difference(name):
    net = random(name, 2, 1, 3, std=0.3).double()
    x, c, condition = batch(fields=1, scalars=3, dtype=F64)

    def function(x, c, scalars):
        return net(x, c, condition | {"scalars": scalars})

    at = (x, c, condition["scalars"])
    along = tuple(torch.randn(v.shape, dtype=F64, generator=torch.Generator().manual_seed(i)) for i, v in enumerate(at))
    value, change = tangent.derivative(function, at, along, "forward")
    h = 1e-5
    with torch.no_grad():
        ahead, behind = (function(*(p + s * h * t for p, t in zip(at, along, strict=True))) for s in (1, -1))
        torch.testing.assert_close(value, function(*at), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(change, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-7)


def test_forward_mode_of_a_transformer_needs_the_plain_kernels(monkeypatch):
    monkeypatch.setattr(tangent, "sdpa_kernel", lambda _: contextlib.nullcontext())
    net, (x, c, _) = random("dit"), batch()
    with pytest.raises(NotImplementedError, match=r"forward AD|forward-mode"):
        tangent.derivative(net, (x, c), (x, c), "forward")


@pytest.mark.parametrize("name", NETS)
def test_a_bundle_round_trips_and_samples_the_same_bits(name, bundle, archive, tmp_path):
    kind, own = NETS[name]
    codec, path = bundle.codec, f"{kind.__module__}.{kind.__qualname__}"
    own = dict(channels=2, condition_fields=codec.fields, condition_scalars=codec.scalars) | own
    net = random(name, 2, codec.fields, codec.scalars)
    made = replace(bundle, network=net, network_class=path, network_args=own)
    again = load(made.save(tmp_path / "made.safetensors"))
    assert again.fingerprint() == made.fingerprint()
    a, b = (v.sample(archive, members=2, batch=4) for v in (made, again))
    assert a.identical(b) and float(a["t2m"].std("member").mean()) > 1e-3


@pytest.mark.parametrize("name", NETS)
def test_a_pixel_sees_the_whole_field(name):
    """By attention or GroupNorm: a change in one corner reaches the other; the U-Net of finite radius shows none."""
    size = (8, 8) if name in ONE_SIZE else (32, 32)
    net, (x, c, _) = random(name).double(), batch(size, dtype=F64)
    assert net.radius is None
    assert float(_reach(net, x, c)) > 0
    unet = UNet(2, widths=(8,), embedding=8).double()
    for p in unet.parameters():
        nn.init.normal_(p, std=0.1)
    assert unet.radius < 7 and float(_reach(unet, x, c)) == 0


def _reach(net: nn.Module, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """What a change of the first pixel does to the last."""
    moved = x.clone()
    moved[..., 0, 0] += 1
    with torch.no_grad():
        return (net(moved, c) - net(x, c))[..., -1, -1].abs().max()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("channels", "fields", "scalars"), [(1, 7, 4), (3, 11, 0)])
def test_the_shipped_option_builds_and_runs(name, channels, fields, scalars):
    """PhysicsNeMo refuses many widths (groups of channels must come out even): the default must be none of them."""
    option = yaml.safe_load((config_dir() / "network" / f"{name}.yaml").read_text())
    assert get_class(option.pop("_target_")) is NETS[name][0]
    net = NETS[name][0](channels, fields, scalars, **option)
    for p in net.parameters():
        nn.init.normal_(p, std=0.05)
    x, c, condition = batch((32, 32), channels, fields, scalars)
    out = net(x, c, condition)
    assert out.shape == x.shape and float(out.detach().std()) > 0
    assert 1.1e6 < sum(p.numel() for p in net.parameters()) < 1.8e6


def test_physicsnemo_is_not_imported_before_a_network_is_built():
    code = (
        "import json, sys\n"
        "import scigen.core.bundle, scigen.core.networks.dit, scigen.core.networks.dhariwal\n"
        "import scigen.core.networks.songunet_posembd\n"
        "print(json.dumps([m for m in ('torch', 'physicsnemo', 'timm') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == ["torch"]


# ---------------------------------------------------------------------------------------------------- sizes and places


@pytest.mark.parametrize("name", ANY_SIZE)
@pytest.mark.parametrize("size", [(9, 13), (16, 24), (1, 3)])
def test_any_size_is_padded_and_cropped(name, size):
    net, (x, c, _) = random(name), batch(size)
    rows, columns = size
    padded = functional.pad(x, (0, columns % 2, 0, rows % 2))
    assert net.fixed_size is None and net.multiple == (2, 2)
    torch.testing.assert_close(net(x, c), net(padded, c)[..., :rows, :columns], rtol=0, atol=0)


@pytest.mark.parametrize("name", ANY_SIZE)
def test_weights_named_by_a_resolution_load_from_a_bundle_at_any_size(name, bundle, tmp_path):
    """The resolution is in the names of the weights and in the bundle, whatever fields were trained on."""
    kind, own = NETS[name]
    own = dict(channels=2, condition_fields=bundle.codec.fields, condition_scalars=bundle.codec.scalars) | own
    net = random(name, 2, bundle.codec.fields, bundle.codec.scalars)
    assert any("8x8" in k for k in net.state_dict())
    with pytest.raises(RuntimeError, match="16x16"):
        kind(**own | {"resolution": 16}).load_state_dict(net.state_dict())
    made = replace(bundle, network=net, network_class=f"{kind.__module__}.{kind.__qualname__}", network_args=own)
    again = load(made.save(tmp_path / "made.safetensors"))
    for size in ((8, 8), (16, 24)):
        x, c, condition = batch(size, 2, bundle.codec.fields, bundle.codec.scalars)
        assert torch.equal(again.network(x, c, condition), net(x, c, condition))


@pytest.mark.parametrize("name", ONE_SIZE)
def test_a_network_that_knows_places_refuses_fields_of_another_size(name):
    net = random(name, resolution=[6, 9])
    assert net.fixed_size == (6, 9)
    x, c, _ = batch((6, 9))
    assert net(x, c).shape == x.shape
    for size in ((9, 6), (6, 8), (12, 18)):
        x, c, _ = batch(size)
        with pytest.raises(
            UserError, match=rf"6 × 9.*{size[0]} × {size[1]}.*network.resolution=\[{size[0]},{size[1]}]"
        ):
            net(x, c)


def test_a_transformer_pads_to_whole_patches():
    net, (x, c, _) = random("dit", resolution=[6, 9], patch_size=[4, 2]), batch((6, 9))
    whole = net.inner(functional.pad(x, (0, 1, 0, 2)), c)
    assert net.inner.input_size == (8, 10)
    torch.testing.assert_close(net(x, c), whole[..., :6, :9], rtol=0, atol=0)


def test_places_of_a_transformer_are_in_its_position_embedding_alone():
    """Without it, shifts by whole patches commute with the network; with it they do not."""
    net, (x, c, _) = random("dit").double(), batch(dtype=F64)
    shifted = x.roll((4, 4), (2, 3))
    with torch.no_grad():
        assert not torch.allclose(net(shifted, c), net(x, c).roll((4, 4), (2, 3)), atol=1e-3)
        net.inner.tokenizer.pos_embed.zero_()
        torch.testing.assert_close(net(shifted, c), net(x, c).roll((4, 4), (2, 3)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("gridtype", "number"), [("learnable", 3), ("sinusoidal_octave", 8), ("sinusoidal", 4), ("linear", 2)]
)
def test_position_channels_tell_a_pixel_where_it_is(gridtype, number):
    """They are the network's own input: without their weights nothing of the grid is left."""
    net = random("songunet_posembd", resolution=[6, 9], gridtype=gridtype, N_grid_channels=number)
    grid = net.inner.pos_embd
    assert grid.shape == (number, 6, 10)  # padded to the levels
    assert (("inner.pos_embd" in net.state_dict()), grid.requires_grad) == ((gridtype == "learnable",) * 2)
    x, c, _ = batch((6, 9))
    out = net(x, c)
    with torch.no_grad():
        grid[:, 2, 3] += 1
        assert not torch.allclose(net(x, c), out, atol=1e-3)
        net.inner.enc["6x6_conv"].weight[:, -number:] = 0
        out = net(x, c)
        grid.zero_()
        assert torch.equal(net(x, c), out)


# --------------------------------------------------------------------------------------------- features of transformers


def test_the_blocks_of_a_transformer_can_be_tapped_as_fields():
    net, (x, c, condition) = random("dit", 2, 1, 3, resolution=[8, 12]), batch((8, 12), 2, 1, 3)
    denoiser, sigma = Denoiser(net), (4 * c).exp()
    assert bottleneck(denoiser, x, sigma, condition) == "network.fields.1"  # the last block, not the patches
    first, last = features(denoiser, ["network.fields.0", "network.fields.1"], x, sigma, condition)
    assert first.shape == last.shape == (3, 16, 2, 3)
    h = torch.cat([x, condition["fields"]], 1)
    assert torch.equal(net(x, c, condition), net.inner(h, c, condition["scalars"]))
    kept = []
    net.inner.blocks[1].register_forward_hook(lambda module, args, out: kept.append(out))
    (last,) = features(denoiser, ["network.fields.1"], x, sigma, condition)
    assert torch.equal(last[:, :, 1, 2], kept[0][:, 5])  # tokens go row by row


def test_the_bottleneck_of_dhariwals_network_is_its_attending_level():
    net, (x, c, _) = random("dhariwal"), batch()
    name = bottleneck(Denoiser(net), x, c.exp(), None)
    (field,) = features(Denoiser(net), [name], x, c.exp(), None)
    assert field.shape == (3, 64, 4, 4)


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (dict(space=3), "2-D fields, not on 3-D.*network=unet"),
        (dict(periodic=True), "cannot wrap around.*network=unet"),
        (dict(periodic=[False, True]), "cannot wrap around.*network=unet"),
        (dict(resolution=[8, 8, 8]), r"one number or \[Y,X\]"),
        (dict(resolution=0), "positive"),
    ],
)
def test_what_none_can_do_is_refused(name, wrong, match):
    with pytest.raises(UserError, match=match):
        random(name, **wrong)


@pytest.mark.parametrize("name", NETS)
def test_calls_that_do_not_fit_are_refused_in_words(name):
    net, (x, c, condition) = random(name, 2, 1, 3), batch(fields=1, scalars=3)
    fields, scalars = condition["fields"], condition["scalars"]
    for args, match in (
        ((x[:, :1], c, condition), r"takes x \(B, 2, Y, X\).*not \(3, 1, 8, 8\)"),
        ((x[0], c, condition), r"takes x \(B, 2, Y, X\)"),
        ((x, c[:2], condition), r"c_noise \(B,\), not .* and \(2,\)"),
        ((x, c, None), "1 condition fields and 3 scalars.*not none"),
        ((x, c, {"fields": fields}), "1 condition fields and 3 scalars"),
        ((x, c, {"fields": fields[:2], "scalars": scalars}), "1 condition fields and 3 scalars"),
        ((x, c, {"fields": fields[..., :4], "scalars": scalars}), "1 condition fields and 3 scalars"),
        ((x, c, {"fields": fields, "scalars": scalars[:, :2]}), "1 condition fields and 3 scalars"),
        ((x.double(), c.double(), condition), "weights of torch.float32 and is given torch.float64"),
    ):
        with pytest.raises(UserError, match=match):
            net(*args)
    with pytest.raises(UserError, match="0 condition fields and 0 scalars"):
        random(name)(x, c, {"scalars": scalars})


@pytest.mark.parametrize(
    ("name", "wrong", "match"),
    [
        ("songunet", dict(model_channels=48), r"model_channels=48, channel_mult=\[1, 2\]"),
        ("songunet", dict(channel_mult=[]), "positive"),
        ("songunet", dict(resolution=2, channel_mult=[1, 2, 2]), "must be 4 at least"),
        ("dhariwal", dict(model_channels=16), "64 channels.*model_channels=16.*gives 32"),
        ("dhariwal", dict(attn_resolutions=[8]), "64 channels.*gives 32"),
        ("dhariwal", dict(resolution=2, channel_mult=[1, 2, 2]), "must be 4 at least"),
        ("songunet_posembd", dict(gridtype="test"), "gridtype=test.*learnable"),
        ("songunet_posembd", dict(gridtype="linear", N_grid_channels=4), "linear .2."),
        ("songunet_posembd", dict(gridtype="sinusoidal_octave", N_grid_channels=6), "multiple of 4"),
        ("songunet_posembd", dict(N_grid_channels=0), "network=songunet"),
        ("dit", dict(hidden_size=18, num_heads=4), "hidden_size=18 even and a multiple of num_heads"),
        ("dit", dict(patch_size=0), "positive"),
        ("dit", dict(mlp_ratio=0), "positive"),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused_in_words(name, wrong, match):
    with pytest.raises(UserError, match=match):
        random(name, **wrong)


@pytest.mark.parametrize("name", NETS)
def test_without_physicsnemo_the_option_says_how_to_get_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "physicsnemo.models.diffusion_unets", None)
    with pytest.raises(UserError, match=f"network={name} needs PhysicsNeMo .pip install nvidia-physicsnemo"):
        random(name)


def test_a_torchvision_of_another_origin_is_named(monkeypatch):
    class Broken:
        def find_spec(self, name, *_):
            if name == "physicsnemo.models.dit":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "physicsnemo.models.dit", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(UserError, match=r"torch and torchvision of the same origin\): operator torchvision::nms"):
        random("dit")


def test_bundles_name_them(bundle: Bundle):
    from scigen.core.bundle import NETWORKS

    assert {f"{k.__module__}.{k.__qualname__}" for k, _ in NETS.values()} < set(NETWORKS)
