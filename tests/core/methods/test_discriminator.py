"""Discriminator: taps give what the denoiser computes, heads fit every shape and learn the log ratio."""

import pytest
import torch
from torch import nn

from scigen.core.denoise import Denoiser
from scigen.core.methods.adversarial import discriminator_loss
from scigen.core.methods.discriminator import OUTPUT, Discriminator, bottleneck, features
from scigen.core.networks.unet import UNet
from scigen.core.oracle import Gaussian
from scigen.errors import UserError

F64 = torch.float64


def denoiser(space: int, **condition: int) -> Denoiser:
    torch.manual_seed(0)
    network = UNet(2, space=space, widths=(6, 8), embedding=8, **condition).double()
    for p in network.parameters():
        nn.init.normal_(p, std=0.2)
    return Denoiser(network).requires_grad_(False)


def noised(space: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 2, *[8] * space, dtype=F64, generator=generator)
    return x, torch.tensor([0.1, 1.0, 10.0], dtype=F64)


class Same(nn.Module):
    """A denoiser whose features are the samples, in units of one's choice."""

    def __init__(self, units: float = 1.0) -> None:
        super().__init__()
        self.units = units

    def forward(self, x, sigma, condition=None):
        return self.units * x


@pytest.mark.parametrize("space", [1, 2, 3])
def test_default_tap_is_the_bottleneck(space):
    assert bottleneck(denoiser(space), *noised(space), None) == "network.down.1.0"


def test_a_denoiser_without_submodules_is_tapped_at_its_output():
    oracle = Gaussian.stationary(torch.ones(1, 8, dtype=F64))
    assert bottleneck(oracle, torch.zeros(2, 1, 8, dtype=F64), torch.ones(2), None) == OUTPUT


def test_taps_give_what_the_submodules_compute_and_leave_no_hook():
    net, (x, sigma) = denoiser(2), noised(2)
    inner, out = features(net, ["network.stem", OUTPUT], x, sigma, None)
    c_in = (1 + sigma**2).rsqrt()[:, None, None, None]
    torch.testing.assert_close(inner, net.network.stem(c_in * x), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(out, net(x, sigma), rtol=0, atol=0)
    assert all(not m._forward_hooks for m in net.modules())


def test_hooks_are_gone_when_the_denoiser_fails():
    net, (x, sigma) = denoiser(2), noised(2)
    for call in (
        lambda: features(net, ["network.stem"], x[:, :1], sigma, None),
        lambda: bottleneck(net, x[:, :1], sigma, None),
    ):
        with pytest.raises(RuntimeError):
            call()
        assert all(not m._forward_hooks for m in net.modules())


def test_the_condition_reaches_the_features():
    net, (x, sigma) = denoiser(2, condition_scalars=1), noised(2)
    d = Discriminator(net, None, x, sigma, {"scalars": torch.zeros(3, 1, dtype=F64)})
    for head in d.heads:
        nn.init.normal_(head.last.weight)
    one, other = (d(net, x, sigma, {"scalars": torch.full((3, 1), v, dtype=F64)}) for v in (0.0, 2.0))
    assert ((one - other).abs() > 1e-6).all()


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 7), (5, 6, 9), (2, 4, 5, 3)])
def test_heads_judge_every_sample_alone_in_any_number_of_dims(shape):
    x, sigma = torch.randn(4, *shape, dtype=F64, generator=torch.Generator().manual_seed(2)), torch.ones(4, dtype=F64)
    torch.manual_seed(3)
    source = Same()
    d = Discriminator(source, [OUTPUT, OUTPUT], x, sigma, None)
    assert float(d(source, x, sigma, None).detach().abs().sum()) == 0  # undecided at first
    for head in d.heads:
        nn.init.normal_(head.last.weight)
    logits = d(source, x, sigma, None)
    assert logits.shape == (4, 2) and logits.dtype == F64
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(d(source, x[order], sigma, None), logits[order], rtol=1e-12, atol=1e-14)
    sigma[1] = 5.0
    changed = (d(source, x, sigma, None) != logits).any(1)
    assert changed.tolist() == [False, True, False, False]


def test_logits_do_not_depend_on_the_units_of_the_features():
    x, sigma = torch.randn(6, 1, 8, dtype=F64, generator=torch.Generator().manual_seed(4)), torch.ones(6, dtype=F64)
    logits = []
    for units in (1.0, 1000.0):
        torch.manual_seed(5)
        d = Discriminator(Same(units), None, x, sigma, None)
        nn.init.ones_(d.heads[0].last.weight)
        logits.append(d(Same(units), x, sigma, None))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-5, atol=1e-6)


def test_gradients_pass_through_the_frozen_denoiser_to_the_samples():
    net, (x, sigma) = denoiser(2), noised(2)
    d = Discriminator(net, None, x, sigma, None)
    nn.init.ones_(d.heads[0].last.weight)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(d(net, x, sigma, None).sum(), x)
    direction = torch.randn_like(x)
    h = 1e-5
    with torch.no_grad():
        change = (d(net, x + h * direction, sigma, None) - d(net, x - h * direction, sigma, None)).sum() / (2 * h)
    torch.testing.assert_close((slope * direction).sum(), change, rtol=1e-6, atol=1e-9)
    assert {n.split(".")[0] for n, _ in d.named_parameters()} == {"heads"}  # and the denoiser is no part of it


def test_a_trained_head_gives_the_log_ratio_of_two_gaussians():
    """p = N(1, 1), q = N(0, 1): ln p/q = x − ½."""
    torch.manual_seed(6)
    source, sigma = Same(), torch.ones(512, dtype=F64)
    d = Discriminator(source, None, torch.randn(512, 1, dtype=F64), sigma, None)
    steps = 200
    optimiser = torch.optim.Adam(d.parameters(), lr=0.02)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        real, generated = (d(source, m + torch.randn(512, 1, dtype=F64), sigma, None) for m in (1.0, 0.0))
        optimiser.zero_grad()
        discriminator_loss(real, generated).backward()
        optimiser.step()
    x = torch.linspace(-1.5, 2.5, 21, dtype=F64)[:, None]
    with torch.no_grad():
        logits = d(source, x, torch.ones(21, dtype=F64), None)
    torch.testing.assert_close(logits, x - 0.5, rtol=0, atol=0.2)


@pytest.mark.parametrize(
    ("taps", "words"),
    [
        (["network.dwon"], "network.dwon"),
        (["network.embed"], "no field"),
        (["network.down"], "no field"),
        ([], "nothing"),
    ],
)
def test_bad_taps_are_refused(taps, words):
    with pytest.raises(UserError, match=words):
        Discriminator(denoiser(2), taps, *noised(2), None)
