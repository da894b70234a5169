"""Batch inference that can be trusted: kills, shares, workers, order, selections and damage change no byte."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import scigen
from scigen.cli import main
from scigen.errors import UserError
from scigen.workflows.chosen import member_numbers

RUN = "import sys; from scigen.cli import main; sys.exit(main(sys.argv[1:]))"


def tree(path: Path) -> dict[str, str]:
    """Digests of all files of an archive, `.scigen` aside."""
    if path.is_file():
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    files = (p for p in path.rglob("*") if p.is_file() and ".scigen" not in p.parts)
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def start(home: Path, *words: str) -> subprocess.Popen:
    """The command line in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", RUN, *words], cwd=home, env=env, stdout=pipe, stderr=pipe, text=True)


def words(inside, **more) -> list[str]:
    """A job of 40 times × 3 members in 20 items."""
    own = dict(bundle=inside.teacher, input=inside.archive, time="2015-01-01:2015-01-20", members=3, batch=4, item=2)
    return ["sample", *(f"{k}={v}" for k, v in (own | more).items())]


@pytest.fixture(scope="module", params=["zarr", *(pytest.param(k, marks=pytest.mark.slow) for k in ("nc", "folder"))])
def kind(request) -> str:
    """What is written: a zarr store, one netCDF file, a folder of them."""
    return request.param


@pytest.fixture(scope="module")
def whole(fitted, tmp_path_factory, kind) -> Path:
    """The undisturbed output, in each format."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(fitted.home)
        out = output(tmp_path_factory.mktemp("whole"), kind)
        assert main(words(fitted, output=out)) == 0
    return out


def output(folder: Path, kind: str) -> Path:
    return folder / ("out" if kind == "folder" else f"out.{kind}")


def read(path: Path) -> xr.Dataset:
    return scigen.open(path).load()


def killed_and_resumed(inside, out: Path, kills: int, seed: int) -> int:
    """Kill the command after random times, then let it end; returns the number of kills that met it at work."""
    rng, met = random.Random(seed), 0
    for _ in range(kills):
        process = start(inside.home, *words(inside, output=out))
        while not (out.exists() or out.with_name(out.name + ".partial").exists()) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.6))
        met += process.poll() is None
        process.kill()
        process.communicate()
    assert main(words(inside, output=out)) == 0
    return met


def test_killed_runs_end_with_the_same_bytes(inside, tmp_path, whole, kind):
    out = output(tmp_path, kind)
    assert killed_and_resumed(inside, out, 2, seed=3) >= 1
    assert tree(out) == tree(whole)
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_no_byte(inside, tmp_path, whole, kind):
    out = output(tmp_path, kind)
    assert killed_and_resumed(inside, out, 10, seed=4) >= 3
    assert tree(out) == tree(whole)


def test_sigterm_gives_the_item_up_and_the_command_goes_on(inside, tmp_path, whole, kind):
    out = output(tmp_path, kind)
    process = start(inside.home, *words(inside, output=out))
    home = out.with_name(out.name + ".partial") if kind == "nc" else out
    while not list((home / ".scigen" / "done").glob("*.json")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode in (143, 0) and "Traceback" not in said
    assert main(words(inside, output=out)) == 0
    assert tree(out) == tree(whole)


@pytest.mark.parametrize("more", [dict(batch=1), dict(batch=3), dict(batch=8)])
def test_another_compute_batch_agrees_to_rounding(inside, tmp_path, whole, kind, more):
    if kind != "zarr":
        pytest.skip("one format is enough")
    assert main(words(inside, output=tmp_path / "o.zarr", **more)) == 0
    for name, field in read(tmp_path / "o.zarr").items():
        scale = float(abs(read(whole)[name]).max())
        np.testing.assert_allclose(field, read(whole)[name], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("item", [1, 3, 8, 40])
def test_the_size_of_items_changes_no_bit(inside, tmp_path, whole, kind, item):
    if kind != "zarr":
        pytest.skip("one format is enough")
    assert main(words(inside, output=tmp_path / "o.zarr", item=item)) == 0
    assert read(tmp_path / "o.zarr").drop_attrs().identical(read(whole).drop_attrs())


def test_some_times_members_and_variables_alone_are_what_they_are_in_the_whole(inside, tmp_path, whole):
    more = dict(time="2015-01-07:2015-01-09", members="[2,0]", variables="[u10]", item=1)
    assert main(words(inside, output=tmp_path / "o.zarr", **more)) == 0
    part, everything = read(tmp_path / "o.zarr"), read(whole)
    assert list(part.data_vars) == ["u10"] and part["member"].values.tolist() == [0, 2]
    own = everything["u10"].sel(time=part["time"], member=part["member"])
    np.testing.assert_array_equal(part["u10"], own)


@pytest.mark.parametrize("chunks", [{"time": 7}, {"time": -1, "latitude": 5}, {"time": 1}])
def test_the_chunks_of_the_input_change_no_bit(inside, tmp_path, whole, kind, chunks):
    if kind != "zarr":
        pytest.skip("one format is enough")
    ds = xr.open_zarr(inside.archive)[["t2m", "u10", "v10"]].isel(time=slice(0, 60)).load().drop_encoding()
    ds.chunk(chunks).to_zarr(tmp_path / "in.zarr", zarr_format=2)
    assert main(words(inside, output=tmp_path / "o.zarr", input=tmp_path / "in.zarr")) == 0
    np.testing.assert_array_equal(read(tmp_path / "o.zarr")["t2m"], read(whole)["t2m"])


def test_shares_that_run_at_once_on_one_store_make_the_whole(inside, tmp_path, whole, kind):
    out = output(tmp_path, kind)
    shares = [start(inside.home, *words(inside, output=out, items=f"{k}/2")) for k in (1, 2)]
    said = [p.communicate() for p in shares]
    assert [p.returncode for p in shares] == [0, 0], said
    assert tree(out) == tree(whole)
    assert main(["check", f"path={out}"]) == 0


def test_workers_of_a_dask_cluster_make_the_same_bytes(inside, tmp_path, whole, kind):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    if kind != "zarr":
        pytest.skip("one format is enough")
    more = {"executor": "dask", "executor.workers": 2}
    process = start(inside.home, *words(inside, output=tmp_path / "o.zarr", **more))
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert tree(tmp_path / "o.zarr") == tree(whole)


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_an_item_and_no_byte(inside, tmp_path, whole, kind):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    if kind != "zarr":
        pytest.skip("one format is enough")
    import psutil

    more = {"executor": "dask", "executor.workers": 3}
    process = start(inside.home, *words(inside, output=tmp_path / "o.zarr", item=1, **more))
    while len(list((tmp_path / "o.zarr" / ".scigen" / "done").glob("*.json"))) < 3 and process.poll() is None:
        time.sleep(0.01)
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    assert len(workers) >= 3
    workers[0].kill()
    _, said = process.communicate()
    assert process.returncode == 0, said
    one = read(tmp_path / "o.zarr")
    assert one.drop_attrs().identical(read(whole).drop_attrs())


def test_check_finds_a_changed_byte_and_the_command_mends_it(inside, tmp_path, whole, kind, capsys):
    out = output(tmp_path, kind)
    assert main(words(inside, output=out)) == 0
    assert main(["check", f"path={out}"]) == 0
    victim = (
        out
        if out.is_file()
        else max(p for p in out.rglob("*") if p.is_file() and ("c" in p.parts or p.suffix == ".nc"))
    )
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    assert main(["check", f"path={out}"]) == 2
    assert "not whole" in capsys.readouterr().err
    if kind != "nc":  # a joined file has no items left: it is removed and made again
        assert main(["check", f"path={out}", "repair=true"]) == 2
        assert main(words(inside, output=out)) == 0
        assert tree(out) == tree(whole)


def test_an_item_that_cannot_be_read_is_recorded_and_the_others_are_made(inside, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("scigen.io.blocks.BLOCK_BYTES", 2048)  # else so little is one block, and one read
    ds = xr.open_zarr(inside.archive)[["t2m", "u10", "v10"]].isel(time=slice(0, 32)).load().drop_encoding()
    ds.to_zarr(tmp_path / "in.zarr", zarr_format=2, encoding={n: {"chunks": (2, 16, 16)} for n in ds})
    (tmp_path / "in.zarr" / "u10" / "3.0.0").write_bytes(b"\x00broken")
    more = dict(input=tmp_path / "in.zarr", output=tmp_path / "o.zarr", time="2015-01-01:2015-01-16")
    assert main(words(inside, **more)) == 2
    said = capsys.readouterr().err
    assert "1 of 16 items failed" in said and "2015-01-04" in said
    made = scigen.open(tmp_path / "o.zarr")
    assert made.attrs["scigen_complete"] == 0
    missing = np.isnan(made["t2m"].values).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(missing, [False] * 6 + [True] * 2 + [False] * 24)
    made.close()
    ds[["u10"]].to_zarr(tmp_path / "in.zarr", mode="a", zarr_format=2)
    assert main(words(inside, **more)) == 0
    assert np.isfinite(read(tmp_path / "o.zarr")["t2m"]).all()


def test_a_missing_day_is_said_and_a_time_that_appears_twice_is_refused(inside, tmp_path, capsys):
    ds = xr.open_zarr(inside.archive)[["t2m", "u10", "v10"]].isel(time=slice(0, 12)).load().drop_encoding()
    ds.isel(time=[0, 1, 2, 3, 6, 7]).to_netcdf(tmp_path / "gap.nc")
    own = dict(output=tmp_path / "o.zarr", time="2015-01-01:2015-01-05")
    assert main(words(inside, input=tmp_path / "gap.nc", **own)) == 0
    assert "gap" in capsys.readouterr().err
    assert read(tmp_path / "o.zarr").sizes["time"] == 6
    ds.isel(time=[0, 1, 1, 2]).to_netcdf(tmp_path / "twice.nc")
    assert main(words(inside, input=tmp_path / "twice.nc", **own | {"output": tmp_path / "p.zarr"})) == 2
    said = capsys.readouterr().err
    assert "1 time more than once, first 2015-01-01 12" in said
    assert not (tmp_path / "p.zarr").exists()


def test_an_archive_that_has_grown_is_refused_and_its_old_part_goes_on(inside, tmp_path, capsys):
    ds = xr.open_zarr(inside.archive)[["t2m", "u10", "v10"]].isel(time=slice(0, 12)).load().drop_encoding()
    ds.isel(time=slice(0, 6)).to_zarr(tmp_path / "in.zarr", zarr_format=2)
    own = [w for w in words(inside, input=tmp_path / "in.zarr", output=tmp_path / "o.zarr") if not w.startswith("time")]
    assert main(own) == 0
    before = tree(tmp_path / "o.zarr")
    ds.isel(time=slice(6, 12)).to_zarr(tmp_path / "in.zarr", append_dim="time")
    assert main(own) == 2
    said = capsys.readouterr().err
    assert "belongs to another job" in said and "time" in said and "overwrite=true" in said
    assert tree(tmp_path / "o.zarr") == before


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_what_comes_out_is_an_archive_for_other_tools(inside, tmp_path, suffix):
    """Plain xarray opens it without a warning, NaN marks what is missing, and members are named as CF does."""
    assert main(words(inside, output=tmp_path / f"o.{suffix}")) == 0
    opened = (xr.open_zarr if suffix == "zarr" else xr.open_dataset)(tmp_path / f"o.{suffix}")
    assert opened["t2m"].dims == ("time", "member", "latitude", "longitude")
    assert opened["member"].attrs["standard_name"] == "realization" and opened.attrs["scigen_complete"] == 1
    assert opened["t2m"].attrs["units"] == "K" and np.isnan(opened["t2m"].encoding["_FillValue"])
    if suffix == "zarr":
        assert opened["t2m"].encoding["chunks"] == (1, 1, 16, 16) and opened["t2m"].encoding["shards"] == (2, 3, 16, 16)
    opened.close()


def test_python_gives_what_the_command_writes(inside, tmp_path, whole, kind):
    if kind != "zarr":
        pytest.skip("one format is enough")
    archive = xr.open_zarr(inside.archive).sel(time=slice("2015-01-01", "2015-01-20"))
    ensemble = scigen.load(inside.teacher).sample(archive, members=3, batch=4)
    np.testing.assert_array_equal(ensemble["u10"].sel(time="2015-01-05"), read(whole)["u10"].sel(time="2015-01-05"))


def test_a_dry_run_says_what_it_would_take_and_makes_nothing(inside, tmp_path, capsys):
    assert main(words(inside, output=tmp_path / "o.zarr", dry_run="true")) == 0
    said = capsys.readouterr().out
    assert "20, of up to 2 samples × 3 members" in said and "369 kB" in said and "seconds" in said
    assert not list(tmp_path.iterdir())


def test_a_part_of_the_region_is_the_whole_s_own_part(inside, tmp_path):
    """Away from the new edge by more than the network sees, one call of a student makes the same cells."""
    region = "{latitude: [49, 52], longitude: [0, 2]}"
    own = dict(bundle=inside.student, time="2015-01-01:2015-01-03")
    assert main(words(inside, output=tmp_path / "o.zarr", region=region, **own)) == 0
    assert main(words(inside, output=tmp_path / "w.zarr", **own)) == 0
    part, everything = read(tmp_path / "o.zarr"), read(tmp_path / "w.zarr")
    assert part.sizes["latitude"] == 12 and part.sizes["longitude"] == 12  # whole blocks of 4 cells
    corner = dict(latitude=part["latitude"][-1], longitude=part["longitude"][0])
    np.testing.assert_allclose(part["t2m"].sel(corner), everything["t2m"].sel(corner), rtol=1e-3)
    with pytest.raises(UserError, match="not bound to a place"):
        from scigen.mri.physics import ReconstructionCodec

        ReconstructionCodec.within(object.__new__(ReconstructionCodec), {"y": [0, 1]})


@pytest.mark.parametrize(
    ("words_", "message"),
    [
        (dict(items="17/16"), "items=17/16"),
        (dict(item=0), "item=0"),
        (dict(members="7:7"), "members=7:7"),
        (dict(variables="[snow]"), "variables=snow"),
        (dict(region="{latitude: [70, 80]}"), "holds no cell"),
        (dict(region="{depth: [1, 2]}"), "not of depth"),
        (dict(precision="fp8"), "precision=fp8"),
        (dict(tile=3), "Tiles of 3 cells are too small"),
        ({"executor": "dask", "executor.workers": 0}, "executor.workers=0"),
    ],
)
def test_mistakes_are_named_before_anything_is_made(inside, tmp_path, capsys, words_, message):
    assert main(words(inside, output=tmp_path / "o.zarr", **words_)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_members_in_words():
    assert member_numbers(3) == [0, 1, 2] and member_numbers("4:6") == [4, 5] and member_numbers([7, 3, 7]) == [3, 7]
    for wrong in (0, True, "3", "a:b", [-1], [1.5], None):
        with pytest.raises(UserError, match="members="):
            member_numbers(wrong)
