"""2-D coordinates and grid mappings are found under the names that files give them."""

import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.io.coordinates import horizontal_dims
from scigen.io.geolocation import geolocation, mapping_attribute

LAT, LON = np.meshgrid([50.0, 51.0, 52.0], [1.0, 2.0, 3.0, 4.0], indexing="ij")


def fields(names=("latitude", "longitude"), dims=("y", "x"), as_coordinates=True, **attrs) -> xr.Dataset:
    place = {n: (dims, v, a) for n, v, a in zip(names, (LAT, LON), map(attrs.get, ("lat", "lon")), strict=True)}
    ds = xr.Dataset({"t2m": (("time", *dims), np.zeros((2, 3, 4)))}).assign(place)
    return ds.set_coords(names) if as_coordinates else ds


@pytest.mark.parametrize("as_coordinates", [True, False])
@pytest.mark.parametrize("names", [("latitude", "longitude"), ("XLAT", "XLONG"), ("nav_lat", "nav_lon")])
def test_known_names(names, as_coordinates) -> None:
    found = geolocation(fields(names, as_coordinates=as_coordinates))
    assert list(found) == ["latitude", "longitude"]
    np.testing.assert_array_equal(found["latitude"], LAT)
    assert found["longitude"].attrs == {"standard_name": "longitude", "units": "degrees_east"}


def test_any_name_with_units_or_standard_name() -> None:
    ds = fields(("phi", "lam"), lat={"units": "degree_north"}, lon={"standard_name": "longitude"})
    assert set(geolocation(ds)) == {"latitude", "longitude"}
    assert not geolocation(fields(("phi", "lam")))


def test_what_repeats_along_time_is_taken_once() -> None:
    ds = fields(("XLAT", "XLONG"), ("south_north", "west_east"))
    ds = ds.assign_coords({n: ds[n].expand_dims(time=2) for n in ("XLAT", "XLONG")})
    assert geolocation(ds)["latitude"].dims == ("south_north", "west_east")
    with pytest.raises(UserError, match="'XLAT' changes in time"):
        geolocation(ds.assign_coords(XLAT=ds["XLAT"] + xr.DataArray([0.0, 0.5], dims="time")))


def test_one_without_the_other_is_no_place_and_neither_are_missing_numbers() -> None:
    assert not geolocation(fields().drop_vars("longitude"))
    ds = fields()
    assert not geolocation(ds.assign_coords(latitude=ds["latitude"] * np.nan))


def test_dimensions_may_have_these_names() -> None:
    ds = fields(("XLAT", "XLONG"), ("latitude", "longitude"))
    assert set(geolocation(ds)) == {"lat", "lon"}


def test_dims_of_unknown_names_are_those_of_the_latitude() -> None:
    ds = fields(dims=("row", "col"))
    assert horizontal_dims(ds.assign(t2m=ds["t2m"].transpose("col", "time", "row"))) == ("row", "col")
    assert horizontal_dims(ds["t2m"]) == ("row", "col")


def test_the_grid_mapping_that_variables_refer_to() -> None:
    ds = fields()
    ds["a"] = ((), 0, {"grid_mapping_name": "latitude_longitude"})
    ds["b"] = ((), 7, {"grid_mapping_name": "lambert_conformal_conic", "earth_radius": 6371229.0})
    assert list(geolocation(ds))[-1] == "a" and mapping_attribute(ds) == {"grid_mapping": "a"}
    ds["t2m"].attrs["grid_mapping"] = "b: x y"
    assert geolocation(ds)["b"].attrs == ds["b"].attrs and mapping_attribute(ds) == {"grid_mapping": "b"}
    assert mapping_attribute(fields()) == {}
