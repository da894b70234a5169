"""Widening keeps the function: new scalars, whatever they are, change nothing until they are learned."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from scigen.core.denoise import Denoiser, FlowMap
from scigen.core.networks.dhariwal import DhariwalUNet
from scigen.core.networks.dit import DiT
from scigen.core.networks.mlp import MLP
from scigen.core.networks.physicsnemo import SongUNet
from scigen.core.networks.songunet_posembd import SongUNetPosEmbd
from scigen.core.networks.unet import UNet
from scigen.core.networks.widen import widen
from scigen.errors import UserError

F64 = torch.float64
pytestmark = pytest.mark.filterwarnings("ignore")  # PhysicsNeMo's own

Build = Callable[[int], nn.Module]
BUILD: dict[str, Build] = {
    "mlp": lambda k: MLP(3, 0, k, width=16, blocks=2, embedding=8),
    "unet": lambda k: UNet(3, 1, k, space=1, widths=(8, 8), embedding=8),
    "songunet": lambda k: SongUNet(3, 1, k, resolution=8, model_channels=8, channel_mult=[1, 2]),
    "songunet_posembd": lambda k: SongUNetPosEmbd(3, 1, k, resolution=8, model_channels=8, channel_mult=[1, 2]),
    "dhariwal": lambda k: DhariwalUNet(3, 1, k, resolution=8, model_channels=32, channel_mult=[1, 2]),
    "dit": lambda k: DiT(3, 1, k, resolution=8, hidden_size=16, depth=2, num_heads=2),
}
SHAPES = {"mlp": (4, 3), "unet": (4, 3, 8)}
CASES = [(name, k) for name in BUILD for k in (0, 1, 5)]


def random(name: str, scalars: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = BUILD[name](scalars).double()
    for p in net.parameters():
        nn.init.normal_(p, std=0.2)
    return net


def given(name: str, scalars: int):
    torch.manual_seed(3)
    shape = SHAPES.get(name, (4, 3, 8, 8))
    condition = {} if name == "mlp" else {"fields": torch.randn(shape[0], 1, *shape[2:], dtype=F64)}
    if scalars:
        condition["scalars"] = torch.randn(shape[0], scalars, dtype=F64)
    return torch.randn(shape, dtype=F64), torch.randn(shape[0], dtype=F64), condition


def more(condition: dict[str, torch.Tensor], new: torch.Tensor) -> dict[str, torch.Tensor]:
    own = [condition["scalars"]] if "scalars" in condition else []
    return condition | {"scalars": torch.cat([*own, new], 1)}


@pytest.mark.parametrize(("name", "scalars"), CASES)
def test_the_function_stays_and_new_scalars_change_no_bit(name, scalars):
    source, target = random(name, scalars, 0), random(name, scalars + 4, 1)
    x, c, condition = given(name, scalars)
    assert widen(source, target) is target
    with torch.no_grad():
        before = source(x, c, condition)
        after = [
            target(x, c, more(condition, v)) for v in (torch.zeros(4, 4), torch.randn(4, 4), 1e6 * torch.ones(4, 4))
        ]
    assert float(before.std()) > 0.01
    assert torch.equal(after[0], after[1]) and torch.equal(after[0], after[2])
    torch.testing.assert_close(after[0], before, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", BUILD)
def test_new_scalars_can_be_learned(name):
    target = widen(random(name, 1, 0), random(name, 3, 1))
    x, c, condition = given(name, 1)
    target(x, c, more(condition, torch.ones(4, 2, dtype=F64))).square().sum().backward()
    grown = [p for p in target.parameters() if p.ndim == 2 and float(p[:, -2:].detach().abs().max()) == 0]
    assert grown and all(float(p.grad[:, -2:].abs().max()) > 0 for p in grown)


@pytest.mark.parametrize("name", BUILD)
def test_the_old_scalars_keep_their_places(name):
    source, target = random(name, 2, 0), random(name, 3, 1)
    widen(source, target)
    x, c, condition = given(name, 2)
    swapped = {**condition, "scalars": condition["scalars"].flip(1)}
    new = torch.ones(4, 1, dtype=F64)
    with torch.no_grad():
        torch.testing.assert_close(target(x, c, more(swapped, new)), source(x, c, swapped), rtol=1e-13, atol=1e-14)
        assert not torch.allclose(source(x, c, swapped), source(x, c, condition), atol=1e-4)


@pytest.mark.parametrize("name", ["songunet", "songunet_posembd", "dhariwal"])
def test_only_some_networks_multiply_their_scalars_by_a_root(name, monkeypatch):
    """SongUNet multiplies K labels by √K, so columns copied as they are would count √(7/3) times too much there."""
    source, target = random(name, 3, 0), random(name, 7, 1)
    scaled = ("inner.map_label.weight",)
    assert hasattr(target.inner, "map_label")
    monkeypatch.setattr(type(target), "root_scaled", () if target.root_scaled == scaled else scaled)
    widen(source, target)
    x, c, condition = given(name, 3)
    with torch.no_grad():
        apart = target(x, c, more(condition, torch.zeros(4, 4))) - source(x, c, condition)
    assert float(apart.abs().max()) > 1e-3


def test_a_flow_map_of_a_widened_network_is_the_denoiser_for_every_end():
    network = random("mlp", 2, 0)
    denoiser, flow = Denoiser(network), FlowMap(widen(network, random("mlp", 2 + FlowMap.FEATURES, 1)))
    x, c, condition = given("mlp", 2)
    sigma = c.exp()
    with torch.no_grad():
        for share in (0.0, 0.5, 1.0):
            torch.testing.assert_close(
                flow(x, sigma, condition, to=share * sigma), denoiser(x, sigma, condition), rtol=1e-13, atol=1e-14
            )


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (lambda: MLP(3, 0, 5), lambda: MLP(3, 0, 4)),
        (lambda: MLP(3, width=16), lambda: MLP(3, 0, 2, width=24)),
        (lambda: MLP(3, blocks=3), lambda: MLP(3, 0, 2, blocks=2)),
        (lambda: MLP(3), lambda: UNet(3, 0, 2)),
    ],
)
def test_other_networks_are_refused(source, target):
    with pytest.raises(UserError, match="widened"):
        widen(source(), target())
