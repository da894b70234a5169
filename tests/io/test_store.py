import json
import os
import resource
import subprocess
import sys
import threading
import warnings
from collections import namedtuple
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from scigen.errors import UserError
from scigen.io import disk, formats
from scigen.io.archive import open_archive
from scigen.io.formats import LIBRARY
from scigen.io.plan import Item
from scigen.io.store import EnsembleStore
from scigen.io.verify import verify

T, M, Y, X = 5, 3, 4, 5
VARIABLES = {
    "t2m": {"units": "K", "standard_name": "air_temperature"},
    "pr": {"units": "kg m-2 s-1", "standard_name": "precipitation_flux"},
}
NUMBERS = [4, 5, 7]


def coordinates(times: int = T) -> xr.Dataset:
    ds = xr.Dataset(
        coords={
            "time": pd.date_range("2019-03-01", periods=times, freq="6h"),
            "latitude": np.linspace(58, 57, Y),
            "longitude": np.linspace(-2, -1, X),
        }
    )
    ds["time"].encoding = {"units": "hours since 1900-01-01", "calendar": "standard", "dtype": "int16", "chunks": (1,)}
    return ds


def truth(times: int = T) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    out = {name: rng.normal(0, 1, (times, M, Y, X)).astype(np.float32) for name in VARIABLES}
    out["pr"][1] = 0  # a dry hour
    out["t2m"][2, 1] = np.nan
    return out


def make(path: Path, **changes: Any) -> EnsembleStore:
    given: dict[str, Any] = dict(
        coords=coordinates(), variables=VARIABLES, members=NUMBERS, identity={"bundle": "ab12", "seed": 1}, block=2,
        group=M,
    )  # fmt: skip
    return EnsembleStore(path, **(given | changes))


def part(fields: dict[str, np.ndarray], item: Item) -> dict[str, np.ndarray]:
    return {k: v[item.start : item.stop, item.low : item.high] for k, v in fields.items()}


def fill(store: EnsembleStore, fields: dict[str, np.ndarray] | None = None) -> dict[str, Any]:
    for item in store.left():
        store.write(item, part(fields or truth(), item))
    return store.finish()


def plain(path: Path) -> xr.Dataset:
    """What a user gets who opens the output with xarray alone; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if path.suffix == ".zarr":
            return xr.open_zarr(path).load()
        if path.is_dir():
            how: dict[str, Any] = dict(
                data_vars="minimal", coords="minimal", compat="override"
            )  # xarray's next default
            with xr.open_mfdataset(str(path / "*.nc"), combine="by_coords", **how) as ds:
                return ds.load()
        with xr.open_dataset(path) as ds:
            return ds.load()


def data_of(path: Path) -> dict[str, bytes]:
    """Every byte of an output, its records aside."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    found = [p for p in path.rglob("*") if p.is_file() and ".scigen" not in p.parts]
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in found}


def home(path: Path) -> Path:
    return path.with_name("out.nc.partial") if path.suffix == ".nc" else path


@pytest.fixture(params=["out.zarr", "out.nc", "out"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


# ------------------------------------------------------------------------------------------------------- what is there


def test_what_is_written_is_read(path: Path) -> None:
    summary = fill(make(path))
    found = plain(path)
    for name, expected in truth().items():
        assert found[name].dims == ("time", "member", "latitude", "longitude")
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], expected)
    assert found["member"].values.tolist() == NUMBERS and found["member"].dtype == np.int64
    assert {p.name for p in path.parent.iterdir()} == {path.name}
    assert (summary["items"], summary["samples"], summary["members"]) == (3, T, M)
    assert summary["variables"]["t2m"]["nan"] == Y * X and summary["variables"]["pr"]["nan"] == 0
    np.testing.assert_allclose(summary["variables"]["t2m"]["mean"], np.nanmean(truth()["t2m"], dtype=float), rtol=1e-12)
    assert summary["variables"]["pr"]["max"] == truth()["pr"].max()
    assert summary["bytes"] == sum(map(len, data_of(path).values()))
    xr.testing.assert_identical(open_archive(path).load()["pr"], found["pr"])


def test_unwritten_reads_nan_and_zero_is_zero(tmp_path: Path) -> None:
    path = tmp_path / "out.zarr"
    store = make(path)
    assert plain(path).attrs["scigen_complete"] == 0 and plain(path)["pr"].isnull().all()
    zeros = {k: np.zeros((2, M, Y, X)) for k in VARIABLES}
    store.write(store.items[1], zeros)
    found = plain(path)["pr"]
    assert (found[2:4] == 0).all() and found[[0, 1, 4]].isnull().all()
    assert (path / "pr" / "c" / "1" / "0" / "0" / "0").is_file()
    assert plain(path).attrs["scigen_complete"] == 0


def test_fields_of_nothing_exist_as_files(tmp_path: Path) -> None:
    """All missing, and phases that are all 0, are told from not written by their shards."""
    path = tmp_path / "out.zarr"
    store = make(path, variables={"a": {}, "phase": {}}, dtypes={"phase": "uint8"})
    fill(store, {"a": np.full((T, M, Y, X), np.nan), "phase": np.zeros((T, M, Y, X), np.uint8)})
    assert sum(1 for p in path.rglob("c/*/0/0/0")) == 6
    assert plain(path)["phase"].dtype == np.uint8 and plain(path)["a"].isnull().all()
    assert plain(path).attrs["scigen_complete"] == 1


def test_chunk_is_a_field_and_shard_an_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(tmp_path / "out.zarr", group=2)
    array = zarr.open_array(tmp_path / "out.zarr" / "t2m", mode="r")
    assert array.chunks == (1, 1, Y, X) and array.shards == (2, 2, Y, X) and np.isnan(array.fill_value)
    assert [i.fields for i in store.items] == [4, 2, 4, 2, 2, 1]
    fill(store)
    np.testing.assert_array_equal(plain(tmp_path / "out.zarr")["t2m"], truth()["t2m"])
    monkeypatch.setattr(formats, "CHUNK_BYTES", 3 * X * 4)  # three rows of four: parts of two
    fill(make(tmp_path / "cut.zarr"))
    array = zarr.open_array(tmp_path / "cut.zarr" / "t2m", mode="r")
    assert array.chunks == (1, 1, 2, X) and array.shards == (2, M, 4, X)
    np.testing.assert_array_equal(plain(tmp_path / "cut.zarr")["t2m"], truth()["t2m"])


def test_flipped_bit_of_a_field_is_not_read(tmp_path: Path) -> None:
    for name in ("out.zarr", "out.nc"):
        path = tmp_path / name
        fill(make(path))
        where = path / "t2m" / "c" / "0" / "0" / "0" / "0" if path.is_dir() else path
        data = bytearray(where.read_bytes())
        at = 20 if path.is_dir() else data.index(b"\x78\x01") + 20  # the first field; zlib begins so at level 1
        data[at] ^= 1
        where.write_bytes(data)
        with pytest.raises((ValueError, OSError, RuntimeError)):
            plain(path)
    with netCDF4.Dataset(tmp_path / "out.nc") as file:
        assert file["t2m"].filters()["fletcher32"]  # zlib's own is not there where a chunk does not get smaller


def test_attributes_and_encoding_are_what_a_meteorologist_expects(path: Path) -> None:
    attrs = {"scigen_nfe": 1, "config": {"a": [1, 2]}, "flag": True, "nothing": None, "history": "scigen sample"}
    fill(make(path, attrs=attrs | {"array": np.array([1.0, 2.0])}))
    found = plain(path)
    assert found["t2m"].attrs == VARIABLES["t2m"]
    assert np.isnan(found["t2m"].encoding["_FillValue"])
    assert found["member"].attrs["standard_name"] == "realization"
    assert [found[d].attrs.get("axis") for d in ("time", "latitude", "longitude")] == ["T", "Y", "X"]
    assert found["latitude"].attrs["units"] == "degrees_north"
    xr.testing.assert_equal(found["time"], coordinates()["time"])
    encoding = found["time"].encoding
    assert encoding["units"].startswith("hours since 1900-01-01") and encoding["calendar"] == "standard"
    assert encoding["dtype"] == np.int64
    assert found.attrs["Conventions"] == "CF-1.11"
    assert found.attrs["scigen_nfe"] == 1 and "nothing" not in found.attrs
    assert json.loads(found.attrs["config"]) == {"a": [1, 2]} and json.loads(found.attrs["flag"]) is True
    assert found.attrs["history"].endswith("\nscigen sample") and "scigen" in found.attrs["history"].splitlines()[0]


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_calendars_survive(path: Path, calendar: str) -> None:
    times = xr.date_range("2001-02-27", periods=T, freq="12h", calendar=calendar, use_cftime=True)
    fill(make(path, coords=coordinates().assign_coords(time=times)))
    found = plain(path)
    assert found.indexes["time"].equals(times)
    assert found["time"].encoding["calendar"] == calendar


def test_times_finer_than_the_units_of_the_input_stay_exact(path: Path) -> None:
    coords = coordinates()
    coords = coords.assign_coords(time=("time", coords["time"].values + np.timedelta64(30, "m")))
    coords["time"].encoding = {"units": "hours since 1900-01-01"}
    fill(make(path, coords=coords))
    np.testing.assert_array_equal(plain(path)["time"], coords["time"])


def test_samples_without_time_and_fields_in_space(path: Path) -> None:
    """Slices of subjects and specimens: text along the samples, a second coordinate beside it, three axes of space."""
    names = [f"subject1/{i}" for i in range(T)]
    coords = xr.Dataset(
        coords={"slice": names, "subject": ("slice", ["subject1"] * T), "z": np.arange(2.0), "y": np.arange(Y) * 1.0}
    )
    fields = {"a": np.arange(T * M * 2 * Y, dtype=np.uint8).reshape(T, M, 2, Y)}
    dims = ("slice", "z", "y")
    fill(make(path, coords=coords, variables={"a": {}}, dtypes={"a": "uint8"}, dims=dims), fields)
    found = plain(path)
    np.testing.assert_array_equal(found["a"], fields["a"])
    assert found["slice"].values.tolist() == names and found["subject"].values.tolist() == ["subject1"] * T
    assert found["a"].dims == ("slice", "member", "z", "y") and found["a"].dtype == np.uint8


def test_2d_coordinates_and_the_grid_mapping_survive(path: Path) -> None:
    """As CF wants them: coordinates named by the variables, the mapping by its own attribute."""
    lat, lon = np.meshgrid(np.linspace(38, 39, Y), np.linspace(-98, -97, X), indexing="ij")
    attrs = {"grid_mapping_name": "lambert_conformal_conic", "standard_parallel": [38.5, 38.5]}
    coords = xr.Dataset(
        coords={
            "time": coordinates()["time"],
            "latitude": (("y", "x"), lat, {"standard_name": "latitude", "units": "degrees_north"}),
            "longitude": (("y", "x"), lon, {"standard_name": "longitude", "units": "degrees_east"}),
            "crs": ((), np.int32(0), attrs),
        }
    )
    fill(make(path, coords=coords, dims=("time", "y", "x")))
    found = plain(path)
    np.testing.assert_array_equal(found["t2m"], truth()["t2m"])
    np.testing.assert_array_equal(found["latitude"], lat)
    assert set(found["t2m"].coords) >= {"latitude", "longitude"} and "x" not in found.coords
    assert found["t2m"].attrs["grid_mapping"] == "crs" and found["t2m"].attrs["units"] == "K"
    assert found["crs"].attrs["grid_mapping_name"] == attrs["grid_mapping_name"]
    first = next(path.glob("*.nc")) if path.suffix == "" else path
    raw = xr.open_dataset(first, decode_coords=False, engine="zarr" if path.suffix == ".zarr" else None)
    assert raw["t2m"].attrs["coordinates"] == "latitude longitude" and "coordinates" not in raw.attrs
    raw.close()


def test_input_is_left_as_it_was(path: Path) -> None:
    coords = coordinates()
    fill(make(path, coords=coords))
    assert coords["time"].encoding["dtype"] == "int16" and not coords["latitude"].attrs and not coords.attrs


# --------------------------------------------------------------------------------------------------- kills and resumes

JOB = """
import json, os, random, signal, sys, time
import numpy as np, xarray as xr
from pathlib import Path
from scigen.io.store import EnsembleStore

def job(path, share=0, of=1, fatal=None):
    calls = [0]
    for name in ("replace", "rename", "fsync"):
        def dying(*args, real=getattr(os, name)):
            calls[0] += 1
            if calls[0] == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args)
        setattr(os, name, dying)
    coords = xr.Dataset(coords={"time": np.arange(12), "y": np.arange(8.0), "x": np.arange(9.0)})
    store = EnsembleStore(path, coords, {"a": {}, "b": {}}, range(4), ("time", "y", "x"), identity={"seed": 1},
                          attrs={"history": "scigen sample"}, block=2, group=4)
    for item in [i for i in store.left() if i.number % of == share]:
        rng = np.random.default_rng(item.number)
        store.write(item, {n: rng.normal(size=(item.stop - item.start, 4, 8, 9)) for n in "ab"}, {"pid": os.getpid()})
    if not store.left():
        store.finish()

def child(*args):
    pid = os.fork()  # nothing has started a thread yet
    if pid == 0:
        job(*args)
        os._exit(0)
    return pid

def dead(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

how, name, folder = sys.argv[1:]
path = Path(folder) / how / name
xr.backends.list_engines()  # imported once, before the forks
assert dead(child(Path(folder) / "once" / name)) == 0
killed, code = 0, None
if how == "random":
    rng = random.Random(0)
    while code != 0:
        pid = child(path)
        time.sleep(rng.uniform(0, 0.1 + 0.03 * killed))
        os.kill(pid, signal.SIGKILL)
        code = dead(pid)
        killed += code != 0
elif how == "steps":
    while code != 0:
        code = dead(child(path, 0, 1, 1 + 3 * killed))
        assert code in (0, -9)
        killed += code != 0
elif how == "shares":
    assert [dead(p) for p in [child(path, i, 2) for i in range(2)]] == [0, 0]
    assert dead(child(path)) == 0  # neither of the two need have seen that nothing was left
elif how == "same":
    assert [dead(p) for p in [child(path) for i in range(3)]] == [0, 0, 0]
print(killed)
"""


@pytest.mark.parametrize(
    ("how", "name"),
    [
        ("random", "out.zarr"), ("random", "out.nc"), ("steps", "out.zarr"), ("steps", "out.nc"), ("steps", "out"),
        ("shares", "out.zarr"), ("same", "out.zarr"), ("same", "out.nc"),
    ],
)  # fmt: skip
def test_the_bytes_are_those_of_an_undisturbed_run(how: str, name: str, tmp_path: Path) -> None:
    """Killed at any moment; before a sync, before a rename, between shards and marker; shares; three with one aim."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", JOB, how, name, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    assert int(done.stdout) >= {"random": 2, "steps": 6}.get(how, 0)
    expected = data_of(tmp_path / "once" / name)
    assert len(expected) == {"out.zarr": 23, "out.nc": 1, "out": 6}[name]
    assert data_of(tmp_path / how / name) == expected
    assert verify(tmp_path / how / name).whole
    assert [p.name for p in (tmp_path / how).iterdir()] == [name]


def test_threads_write_and_read_at_once(path: Path) -> None:
    fill(make(path.with_name(f"alone{path.suffix}")))
    store, errors = make(path), []
    other = path.parent / "other.nc"
    coordinates(200).to_netcdf(other)

    def write(item: Item) -> None:
        try:
            store.write(item, part(truth(), item))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in [*store.items, *store.items]]
    for thread in threads:
        thread.start()
    for _ in range(10):
        with LIBRARY:
            xr.load_dataset(other)
    for thread in threads:
        thread.join()
    store.finish()
    assert not errors
    xr.testing.assert_identical(plain(path), plain(path.with_name(f"alone{path.suffix}")))


def test_resume_keeps_what_the_store_was_begun_with(path: Path) -> None:
    store = make(path, attrs={"history": "first"})
    store.write(store.items[0], part(truth(), store.items[0]))
    store.note("batch", 8)
    again = make(path, attrs={"history": "second"}, block=1)
    assert again.items == store.items and [i.number for i in again.left()] == [1, 2]
    assert again.noted("batch") == 8 and again.noted("other") is None
    fill(again)
    assert plain(path).attrs["history"].endswith("first")
    assert make(path).left() == []
    assert make(path, overwrite=True).left() == []  # the same job is never thrown away


def test_finish_is_idempotent_and_waits_for_all(path: Path) -> None:
    store = make(path)
    store.write(store.items[1], part(truth(), store.items[1]))
    with pytest.raises(UserError, match=r"2 of 3 items are missing: 000000, 000002\. Repeat"):
        store.finish()
    assert not verify(path).complete
    first = fill(store)
    before = data_of(path)
    assert store.finish() == first == make(path).finish()
    store.write(store.items[0], part(truth(), store.items[0]))  # a straggler's
    store.note("late", 1)
    store.failed(store.items[0], ValueError("late"))
    assert data_of(path) == before
    assert {p.name for p in path.parent.iterdir()} == {path.name}


def test_failed_items_are_told_until_they_are_done(path: Path) -> None:
    store = make(path)
    try:
        raise ValueError("no numbers")
    except ValueError as error:
        store.failed(store.items[2], error)
    record = json.loads((store.notes / "failed" / "000002.json").read_text())
    assert "ValueError: no numbers" in record["error"] and "Traceback" in record["traceback"] and record["host"]
    assert verify(path).failed == {"000002": "ValueError: no numbers"}
    with pytest.raises(UserError, match="000002: ValueError: no numbers"):
        store.finish()
    fill(store)
    assert store.failures() == {} and verify(path).whole


# ------------------------------------------------------------------------------------------------------------ refusals


def test_another_job_is_refused_with_the_difference(path: Path) -> None:
    fill(make(path))
    before = data_of(path)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"identity": {"bundle": "ab12", "seed": 2}}, "identity|seed: there 1, asked for 2"),
        ({"identity": {"bundle": "ab12", "seed": 1, "steps": [1, 2]}}, r"steps: there None, asked for \[1, 2\]"),
        ({"members": [4, 5, 6]}, r"coordinates\.member: there .*4 … 7.*asked for .*4 … 6"),
        ({"coords": coordinates(4)}, r"coordinates\.time: there '5 values"),
        ({"coords": coordinates().assign_coords(latitude=np.linspace(58, 57, Y) + 1e-9)}, r"coordinates\.latitude"),
        ({"variables": {"t2m": {}}}, r"variables\.pr: there 'float32', asked for None"),
        ({"dtypes": {"pr": "float64"}}, r"variables\.pr: there 'float32', asked for 'float64'"),
    ]
    for change, said in cases:
        with pytest.raises(UserError, match=f"(?s)another job.*({said}).*overwrite=true"):
            make(path, **change)
    assert data_of(path) == before
    replaced = make(path, identity={"bundle": "ab12", "seed": 2}, overwrite=True)
    assert len(replaced.left()) == 3
    fill(replaced, {k: v + 1 for k, v in truth().items()})
    np.testing.assert_array_equal(plain(path)["pr"], truth()["pr"] + 1)
    assert {p.name for p in path.parent.iterdir()} == {path.name}


def test_old_netcdf_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.nc"
    fill(make(path))
    before = data_of(path)
    new = make(path, identity={"seed": 2}, overwrite=True)
    new.write(new.items[0], part(truth(), new.items[0]))
    assert data_of(path) == before
    fill(make(path, identity={"seed": 2}, overwrite=True))
    assert "seed" in xr.open_dataset(path).attrs["scigen_plan"] and data_of(path) != before


def test_a_run_that_was_replaced_does_not_write_any_more(tmp_path: Path) -> None:
    path = tmp_path / "out.zarr"
    old = make(path)
    fill(make(path, identity={"seed": 2}, overwrite=True))
    before = data_of(path)
    for act in (lambda: old.write(old.items[0], part(truth(), old.items[0])), lambda: old.note("a", 1), old.finish):
        with pytest.raises(UserError, match="removed or replaced"):
            act()
    assert data_of(path) == before and verify(path).whole


def test_what_is_not_ours_is_never_touched(path: Path) -> None:
    if path.suffix == ".nc":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "mine.txt").write_text("mine")
    before = data_of(path)
    with pytest.raises(UserError, match="exists and is not an output"):
        make(path)
    assert data_of(path) == before
    if path.suffix == "":
        with pytest.raises(UserError, match="overwrite=true does not remove"):
            make(path, overwrite=True)
        assert data_of(path) == before
        return
    fill(make(path, overwrite=True))
    assert verify(path).whole and {p.name for p in path.parent.iterdir()} == {path.name}


def test_output_that_comes_to_exist_meanwhile_is_kept(tmp_path: Path) -> None:
    store = make(tmp_path / "out.nc")
    (tmp_path / "out.nc").write_text("mine")
    with pytest.raises(UserError, match="exists"):
        fill(store)
    assert (tmp_path / "out.nc").read_text() == "mine"
    (tmp_path / "out.nc").unlink()
    assert fill(make(tmp_path / "out.nc"))["items"] == 3


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    for name in ("out.zarr", "out"):
        (tmp_path / name).mkdir()
        fill(make(tmp_path / name))
        assert verify(tmp_path / name).whole


@pytest.mark.parametrize("name", ["out.grib", "out.nc4"])
def test_other_suffixes_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a name that ends with \.zarr or \.nc"):
        make(tmp_path / name)


def test_wrong_calls_are_defects_of_the_caller(path: Path) -> None:
    store = make(path)
    item = store.items[0]
    good = part(truth(), item)
    with pytest.raises(ValueError, match="variables"):
        store.write(item, {"t2m": good["t2m"]})
    with pytest.raises(ValueError, match="does not fit"):
        store.write(item, {k: v[:, :2] for k, v in good.items()})
    with pytest.raises(ValueError, match="not one of"):
        store.write(Item(0, 0, 1, 0, M), {k: v[:1] for k, v in good.items()})
    with pytest.raises(UserError, match="members"):
        make(path.with_name(f"b{path.suffix}"), members=[1, 1])
    with pytest.raises(UserError, match="members"):
        make(path.with_name(f"b{path.suffix}"), members=[])
    if path.suffix != ".zarr":
        with pytest.raises(ValueError, match="all 3 members"):
            make(path.with_name(f"b{path.suffix}"), group=2)


# ------------------------------------------------------------------------------------------------------------- the disk


def test_folder_that_cannot_be_written(path: Path) -> None:
    (path.parent / "file").touch()
    with pytest.raises(UserError, match=r"Cannot write .*MiB are free"):
        make(path.parent / "file" / path.name)


def test_full_disk_and_going_on_after_it(path: Path) -> None:
    noise = {k: np.random.default_rng(0).normal(size=(200, M, 8, X)).astype("f4") for k in VARIABLES}
    given = dict(coords=coordinates(200).isel(latitude=[0] * 8).assign_coords(latitude=np.arange(8.0)), block=199)
    store = make(path, **given)
    store.write(store.items[1], part(noise, store.items[1]))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))  # writing fails as on a full disk
    try:
        with pytest.raises(UserError, match=r"Cannot write .*Make room and repeat"):
            store.write(store.items[0], part(noise, store.items[0]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [i.number for i in store.left()] == [0] and not list((store.notes / "scratch").iterdir())
    fill(make(path, **given), noise)
    np.testing.assert_array_equal(plain(path)["t2m"], noise["t2m"])


def test_too_small_a_disk_is_known_before(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = namedtuple("usage", "total used free")
    size = 2 * 4 * T * M * Y * X * (2 if path.suffix == ".nc" else 1)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage(0, 0, size))
    store = make(path)
    assert "It may fit" not in caplog.text
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage(0, 0, size // 2))
    make(path)
    assert "It may fit after compression" in caplog.text
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage(0, 0, size // 21))
    with pytest.raises(UserError, match=r"takes up to .*are free\. Make room"):
        make(path)
    for item in store.left():
        store.write(item, part(truth(), item))
    make(path)  # nothing is left to write, except for the join
