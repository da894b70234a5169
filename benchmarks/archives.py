"""Batch inference over an archive much larger than memory: peak memory, time by item, MB/s beside a plain copy.

    python benchmarks/archives.py make  FOLDER --gigabytes 20
    python benchmarks/archives.py run   FOLDER              # a generator that costs nothing
    python benchmarks/archives.py copy  FOLDER              # xarray's own lazy copy of the same archive
    python benchmarks/archives.py network FOLDER BUNDLE     # a bundle: time beside that of the same network calls alone

Every part prints one line of JSON. Run parts one after another on a quiet machine; ratios of one run are what counts.
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr
from memory import Peak

from scigen.core.codec import Layout
from scigen.io.archive import open_archive
from scigen.io.plan import extent
from scigen.io.store import EnsembleStore
from scigen.workflows.items import Work, make

GRID = (181, 360)
NAMES = ("t2m", "u10", "v10")


def make_archive(folder: Path, gigabytes: float) -> dict[str, Any]:
    """Three variables, hourly, a chunk of 24 hours, 8 significant bits: about a third of their size on the disk."""
    per_time = 4 * len(NAMES) * GRID[0] * GRID[1]
    times = int(gigabytes * 1e9 / per_time) // 24 * 24
    coords = {
        "time": xr.date_range("2000-01-01", periods=times, freq="h"),
        "latitude": ("latitude", np.linspace(90, -90, GRID[0]), {"units": "degrees_north"}),
        "longitude": ("longitude", np.arange(360.0), {"units": "degrees_east"}),
    }
    rng = np.random.default_rng(0)
    day = {n: np.round(rng.standard_normal((24, *GRID)) * 16).astype("float32") / 16 for n in NAMES}
    dims = ("time", "latitude", "longitude")
    import dask.array

    empty = dask.array.zeros((times, *GRID), chunks=(24, *GRID), dtype="float32")
    ds = xr.Dataset({n: (dims, empty, {"units": "1"}) for n in NAMES}, coords)
    ds.to_zarr(folder / "in.zarr", mode="w", compute=False, zarr_format=2)
    import zarr

    group = zarr.open_group(folder / "in.zarr", mode="r+")
    for start in range(0, times, 24):
        for n in NAMES:
            group[n][start : start + 24] = np.roll(day[n], start // 24, axis=-1)
    return {"times": times, "gigabytes": round(times * per_time / 1e9, 2), "on_disk": _size(folder / "in.zarr")}


class Nothing:
    """A bundle in all that a job asks of one, whose fields are its inputs."""

    codec = SimpleNamespace(variables={n: {"units": "1"} for n in NAMES}, dtypes={})

    def blocks(self, inputs: xr.Dataset, members: Any, *, progress: Any = None, **_: Any) -> Any:
        """(0, fields (T, 1, C, Y, X))."""
        yield 0, np.stack([inputs[n].values for n in NAMES], axis=1)[:, None]
        if progress:
            progress(inputs.sizes["time"])


def run(folder: Path) -> dict[str, Any]:
    """The archive through a job whose generator costs nothing."""
    shutil.rmtree(folder / "out.zarr", ignore_errors=True)
    inputs = open_archive(folder / "in.zarr")
    coords = inputs.coords.to_dataset()
    dims = ("time", "latitude", "longitude")
    block, group = extent(inputs.sizes["time"], 1, 4 * len(NAMES) * GRID[0] * GRID[1], 0)
    with Peak() as peak:
        began, marks = time.perf_counter(), []
        store = EnsembleStore(
            folder / "out.zarr", coords, Nothing.codec.variables, [0], dims, identity={}, block=block, group=group
        )
        layout = Layout(coords, dims)
        work: Any = Work(Nothing(), inputs, layout, NAMES, [0], 0, None, 16, store)  # type: ignore[arg-type]
        make(work, store.items, report=lambda n: marks.append((time.perf_counter() - began, n)))
        seconds = time.perf_counter() - began
        store.finish()
        finished = time.perf_counter() - began
    at = np.array([m[0] for m in marks])
    straight = np.corrcoef(at, np.arange(len(at)))[0, 1] ** 2
    size = inputs.nbytes / 1e6
    return {
        "seconds": round(seconds, 1), "MB_per_s": round(size / seconds, 1), "checking": round(finished - seconds, 1),
        "items": len(store.items), "peak_GB_by_tenth": peak.tenths(), "linearity_R2": round(float(straight), 5),
        "first_half_over_second": round(float(at[len(at) // 2] / (at[-1] - at[len(at) // 2])), 3),
    }  # fmt: skip


def copy(folder: Path) -> dict[str, Any]:
    """xarray's own copy, by chunks of the archive."""
    shutil.rmtree(folder / "copy.zarr", ignore_errors=True)
    with Peak() as peak:
        began = time.perf_counter()
        ds = xr.open_zarr(folder / "in.zarr").drop_encoding()
        ds.to_zarr(folder / "copy.zarr", consolidated=False)
        seconds = time.perf_counter() - began
    return {
        "seconds": round(seconds, 1),
        "MB_per_s": round(ds.nbytes / 1e6 / seconds, 1),
        "peak_GB": max(peak.tenths()),
    }


def network(folder: Path, bundle: Path, source: str, members: int, times: int) -> dict[str, Any]:
    """A bundle's job beside its network calls alone, teacher or student, by the same compute batches."""
    import torch

    from scigen.cli import main
    from scigen.core.bundle import load

    out = {}
    loaded = load(bundle)
    rows = loaded.rows
    archive = open_archive(source).isel(time=slice(0, times))
    inputs = loaded.codec.prepare(archive)
    first, last = (str(archive["time"].values[i])[:19] for i in (0, -1))
    own = loaded.codec.condition(inputs, slice(0, rows))
    condition = {k: v[torch.arange(rows) % len(v)] for k, v in own.items()}
    grid = loaded.sampling.grid(None)
    x = torch.randn(rows, *loaded.codec.shape)
    noises = [x] * loaded.sampling.noises(len(grid))

    def alone() -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            loaded.sampling.run(loaded.denoiser, grid[0] * x, grid, condition, noises)
        return time.perf_counter() - began

    alone()
    batches = -(-times * members // rows)
    pure = 0.0
    for _ in range(min(batches, 8)):
        pure += alone()
    pure *= batches / min(batches, 8)
    shutil.rmtree(folder / "net.zarr", ignore_errors=True)
    words = [f"bundle={bundle}", f"input={source}", f"output={folder / 'net.zarr'}", f"members={members}"]
    began = time.perf_counter()
    assert main(["sample", *words, f"time={first}/{last}"]) == 0
    whole = time.perf_counter() - began
    out = {"calls": loaded.nfe(), "batches": batches, "network_s": round(pure, 2), "job_s": round(whole, 2)}
    return out | {"overhead": round(whole / pure - 1, 3)}


def _size(path: Path) -> float:
    """Gigabytes on the disk."""
    return round(sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) / 1e9, 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["make", "run", "copy", "network"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--source", default="")
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--times", type=int, default=64)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.part == "make":
        result = make_archive(args.folder, args.gigabytes)
    elif args.part == "run":
        result = run(args.folder)
    elif args.part == "copy":
        result = copy(args.folder)
    else:
        result = network(args.folder, args.bundle, args.source, args.members, args.times)
    print(json.dumps({args.part: result}))
