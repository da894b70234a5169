"""Archives whose variables lie in groups."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.io.archive import open_archive
from scigen.io.groups import group_names, split_group

TIMES = pd.date_range("2021-01-01", periods=4, freq="6h")
LAT, LON = np.meshgrid([50.0, 51.0, 52.0], [0.0, 1.0], indexing="ij")


def fields(seed: int) -> xr.Dataset:
    return xr.Dataset(
        {"t2m": (("time", "y", "x"), np.random.default_rng(seed).normal(280, 5, (4, 3, 2)), {"units": "K"})}
    )


def write(path: Path, kind: str) -> Path:
    """What CorrDiff's generation writes: times and places in the root, fields in groups."""
    root = xr.Dataset({"lat": (("y", "x"), LAT), "lon": (("y", "x"), LON), "time": ("time", TIMES)})
    tree = xr.DataTree.from_dict({"/": root, "/truth": fields(0), "/model/prediction": fields(1)})
    if kind == "nc":
        tree.to_netcdf(path, write_inherited_coords=False)
    else:
        tree.to_zarr(path, zarr_format=int(kind[-1]), consolidated=kind == "zarr2", write_inherited_coords=False)
    return path


@pytest.mark.parametrize("kind", ["nc", "zarr2", "zarr3"])
def test_a_group_is_reached_by_its_name_and_has_the_times_and_places_of_the_root(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{kind[:4]}", kind)
    assert group_names(path) == ["model/prediction", "truth"] or group_names(path) == ["truth", "model/prediction"]
    for name, seed in (("truth", 0), ("model/prediction", 1)):
        found = open_archive(f"{path}::{name}")
        np.testing.assert_array_equal(found["t2m"], fields(seed)["t2m"])
        assert found.indexes["time"].equals(TIMES) and found["t2m"].chunks
        np.testing.assert_array_equal(found["lat"], LAT)
        assert found["lat"].dims == ("y", "x") and "lat" in found.coords
        assert found.encoding["source"] == f"{path}::{name}"
    with pytest.raises(UserError, match=r"no group 'truths' with variables: it has .*truth"):
        open_archive(f"{path}::truths")


@pytest.mark.parametrize("kind", ["nc", "zarr3"])
def test_an_archive_without_variables_in_its_root_names_its_groups(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind[:4]}"
    tree = xr.DataTree.from_dict({"/one": fields(0).assign_coords(time=TIMES), "/two": fields(1)})
    tree.to_netcdf(path) if kind == "nc" else tree.to_zarr(path, consolidated=False)
    with pytest.raises(
        UserError, match=rf"no variable in its root group, but in 2 others: one, two\. .*{path.name}::one"
    ):
        open_archive(path)
    assert open_archive(f"{path}::one").sizes["time"] == 4


def test_a_glob_takes_the_group_of_each_file(tmp_path: Path) -> None:
    for i in (0, 2):
        tree = {
            "/in": fields(0).assign_coords(time=TIMES, y=np.arange(3.0), x=np.arange(2.0)).isel(time=slice(i, i + 2))
        }
        xr.DataTree.from_dict(tree).to_netcdf(tmp_path / f"{i}.nc")
    assert open_archive(f"{tmp_path}/*.nc::in").indexes["time"].equals(TIMES)
    assert open_archive(f"{tmp_path}::in").indexes["time"].equals(TIMES)


def test_paths_and_groups_are_told_apart() -> None:
    assert split_group("a/b.nc") == ("a/b.nc", None)
    assert split_group("a/b.nc::c/d") == ("a/b.nc", "c/d") == split_group("a/b.nc::/c/d/")
    assert split_group("a.nc::") == ("a.nc", None)
