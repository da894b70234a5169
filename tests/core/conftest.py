"""A tiny bundle and archive that tests of the core share."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from scigen.core.bundle import Bundle
from scigen.core.networks.unet import UNet
from scigen.core.sampling import Sampling
from scigen.weather.grid import Grid
from scigen.weather.physics import DownscalingCodec, Statistics


@pytest.fixture
def archive() -> xr.Dataset:
    """t2m, u10 (time 7, latitude 8, longitude 8)."""
    rng = np.random.default_rng(0)
    dims = ("time", "latitude", "longitude")
    return xr.Dataset(
        {
            "t2m": (dims, 280 + rng.standard_normal((7, 8, 8)).astype("float32"), {"units": "K"}),
            "u10": (dims, 5 * rng.standard_normal((7, 8, 8)).astype("float32"), {"units": "m s-1"}),
        },
        coords={
            "time": pd.date_range("2020-01-01", periods=7, freq="6h"),
            "latitude": ("latitude", 50 + 0.5 * np.arange(8), {"standard_name": "latitude", "units": "degrees_north"}),
            "longitude": ("longitude", 0.5 * np.arange(8), {"standard_name": "longitude", "units": "degrees_east"}),
        },
    )


@pytest.fixture
def bundle(archive: xr.Dataset) -> Bundle:
    """An untrained teacher with random weights."""
    codec = DownscalingCodec(
        Grid.of(archive), 4, {n: dict(archive[n].attrs) for n in archive.data_vars}, {},
        Statistics(np.array([[280.0, 0.0], [1.0, 5.0]]), np.array([[0.0, 0.0], [1.0, 5.0]])),
    )  # fmt: skip
    args = dict(channels=2, condition_fields=codec.fields, condition_scalars=codec.scalars, widths=[8, 8], embedding=8)
    torch.manual_seed(0)
    network = UNet(**args)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    sampling = Sampling.solver("dpm_solver", 4, 0.05, 20.0, rho=5.0)
    return Bundle(
        network, "scigen.core.networks.unet.UNet", args, 1.0, codec, sampling, "weather", "teacher", {"note": "test"}
    )
