import logging

import dask
import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.io.units import require_units


def variable(units: str | None, values: list[float] | None = None) -> xr.DataArray:
    attrs = {"long_name": "kept"} | ({} if units is None else {"units": units})
    return xr.DataArray(np.array(values or [0.0, 10.0], dtype=np.float32), dims="x", name="t2m", attrs=attrs)


@pytest.mark.parametrize(
    ("spelling", "units"),
    [
        *[(s, "K") for s in ("K", "kelvin", "Kelvin", "degK")],
        *[(s, "m s-1") for s in ("m s-1", "m/s", "m s**-1", "m s^-1", "m.s-1", "meter/second")],
        *[(s, "m2 s-2") for s in ("m**2 s**-2", "m^2 s^-2", "J/kg")],
        ("", "1"),
        ("1", "1"),
    ],
)
def test_any_spelling_passes_unchanged(spelling: str, units: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "scigen"):
        found = require_units(variable(spelling), units)
    np.testing.assert_array_equal(found, variable(spelling))
    assert found.attrs == {"long_name": "kept", "units": units}
    assert not caplog.records


@pytest.mark.parametrize(
    ("units", "wanted", "result"),
    [
        *[(c, "K", [273.15, 283.15]) for c in ("degC", "celsius", "deg C", "degrees_C", "°C", "C")],
        ("degF", "K", [255.372, 260.928]),
        ("km/h", "m s-1", [0, 2.77778]),
        ("knots", "m s-1", [0, 5.14444]),
        ("hPa", "Pa", [0, 1000]),
        ("%", "1", [0, 0.1]),
        ("(0 - 1)", "%", [0, 1000]),
        ("mm/day", "mm h-1", [0, 10 / 24]),
        ("in/h", "mm h-1", [0, 254]),
    ],
)
def test_convertible_units_are_converted_and_announced(
    units: str, wanted: str, result: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "scigen"):
        found = require_units(variable(units).chunk(x=1), wanted)
    assert dask.is_dask_collection(found.data) and found.dtype == np.float32
    np.testing.assert_allclose(found, result, rtol=1e-5)
    assert found.attrs == {"long_name": "kept", "units": wanted}
    assert f"'t2m' is converted from {units} to {wanted}" in caplog.text


def test_units_that_no_registry_knows_are_the_same_only_if_they_read_the_same() -> None:
    assert require_units(variable("~"), "~").attrs["units"] == "~"
    with pytest.raises(UserError, match="'t2m' is in nonsense, expected ~"):
        require_units(variable("nonsense"), "~")
    assert require_units(variable("dB"), "dBZ").attrs["units"] == "dBZ"


@pytest.mark.parametrize("units", ["m s-1", "Pa", "nonsense", "~", "MK s"])
def test_other_units_are_refused(units: str) -> None:
    with pytest.raises(UserError, match=f"'t2m' is in {units}, expected K"):
        require_units(variable(units), "K")


@pytest.mark.parametrize("units", [None, "", " "])
def test_absent_units_are_refused(units: str | None) -> None:
    with pytest.raises(UserError, match=r"'t2m' has no units, expected K: set ds\['t2m'\]\.attrs"):
        require_units(variable(units), "K")
