"""CorrDiff's layouts through a whole fit: fine and coarse channels of one store, and groups of one file."""

import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import scigen
from scigen.cli import main
from scigen.io.archive import open_archive

from .conftest import ONE

OWN = [w for w in ONE if not w.startswith(("data.", "network"))]
OWN += ["network.widths=[8,8]", "network.embedding=8", "data.gap=0", "data.split=[0.6,0.2,0.2]", "method=denoising"]


@pytest.fixture
def cwa(tmp_path):
    """Radar and temperature over 16 × 24 cells, ERA5 interpolated to the same cells."""
    rng = np.random.default_rng(0)
    cells, times = ("south_north", "west_east"), pd.date_range("2021-01-01", periods=40, freq="h")
    lat, lon = np.meshgrid(21 + 0.02 * np.arange(16), 119 + 0.02 * np.arange(24), indexing="ij")
    era5 = rng.normal(size=(40, 2, 16, 24)).astype("f4") + np.array([290, 5700], "f4")[:, None, None]
    cwb = np.stack([rng.gamma(1.0, 10.0, (40, 16, 24)), era5[:, 0] + rng.normal(size=(40, 16, 24))], 1).astype("f4")
    ds = xr.Dataset(
        {
            "cwb": (("time", "cwb_channel", *cells), cwb),
            "cwb_center": ("cwb_channel", np.array([10, 290], "f4")), "cwb_scale": ("cwb_channel", np.ones(2, "f4")),
            "cwb_valid": ("time", np.ones(40, "i1")),
            "era5": (("time", "era5_channel", *cells), era5),
            "era5_center": ("era5_channel", np.array([290, 5700], "f4")),
            "era5_valid": (("time", "era5_channel"), np.ones((40, 2), bool)),
        },
        coords={
            "time": times, "XLAT": (cells, lat.astype("f4"), {"units": "degree_north"}),
            "XLONG": (cells, lon.astype("f4"), {"units": "degree_east"}),
            "cwb_pressure": ("cwb_channel", np.full(2, np.nan)), "era5_scale": ("era5_channel", np.ones(2, "f4")),
            "cwb_variable": ("cwb_channel", np.array(["maximum_radar_reflectivity", "temperature_2m"])),
            "era5_pressure": ("era5_channel", np.array([np.nan, 500.0])),
            "era5_variable": ("era5_channel", np.array(["temperature_2m", "geopotential_height"])),
        },
    )  # fmt: skip
    ds.to_zarr(tmp_path / "cwa.zarr", zarr_format=2, consolidated=True)
    return tmp_path / "cwa.zarr"


def test_radar_is_made_of_reanalysis_that_has_none(cwa, tmp_path, monkeypatch):
    """Fine and coarse cells are the same here; the coarse side alone is sampled, and the output keeps the places."""
    monkeypatch.chdir(tmp_path)
    (level,) = (n for n in open_archive(f"{cwa}::era5").data_vars if "500" in str(n))
    names = ["data.variables=[refc,t2m]", f"data.inputs=[t2m,{level}]", "data.factor=1"]
    assert main(["fit", *OWN, *names, f"data.path={cwa}", f"data.coarse={cwa}::era5", "run=run"]) == 0
    words = ["bundle=run/teacher.safetensors", f"input={cwa}::era5", "output=out.nc", "members=2", "batch=8"]
    assert main(["sample", *words]) == 0
    with xr.open_dataset("out.nc") as out, xr.open_zarr(cwa, consolidated=True) as source:
        assert out["refc"].shape == (40, 2, 16, 24) and np.isfinite(out["refc"]).all()
        np.testing.assert_allclose(out["latitude"], source["XLAT"])
        assert out["refc"].attrs["units"] == "dBZ"


def test_groups_of_one_file_are_fine_and_coarse(tmp_path, monkeypatch):
    """HRRR-Mini's layout: crops of 16 × 16 cells under 4 × 4."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with netCDF4.Dataset(tmp_path / "mini.nc", "w") as root:
        root.createDimension("time", 40)
        root.createDimension("coord_dim", 2)
        for name, size in (("input", 4), ("output", 16)):
            group = root.createGroup(name)
            for axis in "yx":
                group.createDimension(axis, size)
            group.createVariable("2t", "f4", ("time", "y", "x"))[:] = 280 + rng.normal(size=(40, size, size))
        hours = root.createVariable("time", "i8", ("time",))
        hours.units = "hours since 2021-01-01"
        hours[:] = np.arange(40)
        root.createVariable("coord", "i4", ("time", "coord_dim"))[:] = 0
    words = [f"data.path={tmp_path}/mini.nc", f"data.coarse={tmp_path}/mini.nc::input", "data.variables=[t2m]"]
    assert main(["fit", *OWN, *words, "data.factor=4", "run=run"]) == 0
    assert scigen.load("run/teacher.safetensors").codec.factor == 4
