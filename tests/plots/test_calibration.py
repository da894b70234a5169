"""The pictures of calibration are drawn for one contender or several, with and without space."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.metrics.judging import Settings, evaluate
from scigen.plots.calibration import figures


def archive(values, **attrs):
    dims = ("time", "member", "y", "x") if values.ndim in (2, 4) else ("time", "y", "x")
    dims = dims[: values.ndim]
    time = pd.date_range("2020-01-01", periods=len(values))
    return xr.Dataset({"t": (dims, values), "q": (dims, 0.1 * values)}, coords={"time": time}, attrs=attrs)


@pytest.mark.parametrize(("shape", "expected"), [((8, 8), 5), ((), 4)])
def test_there_is_a_picture_for_each_question(tmp_path, shape, expected):
    rng = np.random.default_rng(0)
    truth = archive(rng.standard_normal((30, *shape)))
    samples = {k: archive(rng.standard_normal((30, m, *shape))) for k, m in (("a", 5), ("b", 3), ("single", 1))}
    drawn = figures(evaluate(truth, samples, Settings(draws=2)), tmp_path)
    assert len(drawn) == expected and all(path.stat().st_size > 5000 for _, path in drawn)
    assert len({caption for caption, _ in drawn}) == expected


def test_a_single_member_has_no_picture_of_spread(tmp_path):
    rng = np.random.default_rng(0)
    report = evaluate(
        archive(rng.standard_normal((30, 8, 8))), {"a": archive(rng.standard_normal((30, 1, 8, 8)))}, Settings(draws=2)
    )
    assert {path.stem for _, path in figures(report, tmp_path)} == {"reliability", "spectra", "tails"}
