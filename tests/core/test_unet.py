"""Properties that scigen's U-Net promises."""

import pytest
import torch

from scigen.core.networks.unet import UNet
from scigen.errors import UserError


def random(**kwargs) -> UNet:
    """A small network with every weight drawn, so that nothing is zero by initialisation."""
    torch.manual_seed(0)
    net = UNet(2, **({"widths": (8, 12, 16), "embedding": 16} | kwargs)).double()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return net


@pytest.mark.parametrize(("space", "size"), [(1, (13,)), (2, (9, 14)), (3, (5, 8, 6))])
def test_any_size_in_any_dimension(space, size):
    net = random(space=space)
    x = torch.randn(3, 2, *size, dtype=torch.float64)
    out = net(x, torch.zeros(3, dtype=torch.float64))
    assert out.shape == x.shape
    assert float(out.detach().std()) > 0.01


def test_samples_do_not_mix():
    net = random()
    x, c = torch.randn(4, 2, 16, 16, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(net(x, c)[2:3], net(x[2:3], c[2:3]), rtol=1e-12, atol=1e-12)


def test_periodic_axes_commute_with_shifts_and_others_do_not():
    net = random(periodic=[True, False])
    x, c = torch.randn(1, 2, 16, 16, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    shift = net.multiple
    torch.testing.assert_close(net(x.roll(shift, 2), c), net(x, c).roll(shift, 2), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(net(x.roll(shift, 3), c), net(x, c).roll(shift, 3), atol=1e-3)


@pytest.mark.parametrize("widths", [(8,), (8, 8), (8, 12, 16)])
@pytest.mark.parametrize("blocks", [1, 2])
def test_receptive_field_is_what_it_says(blocks, widths):
    """Nothing beyond `radius` reaches a pixel, and something less than one coarsest cell within it does."""
    net = random(space=1, blocks=blocks, widths=widths)
    n = 4 * net.radius
    n += -n % net.multiple
    x = torch.randn(1, 2, n, dtype=torch.float64, requires_grad=True)
    reach = 0
    for at in range(n // 2, n // 2 + net.multiple):
        (g,) = torch.autograd.grad(net(x, torch.zeros(1, dtype=torch.float64))[0, :, at].sum(), x)
        touched = g[0].abs().sum(0).nonzero().flatten()
        reach = max(reach, int((touched - at).abs().max()))
    assert net.radius - net.multiple < reach <= net.radius


def test_same_in_training_and_evaluation():
    net, x = random(), torch.randn(2, 2, 8, 8, dtype=torch.float64)
    c = torch.zeros(2, dtype=torch.float64)
    assert torch.equal(net.train()(x, c), net.eval()(x, c))


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # torch's own use of it
def test_forward_mode_derivative_is_the_finite_difference():
    net, x = random(condition_fields=1, condition_scalars=2), torch.randn(2, 2, 8, 8, dtype=torch.float64)
    condition = {
        "fields": torch.randn(2, 1, 8, 8, dtype=torch.float64),
        "scalars": torch.randn(2, 2, dtype=torch.float64),
    }
    v, c, dc = torch.randn_like(x), torch.randn(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    f = lambda x, c: net(x, c, condition)  # noqa: E731
    _, tangent = torch.func.jvp(f, (x, c), (v, dc))
    h = 1e-5
    difference = (f(x + h * v, c + h * dc) - f(x - h * v, c - h * dc)) / (2 * h)
    torch.testing.assert_close(tangent, difference, rtol=1e-5, atol=1e-7)


def test_noise_level_fields_and_scalars_matter():
    net = random(condition_fields=1, condition_scalars=1)
    x, c = torch.randn(1, 2, 8, 8, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    condition = {
        "fields": torch.zeros(1, 1, 8, 8, dtype=torch.float64),
        "scalars": torch.zeros(1, 1, dtype=torch.float64),
    }
    base = net(x, c, condition)
    assert not torch.allclose(net(x, c + 1, condition), base, atol=1e-3)
    for key in condition:
        assert not torch.allclose(net(x, c, condition | {key: condition[key] + 1}), base, atol=1e-3)


def test_wrong_conditions_and_sizes_are_refused():
    with pytest.raises(UserError, match="condition fields"):
        random(condition_fields=2)(torch.zeros(1, 2, 8, 8).double(), torch.zeros(1).double(), None)
    with pytest.raises(UserError, match="multiple of 4"):
        random(periodic=True)(torch.zeros(1, 2, 9, 8).double(), torch.zeros(1).double())
    with pytest.raises(UserError):
        UNet(1, space=4)
