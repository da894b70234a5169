"""What comes out follows the CF conventions, by the checker of the IOOS."""

import pytest
import xarray as xr

from scigen.cli import main

WAIVED = ("§2.4 Dimensions", "§3.1.2 Temperature units", "§4.4 Time Coordinate")
"""By name: the member dimension stands behind time, where the conventions have no place for it; temperatures and times
keep the attributes of the input, and CF 1.11 recommends a `units_metadata` for them that few archives have."""


@pytest.mark.filterwarnings("ignore")  # the checker's own
@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_the_output_passes_a_cf_checker(inside, tmp_path, suffix):
    suite = pytest.importorskip("compliance_checker.suite", reason="the CF checker is not installed").CheckSuite()
    words = [f"bundle={inside.student}", f"input={inside.archive}", "time=2015-01-01:2015-01-03", "members=3"]
    assert main(["sample", *words, f"output={tmp_path}/o.{suffix}"]) == 0
    if suffix == "zarr":
        made = xr.open_zarr(tmp_path / "o.zarr")
        made.to_netcdf(tmp_path / "o.nc", encoding={n: {"_FillValue": None} for n in made.coords})
    suite.load_all_available_checkers()
    scores, errors = suite.run_all(suite.load_dataset(str(tmp_path / "o.nc")), ["cf:1.11"])["cf:1.11"]
    assert not errors and len(scores) > 10
    found = [f"{g.name}: {m}" for g in scores for m in g.msgs if g.name not in WAIVED]
    assert not found, "\n".join(found)
