import itertools
import os
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.io.coordinates import check_finite
from scigen.weather.area import block_means, cell_weights
from scigen.weather.coarsen import coarsen
from scigen.weather.data import Grid, open_pair, sample_times, split_times, to_coarse

REAL = os.environ.get("SCIGEN_TEST_DATA")
real = pytest.mark.skipif(REAL is None, reason="SCIGEN_TEST_DATA is not set")
ERA5 = Path(REAL or ".") / "weather" / "era5_t2m_uk_2019-03.nc"


def archive(times: int = 6) -> xr.Dataset:
    lat, lon = 50 + 0.5 * np.arange(9), -2 + 0.5 * np.arange(13)
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        coords={"time": pd.date_range("2020-01-01", periods=times, freq="6h"), "latitude": lat, "longitude": lon},
        attrs={"title": "kept"},
    )
    for name, units in (("u10", "m/s"), ("2t", "K")):
        values = rng.normal(280, 5, (times, 9, 13)).astype(np.float32)
        ds[name] = (("time", "latitude", "longitude"), values, {"units": units})
    ds["orography"] = (("latitude", "longitude"), rng.normal(300, 50, (9, 13)), {"units": "m"})
    ds["lsm"] = ds["orography"].expand_dims(time=ds["time"]).drop_attrs() / 1000
    return ds


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    archive().to_netcdf(tmp_path / "fine.nc")
    return tmp_path / "fine.nc"


def test_pair_of_an_archive_and_its_block_means(stored: Path) -> None:
    pair = open_pair(stored, variables=["t2m", "u10"], factor=4)
    assert list(pair.fine.data_vars) == list(pair.coarse.data_vars) == ["t2m", "u10"]
    assert dict(pair.fine.sizes) == {"time": 6, "latitude": 8, "longitude": 12} and pair.factor == 4
    assert dict(pair.coarse.sizes) == {"time": 6, "latitude": 2, "longitude": 3}
    assert pair.fine.attrs == {"title": "kept"}
    assert all(dask.is_dask_collection(d["t2m"].data) for d in (pair.fine, pair.coarse))
    fine = archive().isel(latitude=slice(8), longitude=slice(12))
    np.testing.assert_array_equal(pair.fine["t2m"], fine["2t"])
    weights = cell_weights(fine, ("latitude", "longitude"))
    np.testing.assert_allclose(pair.coarse["t2m"], block_means(fine["2t"].values, weights, 4)[0], rtol=1e-7)
    np.testing.assert_allclose(pair.static["orography"], fine["orography"], rtol=1e-6)


def test_order_of_rows_gives_the_same_physical_pair(stored: Path, tmp_path: Path) -> None:
    archive().isel(latitude=slice(None, None, -1)).to_netcdf(tmp_path / "flipped.nc")
    one = open_pair(stored, variables=["t2m"], factor=4)
    two = open_pair(tmp_path / "flipped.nc", variables=["t2m"], factor=4)
    for a, b in ((one.fine, two.fine), (one.coarse, two.coarse), (one.static, two.static)):
        xr.testing.assert_allclose(a, b.isel(latitude=slice(None, None, -1)), rtol=1e-12)


def test_convention_of_longitudes_gives_the_same_pair(stored: Path, tmp_path: Path) -> None:
    ds = archive()
    ds.assign_coords(longitude=ds["longitude"] % 360).sortby("longitude").to_zarr(
        tmp_path / "a.zarr", consolidated=False
    )
    one = open_pair(stored, variables=["t2m"], factor=4)
    two = open_pair(tmp_path / "a.zarr", variables=["t2m"], factor=4)
    for a, b in ((one.fine, two.fine), (one.coarse, two.coarse), (one.static, two.static)):
        xr.testing.assert_allclose(a, b)


def test_pair_of_two_archives(stored: Path, tmp_path: Path) -> None:
    means = coarsen(archive()[["2t", "u10"]].isel(latitude=slice(8), longitude=slice(12)), 4)
    means = means.rename({"2t": "t2m"}).isel(latitude=slice(None, None, -1), time=slice(1, 5))
    means.assign_coords(longitude=means["longitude"] + 360).to_zarr(tmp_path / "coarse.zarr", consolidated=False)
    for variables in (["t2m", "u10"], {"t2m": "2t", "u10": "u10"}):
        pair = open_pair(stored, coarse=tmp_path / "coarse.zarr", variables=variables, factor=None)
        assert pair.factor == 4 and pair.fine.sizes["time"] == pair.coarse.sizes["time"] == 4
        xr.testing.assert_allclose(coarsen(pair.fine, 4), pair.coarse)
        assert pair.static["orography"].shape == (8, 12)


def test_pair_of_the_groups_of_crops(tmp_path: Path) -> None:
    """The layout of HRRR-Mini: no places, cells counted along the crop, both sides in one file."""
    rng = np.random.default_rng(0)
    times = pd.date_range("2020-01-01", periods=4, freq="h")[[2, 0, 1, 0]]
    fine = rng.normal(size=(4, 8, 8)).astype("f4")
    means = fine.reshape(4, 2, 4, 2, 4).mean((2, 4))
    tree = {"/": xr.Dataset({"time": ("time", times), "coord": (("time", "two"), np.zeros((4, 2), int))})}
    tree |= {f"/{k}": xr.Dataset({"10u": (("time", "y", "x"), v)}) for k, v in (("output", fine), ("input", means))}
    tree["/input"] = tree["/input"].rename(y="yc", x="xc")
    xr.DataTree.from_dict(tree).to_netcdf(tmp_path / "mini.nc", write_inherited_coords=False)
    path = tmp_path / "mini.nc"
    pair = open_pair(path, coarse=f"{path}::input", variables=["u10"], factor=None)
    assert pair.factor == 4
    np.testing.assert_array_equal(pair.fine["u10"], fine[[1, 3, 2, 0]])
    np.testing.assert_array_equal(pair.coarse["u10"], means[[1, 3, 2, 0]])
    xr.testing.assert_allclose(coarsen(pair.fine, 4), pair.coarse, atol=1e-6)


def test_static_fields_by_name_by_path_or_none(stored: Path, tmp_path: Path) -> None:
    def static(what: str | list[str] | None) -> list[str]:
        return list(open_pair(stored, variables=["u10"], factor=4, static=what).static.data_vars)

    assert static(None) == ["orography"] and static([]) == []
    assert static("lsm") == ["lsm"] and static(["lsm", "orography"]) == ["lsm", "orography"]
    ds = archive()[["orography"]].rename(orography="z").isel(latitude=slice(None, None, -1))
    ds.expand_dims(time=1).to_netcdf(tmp_path / "static.nc")
    pair = open_pair(stored, variables=["u10"], factor=4, static=[str(tmp_path / "static.nc"), "orography"])
    np.testing.assert_array_equal(pair.static["z"], pair.static["orography"])
    assert pair.static["z"].dtype == np.float32 and Grid.of(pair.static).same(Grid.of(pair.fine))


@pytest.mark.parametrize("by_variables", [False, True])
def test_pair_on_a_curvilinear_grid(by_variables: bool, lambert, kind, tmp_path: Path) -> None:
    """2-D coordinates, stored as such or as variables, lead through trimming, block means and static fields."""
    ds = lambert(13, 17, kind=kind)
    dims = ds["t2m"].dims[1:]
    ds["orography"] = (dims, ds["t2m"].values[0].astype(np.float32), {"units": "m"})
    place = [c for c, v in ds.coords.items() if v.ndim == 2]
    ds = ds.reset_coords(place) if by_variables else ds
    ds.to_netcdf(tmp_path / "fine.nc")
    ds[[*place, "orography"] if by_variables else ["orography"]].isel({dims[0]: slice(None, None, -1)}).to_netcdf(
        tmp_path / "static.nc"
    )
    for static in (None, str(tmp_path / "static.nc")):
        pair = open_pair(tmp_path / "fine.nc", variables=["t2m"], factor=4, static=static)
        assert dict(pair.fine.sizes) == {"time": 3, dims[0]: 12, dims[1]: 16}
        grid = Grid.of(pair.fine)
        assert list(pair.static.data_vars) == ["orography"]
        assert grid.same(Grid.of(lambert(kind=kind))) and grid.coarse(4).same(Grid.of(pair.coarse))
        np.testing.assert_allclose(pair.static["orography"], pair.fine["t2m"][0], rtol=1e-6)
        weights = cell_weights(pair.fine, dims)
        np.testing.assert_allclose(pair.coarse["t2m"], block_means(pair.fine["t2m"].values, weights, 4)[0], rtol=1e-12)


def test_pair_of_an_archive_and_a_regridded_one(stored: Path, tmp_path: Path) -> None:
    lat, lon = np.arange(48.0, 56, 0.8), np.arange(-4.0, 7, 0.8)
    values = np.broadcast_to(lat[:, None] + 2 * lon, (6, len(lat), len(lon)))
    coords = {"time": archive()["time"], "lat": lat, "lon": lon}
    xr.Dataset({"t2m": (("time", "lat", "lon"), values, {"units": "K"})}, coords).to_netcdf(tmp_path / "coarse.nc")
    pair = open_pair(stored, coarse=tmp_path / "coarse.nc", variables=["t2m"], factor=4, regrid="linear")
    grid = Grid.of(pair.coarse)
    np.testing.assert_allclose(pair.coarse["t2m"][0], grid.y[:, None] + 2 * grid.x, rtol=1e-12)
    assert dask.is_dask_collection(pair.coarse["t2m"].data) and Grid.of(pair.fine).coarse(4).same(grid)
    with pytest.raises(UserError, match=r"data\.regrid=nearest: expected null, linear or conservative"):
        open_pair(stored, coarse=tmp_path / "coarse.nc", variables=["t2m"], factor=4, regrid="nearest")
    with pytest.raises(UserError, match=r"data\.regrid=linear is for an archive of coarse fields"):
        open_pair(stored, variables=["t2m"], factor=4, regrid="linear")


def test_static_fields_that_are_none(stored: Path, tmp_path: Path) -> None:
    def refused(what: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            open_pair(stored, variables=["u10"], factor=4, static=what)

    refused("hills", "static=hills: no variable of the archive, which has u10, 2t, orography, lsm")
    refused("2t", "'2t' varies in time")
    refused(str(tmp_path / "no.nc"), "is not there")
    ds = archive()[["orography"]]
    ds.assign_coords(latitude=ds["latitude"] + 0.1).to_netcdf(tmp_path / "other.nc")
    refused(str(tmp_path / "other.nc"), "'orography' lies on another grid")
    ds.where(ds["latitude"] > 51).to_netcdf(tmp_path / "masked.nc")
    refused(str(tmp_path / "masked.nc"), "static data holds missing values")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.drop_vars("2t"), r"no variable 't2m'\. It has: u10"),
        (lambda ds: ds.assign({"2t": ds["2t"].assign_attrs(units="Pa")}), "'2t' is in Pa, expected K"),
        (lambda ds: ds.isel(time=[0]), r"fine\.nc has 1 time .*at least 2"),
        (lambda ds: ds.isel(time=[0, 2, 1]), r"is followed by 2020-01-01 06:00:00.*sortby"),
        (lambda ds: ds.isel(time=[0, 1, 1]), "1 time more than once, first 2020-01-01 06:00"),
        (lambda ds: ds.isel(time=0, drop=True), "add the time"),
        (lambda ds: ds.drop_vars("latitude"), "'latitude' has no coordinate with numbers"),
        (lambda ds: ds.isel(latitude=[3]), "factor=4 leaves no coarse cell of a grid of 1 × 13.*at most 1"),
        (lambda ds: ds.isel(longitude=[3]), "factor=4 leaves no coarse cell of a grid of 9 × 1 .*at most 1"),
        (lambda ds: ds.isel(latitude=slice(3)), "factor=4 leaves no coarse cell of a grid of 3 × 13"),
    ],
)
def test_bad_archives_are_refused(change, message: str, stored: Path) -> None:
    ds = change(archive())
    stored.unlink()
    ds.to_netcdf(stored)
    with pytest.raises(UserError, match=message):
        open_pair(stored, variables=["t2m"], factor=4)


def test_missing_values_are_refused_by_the_check(stored: Path) -> None:
    ds = archive()
    ds["2t"][3, 4, 5] = np.nan
    stored.unlink()
    ds.to_netcdf(stored)
    pair = open_pair(stored, variables=["t2m"], factor=4)
    with pytest.raises(UserError, match=r"'t2m' has 1 in 576 cells, first at 2020-01-01T18:00"):
        check_finite(pair.fine)


def test_missing_values_are_filled_before_the_mean_or_their_times_left_out(stored: Path, tmp_path: Path) -> None:
    ds = archive()
    whole = coarsen(archive()[["2t"]].isel(latitude=slice(8), longitude=slice(12)), 4)["2t"]
    ds["2t"][3, 4, 5] = np.nan
    ds["2t"][1, 8, 12] = np.nan  # outside of the blocks
    stored.unlink()
    ds.to_netcdf(stored)
    filled = open_pair(stored, variables=["t2m"], factor=4, missing="fill")
    assert dask.is_dask_collection(filled.fine["t2m"].data)
    check_finite(filled.fine)
    neighbours = {float(ds["2t"][3, 4 + i, 5 + j]) for i, j in ((1, 0), (-1, 0), (0, 1), (0, -1))}
    assert float(filled.fine["t2m"][3, 4, 5]) in neighbours
    unlike = np.abs(filled.coarse["t2m"] - whole) > 1e-9
    assert np.argwhere(unlike.values).tolist() == [[3, 1, 1]]
    skipped = open_pair(stored, variables=["t2m"], factor=4, missing="skip")
    for found in (skipped.fine, skipped.coarse):
        np.testing.assert_array_equal(found["time"], ds["time"][[0, 1, 2, 4, 5]])
    np.testing.assert_allclose(skipped.coarse["t2m"], whole[[0, 1, 2, 4, 5]], rtol=1e-12)
    means = whole.to_dataset().rename({"2t": "t2m"})
    means["t2m"].values[5, 1, 2] = np.nan
    means.to_netcdf(tmp_path / "coarse.nc")
    both = open_pair(stored, coarse=tmp_path / "coarse.nc", variables=["t2m"], factor=4, missing="skip")
    np.testing.assert_array_equal(both.fine["time"], ds["time"][[0, 1, 2, 4]])
    np.testing.assert_array_equal(both.coarse["time"], ds["time"][[0, 1, 2, 4]])
    check_finite(open_pair(stored, coarse=tmp_path / "coarse.nc", variables=["t2m"], factor=4, missing="fill").coarse)
    with pytest.raises(UserError, match="missing=drop"):
        open_pair(stored, variables=["t2m"], factor=4, missing="drop")


def test_factor_is_needed_without_coarse_fields(stored: Path) -> None:
    with pytest.raises(UserError, match="factor=None"):
        open_pair(stored, variables=["t2m"], factor=None)


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_calendars_survive(calendar: str, tmp_path: Path) -> None:
    times = xr.date_range("2001-02-27", periods=6, freq="12h", calendar=calendar, use_cftime=True)
    archive().assign_coords(time=times).to_netcdf(tmp_path / "a.nc")
    pair = open_pair(tmp_path / "a.nc", variables=["t2m"], factor=4)
    assert pair.coarse.indexes["time"].equals(times)
    expected = ["2001-02-27T00:00:00", "2001-02-27T12:00:00", "2001-02-28T00:00:00", "2001-02-28T12:00:00"]
    assert sample_times(pair.fine)[:4] == expected
    assert sample_times(pair.fine)[4] == ("2001-02-29" if calendar == "360_day" else "2001-03-01") + "T00:00:00"
    slices = split_times(pair.fine.indexes["time"], (0.5, 0, 0.5), gap="1D")
    assert slices == {"train": slice(0, 2), "validation": slice(6, 6), "test": slice(4, 6)}


def test_sample_times_do_not_depend_on_the_resolution_they_are_stored_in() -> None:
    times = pd.date_range("1850-01-01", periods=2, freq="90min")
    expected = ["1850-01-01T00:00:00", "1850-01-01T01:30:00"]
    for unit in ("s", "ms", "ns"):
        assert sample_times(xr.Dataset(coords={"time": times.as_unit(unit)})) == expected


@pytest.mark.parametrize("gap", [0, 3, "1D", "6h"])
def test_splits_are_contiguous_with_a_gap(gap: int | str) -> None:
    index = pd.date_range("2020-01-01", periods=200, freq="6h")
    slices = split_times(index, (0.7, 0.1, 0.2), gap)
    parts = [index[slices[k]] for k in ("train", "validation", "test")]
    assert parts[0][0] == index[0] and parts[-1][-1] == index[-1]
    step = {0: 0, 3: 3, "1D": 4, "6h": 1}[gap]
    for a, b in itertools.pairwise(parts):
        assert b[0] - a[-1] == (step + 1) * pd.Timedelta("6h")
    sizes = np.array([len(p) for p in parts])
    assert sizes.sum() == 200 - 2 * step
    np.testing.assert_allclose(sizes / sizes.sum(), [0.7, 0.1, 0.2], atol=0.01)


def test_gap_holds_where_times_are_irregular() -> None:
    hours = np.concatenate([np.arange(0, 100, 6), np.arange(100, 160, 1), np.arange(160, 400, 6)])
    index = pd.Timestamp("2020-01-01") + pd.to_timedelta(hours, unit="h")
    slices = split_times(index, (0.4, 0.2, 0.4), "12h")
    parts = [index[slices[k]] for k in ("train", "validation", "test")]
    assert all(b[0] - a[-1] > pd.Timedelta("12h") for a, b in itertools.pairwise(parts))


@pytest.mark.parametrize(
    ("times", "fractions", "gap", "message"),
    [
        (8, (0.7, 0.05, 0.25), 0, "8 times are too few"),
        (10, (0.5, 0.25, 0.25), 5, "too few"),
        (100, (0.5, 0.6, 0.1), 0, "add up to 1"),
        (100, (0.5, 0.5), 0, "three shares"),
        (100, (1.2, -0.1, -0.1), 0, "three shares"),
        (100, (0.7, 0.1, 0.2), -1, "gap=-1"),
        (100, (0.7, 0.1, 0.2), "1D", "needs the index of times"),
        (pd.date_range("2020", periods=9), (0.7, 0.1, 0.2), "soon", "gap='soon': expected"),
        (pd.date_range("2020", periods=9), (0.7, 0.1, 0.2), "-1D", "must not be negative"),
    ],
)
def test_splits_that_cannot_be(times, fractions, gap, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_times(times, fractions, gap)


@real
def test_real_archive() -> None:
    pair = open_pair(ERA5, variables=["t2m"], factor=8)
    assert dict(pair.fine.sizes) == {"time": 744, "latitude": 32, "longitude": 48}
    assert dict(pair.coarse.sizes) == {"time": 744, "latitude": 4, "longitude": 6}
    assert pair.fine["latitude"].values[[0, -1]].tolist() == [57.75, 50.0] and not pair.static.data_vars
    check_finite(pair.fine)
    with xr.open_dataset(ERA5) as raw:
        np.testing.assert_array_equal(pair.fine["t2m"], raw["t2m"][:, 1:, :-1])
        grid = Grid.of(pair.fine)
        coarse, coarsened = to_coarse(raw, grid, 8, ["t2m"])
    assert coarsened
    xr.testing.assert_allclose(coarse, pair.coarse)
    assert not to_coarse(pair.coarse, grid, 8, ["t2m"])[1]
    slices = split_times(pair.fine.indexes["time"], gap="1D")
    assert slices["train"] == slice(0, 487) and slices["test"].stop == 744
    with pytest.raises(UserError, match=r"'u10'\. It has: t2m \[K\]"):
        open_pair(ERA5, variables=["t2m", "u10"], factor=8)
    with pytest.raises(UserError, match="factor=34 leaves no coarse cell of a grid of 33 × 49"):
        open_pair(ERA5, variables=["t2m"], factor=34)
