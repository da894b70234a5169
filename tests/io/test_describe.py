"""What `scigen inspect` says of an archive."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.cli import main
from scigen.io.archive import fingerprint, groups_of, open_archive
from scigen.io.describe import describe, missing_share


def archive() -> xr.Dataset:
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {
            "2t": (("time", "latitude", "longitude"), rng.normal(280, 5, (12, 6, 8)).astype("f4"), {"units": "K"}),
            "ta": (("time", "plev", "latitude", "longitude"), rng.normal(280, 5, (12, 2, 6, 8)).astype("f4")),
        },
        coords={
            "time": pd.date_range("2020-01-01", periods=12, freq="6h"),
            "plev": ("plev", [50000.0, 85000.0], {"units": "Pa"}),
            "latitude": np.arange(6)[::-1] * 0.5 + 40,
            "longitude": np.arange(8) * 0.25 - 2,
        },
    )
    return ds.isel(time=[0, 1, 2, 3, 7, 8, 9, 10, 11])


def test_everything_that_decides_whether_it_can_be_used(tmp_path: Path) -> None:
    ds = archive()
    ds["2t"][:, :3] = np.nan
    ds.to_netcdf(tmp_path / "a.nc")
    told = list(describe(open_archive(tmp_path / "a.nc"), {"2t": "t2m"}))
    words = dict(told)
    assert words["fingerprint"] == fingerprint(ds)
    assert words["size"].startswith("9 time × 6 latitude × 8 longitude × 2 plev, ")
    assert words["time"] == "2020-01-01 00:00 to 2020-01-03 18:00, every 6 h, calendar proleptic_gregorian"
    assert words["gaps"] == "1 gap in time, 3 steps missing: 2020-01-01 18:00 to 2020-01-02 18:00"
    assert words["latitude"] == "42.5 to 40 by 0.5" and words["longitude"] == "-2 to -0.25 by 0.25"
    assert words["plev"] == "50000.0, 85000.0 Pa"
    assert [w for label, w in told if label == "variable"] == [
        "2t [K] (time, latitude, longitude) float32, known as t2m, 50 % missing",
        "ta [no units] (time, plev, latitude, longitude) float32, 0 % missing",
    ]


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_calendars_uneven_axes_and_disorder(calendar: str) -> None:
    times = xr.date_range("2001-01-01", periods=9, freq="MS", calendar=calendar, use_cftime=True)
    ds = archive().assign_coords(time=times, latitude=[40, 41, 43, 44, 45, 46]).isel(time=[1, 0, 2])
    words = dict(describe(ds))
    assert words["time"] == "not in order" and words["latitude"] == "40 to 46, unevenly, by about 1"
    assert any(calendar in w for label, w in describe(ds) if label == "time")


def test_places_on_cells_and_times_that_are_none() -> None:
    lat, lon = np.meshgrid(np.arange(6) + 40.0, np.arange(8.0), indexing="ij")
    ds = archive().drop_vars(["latitude", "longitude"]).rename(latitude="y", longitude="x")
    ds = ds.assign_coords(lat=(("y", "x"), lat, {"units": "degrees_north"}), lon=(("y", "x"), lon), time=np.arange(9))
    words = dict(describe(ds))
    assert (
        words["y"] == "6 cells without a coordinate of their own" and words["lat"] == "40 to 45 degrees_north on cells"
    )
    assert words["time"] == "9 values that are no dates"


def test_a_large_archive_is_sampled_thinly(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    values = np.zeros((1000, 100, 200), "f4")
    values[::2] = np.nan
    array = (
        xr.DataArray(values, dims=("time", "y", "x"), name="a").chunk(time=1).map_blocks(lambda b: read.append(1) or b)
    )
    read.clear()
    assert 0 < missing_share(array) < 100
    assert len(read) <= 10


def test_the_verb_names_groups_variables_and_what_it_knows_them_as(tmp_path: Path, capsys) -> None:
    xr.DataTree.from_dict({"/in": archive(), "/out": archive()}).to_netcdf(tmp_path / "a.nc")
    assert groups_of(tmp_path / "a.nc") == ["in", "out"] and groups_of(tmp_path) == []
    assert main(["inspect", f"path={tmp_path}/a.nc"]) == 0
    assert capsys.readouterr().out.strip() == f"groups       in, out: name one as {tmp_path}/a.nc::in"
    assert main(["inspect", f"path={tmp_path}/a.nc::out"]) == 0
    assert "2t [K] (time, latitude, longitude) float32, known as t2m, 0 % missing" in capsys.readouterr().out
    assert main(["inspect", f"path={tmp_path}/b.nc"]) == 2
    assert "is not there" in capsys.readouterr().err
