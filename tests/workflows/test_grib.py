"""The real GRIB file through the verbs fit and sample."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from scigen.cli import main

pytest.importorskip("cfgrib", reason="the extra grib is not installed")
REAL = os.environ.get("SCIGEN_TEST_DATA")
ERA5 = Path(REAL or ".") / "weather" / "era5_t2m_uk_2019-03.grib"


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="SCIGEN_TEST_DATA is not set")
def test_grib_is_fitted_and_sampled_as_netcdf_is(tmp_path, monkeypatch, unjudged):
    monkeypatch.chdir(tmp_path)
    small = [
        "domain=weather", "data.variables=[t2m]", "trainer=smoke", "network.widths=[8,8]", "network.embedding=8",
        "batch=8", "sampler.steps=4", "trainer.limits={steps: 2, pairs: 2, samples: 2, members: 2}",
        "trainer.checkpoint_every=2", "teaching.training.batch=2", "+teaching.training.snapshots=1",
        "method=denoising", "validation={samples: 1, members: 2}",
    ]  # fmt: skip
    assert main(["fit", *small, f"data.path={ERA5}", "run=r"]) == 0
    (bundle,) = Path("r").glob("*.safetensors")
    for path in (ERA5, ERA5.with_suffix(".nc")):
        words = [f"bundle={bundle}", f"input={path}", "time=2019-03-30T00:2019-03-30T05", "members=2", "batch=8"]
        assert main(["sample", *words, f"output={path.suffix[1:]}.zarr"]) == 0
    one, two = xr.open_zarr("grib.zarr"), xr.open_zarr("nc.zarr")
    assert one.sizes["time"] == 6
    np.testing.assert_array_equal(one["t2m"], two["t2m"])
    for name in ("time", "latitude", "longitude"):
        np.testing.assert_array_equal(one[name], two[name])
    assert one.attrs["scigen_input"] == two.attrs["scigen_input"]
