"""PhysicsNeMo's SongUNet behind scigen's interface."""

from dataclasses import replace

import pytest
import torch
import yaml

from scigen.config import config_dir
from scigen.core.bundle import Bundle, load
from scigen.core.networks.physicsnemo import SongUNet
from scigen.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # its own, of many kinds


def args(bundle: Bundle) -> dict:
    codec = bundle.codec
    return dict(
        channels=2, condition_fields=codec.fields, condition_scalars=codec.scalars, resolution=8, model_channels=8,
        channel_mult=[1, 2], num_blocks=1,
    )  # fmt: skip


def random(**kwargs) -> SongUNet:
    torch.manual_seed(0)
    net = SongUNet(**kwargs)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return net


def test_bundle_of_a_songunet_round_trips_and_samples(bundle, archive, tmp_path):
    name, own = "scigen.core.networks.physicsnemo.SongUNet", args(bundle)
    song = replace(bundle, network=random(**own), network_class=name, network_args=own)
    again = load(song.save(tmp_path / "song.safetensors"))
    a, b = (x.sample(archive, members=2, batch=4) for x in (song, again))
    assert a.identical(b) and float(a["t2m"].std("member").mean()) > 1e-3


def test_any_size_and_the_same_function_in_training_and_evaluation():
    net = random(channels=2, resolution=8, model_channels=8, channel_mult=[1, 2])
    x, c = torch.randn(2, 2, 9, 13), torch.tensor([0.1, -0.3])
    out = net.train()(x, c)
    assert out.shape == x.shape and torch.equal(out, net.eval()(x, c))
    assert not torch.allclose(net(x, c + 1), out, atol=1e-3)


@pytest.mark.parametrize(("channels", "fields"), [(1, 7), (3, 11)])
def test_the_shipped_option_builds_and_runs(channels, fields):
    """PhysicsNeMo refuses many widths (groups of channels must come out even): the default must be none of them."""
    option = yaml.safe_load((config_dir() / "network" / "songunet.yaml").read_text())
    option.pop("_target_")
    net = random(channels=channels, condition_fields=fields, condition_scalars=4, **option)
    condition = {"fields": torch.randn(2, fields, 32, 48), "scalars": torch.randn(2, 4)}
    out = net(torch.randn(2, channels, 32, 48), torch.zeros(2), condition)
    assert out.shape == (2, channels, 32, 48) and float(out.detach().std()) > 0


def test_volumes_are_refused():
    with pytest.raises(UserError, match="2-D"):
        SongUNet(1, space=3)


def test_autocast_chooses_the_precision():
    """bf16 where training is mixed, to its rounding; without autocast nothing changes."""
    net = random(channels=2, condition_scalars=1, resolution=8, model_channels=8, channel_mult=[1, 2])
    x, c = torch.randn(2, 2, 8, 8), torch.tensor([0.1, -0.3])
    condition = {"scalars": torch.randn(2, 1)}
    full = net(x, c, condition)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(x, c, condition)
    assert full.dtype == torch.float32 and mixed.dtype == torch.bfloat16
    assert 0 < float((mixed - full).abs().max()) < 0.05 * float(full.abs().max())


def test_widths_that_physicsnemo_refuses_get_a_clear_error():
    with pytest.raises(UserError, match="model_channels=48"):
        SongUNet(1, model_channels=48, channel_mult=[1, 2])
