"""A globe of 4°, rows at the poles: no seam where longitudes are cut, and every score weighted by area."""

import numpy as np
import pandas as pd
import pytest
import scoringrules
import torch
import xarray as xr

from scigen.core.bundle import Bundle
from scigen.core.networks.unet import UNet
from scigen.core.sampling import Sampling
from scigen.errors import UserError
from scigen.weather.coarsen import coarsen
from scigen.weather.grid import Grid
from scigen.weather.metrics import evaluate
from scigen.weather.physics import DownscalingCodec, Statistics

LAT, LON = np.linspace(90, -90, 46), np.arange(0, 360, 4.0)


def archive(members: int = 0, times: int = 2, seed: int = 0) -> xr.Dataset:
    """Smooth noise on the sphere: a sum of waves around random axes [K]."""
    rng = np.random.default_rng(seed)
    lat, lon = np.deg2rad(np.meshgrid(LAT, LON, indexing="ij"))
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
    shape = (times, max(members, 1))
    values = np.full((*shape, *lat.shape), 280.0)
    for _ in range(12):
        axis, phase = 4 * rng.standard_normal((*shape, 3)), rng.uniform(0, 6, (*shape, 1, 1))
        values += np.sin(np.einsum("yxd,tmd->tmyx", points, axis) + phase)
    ds = xr.Dataset(
        {"t2m": (("time", "member", "latitude", "longitude"), values, {"units": "K"})},
        coords={"time": pd.date_range("2020", periods=times), "latitude": LAT, "longitude": LON},
    )
    return ds if members else ds.isel(member=0)


def turned(ds: xr.Dataset, cells: int) -> xr.Dataset:
    """The same numbers, as if the globe had been turned under its longitudes."""
    return ds.roll(longitude=cells, roll_coords=False)


def bundle(periodic: bool) -> Bundle:
    """An untrained few-step student, whose last layer is set to noise so that it does something."""
    ds = archive()
    codec = DownscalingCodec(Grid.of(ds), 2, {"t2m": {"units": "K"}}, {}, Statistics(np.array([[280.0], [2.5]])))
    assert codec.periodic == (False, True)
    args = dict(
        channels=1, condition_fields=codec.fields, condition_scalars=codec.scalars, widths=[8, 8], embedding=8,
        periodic=list(codec.periodic) if periodic else False,
    )  # fmt: skip
    torch.manual_seed(0)
    network = UNet(**args)
    torch.nn.init.normal_(network.head.conv.weight, std=0.3)
    sampling = Sampling("euler", (2.0, 0.5))
    return Bundle(network, "scigen.core.networks.unet.UNet", args, 1.0, codec, sampling, "weather", "teacher")


def drawn(model: Bundle, ds: xr.Dataset, cells: int) -> np.ndarray:
    """Sample with the noise of one place of the globe, wherever it has been turned to: (time, Y, X)."""
    condition = model.codec.condition(model.codec.prepare(ds), slice(None))
    noise = torch.randn(2, 1, 46, 90, generator=torch.Generator().manual_seed(1)).roll(cells, -1)
    with torch.inference_mode():
        grid = model.sampling.grid(None)
        x = model.sampling.run(model.denoiser, grid[0] * noise, grid, condition, [])
        return model.codec.decode(x, condition)[:, 0].numpy()


@pytest.mark.parametrize("cells", [2, 44, -10])
def test_turning_the_globe_turns_the_samples(cells: int) -> None:
    """Interpolation, network, projection and sampler commute with turns by whole blocks, so nowhere can be a seam."""
    ds, model = archive(), bundle(periodic=True)
    one, two = drawn(model, ds, 0), drawn(model, turned(ds, cells), cells)
    np.testing.assert_allclose(np.roll(one, cells, -1), two, atol=1e-6 * 280)
    assert (
        np.abs(
            one - model.codec.interpolation(torch.from_numpy(coarsen(ds, 2)["t2m"].values)[:, None])[:, 0].numpy()
        ).std()
        > 0.1
    )  # the network has its say


def test_without_wrapping_there_is_a_seam() -> None:
    ds, model = archive(), bundle(periodic=False)
    apart = np.abs(np.roll(drawn(model, ds, 0), 44, -1) - drawn(model, turned(ds, 44), 44)).mean((0, 1))
    assert apart[[0, 43, 44, -1]].max() > 1e-2 and np.median(apart) < 1e-2 * apart.max()


def test_gradients_of_interpolated_fields_are_no_larger_at_the_date_line() -> None:
    ds = archive(times=40)
    codec = bundle(periodic=True).codec
    coarse = torch.from_numpy(coarsen(ds, 2)["t2m"].values)[:, None]
    field = codec.interpolation(coarse)[:, 0].numpy()
    steep = np.abs(np.roll(field, -1, -1) - field).mean((0, 1))  # across each border between columns
    assert steep[-1] == pytest.approx(np.median(steep[1::2]), rel=0.15) or steep[-1] < steep.max()


def test_a_globe_that_the_network_cannot_divide() -> None:
    net = UNet(1, widths=[4, 4, 4], embedding=4, periodic=[False, True])
    with pytest.raises(UserError, match=r"Axis 1 of 90 cells wraps around.*multiple of 4.*fewer levels"):
        net(torch.zeros(1, 1, 46, 90), torch.zeros(1))


def test_scores_are_weighted_by_exact_areas() -> None:
    """Against areas from an integral, xarray's weighted means and another implementation of the fair CRPS."""
    truth, samples = archive(times=5, seed=1), archive(members=6, times=5, seed=2)
    report = evaluate(truth, {"a": samples}, factor=2).sel(model="a", variable="t2m")
    fine = np.deg2rad(np.linspace(-90, 90, 180_001))
    row = ((90 - np.rad2deg(fine)) / 4).round()
    area = np.bincount(row.astype(int), np.cos(fine), 46)
    weights = xr.DataArray(area, dims="latitude", coords={"latitude": LAT})
    x, y = samples["t2m"].transpose("time", "latitude", "longitude", "member"), truth["t2m"]
    space = ("latitude", "longitude")

    def mean(field: xr.DataArray) -> float:
        return float(field.weighted(weights).mean(space).mean("time"))

    crps = scoringrules.crps_ensemble(y.values, x.values, estimator="fair")
    assert float(report["crps"]) == pytest.approx(mean(y.copy(data=crps)), rel=1e-6)
    assert float(report["rmse"]) == pytest.approx(mean((x.mean("member") - y) ** 2) ** 0.5, rel=1e-6)
    assert float(report["bias"]) == pytest.approx(mean(x.mean("member") - y), rel=1e-4)
    assert float(report["spread"]) == pytest.approx(mean(x.var("member", ddof=1)) ** 0.5, rel=1e-6)
    plain = float(((x.mean("member") - y) ** 2).mean()) ** 0.5
    assert abs(float(report["rmse"]) / plain - 1) > 1e-3


def test_a_turned_globe_scores_the_same() -> None:
    """Spectra included, which on a region cut out of the globe would see a border."""
    truth, samples = archive(times=3, seed=1), archive(members=3, times=3, seed=2)
    one, two = (evaluate(t, {"a": s}) for t, s in ((truth, samples), (turned(truth, 31), turned(samples, 31))))
    for score in ("crps", "rmse", "spread", "power", "power_truth"):
        np.testing.assert_allclose(one[score], two[score], rtol=1e-9, atol=1e-12)
