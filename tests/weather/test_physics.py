"""Operators and codec of downscaling."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from scigen.weather.coarsen import coarsen
from scigen.weather.grid import Grid
from scigen.weather.operators import BlockMean, Interpolation
from scigen.weather.physics import DownscalingCodec, Statistics
from scigen.weather.variables import find_variables

F64 = torch.float64
LATITUDE, LONGITUDE = 50 + 0.5 * np.arange(8), 0.5 * np.arange(12)


def archive(times: int = 5, flip: bool = False) -> xr.Dataset:
    rng = np.random.default_rng(0)
    dims = ("time", "latitude", "longitude")
    ds = xr.Dataset(
        {
            "t2m": (dims, 280 + rng.standard_normal((times, 8, 12)), {"units": "K"}),
            "u10": (dims, 5 * rng.standard_normal((times, 8, 12)), {"units": "m s-1"}),
        },
        coords={
            "time": pd.date_range("2020-01-01", periods=times, freq="6h"),
            "latitude": ("latitude", LATITUDE, {"standard_name": "latitude", "units": "degrees_north"}),
            "longitude": ("longitude", LONGITUDE, {"standard_name": "longitude", "units": "degrees_east"}),
        },
    )
    return ds.isel(latitude=slice(None, None, -1)) if flip else ds


def codec(ds: xr.Dataset, conserve: bool = True) -> DownscalingCodec:
    return DownscalingCodec(
        Grid.of(ds), 4, {n: dict(ds[n].attrs) for n in ds.data_vars}, {"hill": np.zeros((8, 12))},
        Statistics(np.array([[280.0, 0.0], [1.0, 5.0]]), np.array([[0.1, -0.2], [0.9, 4.0]])), conserve=conserve,
    )  # fmt: skip


@pytest.fixture
def operators():
    weights = np.repeat(np.cos(np.deg2rad(LATITUDE))[:, None], 12, 1)
    return {
        "block mean": (BlockMean(weights, 4), (8, 12)),
        "interpolation": (Interpolation((2, 3), 4), (2, 3)),
        "periodic": (Interpolation((2, 3), 4, periodic=True), (2, 3)),
    }


@pytest.mark.parametrize("name", ["block mean", "interpolation", "periodic"])
def test_adjoint(operators, name):
    """⟨A x, y⟩ = ⟨x, Aᵀ y⟩."""
    operator, size = operators[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=F64, generator=generator)
    ax = operator(x)
    y = torch.randn(ax.shape, dtype=F64, generator=generator)
    torch.testing.assert_close((ax * y).sum(), (x * operator.adjoint(y)).sum(), rtol=1e-12, atol=1e-12)


def test_block_mean_has_a_right_inverse_and_weighs_areas(operators):
    operator, _ = operators["block mean"]
    y = torch.randn(1, 1, 2, 3, dtype=F64)
    torch.testing.assert_close(operator(operator.inverse(y)), y)
    ramp = torch.arange(8, dtype=F64)[:, None].expand(1, 1, 8, 12)
    weights = np.cos(np.deg2rad(LATITUDE[:4]))
    assert float(operator(ramp)[0, 0, 0, 0]) == pytest.approx((weights * np.arange(4)).sum() / weights.sum(), rel=1e-12)


def test_operator_is_what_coarsens_archives(operators):
    """The archive's block means (xarray) and the operator (torch) are two implementations of one thing."""
    ds = archive()
    grid = Grid.of(ds)
    operator = BlockMean(grid.weights, 4)
    expected = coarsen(ds, 4)["t2m"].values
    torch.testing.assert_close(
        operator(torch.from_numpy(ds["t2m"].values)[:, None])[:, 0].numpy(), expected, rtol=1e-12, atol=0
    )


def test_interpolation_keeps_constants_and_ramps(operators):
    operator, _ = operators["interpolation"]
    torch.testing.assert_close(operator(torch.ones(1, 1, 2, 3, dtype=F64)), torch.ones(1, 1, 8, 12, dtype=F64))
    ramp = (4 * torch.arange(3, dtype=F64) + 1.5).expand(1, 1, 2, 3)  # the cells' own positions at block centres
    inner = operator(ramp)[0, 0, 0, 2:10]
    torch.testing.assert_close(inner, torch.arange(2, 10, dtype=F64))


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("columns", [1, 2, 5])
def test_interpolation_around_the_globe_commutes_with_turns(factor, columns):
    """Rolling the coarse columns rolls the fine ones by whole blocks, to the bit; without wrapping it does not."""
    y = torch.randn(2, 1, 3, columns, dtype=F64, generator=torch.Generator().manual_seed(0))
    for periodic in (True, False):
        operator = Interpolation((3, columns), factor, periodic)
        turned = [operator(y.roll(1, -1)), operator(y).roll(factor, -1)]
        same = torch.allclose(*turned, rtol=1e-14, atol=1e-14)
        assert same == (periodic or columns == 1)
    wraps = Interpolation((3, columns), factor, periodic=True)
    torch.testing.assert_close(wraps(torch.ones_like(y)), torch.ones(2, 1, 3 * factor, columns * factor, dtype=F64))
    inner = slice(factor // 2, columns * factor - factor // 2)
    if columns > 1:  # away from the seam it is what it was
        flat = Interpolation((3, columns), factor)
        torch.testing.assert_close(wraps(y)[..., inner], flat(y)[..., inner], rtol=1e-14, atol=1e-14)


def test_interpolation_of_a_wave_around_the_globe_is_no_worse_at_the_seam():
    operator = Interpolation((1, 12), 4, periodic=True)
    angle = 2 * np.pi * (np.arange(48) + 0.5) / 48
    coarse = torch.from_numpy(np.cos(angle.reshape(12, 4).mean(1) - 1.5))[None, None, None]
    error = np.abs(operator(coarse)[0, 0, 0].numpy() - np.cos(angle - 1.5))
    assert error.max() < 0.04
    flat = np.abs(Interpolation((1, 12), 4)(coarse)[0, 0, 0].numpy() - np.cos(angle - 1.5))
    assert flat[[0, -1]].max() > 4 * error[[0, -1]].max()


def test_encode_and_decode_are_inverse():
    ds = archive()
    c = codec(ds)
    inputs = c.prepare(ds)
    x = c.encode(ds, inputs, slice(1, 4))
    fields = c.decode(x, c.condition(inputs, slice(1, 4)))
    expected = np.stack([ds[n].values[1:4] for n in ds.data_vars], axis=1)
    np.testing.assert_allclose(fields.numpy(), expected, atol=5e-5)


def test_measurement_is_what_the_truth_has():
    """condition["measurement"] = A x for the encoded truth: what samples may be held to."""
    ds = archive()
    c = codec(ds)
    inputs = c.prepare(ds)
    x, condition = c.encode(ds, inputs, slice(None)), c.condition(inputs, slice(None))
    torch.testing.assert_close(c.measured(x), condition["measurement"], rtol=0, atol=1e-4)
    assert codec(ds, conserve=False).measured is None
    assert "measurement" not in codec(ds, conserve=False).condition(inputs, slice(None))


def test_condition_has_the_promised_sizes_and_tells_hours_apart():
    ds = archive()
    c = codec(ds)
    condition = c.condition(c.prepare(ds), slice(None))
    assert condition["fields"].shape == (5, c.fields, 8, 12)
    assert condition["scalars"].shape == (5, c.scalars)
    torch.testing.assert_close(condition["scalars"][0, :2], torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(condition["scalars"][1, :2], torch.tensor([1.0, 0.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(condition["scalars"][0, :2], condition["scalars"][4, :2], rtol=0, atol=1e-6)


def test_coarse_input_conditions_as_the_fine_one_does():
    ds = archive()
    c = codec(ds)
    fine = c.condition(c.prepare(ds), slice(None))
    coarse = c.condition(c.prepare(coarsen(ds, 4)), slice(None))
    for key in fine:
        torch.testing.assert_close(fine[key], coarse[key])


def test_input_that_runs_the_other_way_gives_outputs_that_run_its_way():
    ds, turned = archive(), archive(flip=True)
    c = codec(ds)
    inputs = c.prepare(turned)
    for key, value in c.condition(c.prepare(ds), slice(None)).items():
        torch.testing.assert_close(c.condition(inputs, slice(None))[key], value, rtol=1e-6, atol=1e-6)
    layout = c.layout(inputs, turned)
    np.testing.assert_allclose(layout.coords["latitude"], turned["latitude"])
    np.testing.assert_array_equal(layout.arrange(ds["t2m"].values), turned["t2m"].values)


@pytest.mark.parametrize("regrid", [None, "linear"])
def test_state_restores_a_codec_of_a_curvilinear_grid(lambert, kind, regrid):
    """Grid, mapping and the way to regrid travel as JSON and arrays."""
    ds = find_variables(lambert(kind=kind), ["t2m"])
    c = DownscalingCodec(
        Grid.of(ds), 4, {"t2m": {"units": "K"}}, {}, Statistics(np.array([[280.0], [1.0]])), regrid=regrid
    )
    settings, arrays = c.state()
    again = DownscalingCodec.restore(json.loads(json.dumps(settings)), {k: v.copy() for k, v in arrays.items()})
    assert again.grid.same(c.grid) and again.grid.mapping == c.grid.mapping and again.regrid == regrid
    assert sorted(arrays) == ["coarse_stats", "grid.latitude", "grid.longitude"]
    inputs = c.prepare(ds)
    torch.testing.assert_close(again.encode(ds, inputs, slice(None)), c.encode(ds, inputs, slice(None)), rtol=0, atol=0)
    torch.testing.assert_close(
        c.measured(c.encode(ds, inputs, slice(None))).double(),
        torch.zeros(3, 1, 3, 4).double() + c.condition(inputs, slice(None))["measurement"],
        rtol=0,
        atol=2e-5,
    )
    layout = again.layout(inputs, ds)
    assert layout.dims == ("time", *c.grid.dims) and layout.coords["latitude"].dims == c.grid.dims
    assert ("crs" in layout.coords) == (kind == "projected")


def test_columns_of_a_globe_are_periodic():
    around = archive().assign_coords(longitude=("longitude", 30.0 * np.arange(12), {"standard_name": "longitude"}))
    assert codec(around).periodic == (False, True) and codec(archive()).periodic == (False, False)


def test_state_restores_the_codec():
    ds = archive()
    c = codec(ds)
    settings, arrays = c.state()
    again = DownscalingCodec.restore(dict(settings), arrays)
    inputs = c.prepare(ds)
    torch.testing.assert_close(again.encode(ds, inputs, slice(None)), c.encode(ds, inputs, slice(None)), rtol=0, atol=0)
    assert again.state()[0] == settings
