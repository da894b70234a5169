"""The codec with more than temperatures: rain, variables that the coarse fields lack, features, a mean, a new place."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from scigen.core.denoise import DenoiserModule
from scigen.core.guide import Consistent
from scigen.core.mean import ConditionalMean
from scigen.core.methods.tangent import derivative
from scigen.core.networks.unet import UNet
from scigen.errors import UserError
from scigen.weather.coarsen import coarsen
from scigen.weather.grid import Grid
from scigen.weather.physics import TOLD, DownscalingCodec, Statistics
from scigen.weather.transforms import Root

DIMS = ("time", "latitude", "longitude")


def archive(times: int = 6, south: float = 50.0, columns: int = 12) -> xr.Dataset:
    """t2m, tp with dry areas, reflectivity."""
    rng = np.random.default_rng(int(south))
    shape = (times, 8, columns)
    rain = np.maximum(rng.standard_normal(shape), 0) ** 3
    rain[:, :4, :4] = 0
    return xr.Dataset(
        {
            "t2m": (DIMS, 280 + rng.standard_normal(shape), {"units": "K"}),
            "tp": (DIMS, rain, {"units": "mm h-1"}),
            "refc": (DIMS, 10 * rng.standard_normal(shape), {"units": "dBZ"}),
        },
        coords={
            "time": pd.date_range("2020-01-01", periods=times, freq="6h"),
            "latitude": ("latitude", south + 0.5 * np.arange(8), {"standard_name": "latitude"}),
            "longitude": ("longitude", 0.5 * np.arange(columns), {"standard_name": "longitude"}),
        },
    )


def codec(ds: xr.Dataset, names=("t2m", "tp"), inputs=("t2m", "tp"), **other) -> DownscalingCodec:
    stats = Statistics(
        np.array([[280.0 if n == "t2m" else 0.5 for n in inputs], [2.0] * len(inputs)]),
        np.array([[0.1] * len(names), [0.9] * len(names)]), np.array([[100.0], [50.0]]),
    )  # fmt: skip
    hill = np.random.default_rng(1).uniform(0, 500, (8, ds["t2m"].shape[2]))
    attributes = [{n: dict(ds[n].attrs) for n in own} for own in (names, inputs)]
    return DownscalingCodec(Grid.of(ds), 4, attributes[0], {"orography": hill}, stats, inputs=attributes[1], **other)


def mean_of(own: DownscalingCodec) -> ConditionalMean:
    """A regression network with random weights for a codec without one."""
    args = dict(
        channels=own.shape[0], condition_fields=own.fields, condition_scalars=own.scalars, widths=[8, 8], embedding=8
    )
    torch.manual_seed(0)
    network = UNet(**args)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return ConditionalMean(network, "scigen.core.networks.unet.UNet", args)


def with_mean(ds: xr.Dataset) -> DownscalingCodec:
    own = codec(ds)
    stats = Statistics(**{**vars(own.statistics), "mean": np.array([[0.2, -0.1], [1.5, 0.5]])})
    return own.like(mean=mean_of(own), statistics=stats)


@pytest.mark.parametrize("make", [codec, with_mean], ids=["interpolation", "mean network"])
def test_decode_undoes_encode(make):
    """With a base of either kind; rain below the dry threshold aside, which is none."""
    ds = archive()
    ds["tp"] = ds["tp"].where(ds["tp"] > 0.06, 0.0)
    own, coarse = make(ds), coarsen(ds[["t2m", "tp"]], 4)
    condition = own.condition(coarse, slice(None))
    assert condition["fields"].shape[1] == own.fields and condition["scalars"].shape[1] == own.scalars
    back = own.decode(own.encode(ds, coarse, slice(None)), condition)
    for c, name in enumerate(("t2m", "tp")):
        np.testing.assert_allclose(back[:, c], ds[name].values, rtol=1e-4, atol=2e-4)


def test_rain_is_conserved_whatever_is_generated_and_temperature_by_the_denoiser():
    """The measurement holds what is linear; rain is scaled on the way back. Both are named for those who judge."""
    ds = archive()
    own, coarse = codec(ds), coarsen(ds[["t2m", "tp"]], 4)
    condition = own.condition(coarse, slice(None))
    x = torch.randn(6, *own.shape, generator=torch.Generator().manual_seed(0))
    fields = own.decode(x, condition)
    wanted = torch.from_numpy(coarse["tp"].values)
    torch.testing.assert_close(own.mean_operator(fields[:, 1:])[:, 0], wanted, rtol=1e-9, atol=1e-9)
    assert (fields[:, 1, :4, :4] == 0).all() and (fields[:, 1] >= 0).all()
    truth = own.encode(ds, coarse, slice(None)).double()
    assert condition["measurement"].shape[1] == 1
    torch.testing.assert_close(own.measured(truth), condition["measurement"].double(), rtol=0, atol=1e-5)
    assert own.attributes["scigen_conserved"] == "t2m tp"


def test_operator_of_some_channels_leaves_the_others_alone():
    own = codec(archive())
    a = own.measured
    x = torch.randn(2, 2, 8, 12, dtype=torch.float64)
    y = torch.randn(2, 1, 2, 3, dtype=torch.float64)
    torch.testing.assert_close((a(x) * y).sum(), (x * a.adjoint(y)).sum())
    torch.testing.assert_close(a(a.inverse(y)), y)
    assert (a.inverse(y)[:, 1] == 0).all()


def test_a_variable_that_the_coarse_fields_lack_is_learnt_whole():
    """Its residual is itself; it is neither interpolated nor conserved; the archive to sample need not have it."""
    ds = archive()
    own = codec(ds, names=("refc", "t2m"), inputs=("t2m", "tp"), transforms={"tp": Root(3.0)})
    coarse = coarsen(ds[["t2m", "tp"]], 4)
    x = own.encode(ds, coarse, slice(None)).double()
    np.testing.assert_allclose(x[:, 0] * 0.9 + 0.1, ds["refc"].values, rtol=1e-5, atol=1e-5)
    condition = own.condition(coarse, slice(None))
    assert (condition["base"][:, 0] == 0).all() and condition["measurement"].shape[1] == 1
    assert "coarse" not in condition and own.attributes["scigen_conserved"] == "t2m"
    prepared = own.prepare(ds.drop_vars("refc"))
    assert list(prepared.data_vars) == ["t2m", "tp"]
    with pytest.raises(UserError, match="no variable 'tp'"):
        own.prepare(ds.drop_vars("tp"))


@pytest.mark.parametrize("make", [lambda ds: codec(ds, features=["place", "sun"]), with_mean])
def test_bundles_keep_all_of_it(make):
    ds = archive()
    own, coarse = make(ds), coarsen(ds[["t2m", "tp"]], 4)
    settings, arrays = own.state()
    other = DownscalingCodec.restore(json.loads(json.dumps(settings)), {k: v.copy() for k, v in arrays.items()})
    mine, theirs = (c.condition(coarse, slice(0, 3)) for c in (own, other))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_features_change_what_is_seen_and_nothing_else():
    ds = archive()
    plain, told = codec(ds), codec(ds, features=["sun", "place"])
    coarse = coarsen(ds[["t2m", "tp"]], 4)
    assert told.fields == plain.fields + 4
    fields = told.condition(coarse, slice(None))["fields"]
    assert fields.shape[1] == told.fields
    assert torch.equal(fields[:, : plain.fields], plain.condition(coarse, slice(None))["fields"])
    night, noon = fields[0, -1], fields[2, -1]
    assert (night < 0).all() and (noon > 0).all()


def test_features_of_place_need_a_place():
    ds = archive().drop_vars(["latitude", "longitude"]).rename(latitude="y", longitude="x")
    ds = ds.assign_coords(y=1e3 * np.arange(8.0), x=1e3 * np.arange(12.0))
    with pytest.raises(UserError, match=r"data.features=\['sun'\] need latitudes"):
        codec(ds, features=["sun"])


def test_a_prediction_made_before_is_taken_as_it_is():
    """What folds of a regression network predicted stands in the prepared inputs, and the network is not asked."""
    ds = archive()
    own, coarse = with_mean(ds), coarsen(ds[["t2m", "tp"]], 4)
    plain = codec(ds).condition(coarse, slice(None))["base"]
    for c, name in enumerate(own.variables):
        coarse[TOLD + name] = (("time", "fine_y", "fine_x"), np.full((6, 8, 12), 2.0 + c))
    base = own.condition(coarse, slice(None))["base"]
    torch.testing.assert_close(base[:, 0], plain[:, 0] + 0.2 + 1.5 * 2.0)
    torch.testing.assert_close(base[:, 1], plain[:, 1] - 0.1 + 0.5 * 3.0)
    x = own.encode(ds, coarse, slice(None))
    fine = torch.from_numpy(ds["t2m"].values)
    torch.testing.assert_close(x[:, 0].double() * 0.9 + 0.1 + base[:, 0], fine, rtol=1e-5, atol=1e-4)


def test_another_region_by_its_static_fields():
    """The same place gives the same condition; a new one gives that of a codec that was made for it."""
    here, there = archive(), archive(south=30.0, columns=20)
    own = codec(here, features=["place"])
    hill = xr.Dataset({"orography": (DIMS[1:], own.static["orography"])}, coords={d: here[d] for d in DIMS[1:]})
    coarse = coarsen(here[["t2m", "tp"]], 4)
    same = own.relocate(hill).condition(coarse, slice(None))
    assert all(torch.equal(same[k], v) for k, v in own.condition(coarse, slice(None)).items())
    new = codec(there, features=["place"])
    field = xr.Dataset({"orography": (DIMS[1:], new.static["orography"])}, coords={d: there[d] for d in DIMS[1:]})
    moved = own.relocate(field.isel(latitude=slice(None), longitude=slice(None)))
    coarse = coarsen(there[["t2m", "tp"]], 4)
    mine, theirs = (c.condition(coarse, slice(None)) for c in (moved, new))
    assert moved.shape == (2, 8, 20) and all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_static_fields_that_do_not_fit_are_refused():
    ds = archive()
    own = codec(ds)
    hill = xr.Dataset({"orography": (DIMS[1:], own.static["orography"])}, coords={d: ds[d] for d in DIMS[1:]})
    with pytest.raises(UserError, match="orography is not there"):
        own.relocate(hill.rename(orography="height"))
    with pytest.raises(UserError, match=r"made for a spacing of 0\.5 by 0\.5"):
        own.relocate(hill.assign_coords(longitude=hill.longitude * 2))
    with pytest.raises(UserError, match="missing"):
        own.relocate(hill.where(hill.orography > 100))


def test_derivatives_pass_through_the_measurement_of_some_channels():
    """What methods in continuous time need of a held denoiser: forward mode equals central differences."""

    class Bent(DenoiserModule):
        sigma_data = 1.0

        def forward(self, x, sigma, condition=None):
            return torch.tanh(x) * sigma[:, None, None, None]

    own = codec(archive())
    x, v = torch.randn(2, 2, 2, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma, condition = torch.ones(2, dtype=torch.float64), {"measurement": torch.zeros(2, 1, 2, 3)}
    held = Consistent(Bent(), own.measured)
    forward, finite = (
        derivative(lambda x, s: held(x, s, condition), (x, sigma), (v, sigma), how)[1] for how in ("forward", "finite")
    )
    torch.testing.assert_close(forward, finite, rtol=1e-3, atol=1e-4)
    assert forward.abs().max() > 0.1
