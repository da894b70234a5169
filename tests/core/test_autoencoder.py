"""The autoencoder: sizes, shifts, what it refuses."""

import pytest
import torch

from scigen.core.networks.allowed import AUTOENCODERS, NETWORKS, construct
from scigen.core.networks.autoencoder import LOG_VARIANCE, Autoencoder
from scigen.errors import UserError


def network(periodic=True, space=3, **options) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(3, space=space, latent=4, **{"widths": (8, 12), "periodic": periodic, **options}).eval()


@pytest.mark.parametrize(
    ("space", "widths", "patch", "factor"), [(2, (8, 8), 2, 4), (3, (8, 8), 4, 8), (3, (8,), 2, 2)]
)
def test_sizes(space, widths, patch, factor):
    net = network(space=space, widths=widths, patch=patch)
    size = tuple(factor * n for n in (2, 3, 4)[:space])
    latent = net.encode(torch.randn(2, 3, *size))
    assert net.factor == factor and latent.shape == (2, 4, *(n // factor for n in size))
    assert net.decode(latent).shape == (2, 3, *size)


def test_periodic_volumes_commute_with_shifts_by_the_factor():
    net, x = network(), torch.randn(1, 3, 16, 12, 8)
    latent = net.encode(x)
    moved = net.encode(x.roll((4, 8, 4), (2, 3, 4)))
    torch.testing.assert_close(moved, latent.roll((1, 2, 1), (2, 3, 4)), rtol=0, atol=1e-5)
    back = net.decode(latent.roll((1, 2, 1), (2, 3, 4)))
    torch.testing.assert_close(back, net.decode(latent).roll((4, 8, 4), (2, 3, 4)), rtol=0, atol=1e-5)
    assert not torch.allclose(net.encode(x.roll(2, 2)), latent, atol=1e-2)  # other shifts are another volume


def test_open_axes_do_not_wrap():
    net, x = network((False, True, True)), torch.randn(1, 3, 24, 8, 8)
    shifted, own = net.encode(x.roll(4, 2)), net.encode(x).roll(1, 2)
    assert not torch.allclose(shifted, own, atol=1e-3)
    torch.testing.assert_close(net.encode(x.roll(4, 3)), net.encode(x).roll(1, 3), rtol=0, atol=1e-5)


def test_the_log_variance_is_bounded():
    low, high = network().moments(1e6 * torch.randn(1, 3, 8, 8, 8))[1].aminmax()
    assert LOG_VARIANCE[0] <= low <= high <= LOG_VARIANCE[1]


def test_its_arguments_rebuild_it():
    net = network((True, False, True))
    other = construct("scigen.core.networks.autoencoder.Autoencoder", AUTOENCODERS, "autoencoder")(**net.args)
    other.load_state_dict(net.state_dict())
    x = torch.randn(1, 3, 8, 8, 8)
    assert torch.equal(other(x), net(x))


def test_only_listed_autoencoders_are_built_and_none_is_a_denoiser():
    with pytest.raises(UserError, match="unknown autoencoder"):
        construct("os.system", AUTOENCODERS, "autoencoder")
    assert not set(AUTOENCODERS) & set(NETWORKS)


@pytest.mark.parametrize("options", [{"space": 4}, {"widths": ()}, {"patch": 0}, {"blocks": 0}, {"periodic": [True]}])
def test_arguments_that_make_no_network(options):
    with pytest.raises(UserError, match="do not fit"):
        network(**options)


def test_a_size_that_is_no_multiple():
    with pytest.raises(UserError, match="multiples of 4"):
        network().encode(torch.randn(1, 3, 8, 10, 8))
