"""A row's result is the same bits wherever in the batch it stands, and whatever stands beside it."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional

from scigen.core.denoise import Denoiser, FlowMap
from scigen.core.networks import unet
from scigen.core.networks.unet import Linear, UNet, silu

BATCHES = (1, 2, 3, 4, 5, 8, 16)


@pytest.fixture(params=[1, 2])
def threads(request) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def random(**kwargs) -> UNet:
    torch.manual_seed(0)
    net = UNet(2, 1, 3, **kwargs)
    for p in net.parameters():
        nn.init.normal_(p, std=0.1)
    return net.eval().requires_grad_(False)


def call(rows: int, size: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(rows)
    return torch.randn(rows, 2, *size), torch.rand(rows) + 0.1, torch.randn(rows, 1, *size), torch.randn(rows, 3)


def depends_on_place(function, given: tuple[torch.Tensor, ...]) -> bool:
    """Whether rows that change places, or whose neighbours change, give other bits."""
    rows, out = len(given[0]), function(*given)
    for order in (torch.arange(rows).roll(1), torch.arange(rows).flip(0), torch.randperm(rows)):
        if not torch.equal(function(*(v[order] for v in given)), out[order]):
            return True
    others = [torch.cat([v[:1], 3 * v[1:] + 1]) for v in given]
    return not torch.equal(function(*others)[0], out[0])


@pytest.mark.parametrize(
    ("widths", "embedding", "size"),
    [
        ((8, 12, 16), 8, (8, 8)),
        ((8, 12, 16), 8, (33, 49)),
        ((8, 12, 16), 8, (37,)),
        ((33, 20, 7), 20, (12, 12)),
        ((9, 12), 20, (5, 12, 9)),
        ((48, 96), 128, (16, 16)),
        ((48, 96), 128, (12, 12)),
        ((16, 24), 16, (8, 8, 8)),
    ],
)
def test_rows_of_the_network_do_not_depend_on_their_place(widths, embedding, size, threads):
    net = random(space=len(size), widths=widths, embedding=embedding)
    for rows in BATCHES:
        given = call(rows, size)
        assert not depends_on_place(lambda x, c, f, s: net(x, c, {"fields": f, "scalars": s}), given), rows


@pytest.mark.parametrize("kind", [Denoiser, FlowMap])
def test_nor_do_those_of_the_preconditioned_one(kind, threads):
    """Rows at levels of their own: c_noise and what a flow map is told of its end are functions of each row alone."""
    torch.manual_seed(0)
    net = UNet(2, 1, 3 + (FlowMap.FEATURES if kind is FlowMap else 0), widths=(8, 12), embedding=16)
    for p in net.parameters():
        nn.init.normal_(p, std=0.1)
    model = kind(net.eval().requires_grad_(False))
    for rows in BATCHES:

        def function(x, sigma, f, s):
            to = (0.5 * sigma,) if kind is FlowMap else ()
            return model(x, sigma, {"fields": f, "scalars": s}, *to)

        assert not depends_on_place(function, call(rows, (12, 12))), rows


def test_plain_products_and_exponentials_do_depend_on_it(monkeypatch):
    """Without the two remedies the same tests fail (on this machine's kernels, if they are such)."""
    torch.manual_seed(0)
    plain = nn.Linear(33, 8).requires_grad_(False)
    own = Linear(33, 8).requires_grad_(False)
    own.load_state_dict(plain.state_dict())
    x = torch.randn(16, 33)
    assert not any(depends_on_place(own, (torch.randn(n, 33),)) for n in BATCHES)
    torch.testing.assert_close(own(x), plain(x))
    if not any(depends_on_place(plain, (torch.randn(n, 33),)) for n in BATCHES):
        pytest.skip("products of this machine do not depend on the place of a row")
    net = random(widths=(33, 20, 7), embedding=20)
    given = call(4, (12, 12))
    function = lambda x, c, f, s: net(x, c, {"fields": f, "scalars": s})  # noqa: E731
    assert not depends_on_place(function, given)
    monkeypatch.setattr(unet, "silu", functional.silu)
    assert depends_on_place(function, given)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # torch's own use of it
def test_it_is_silu_in_value_and_derivative():
    x = torch.randn(3, 5, 7, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(silu(x), functional.silu(x), rtol=1e-15, atol=0)
    assert torch.autograd.gradcheck(silu, (x,), check_forward_ad=True)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # torch's own use of it
def test_the_linear_layer_is_differentiable_both_ways_and_keeps_its_state():
    torch.manual_seed(0)
    layer = Linear(5, 3).double()
    assert torch.autograd.gradcheck(
        layer, (torch.randn(3, 5, dtype=torch.float64, requires_grad=True),), check_forward_ad=True
    )
    assert {k: v.shape for k, v in layer.state_dict().items()} == {"weight": (3, 5), "bias": (3,)}


def test_the_memory_layout_of_rows_one_by_one_is_that_of_the_whole():
    x = torch.randn(3, 5, 7, 7).contiguous(memory_format=torch.channels_last)
    assert silu(x).is_contiguous(memory_format=torch.channels_last)
