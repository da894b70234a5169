"""The summary takes the worst variable, of all samples, against the converged teacher."""

import numpy as np
import xarray as xr

from scigen.metrics.quality import as_json, quality


def report(dims, ratio, skill, **coords):
    names = ["teacher, 1 step", "teacher", "student"]
    own = {"model": names, "interval": ["estimate", "low", "high"], **coords}
    ds = xr.Dataset({"crps_ratio": (dims, ratio), "spread_skill": (dims[:1] + dims[-2:-1], skill)}, coords=own)
    return ds.assign_coords(nfe=("model", [1.0, 40.0, 1.0]), role=("model", ["teacher", "teacher", "student"]))


def test_the_worst_variable_counts():
    ratio = np.ones((3, 2, 3))
    ratio[2] = [[1.01, 1.00, 1.02], [1.05, 1.03, 1.07]]
    skill = np.array([[0.2, 0.1], [1.0, 1.01], [1.3, 0.8]])
    found = quality(report(("model", "variable", "interval"), ratio, skill, variable=["a", "b"]))
    assert found.attrs["reference"] == "teacher"  # the one with most calls
    assert np.allclose(found["score"].sel(model="student"), [1.05, 1.03, 1.07])
    assert np.allclose(found["spread"], [0.1, 1.01, 1.3])  # ln 1.3 > −ln 0.8
    told = as_json(found)
    assert told["student"] == {"score": {"estimate": 1.05, "low": 1.03, "high": 1.07}, "spread": 1.3}


def test_groups_count_together_and_what_is_unknown_stays_so():
    ratio = np.full((3, 2, 3), np.nan)
    ratio[2, 0] = [1.1, 1.0, 1.2]
    skill = np.array([[np.nan, 1.0], [1.0, 1.0], [0.9, 5.0]])
    found = quality(report(("model", "group", "interval"), ratio, skill, group=["all", "R=4"]))
    assert np.allclose(found["score"].sel(model="student"), [1.1, 1.0, 1.2])
    assert float(found["spread"].sel(model="student")) == 0.9
    assert as_json(found)["teacher, 1 step"] == {"score": dict.fromkeys(("estimate", "low", "high")), "spread": None}
