import logging
import os
from pathlib import Path

import dask
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.io.archive import fingerprint, open_archive
from scigen.io.coordinates import check_finite

REAL = os.environ.get("SCIGEN_TEST_DATA")
real = pytest.mark.skipif(REAL is None, reason="SCIGEN_TEST_DATA is not set")
ERA5 = Path(REAL or ".") / "weather" / "era5_t2m_uk_2019-03.nc"


def archive(times: int = 12, start: str = "2020-01-01", seed: int = 0) -> xr.Dataset:
    fields = np.random.default_rng(seed).normal(280, 5, (times, 6, 8)).astype(np.float32)
    return xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), fields, {"units": "K"})},
        coords={
            "time": pd.date_range(start, periods=times, freq="6h"),
            "latitude": np.arange(6) * 0.5 + 40,
            "longitude": np.arange(8) * 0.5 - 2,
        },
    )


def write_zarr(ds: xr.Dataset, path: Path, zarr_format: int) -> Path:
    ds.to_zarr(path, zarr_format=zarr_format, consolidated=False)
    return path


@pytest.mark.parametrize("kind", ["nc", "classic", "cdf5", "zarr2", "zarr3", "glob", "folder"])
def test_every_kind_of_archive_gives_the_same_values_lazily(kind: str, tmp_path: Path) -> None:
    ds = archive()
    match kind:
        case "nc" | "classic" | "cdf5":
            path = tmp_path / "a.nc"
            form = {"nc": "NETCDF4", "classic": "NETCDF3_64BIT", "cdf5": "NETCDF3_64BIT_DATA"}[kind]
            ds.to_netcdf(path, format=form, engine="netcdf4")
        case "zarr2" | "zarr3":
            path = write_zarr(ds, tmp_path / "a.zarr", int(kind[-1]))
        case _:
            folder = tmp_path / "parts"
            folder.mkdir()
            for i in (1, 0, 2):
                ds.isel(time=slice(4 * i, 4 * i + 4)).to_netcdf(folder / f"part{2 - i}.nc")
            path = folder if kind == "folder" else folder / "part*.nc"
    found = open_archive(path)
    assert dask.is_dask_collection(found["t2m"].data)
    np.testing.assert_array_equal(found["t2m"], ds["t2m"])
    np.testing.assert_array_equal(found["time"], ds["time"])
    assert fingerprint(found) == fingerprint(ds)


def test_files_of_different_variables_combine(tmp_path: Path) -> None:
    ds = archive()
    ds.to_netcdf(tmp_path / "t.nc")
    ds.rename(t2m="u10").to_netcdf(tmp_path / "u.nc")
    assert set(open_archive(tmp_path).data_vars) == {"t2m", "u10"}


def test_blocks_do_not_span_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scigen.io.blocks.BLOCK_BYTES", 4 * 3 * 6 * 8 * 4)  # a quarter of it for small archives
    archive().to_netcdf(tmp_path / "a.nc")
    assert open_archive(tmp_path / "a.nc")["t2m"].chunks == ((3, 3, 3, 3), (6,), (8,))


def test_packed_integers_are_decoded(tmp_path: Path) -> None:
    ds = archive()
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": np.int16(-32768)}
    ds.to_netcdf(tmp_path / "a.nc", encoding={"t2m": packing})
    found = open_archive(tmp_path / "a.nc")["t2m"]
    assert found.dtype.kind == "f"
    np.testing.assert_allclose(found, ds["t2m"], atol=0.0051)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard", "proleptic_gregorian"])
def test_calendars(calendar: str, tmp_path: Path) -> None:
    special = calendar in ("noleap", "360_day")
    times = xr.date_range("2001-02-27", periods=12, freq="6h", calendar=calendar, use_cftime=special)
    ds = archive().assign_coords(time=times)
    ds.to_netcdf(tmp_path / "a.nc")
    found = open_archive(tmp_path / "a.nc")
    assert found.indexes["time"].equals(times)
    assert (found["time"].dtype.kind == "O") == special


def test_climate_data_store_names(tmp_path: Path) -> None:
    ds = archive().rename(time="valid_time").assign_coords(number=0)
    ds = ds.assign_coords(expver=("valid_time", np.array(["0001"] * 12, dtype=object)))
    ds.to_netcdf(tmp_path / "a.nc")
    found = open_archive(tmp_path / "a.nc")
    assert found["t2m"].dims == ("time", "latitude", "longitude")
    assert set(found.coords) == {"time", "latitude", "longitude"}


def test_path_that_is_not_there_names_the_closest(tmp_path: Path) -> None:
    archive().to_netcdf(tmp_path / "era5.nc")
    with pytest.raises(UserError, match=r"era55\.nc is not there.*closest.*era5\.nc"):
        open_archive(tmp_path / "era55.nc")
    with pytest.raises(UserError, match=r"there is no folder .*else"):
        open_archive(tmp_path / "else" / "deeper" / "a.nc")
    with pytest.raises(UserError, match=r"Nothing matches .*x\*\.nc.*holds era5\.nc"):
        open_archive(tmp_path / "x*.nc")


def test_what_is_no_archive(tmp_path: Path) -> None:
    for name, content, message in (
        ("text.nc", b"hello, this is text", "is no netCDF file"),
        ("empty.nc", b"", "is empty"),
        ("a.grib", b"GRIB....", "seems damaged or cut short"),
        ("a.nc.partial", b"", "unfinished output"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            open_archive(tmp_path / name)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"without netCDF or GRIB files.*notes\.txt"):
        open_archive(tmp_path / "folder")
    with netCDF4.Dataset(tmp_path / "bare.nc", "w") as bare:
        bare.createGroup("inside")
    with pytest.raises(UserError, match="holds no variable: give"):
        open_archive(tmp_path / "bare.nc")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF3_64BIT_DATA"])
@pytest.mark.parametrize("unlimited", [True, False])
def test_file_cut_short_is_refused(form: str, unlimited: bool, share: float, tmp_path: Path) -> None:
    """The netCDF library reads what is missing of a classic file as zeros, so its length must be looked at."""
    dims = ["time"] if unlimited else []
    archive(200).to_netcdf(tmp_path / "a.nc", format=form, engine="netcdf4", unlimited_dims=dims)
    whole = (tmp_path / "a.nc").read_bytes()
    (tmp_path / "b.nc").write_bytes(whole)
    open_archive(tmp_path / "b.nc")
    if form.endswith("DATA"):  # the bound for this format overlooks the length of the header
        share *= 0.95
    (tmp_path / "c.nc").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"c\.nc .*cut short"):
        open_archive(tmp_path / "c.nc")


@real
def test_real_file_cut_in_half_is_refused(tmp_path: Path) -> None:
    whole = ERA5.read_bytes()
    (tmp_path / "half.nc").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"half\.nc .*cut short"):
        open_archive(tmp_path / "half.nc")


@real
def test_real_file() -> None:
    ds = open_archive(ERA5)
    assert dict(ds.sizes) == {"time": 744, "latitude": 33, "longitude": 49}
    assert 250 < float(ds["t2m"].isel(time=400).mean()) < 310
    assert ds["latitude"].values[0] == 58


def test_damaged_chunk_is_named_when_it_is_read(tmp_path: Path) -> None:
    archive().chunk(time=4).to_zarr(tmp_path / "a.zarr", consolidated=False)
    chunk = tmp_path / "a.zarr" / "t2m" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    ds = open_archive(tmp_path / "a.zarr")
    with pytest.raises(UserError, match=r"Cannot read 't2m'.*damaged"):
        check_finite(ds)


def test_files_that_do_not_combine(tmp_path: Path) -> None:
    archive().to_netcdf(tmp_path / "a.nc")
    other = {
        "overlap": (archive(start="2020-01-02"), r"a\.nc and .*b\.nc both hold 8 times, first 2020-01-02 00:00:00"),
        "same": (archive(), r"both hold 12 times, first 2020-01-01 00:00:00: leave one of the files out"),
        "grid": (archive(start="2021-01-01").isel(latitude=slice(1, None)), r"2 files of .*a\.nc, b\.nc.* do not com"),
    }
    for ds, message in other.values():
        (tmp_path / "b.nc").unlink(missing_ok=True)
        ds.to_netcdf(tmp_path / "b.nc")
        with pytest.raises(UserError, match=message):
            open_archive(tmp_path / "*.nc")


def test_gaps_between_files_are_allowed_and_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    archive().to_netcdf(tmp_path / "a.nc")
    archive(start="2020-01-05").to_netcdf(tmp_path / "b.nc")
    archive(start="2020-01-08").to_netcdf(tmp_path / "c.nc")
    with caplog.at_level(logging.INFO, "scigen"):
        assert open_archive(tmp_path).sizes["time"] == 36
    assert "has 1 gap in time, 4 steps missing: 2020-01-03 18:00 to 2020-01-05 00:00" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "scigen"):
        open_archive(tmp_path / "a.nc")
    assert "gap" not in caplog.text


def test_times_that_cannot_be_decoded(tmp_path: Path) -> None:
    ds = archive().assign_coords(time=("time", np.arange(12), {"units": "fortnights since the flood"}))
    ds.to_netcdf(tmp_path / "a.nc")
    with pytest.raises(UserError, match=r"times of .* cannot be decoded"):
        open_archive(tmp_path / "a.nc")


def test_fingerprint_ignores_how_an_archive_is_stored(tmp_path: Path) -> None:
    ds = archive()
    mark = fingerprint(ds)
    assert len(mark) == 16 and int(mark, 16) >= 0
    assert mark == fingerprint(ds.chunk(time=5)) == fingerprint(ds.chunk(latitude=2))
    two = ds.assign(u10=ds["t2m"])
    assert fingerprint(two) == fingerprint(two[["u10", "t2m"]])
    ds.to_netcdf(tmp_path / "a.nc", encoding={"time": {"units": "hours since 1900-01-01"}})
    assert mark == fingerprint(open_archive(tmp_path / "a.nc"))


def test_fingerprint_tells_archives_apart() -> None:
    ds = archive()
    others = [
        archive(seed=1),
        archive(start="2020-01-02"),
        ds.rename(t2m="d2m"),
        ds.isel(time=slice(1, None)),
        ds.assign_coords(latitude=ds["latitude"] + 1),
        ds.astype(np.float64),
        ds.assign(t2m=ds["t2m"].assign_attrs(units="degC")),
        ds.transpose("latitude", "time", "longitude"),
    ]
    assert len({fingerprint(d) for d in [ds, *others]}) == len(others) + 1


def test_combining_is_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    archive().to_netcdf(tmp_path / "a.nc")
    archive(start="2020-02-01").to_netcdf(tmp_path / "b.nc")
    with caplog.at_level(logging.INFO, "scigen"):
        open_archive(tmp_path)
    assert "2 files combined" in caplog.text
