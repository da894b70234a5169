import logging

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.weather.alignment import common_cells, common_times
from scigen.weather.coarsen import coarsen
from scigen.weather.grid import Grid
from scigen.weather.variables import find_variables


def archive(rows: int = 8, columns: int = 12, start: str = "2020-01-01", west: float = -2.0) -> xr.Dataset:
    lat, lon = 50 + 0.5 * np.arange(rows), west + 0.5 * np.arange(columns)
    values = np.broadcast_to(lat[:, None] * 10 + lon[None], (6, rows, columns)) + np.arange(6.0)[:, None, None]
    coords = {"time": pd.date_range(start, periods=6, freq="D"), "latitude": lat, "longitude": lon}
    return xr.Dataset({"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})}, coords=coords)


@pytest.mark.parametrize("flip_fine", [False, True])
@pytest.mark.parametrize("flip_coarse", [False, True])
@pytest.mark.parametrize("turn", [0, 360])
@pytest.mark.parametrize("factor", [None, 4])
def test_block_means_find_their_fine_cells(flip_fine, flip_coarse, turn, factor) -> None:
    """Whatever the order of rows and the convention of longitudes: coarse = block means of fine, cell by cell."""
    fine, coarse = archive(), coarsen(archive(), 4)
    rows = {True: slice(None, None, -1), False: slice(None)}
    fine = fine.isel(latitude=rows[flip_fine])
    coarse = coarse.isel(latitude=rows[flip_coarse]).assign_coords(longitude=coarse["longitude"] + turn)
    a, b, found = common_cells(fine, coarse, factor)
    assert found == 4
    xr.testing.assert_identical(a, fine)
    xr.testing.assert_allclose(coarsen(a, 4), b)


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_cells_that_only_one_of_the_two_has_are_left_out(offset: int, caplog: pytest.LogCaptureFixture) -> None:
    whole = archive(20, 24)
    coarse = coarsen(whole, 4)
    fine = whole.isel(latitude=slice(offset, 18), longitude=slice(4 + offset, 24))
    with caplog.at_level(logging.INFO, "scigen"):
        a, b, _ = common_cells(fine, coarse, None)
    assert b.sizes["latitude"] == (4 if offset == 0 else 3) and a.sizes["latitude"] == 4 * b.sizes["latitude"]
    xr.testing.assert_allclose(coarsen(a, 4), b)
    assert "of 5 coarse cells along latitude lie in the fine grid" in caplog.text
    assert "rows and" in caplog.text


def test_grids_that_are_no_blocks_of_each_other() -> None:
    fine, coarse = archive(), coarsen(archive(), 4)
    with pytest.raises(UserError, match=r"that is a factor of 4, not factor=8\. Set data\.factor=4"):
        common_cells(fine, coarse, 8)
    with pytest.raises(UserError, match="no coarse cell is the mean of 4 × 4 fine cells"):
        common_cells(fine, coarse.assign_coords(latitude=coarse["latitude"] + 0.1), 4)
    with pytest.raises(UserError, match="no coarse cell is the mean"):
        common_cells(fine, coarse.assign_coords(longitude=coarse["longitude"] + 90), 4)
    with pytest.raises(UserError, match="in no whole ratio"):
        common_cells(fine, fine.isel(latitude=slice(0, 8, 4), longitude=slice(0, 12, 2)), None)
    with pytest.raises(UserError, match="in no whole ratio"):
        common_cells(coarse, fine, None)


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize("start", [0.0, -180.0])
def test_no_block_of_a_globe_is_lost_where_it_is_cut(shift, start, caplog: pytest.LogCaptureFixture) -> None:
    """Blocks of three cells whose centres lie on Greenwich: one is cut in two, unless the archive is cut elsewhere."""
    lat, lon = np.arange(-87.5, 90, 5), np.arange(0, 360, 10.0)
    values = np.random.default_rng(0).standard_normal((2, 36, 36))
    coords = {"time": pd.date_range("2020", periods=2), "latitude": lat, "longitude": lon}
    fine = xr.Dataset({"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})}, coords)
    rolled = fine.roll(longitude=shift, roll_coords=True)
    rolled = rolled.assign_coords(longitude=lon[0] - 10 * shift + 10 * np.arange(36))
    coarse = coarsen(rolled, 3)
    coarse = coarse.assign_coords(longitude=(coarse["longitude"] - start) % 360 + start).sortby("longitude")
    with caplog.at_level(logging.INFO, "scigen"):
        a, b, found = common_cells(fine, coarse, None)
    assert found == 3 and b.sizes["longitude"] == 12 and a.sizes["longitude"] == 36
    xr.testing.assert_allclose(coarsen(a, 3), b)
    assert Grid.of(a).closes and ("is cut at longitude" in caplog.text) == (shift > 0)
    np.testing.assert_array_equal(a["t2m"], fine["t2m"].sel(longitude=a["longitude"].values % 360))


@pytest.mark.parametrize("flip_fine", [False, True])
@pytest.mark.parametrize("flip_coarse", [False, True])
@pytest.mark.parametrize("factor", [None, 4])
def test_blocks_of_curvilinear_cells(flip_fine, flip_coarse, factor, lambert, kind) -> None:
    rows = {True: slice(None, None, -1), False: slice(None)}
    fine = find_variables(lambert(14, 17, kind=kind), ["t2m"])
    y, x = fine["t2m"].dims[1:]
    coarse = coarsen(fine.isel({y: slice(12), x: slice(16)}), 4).isel({y: rows[flip_coarse]})
    a, b, found = common_cells(fine.isel({y: rows[flip_fine]}), coarse, factor)
    assert found == 4 and dict(a.sizes) == {"time": 3, y: 12, x: 16}
    xr.testing.assert_allclose(coarsen(a, 4), b)
    assert Grid.of(b).same(Grid.of(a).coarse(4)) and ("crs" in b.coords) == (kind == "projected")


def test_curvilinear_cells_that_are_no_blocks(lambert, kind) -> None:
    fine = find_variables(lambert(kind=kind), ["t2m"])
    coarse = coarsen(fine, 4)
    for place in ("latitude", "longitude"):
        with pytest.raises(UserError, match=r"two projections|are not the blocks of 4 × 4"):
            common_cells(fine, coarse.assign_coords({place: coarse[place] + 0.05}), None)
    with pytest.raises(UserError, match=r"data\.regrid=linear"):
        common_cells(fine, archive(), 4)


def test_a_coarse_archive_on_another_grid_is_regridded_if_asked(caplog: pytest.LogCaptureFixture) -> None:
    fine = archive()
    lat, lon = np.arange(48.0, 57, 1.5), np.arange(356.0, 368, 1.3)
    values = np.broadcast_to(lat[:, None] * 10 + lon - 360, (6, len(lat), len(lon))) + np.arange(6.0)[:, None, None]
    coarse = xr.Dataset(
        {"t2m": (("time", "lat", "lon"), values, {"units": "K"})}, {"time": fine["time"], "lat": lat, "lon": lon}
    )
    for factor in (4, 3):
        with caplog.at_level(logging.INFO, "scigen"):
            a, b, found = common_cells(fine, coarse, factor, "linear")
        assert found == factor and "is regridded (linear) to blocks of" in caplog.text
        block = Grid.of(a).coarse(factor)
        np.testing.assert_allclose(b["t2m"][2], block.y[:, None] * 10 + block.x + 2, rtol=1e-12)
        assert Grid.of(b).to_dict() == block.to_dict()
    with pytest.raises(UserError, match=r"in no whole ratio.*data\.regrid=linear"):
        common_cells(fine, coarse, 4)
    with pytest.raises(UserError, match=r"data\.regrid=linear needs data\.factor="):
        common_cells(fine, coarse, None, "linear")
    with pytest.raises(UserError, match="does not cover the fine region"):
        common_cells(fine, coarse.isel(lat=slice(3)), 4, "conservative")
    exact = coarsen(fine, 4)  # blocks stay as they are
    xr.testing.assert_allclose(common_cells(fine, exact, 4, "linear")[1], exact)


def test_common_times_are_kept_and_announced(caplog: pytest.LogCaptureFixture) -> None:
    fine, coarse = archive(), archive(start="2020-01-03").isel(time=slice(None, None, 2))
    fine["time"].encoding = {"units": "hours since 1900-01-01", "chunks": (1,)}
    with caplog.at_level(logging.INFO, "scigen"):
        a, b = common_times(fine, coarse)
    assert a.indexes["time"].equals(b.indexes["time"])
    assert [str(t)[:10] for t in a["time"].values] == ["2020-01-03", "2020-01-05"]
    assert "2 of 6 times of the fine archive" in caplog.text and "2 of 3 times of the coarse" in caplog.text
    assert a["time"].encoding == {"units": "hours since 1900-01-01"}


def test_times_that_do_not_meet() -> None:
    with pytest.raises(UserError, match=r"share 0 times.*fine 2020-01-01 .*coarse 2021-01-01"):
        common_times(archive(), archive(start="2021-01-01"))
    noleap = archive().convert_calendar("noleap", use_cftime=True)
    with pytest.raises(UserError, match=r"fine archive has the standard calendar, the coarse one noleap"):
        common_times(archive(), noleap)
