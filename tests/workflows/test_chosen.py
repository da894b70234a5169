"""What a command asks for of an archive."""

import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.workflows.chosen import select_time

HOURS = xr.Dataset({"t2m": ("time", np.arange(48.0))}, {"time": xr.date_range("2019-03-25", periods=48, freq="30min")})


@pytest.mark.parametrize(
    ("span", "first", "count"),
    [
        ("2019-03-25", 0, 48),
        ("2019-03-25T06:2019-03-25T07", 12, 4),
        ("2019-03-25T06:30/2019-03-25T07:00", 13, 2),
        ("2019-03-25T23:30/", 47, 1),
        (":2019-03-25T00", 0, 2),
    ],
)
def test_spans_hold_both_their_ends(span, first, count):
    part = select_time(HOURS, span)
    np.testing.assert_array_equal(part["t2m"], np.arange(first, first + count))


@pytest.mark.parametrize(("span", "said"), [("2020-01", "holds no sample"), ("soon", "no span of times")])
def test_spans_that_cannot_be_are_told(span, said):
    with pytest.raises(UserError, match=said):
        select_time(HOURS, span)
