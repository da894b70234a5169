import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.io.coordinates import (
    axis_of,
    check_finite,
    check_times,
    conventional,
    horizontal_dims,
    straighten,
    with_cf_attributes,
)


def fields(times: int = 6, dims: tuple[str, str, str] = ("time", "lat", "lon")) -> xr.Dataset:
    values = np.arange(times * 12.0).reshape(times, 3, 4)
    coords = {
        dims[0]: pd.date_range("2020-01-01", periods=times, freq="D"),
        dims[1]: [10.0, 20.0, 30.0],
        dims[2]: [0.0, 1.0, 2.0, 3.0],
    }
    return xr.Dataset({"t2m": (dims, values, {"units": "K"})}, coords=coords)


def test_dimensions_are_known_by_name_axis_standard_name_units_and_kind() -> None:
    ds = xr.Dataset(
        coords={
            "south_north": [0, 1],
            "b": ("b", [0, 1], {"axis": "X"}),
            "c": ("c", [0, 1], {"standard_name": "projection_y_coordinate"}),
            "d": ("d", [0, 1], {"units": "degrees_north"}),
            "e": ("e", [0, 1], {"units": "degree_east"}),
            "f": ("f", pd.date_range("2020", periods=2, freq="D")),
            "g": ("g", xr.date_range("2020", periods=2, freq="D", calendar="noleap", use_cftime=True)),
            "h": ("h", [0, 1]),
            "y": ("y", [0, 1], {"axis": "Z"}),
        }
    )
    found = {str(d): axis_of(ds, str(d)) for d in ds.dims}
    assert found == dict(south_north="Y", b="X", c="Y", d="Y", e="X", f="T", g="T", h=None, y="Z")


@pytest.mark.parametrize("name", ["ensemble", "ensemble_member", "number", "realization", "sample", "member"])
def test_member_and_time_get_their_names(name: str) -> None:
    ds = fields(dims=("valid_time", "lat", "lon")).expand_dims({name: [0, 1]}).assign_coords(time=0)
    found = conventional(ds)
    assert dict(found.sizes) == {"member": 2, "time": 6, "lat": 3, "lon": 4}
    assert found["time"].dtype.kind == "M"
    xr.testing.assert_identical(conventional(found), found)


def test_a_single_member_stays_a_member_but_a_single_number_goes() -> None:
    assert "member" in conventional(fields().expand_dims(member=[0])).dims
    assert "member" not in conventional(fields().expand_dims(number=[0])).dims


def test_mixed_expver_is_refused() -> None:
    with pytest.raises(UserError, match=r"expver.*combine_first"):
        conventional(fields().expand_dims(expver=[1, 5]))


def test_horizontal_dims() -> None:
    assert horizontal_dims(fields().transpose("lon", "time", "lat")) == ("lat", "lon")
    with pytest.raises(UserError, match=r"No dimension is known as Y.*ds\.rename"):
        horizontal_dims(fields(dims=("time", "row", "lon")))
    with pytest.raises(UserError, match="More than one dimension is known as X"):
        horizontal_dims(fields().expand_dims(x=[0, 1]))


def test_cf_attributes_are_added_and_kept() -> None:
    ds = fields()
    ds["lat"].attrs["long_name"] = "mine"
    found = with_cf_attributes(ds)
    assert found["lat"].attrs == dict(axis="Y", standard_name="latitude", units="degrees_north", long_name="mine")
    assert found["time"].attrs == dict(axis="T", standard_name="time")
    rotated = with_cf_attributes(fields(dims=("time", "rlat", "rlon")))
    assert rotated["rlat"].attrs == dict(axis="Y", standard_name="grid_latitude")
    assert "axis" not in ds["lat"].attrs


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_times_must_be_dates_each_once_in_order(calendar: str) -> None:
    cftime = calendar != "standard"
    times = xr.date_range("2020-01-01", periods=6, freq="D", calendar=calendar, use_cftime=cftime)
    ds = fields().assign_coords(time=times)
    check_times(ds)
    with pytest.raises(UserError, match=r"2020-01-02 .*is followed by 2020-01-01 .*sortby"):
        check_times(ds.isel(time=[1, 0, 2]))
    with pytest.raises(UserError, match=r"holds 1 time more than once, first 2020-01-02 .*drop_duplicates"):
        check_times(ds.isel(time=[0, 1, 1, 2]))
    with pytest.raises(UserError, match=r"has 1 time \(2020-01-01 .*at least 2"):
        check_times(ds.isel(time=[0]))
    check_times(ds.isel(time=[0]), least=1)


def test_times_that_are_none() -> None:
    with pytest.raises(UserError, match=r"no time dimension.*expand_dims"):
        check_times(fields().isel(time=0))
    with pytest.raises(UserError, match="are no dates"):
        check_times(fields().assign_coords(time=np.arange(6)))
    with pytest.raises(UserError, match="are no dates"):
        check_times(fields().drop_vars("time"))
    nat = fields().assign_coords(time=pd.DatetimeIndex(["2020-01-01", "NaT", *pd.date_range("2020-02-01", periods=4)]))
    with pytest.raises(UserError, match="undefined time at position 1"):
        check_times(nat)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_values_that_are_no_numbers_are_named(bad: float, chunk: int | None) -> None:
    ds = fields()
    check_finite(ds if chunk is None else ds.chunk(time=chunk))
    ds["t2m"][3, 1, 2] = bad
    ds["t2m"][5, :, 0] = bad
    with pytest.raises(UserError, match=r"'t2m' has 4 in 72 cells, first at 2020-01-04T00:00"):
        check_finite(ds if chunk is None else ds.chunk(time=chunk))


def test_masked_cells_are_named(tmp_path) -> None:
    ds = fields()
    ds["t2m"][2, 0, 0] = np.nan
    ds.to_netcdf(tmp_path / "a.nc", encoding={"t2m": {"dtype": "int16", "_FillValue": np.int16(-1)}})
    with xr.open_dataset(tmp_path / "a.nc") as found, pytest.raises(UserError, match=r"'t2m' has 1 in 72 .*2020-01-03"):
        check_finite(found, "The archive a.nc")


def test_missing_values_of_a_static_field_and_integers() -> None:
    ds = xr.Dataset({"n": ("y", [1, 2]), "orography": ("y", [0.0, np.nan])})
    with pytest.raises(UserError, match="'orography' has 1 in 2 cells"):
        check_finite(ds)
    check_finite(ds[["n"]])


@pytest.mark.parametrize(
    ("stored", "straight"),
    [
        ([0, 1, 2, 357, 358, 359], [-3, -2, -1, 0, 1, 2]),
        ([178, 179, -180, -179], [178, 179, 180, 181]),
        ([350, 351, 352], [350, 351, 352]),
        ([3, 2, 1], [3, 2, 1]),
        ([-2, -1, 0, 1], [-2, -1, 0, 1]),
        ([-180, -90, 0, 90], [-180, -90, 0, 90]),
        ([0, 90, -180, -90], [0, 90, 180, 270]),
    ],
)
def test_longitudes_across_the_cut_become_one_piece(stored: list[float], straight: list[float]) -> None:
    lon = np.array(stored, dtype=float)
    ds = xr.Dataset({"a": ("lon", np.sin(np.deg2rad(lon)))}, coords={"lon": lon})
    found = straighten(ds)
    np.testing.assert_array_equal(found["lon"], straight)
    np.testing.assert_allclose(found["a"], np.sin(np.deg2rad(straight)), atol=1e-12)
