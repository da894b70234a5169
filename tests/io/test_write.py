import json
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from scigen.errors import UserError
from scigen.io import sinks
from scigen.io.archive import open_archive
from scigen.io.write import SampleWriter

M, Y, X = 3, 4, 5
VARIABLES = {
    "t2m": {"units": "K", "standard_name": "air_temperature"},
    "u10": {"units": "m s-1", "standard_name": "eastward_wind"},
}


def coordinates(times: int = 6) -> xr.Dataset:
    ds = xr.Dataset(
        coords={
            "time": pd.date_range("2019-03-01", periods=times, freq="6h"),
            "latitude": np.linspace(58, 57, Y),
            "longitude": np.linspace(-2, -1, X),
        }
    )
    ds["time"].encoding = {"units": "hours since 1900-01-01", "calendar": "standard", "dtype": "int16", "chunks": (1,)}
    return ds


def fields(times: int = 6, members: int = M) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 1, (times, members, Y, X)).astype(np.float32) for name in VARIABLES}


def plain(path: Path) -> xr.Dataset:
    """What a user gets who opens the output with xarray alone."""
    return (xr.open_zarr(path) if path.suffix == ".zarr" else xr.open_dataset(path)).load()


@pytest.fixture(params=[".zarr", ".nc"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"out{request.param}"


@pytest.mark.parametrize("blocks", [[6], [1] * 6, [4, 2], [2, 3, 1]])
@pytest.mark.parametrize("shard", [1, 4 * M * Y * X * 4, 2**24])
def test_what_is_written_is_read(path: Path, blocks: list[int], shard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "SHARD_BYTES", shard)
    truth, start = fields(), 0
    with SampleWriter(path, coordinates(), VARIABLES, M) as writer:
        for length in blocks:
            writer.write(start, {k: v[start : start + length] for k, v in truth.items()})
            start += length
    found = plain(path)
    for name, expected in truth.items():
        assert found[name].dims == ("time", "member", "latitude", "longitude")
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], expected)
    xr.testing.assert_identical(open_archive(path).load()["t2m"], found["t2m"])


def test_order_of_blocks_does_not_matter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "SHARD_BYTES", 2 * M * Y * X * 4)
    truth = fields(40)
    with SampleWriter(path, coordinates(40), VARIABLES, M) as writer:
        for i in np.random.default_rng(1).permutation(40):
            writer.write(int(i), {k: v[i : i + 1] for k, v in truth.items()})
    np.testing.assert_array_equal(plain(path)["t2m"], truth["t2m"])


def test_attributes_and_encoding_are_what_a_meteorologist_expects(path: Path) -> None:
    attrs = {"scigen_nfe": 1, "config": {"a": [1, 2]}, "flag": True, "nothing": None, "history": "scigen sample"}
    with SampleWriter(path, coordinates(), VARIABLES, M, attrs=attrs) as writer:
        writer.write(0, fields())
    found = plain(path)
    assert found["t2m"].attrs == VARIABLES["t2m"]
    assert np.isnan(found["t2m"].encoding["_FillValue"])
    assert found["member"].dtype == np.int64
    assert found["member"].values.tolist() == [0, 1, 2]
    assert found["member"].attrs["standard_name"] == "realization"
    assert [found[d].attrs.get("axis") for d in ("time", "latitude", "longitude")] == ["T", "Y", "X"]
    assert found["latitude"].attrs["units"] == "degrees_north"
    assert found["longitude"].attrs["standard_name"] == "longitude"
    xr.testing.assert_equal(found["time"], coordinates()["time"])
    encoding = found["time"].encoding
    assert encoding["units"].startswith("hours since 1900-01-01") and encoding["calendar"] == "standard"
    assert encoding["dtype"] == np.int64
    assert "_FillValue" not in found["latitude"].encoding or path.suffix == ".zarr"
    assert found.attrs["Conventions"] == "CF-1.11"
    assert found.attrs["scigen_nfe"] == 1 and "nothing" not in found.attrs
    assert json.loads(found.attrs["config"]) == {"a": [1, 2]} and json.loads(found.attrs["flag"]) is True
    assert found.attrs["history"].endswith("\nscigen sample") and "scigen" in found.attrs["history"].splitlines()[0]


def test_input_is_left_as_it_was(path: Path) -> None:
    coords = coordinates()
    with SampleWriter(path, coords, VARIABLES, M) as writer:
        writer.write(0, fields())
    assert coords["time"].encoding["dtype"] == "int16" and not coords["latitude"].attrs and not coords.attrs


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_calendars_survive(path: Path, calendar: str) -> None:
    times = xr.date_range("2001-02-27", periods=6, freq="12h", calendar=calendar, use_cftime=True)
    with SampleWriter(path, coordinates().assign_coords(time=times), VARIABLES, M) as writer:
        writer.write(0, fields())
    found = plain(path)
    assert found.indexes["time"].equals(times)
    assert found["time"].encoding["calendar"] == calendar


def test_times_finer_than_the_units_of_the_input_stay_exact(path: Path) -> None:
    coords = coordinates()
    times = coords["time"].values + np.timedelta64(30, "m")
    coords = coords.assign_coords(time=("time", times))
    coords["time"].encoding = {"units": "hours since 1900-01-01"}
    with SampleWriter(path, coords, VARIABLES, M) as writer:
        writer.write(0, fields())
    np.testing.assert_array_equal(plain(path)["time"], times)


def test_other_coordinates_belong_to_the_variables(path: Path) -> None:
    lat, lon = np.meshgrid(np.arange(Y) * 1.0, np.arange(X) * 1.0, indexing="ij")
    coords = xr.Dataset(
        coords={
            "time": coordinates()["time"],
            "y": np.arange(Y) * 1000.0,
            "x": np.arange(X) * 1000.0,
            "lat": (("y", "x"), lat),
            "lon": (("y", "x"), lon),
        }
    )
    with SampleWriter(path, coords, VARIABLES, M, dims=("time", "y", "x")) as writer:
        writer.write(0, fields())
    found = plain(path)
    assert set(found["t2m"].coords) == {"time", "member", "y", "x", "lat", "lon"}
    np.testing.assert_array_equal(found["lat"], lat)


def test_what_was_not_written_reads_nan(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sinks, "SHARD_BYTES", 4 * M * Y * X * 4)
    zeros = {name: np.zeros((2, M, Y, X), np.float32) for name in VARIABLES}
    with SampleWriter(path, coordinates(), VARIABLES, M) as writer:
        writer.write(1, zeros)
    found = plain(path)["t2m"]
    assert (found.isel(time=[1, 2]) == 0).all()
    assert found.isel(time=[0, 3, 4, 5]).isnull().all()
    assert "4 of 6 samples were not written" in caplog.text


def test_chunk_is_a_field_and_shard_a_block_of_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "SHARD_BYTES", 2 * M * Y * X * 4)
    with SampleWriter(tmp_path / "out.zarr", coordinates(), VARIABLES, M) as writer:
        writer.write(0, fields())
    array = zarr.open_array(tmp_path / "out.zarr" / "t2m", mode="r")
    assert array.chunks == (1, 1, Y, X) and array.shards == (2, M, Y, X)
    assert np.isnan(array.metadata.fill_value)


def test_each_shard_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "SHARD_BYTES", 4 * M * Y * X * 4)
    flushed: list[tuple[str, int]] = []
    flush = sinks.ZarrSink._flush
    monkeypatch.setattr(sinks.ZarrSink, "_flush", lambda self, *key: (flushed.append(key), flush(self, *key)))
    with SampleWriter(tmp_path / "out.zarr", coordinates(), VARIABLES, M) as writer:
        for i in range(6):
            writer.write(i, {k: v[i : i + 1] for k, v in fields().items()})
    assert sorted(flushed) == [(name, i) for name in VARIABLES for i in (0, 1)]


def test_exception_leaves_no_output(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for error in (RuntimeError("broken"), KeyboardInterrupt()):
        with pytest.raises(type(error)), SampleWriter(path, coordinates(), VARIABLES, M) as writer:
            writer.write(0, fields())
            assert not path.exists()
            raise error
        assert not path.exists() and path.with_name(path.name + ".partial").exists()
    assert "not finished" in caplog.text
    with SampleWriter(path, coordinates(), VARIABLES, M) as writer:
        writer.write(0, fields())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_existing_output_is_refused_or_replaced_at_the_end(path: Path) -> None:
    old = {name: np.full((6, M, Y, X), 7, np.float32) for name in VARIABLES}
    with SampleWriter(path, coordinates(), VARIABLES, M) as writer:
        writer.write(0, old)
    with pytest.raises(UserError, match=r"out.* exists: .*overwrite=true"):
        SampleWriter(path, coordinates(), VARIABLES, M)
    with pytest.raises(RuntimeError), SampleWriter(path, coordinates(), VARIABLES, M, overwrite=True):
        raise RuntimeError
    assert (plain(path)["t2m"] == 7).all()
    with SampleWriter(path, coordinates(), VARIABLES, M, overwrite=True) as writer:
        writer.write(0, fields())
        assert (plain(path)["t2m"] == 7).all()
    np.testing.assert_array_equal(plain(path)["t2m"], fields()["t2m"])
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_output_that_comes_to_exist_meanwhile_is_kept(path: Path) -> None:
    with pytest.raises(UserError, match="exists"), SampleWriter(path, coordinates(), VARIABLES, M) as writer:
        writer.write(0, fields())
        path.write_text("mine")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["out.grib", "out", "out.nc4"])
def test_other_suffixes_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a name that ends with \.zarr or \.nc"):
        SampleWriter(tmp_path / name, coordinates(), VARIABLES, M)


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for suffix in ("zarr", "nc"):
        with pytest.raises(UserError, match=r"Cannot write .*MiB are free"):
            SampleWriter(tmp_path / "file" / f"out.{suffix}", coordinates(), VARIABLES, M)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 64 KiB: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
def test_full_disk(path: Path) -> None:
    noise = {name: np.random.default_rng(0).normal(size=(200, 20, Y, X)) for name in VARIABLES}
    with pytest.raises(UserError, match=r"Cannot write .*Make room"):
        with SampleWriter(path, coordinates(200), VARIABLES, 20) as writer:
            writer.write(0, noise)
    assert not path.exists()


def test_wrong_shapes_are_defects_of_the_caller(path: Path) -> None:
    writer = SampleWriter(path, coordinates(), VARIABLES, M)
    for start, block in ((0, fields(6, M + 1)), (1, fields()), (-1, fields(1)), (0, {"t2m": fields()["t2m"]})):
        with pytest.raises(ValueError, match=r"template|fit"):
            writer.write(start, block)
    writer.write(0, fields())
    writer.close()


def test_members_must_be_some(path: Path) -> None:
    with pytest.raises(UserError, match="members=0 must be at least 1"):
        SampleWriter(path, coordinates(), VARIABLES, 0)


def test_2d_coordinates_and_the_grid_mapping_survive(path: Path) -> None:
    """As CF wants them: coordinates named by the variables, the mapping by its own attribute, through a second copy."""
    lat, lon = np.meshgrid(np.linspace(38, 39, Y), np.linspace(-98, -97, X), indexing="ij")
    attrs = {
        "grid_mapping_name": "lambert_conformal_conic",
        "standard_parallel": [38.5, 38.5],
        "earth_radius": 6371229.0,
    }
    coords = xr.Dataset(
        coords={
            "time": coordinates()["time"],
            "latitude": (("y", "x"), lat, {"standard_name": "latitude", "units": "degrees_north"}),
            "longitude": (("y", "x"), lon, {"standard_name": "longitude", "units": "degrees_east"}),
            "crs": ((), np.int32(0), attrs),
        }
    )
    truth = fields()
    with SampleWriter(path, coords, VARIABLES, M, ("time", "y", "x")) as writer:
        writer.write(0, truth)
    with xr.open_zarr(path) if path.suffix == ".zarr" else xr.open_dataset(path) as ds:
        found = ds.load()
    np.testing.assert_array_equal(found["t2m"], truth["t2m"])
    np.testing.assert_array_equal(found["latitude"], lat)
    assert set(found["t2m"].coords) >= {"latitude", "longitude"} and "x" not in found.coords
    assert found["t2m"].attrs["grid_mapping"] == "crs" and found["t2m"].attrs["units"] == "K"
    stored = found["crs"].attrs
    assert stored["grid_mapping_name"] == attrs["grid_mapping_name"]
    assert np.array_equal(stored["standard_parallel"], attrs["standard_parallel"])
    raw = xr.open_dataset(path, decode_coords=False, engine="zarr" if path.suffix == ".zarr" else None)
    assert raw["t2m"].attrs["coordinates"] == "latitude longitude"  # CF: the mapping is no auxiliary coordinate
    assert "coordinates" not in raw.attrs
    raw.close()
    whole = xr.open_dataset(path, decode_coords="all", engine="zarr" if path.suffix == ".zarr" else None)
    assert "crs" in whole.coords and whole["t2m"].encoding["grid_mapping"] == "crs"
    whole.close()
