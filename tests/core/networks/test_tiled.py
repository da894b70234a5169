"""Tiles give the field that the whole network gives: exactly where it can, without a seam where it cannot."""

import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from scigen.core.bundle import load
from scigen.core.denoise import FlowMap
from scigen.core.networks.physicsnemo import SongUNet
from scigen.core.networks.tiled import Tiled
from scigen.core.networks.unet import UNet
from scigen.core.sampling import Sampling
from scigen.errors import UserError
from scigen.metrics.spectra import power_spectrum
from scigen.weather.grid import Grid
from scigen.weather.physics import DownscalingCodec


def random(net: nn.Module, std: float = 0.15) -> nn.Module:
    torch.manual_seed(0)
    for p in net.parameters():
        nn.init.normal_(p, std=std)
    return net.eval().requires_grad_(False)


def call(net: nn.Module, size: tuple[int, ...]) -> tuple:
    torch.manual_seed(1)
    condition = {"fields": torch.randn(2, 1, *size), "scalars": torch.randn(2, 2), "measurement": torch.zeros(2, 5)}
    return torch.randn(2, 2, *size), torch.randn(2), condition


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


EXACT = {
    "1-D": (dict(space=1, widths=(8, 8)), (203,), 16),
    "2-D": (dict(widths=(8, 8, 8)), (120, 120), 32),
    "one level": (dict(widths=(8,)), (40, 31), 7),
    "four levels": (dict(space=1, widths=(8, 8, 8, 8)), (480,), 48),
    "no multiple": (dict(widths=(8, 8)), (61, 47), (16, 24)),
    "narrow last tile": (dict(widths=(8, 8)), (65, 33), 32),
    "periodic": (dict(widths=(8, 8), periodic=True), (96, 80), 16),
    "periodic in one axis": (dict(widths=(8, 8, 8), periodic=(False, True)), (45, 200), (24, 64)),
    "patches": (dict(widths=(8, 8), patch=2), (150, 90), 32),
    "periodic patches": (dict(widths=(8,), patch=2, periodic=True), (60, 40), 10),
    "3-D": (dict(space=3, widths=(8, 8)), (40, 30, 33), 16),
    "3-D, periodic, patches": (dict(space=3, widths=(8,), patch=2, periodic=(True, False, True)), (40, 24, 36), 12),
    "two blocks": (dict(widths=(8, 8), blocks=2), (100, 40), 20),
}


@pytest.mark.parametrize("name", EXACT)
def test_tiles_are_exactly_the_whole(name):
    args, size, tile = EXACT[name]
    net = random(UNet(2, 1, 2, embedding=8, **args))
    tiled, given = Tiled(net, tile), call(net, size)
    assert tiled.exact and sum(map(len, tiled.spans(size))) > len(size)
    assert relative(tiled(*given), net(*given)) < 2e-6


@pytest.mark.parametrize(
    ("name", "short"),
    [("1-D", 1), ("one level", 1), ("periodic", 1), ("two blocks", 1), ("2-D", 2), ("patches", 2), ("four levels", 3)],
)
def test_a_halo_that_is_too_short_is_seen(name, short):
    """One multiple less than stated; with many levels the stated radius has a multiple or two to spare."""
    args, size, tile = EXACT[name]
    net = random(UNet(2, 1, 2, embedding=8, **args), 0.3).double()
    x, c, condition = call(net, size)
    whole, halo = net(x.double(), c.double(), condition), Tiled(net, tile).halo
    right, wrong = (
        Tiled(net, tile, halo=h)(x.double(), c.double(), condition) for h in (halo, halo - short * net.multiple)
    )
    assert relative(right, whole) < 1e-13
    assert relative(wrong, whole) > 1e-9


def test_tiles_that_wrap_around_themselves_would_be_seen():
    """An axis that ends is not one that wraps: the same weights, tiled for the other kind, give another field."""
    wraps, ends = (random(UNet(2, 1, 2, embedding=8, widths=(8, 8), periodic=p)) for p in (True, False))
    given = call(wraps, (96, 80))
    assert relative(Tiled(ends, 16)(*given), wraps(*given)) > 1e-3


def test_only_a_tile_is_in_memory_at_once():
    """The largest feature map has the cells of a tile and its halo, not those of the field."""
    net, seen = random(UNet(2, 1, 2, embedding=8, widths=(8, 8))), []
    for module in net.modules():
        module.register_forward_hook(lambda m, i, o: seen.append(o[0, 0].numel()) if o.ndim == 4 else None)
    given, tiled = call(net, (256, 192)), Tiled(net, 16)
    net(*given)
    assert max(seen) == 256 * 192
    seen.clear()
    tiled(*given)
    assert max(seen) == (16 + 2 * tiled.halo) ** 2 < 256 * 192 / 8


def test_a_tile_as_large_as_the_field_is_the_network_itself():
    net = random(UNet(2, 1, 2, embedding=8, widths=(8, 8)))
    given = call(net, (31, 40))
    assert torch.equal(Tiled(net, 64)(*given), net(*given))


# ------------------------------------------------------------------------------------------------------------- blended


@pytest.fixture(scope="module")
def song() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PhysicsNeMo's own
        return random(SongUNet(2, 1, 2, model_channels=16, channel_mult=[1, 2], resolution=16), 0.1)


@pytest.mark.parametrize("size", [(64, 64), (61, 90), (33, 17)])
@pytest.mark.parametrize(("tile", "overlap"), [(16, None), (16, 0), (24, 11), (32, 24)])
def test_weights_of_blended_tiles_sum_to_one(size, tile, overlap):
    """So a network that works in each cell alone is not changed by them."""

    class Cellwise(nn.Module):
        def forward(self, x, c_noise, condition=None):
            seen.append(max(x.shape[2:]))
            return torch.tanh(x) + condition["fields"] * condition["scalars"].sum(1)[:, None, None, None]

    seen: list[int] = []
    net, given = Cellwise(), call(nn.Identity(), size)
    tiled = Tiled(net, tile, overlap=overlap)(*given)
    assert max(seen) == tile
    torch.testing.assert_close(tiled, net(*given), rtol=1e-6, atol=1e-6)
    for spans in Tiled(net, tile, overlap=overlap).spans(size):
        shared = tile // 4 if overlap is None else overlap
        assert all(a.stop - b.start >= shared for a, b in itertools.pairwise(spans))
        assert all(float(s.weights.min()) > 0 for s in spans)


@pytest.mark.filterwarnings("ignore")
def test_blended_tiles_have_no_seam(song):
    """On white noise the mean |gradient| over the borders of tiles is that inside; hard tiles of the same size fail."""
    torch.manual_seed(2)
    x, c = torch.randn(24, 2, 64, 64), torch.full((24,), 0.3)
    condition = {"fields": torch.randn(24, 1, 64, 64), "scalars": torch.randn(1, 2).expand(24, 2)}

    def excess(tiled: Tiled) -> float:
        out = tiled(x, c, condition)
        steps = (out[..., 1:] - out[..., :-1]).abs().mean((1, 2))  # (rows, X − 1)
        borders = sorted({b - 1 for s in tiled.spans((64, 64))[1] for b in (s.start, s.stop) if 0 < b < 64})
        inside = [i for i in range(8, 55) if all(abs(i - b) > 2 for b in borders)]
        return float(steps[:, borders].mean() / steps[:, inside].mean()) - 1

    assert abs(excess(Tiled(song, 32, overlap=16))) < 0.02
    assert abs(excess(Tiled(song, 32, overlap=0))) > 0.05  # zeros beyond its border flatten a tile there


@pytest.mark.filterwarnings("ignore")
def test_blended_tiles_keep_the_spectrum(song):
    """Power by wavenumber is that of the whole field to a few per cent; hard tiles add power of their own."""
    torch.manual_seed(3)
    x, c = torch.randn(12, 2, 64, 64), torch.full((12,), 0.3)
    condition = {"fields": torch.randn(12, 1, 64, 64), "scalars": torch.randn(1, 2).expand(12, 2)}

    def power(network) -> np.ndarray:
        return power_spectrum(network(x, c, condition).numpy())[1].mean((0, 1))[4:]

    with torch.no_grad():
        whole, soft, hard = power(song), power(Tiled(song, 32)), power(Tiled(song, 32, overlap=0))
    assert np.abs(soft / whole - 1).max() < 0.05
    assert np.abs(hard / whole - 1).max() > 2 * np.abs(soft / whole - 1).max()


@pytest.mark.filterwarnings("ignore")
def test_the_distance_from_the_whole_is_measured_and_falls_with_the_tile(song):
    given = call(song, (64, 64))
    small, large, whole = (Tiled(song, n).distance(*given) for n in (16, 48, 64))
    assert whole == 0 < large < small < 0.5


# ------------------------------------------------------------------------------------------------------------- refused


def test_what_does_not_fit_is_refused():
    net = random(UNet(2, 1, 2, embedding=8, widths=(8, 8, 8)))
    with pytest.raises(UserError, match=r"too small.*4 at least"):
        Tiled(net, 3)
    with pytest.raises(UserError, match="overlap=16"):
        Tiled(net, 16, overlap=16)
    for halo in (-4, 6):
        with pytest.raises(UserError, match=f"halo={halo}"):
            Tiled(net, 16, halo=halo)
    with pytest.raises(UserError, match="2 space axes"):
        Tiled(net, (16, 16, 16))(*call(net, (40, 40)))
    ring = random(UNet(2, 1, 2, embedding=8, widths=(8, 8, 8), periodic=True))
    with pytest.raises(UserError, match="join the ends"):
        Tiled(ring, 16, overlap=4)
    with pytest.raises(UserError, match="multiple of 4"):
        Tiled(ring, 16)(*call(ring, (42, 40)))
    with pytest.raises(UserError, match="condition fields"):
        Tiled(net, 16)(torch.zeros(1, 2, 40, 40), torch.zeros(1))


def test_a_network_of_one_size_takes_tiles_of_that_size():
    class Fixed(nn.Module):
        fixed_size = (16, 16)

        def forward(self, x, c_noise, condition=None):
            assert x.shape[2:] == self.fixed_size
            return x

    with pytest.raises(UserError, match="built for fields of 16 × 16"):
        Tiled(Fixed(), 32)
    given = call(nn.Identity(), (40, 16))
    torch.testing.assert_close(Tiled(Fixed(), 16)(*given), given[0])
    with pytest.raises(UserError, match="fewer than the 16"):
        Tiled(Fixed(), 16)(*call(nn.Identity(), (40, 12)))


# ------------------------------------------------------------------------------------------------------------- bundles


def wide(archive):
    """Its archive, on 48 × 40 cells."""
    rng, dims = np.random.default_rng(3), ("time", "latitude", "longitude")
    coords = {"time": archive["time"][:2]}
    for name, n in (("latitude", 48), ("longitude", 40)):
        coords[name] = (name, 20.0 + 0.5 * np.arange(n), archive[name].attrs)
    noise = {n: rng.standard_normal((2, 48, 40)).astype("float32") for n in ("t2m", "u10")}
    fields = {"t2m": (dims, 280 + noise["t2m"], {"units": "K"}), "u10": (dims, 5 * noise["u10"], {"units": "m s-1"})}
    return xr.Dataset(fields, coords=coords)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling("few_step", (20.0,)),
        Sampling("few_step", (20.0, 1.5)),
        Sampling.solver("dpm_solver", 5, 0.05, 20.0),
        Sampling("flow_map", (20.0, 1.5), trained=True),
    ],
)
def test_a_bundle_samples_the_same_fields_by_tiles(bundle, archive, sampling, tmp_path):
    """Held to the block means of the whole field, by any sampler: to 1e-5 of the fields' spread."""
    fine, old = wide(archive), bundle.codec
    codec = DownscalingCodec(Grid.of(fine), 4, old.variables, {}, old.statistics)
    scalars = codec.scalars + (FlowMap.FEATURES if sampling.two_times else 0)
    args = dict(channels=2, condition_fields=codec.fields, condition_scalars=scalars, widths=[8], embedding=8)
    made = replace(
        bundle, network=random(UNet(**args)), network_args=args, codec=codec, sampling=sampling,
        two_times=sampling.two_times,
    )  # fmt: skip
    calls = []
    made.network.register_forward_pre_hook(lambda m, given: calls.append(given[0].shape))
    whole = made.sample(fine, members=2, batch=2).load()
    many = len(calls)
    tiled = made.tiled((16, 40)).sample(fine, members=2, batch=2).load()
    assert len(calls) == many + 3 * many and {c[0] for c in calls} == {2}
    for name in ("t2m", "u10"):
        spread = float(whole[name].std())
        assert float(abs(tiled[name] - whole[name]).max()) < 1e-5 * spread * (30 if name == "t2m" else 1)
    assert tiled.attrs == whole.attrs | {"scigen_tile": [16, 40], "scigen_tiles_exact": 1}
    again = load(made.tiled(16).save(tmp_path / "b.safetensors"))
    assert isinstance(again.network, UNet) and again.fingerprint() == made.fingerprint()
    with pytest.raises(UserError, match="space axes"):
        made.tiled((16, 16, 16))
