import shutil
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.io.plan import Item
from scigen.io.store import EnsembleStore
from scigen.io.verify import gather, statistics, verify

T, M, Y, X = 4, 2, 6, 7


def make(path: Path) -> EnsembleStore:
    coords = xr.Dataset(coords={"time": np.arange(T), "y": np.arange(Y) * 1.0, "x": np.arange(X) * 1.0})
    return EnsembleStore(
        path, coords, {"a": {}, "b": {}}, range(M), ("time", "y", "x"), identity={"seed": 1}, block=2, group=M
    )


def fill(store: EnsembleStore) -> None:
    for item in store.left():
        store.write(item, fields(item))


def fields(item: Item) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(item.number)
    return {n: rng.normal(size=(item.stop - item.start, M, Y, X)).astype(np.float32) for n in "ab"}


def file_of(store: EnsembleStore, number: int) -> Path:
    """The first file of an item."""
    if store.path.suffix == ".zarr":
        return store.path / "a" / "c" / str(number) / "0" / "0" / "0"
    return next(store.home.glob(f"*{number:06d}.nc"))


def flip(path: Path, at: int = 25) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.fixture(params=["out.zarr", "out.nc", "out"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


def test_whole_archive(path: Path) -> None:
    store = make(path)
    assert verify(path).missing == ["000000", "000001"] and not verify(path).whole
    fill(store)
    before = verify(path)
    assert not before.missing and not before.whole and "has not finished" in "\n".join(before.lines())
    store.finish()
    report = verify(path)
    assert report.whole and (report.items, report.done) == (2, 2)
    every = np.concatenate([fields(i)["b"] for i in store.items])
    found = report.variables["b"]
    assert found["min"] == every.min() and found["max"] == every.max() and found["nan"] == 0
    np.testing.assert_allclose(found["mean"], every.mean(dtype=float), rtol=1e-12)
    assert "2 of 2 items are there, complete" in report.lines()[0]


@pytest.mark.parametrize("how", ["flip", "truncate", "remove"])
def test_damage_before_the_end_is_found_and_made_again(how: str, path: Path) -> None:
    store = make(path)
    fill(store)
    whole = file_of(store, 1).read_bytes()
    if how == "flip":
        flip(file_of(store, 1))
    elif how == "truncate":
        file_of(store, 1).write_bytes(whole[:-10])
    else:
        file_of(store, 1).unlink()
    report = verify(path)
    assert ("000001" in report.damaged) == (how == "flip") and ("000001" in report.missing) == (how != "flip")
    with pytest.raises(UserError, match=r"1 of 2 items .*: 000001\. Repeat the command"):
        store.finish()
    assert not verify(path).complete
    again = make(path)
    assert [i.number for i in again.left()] == [1]
    fill(again)
    assert file_of(again, 1).read_bytes() == whole
    again.finish()
    assert verify(path).whole


@pytest.mark.parametrize("name", ["out.zarr", "out"])
def test_damage_after_the_end_is_found_and_can_be_made_again(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    store = make(path)
    fill(store)
    store.finish()
    whole = file_of(store, 0).read_bytes()
    flip(file_of(store, 0))
    report = verify(path)
    assert list(report.damaged) == ["000000"] and not report.whole and make(path).left() == []
    assert "has changed" in "\n".join(report.lines())
    verify(path, repair=True)
    assert not verify(path).complete
    if name == "out.zarr":
        assert xr.open_zarr(path).attrs["scigen_complete"] == 0
    fill(make(path))
    make(path).finish()
    assert verify(path).whole and file_of(store, 0).read_bytes() == whole


def test_every_byte_of_a_zarr_store_is_accounted_for(tmp_path: Path) -> None:
    """Coordinates and metadata too: an archive with another latitude looks complete to everybody else."""
    path = tmp_path / "out.zarr"
    store = make(path)
    fill(store)
    store.finish()
    for file in [p for p in path.rglob("*") if p.is_file() and ".scigen" not in p.parts]:
        flip(file, len(file.read_bytes()) // 2)
        assert not verify(path).whole, file
        flip(file, len(file.read_bytes()) // 2)
    assert verify(path).whole
    flip(path / "y" / "c" / "0")
    (store.notes / "complete.json").unlink()
    with pytest.raises(UserError, match=r"is damaged: y/c/0\. These files describe the archive"):
        make(path).finish()


def test_values_changed_in_a_joined_file(tmp_path: Path) -> None:
    path = tmp_path / "out.nc"
    store = make(path)
    fill(store)
    store.finish()
    with netCDF4.Dataset(path, "a") as file:
        file["a"][1, 1, 2, 3] = 7
    report = verify(path)
    assert report.damaged == {"a": "has changed"} and not report.whole
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot be read"):
        verify(path)


def test_damaged_markers_count_as_missing(path: Path) -> None:
    store = make(path)
    fill(store)
    marker = store.notes / "done" / "000000.json"
    for text in (marker.read_text()[:40], "", "[]", "{}"):
        marker.write_text(text)
        assert [i.number for i in make(path).left()] == [0] and verify(path).missing == ["000000"]
    fill(make(path))
    store.finish()
    assert verify(path).whole


def test_marker_of_another_job_counts_for_nothing(tmp_path: Path) -> None:
    for name, seed in (("a.zarr", 1), ("b.zarr", 2)):
        store = EnsembleStore(
            tmp_path / name, make(tmp_path / "c.zarr").template.coords, {"a": {}, "b": {}}, range(M),
            ("time", "y", "x"), identity={"seed": seed}, block=2, group=M,
        )  # fmt: skip
        if seed == 1:
            fill(store)
    shutil.copytree(tmp_path / "a.zarr/.scigen/done", tmp_path / "b.zarr/.scigen/done", dirs_exist_ok=True)
    shutil.copytree(tmp_path / "a.zarr/a", tmp_path / "b.zarr/a", dirs_exist_ok=True)
    shutil.copytree(tmp_path / "a.zarr/b", tmp_path / "b.zarr/b", dirs_exist_ok=True)
    assert len(store.left()) == 2 and not verify(tmp_path / "b.zarr").done


def test_what_has_no_record(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not there"):
        verify(tmp_path / "out.zarr")
    (tmp_path / "out.zarr").mkdir()
    with pytest.raises(UserError, match="record of how it was made"):
        verify(tmp_path / "out.zarr")
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "out.nc")
    with pytest.raises(UserError, match="record of how it was made"):
        verify(tmp_path / "out.nc")


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    values = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(np.float32)
    values[0], values[1, 0, 0], values[1, 0, 1] = np.nan, np.inf, -np.inf
    found = gather([{"a": statistics(v)} for v in values])["a"]
    finite = values[np.isfinite(values)]
    assert (found["min"], found["max"]) == (finite.min(), finite.max())
    assert (found["nan"], found["infinite"]) == (12, 2)
    np.testing.assert_allclose(found["mean"], finite.mean(dtype=float), rtol=1e-12)
    nothing = gather([{"a": statistics(np.full(3, np.nan))}])["a"]
    assert nothing["min"] is None and nothing["mean"] is None and nothing["nan"] == 3
    whole = gather([{"a": statistics(np.array([3, 5], np.uint8))}])["a"]
    assert (whole["min"], whole["max"], whole["mean"]) == (3, 5, 4)
