"""Judging an ensemble that is much larger than memory: peak memory, MB/s, and other libraries on the same archive.

    python benchmarks/judging.py make  FOLDER --gigabytes 20   # truth.zarr and samples.zarr; 0.7 GB on the disk
    python benchmarks/judging.py judge FOLDER                  # scigen evaluate: every shared metric, with intervals
    python benchmarks/judging.py judge FOLDER --domain weather # a field's own metrics
    python benchmarks/judging.py peers FOLDER                  # scores, xskillscore, scoringrules, where they import

Each part is a process of its own and prints a line of JSON; `peers` needs xarray, zarr, dask and psutil alone. All
that a library has of fair CRPS, RMSE and MAE of the mean, spread, rank histogram and Brier score is asked for at
once, so that it reads the archive once.
"""

import argparse
import importlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from memory import Peak

CHUNK = 16
"""Times a chunk of the truth; a chunk of the samples is one time of all members."""

DISTINCT = 2.0
"""GB of fields that are really made; what an archive has beyond them are hard links to their chunks."""

BANK = 96
"""Different fields, of which truth and members are made by turning."""

QUANTILES = (0.0, 1.2816, 2.3263)
"""Thresholds: the median, 90 and 99 % of a standard normal."""


def make(folder: Path, gigabytes: float, members: int, size: int) -> dict[str, Any]:
    """A calibrated ensemble of smooth fields, rounded to 1/16: two fifths of its size on the disk."""
    import zarr

    times = int(gigabytes * 1e9 / (4 * size * size * (members + 1))) // CHUNK * CHUNK
    made = min(int(DISTINCT * 1e9 / (4 * size * size * (members + 1))) // CHUNK * CHUNK, times)
    free = shutil.disk_usage(folder).free / 1e9
    if free < 0.5 * min(gigabytes, DISTINCT):
        raise SystemExit(f"{folder} has {free:.1f} GB free: about half of the fields' size is needed.")
    rng = np.random.default_rng(0)
    wave = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij"))
    bank = np.fft.ifft2(np.fft.fft2(rng.standard_normal((BANK, size, size))) / (1 + (8 * wave) ** 2)).real
    bank = np.round(bank / bank.std() * 16).astype("float32") / 16
    coords = {
        "time": xr.date_range("2000-01-01", periods=times, freq="6h"),
        "latitude": ("latitude", np.linspace(60, 40, size), {"units": "degrees_north"}),
        "longitude": ("longitude", np.linspace(0, 25, size), {"units": "degrees_east"}),
    }
    import dask.array

    space = ("latitude", "longitude")
    for name, dims, shape, chunks in (
        ("truth", ("time", *space), (times, size, size), (CHUNK, size, size)),
        ("samples", ("time", "member", *space), (times, members, size, size), (1, members, size, size)),
    ):
        empty = dask.array.zeros(shape, chunks=chunks, dtype="float32")
        ds = xr.Dataset({"t2m": (dims, empty, {"units": "K"})}, coords)
        ds.to_zarr(folder / f"{name}.zarr", mode="w", compute=False, zarr_format=2)
    true, drawn = (zarr.open_group(folder / f"{n}.zarr", mode="r+")["t2m"] for n in ("truth", "samples"))
    for lo in range(0, made, CHUNK):
        fields = np.empty((CHUNK, members + 1, size, size), np.float32)
        for i in range(CHUNK):
            for m, k in enumerate(rng.permutation(BANK)[: members + 1]):
                turn = tuple(int(v) for v in rng.integers(0, size, 2))
                fields[i, m] = np.roll(bank[k], turn, (0, 1)) + np.round(4 * np.sin((lo + i) / 60) * 16) / 16
        true[lo : lo + CHUNK], drawn[lo : lo + CHUNK] = fields[:, 0], fields[:, 1:]
    repeat(folder, made, times)
    told = 4 * times * (members + 1) * size * size / 1e9
    files = {p.stat().st_ino: p.stat().st_size for n in ("truth", "samples") for p in (folder / f"{n}.zarr").rglob("*")}
    disk = sum(files.values()) / 1e9
    return {"times": times, "members": members, "cells": size * size, "GB": told, "GB_on_disk": disk}


def repeat(folder: Path, made: int, times: int) -> None:
    """Times from `made` on as links to the chunks of the first ones."""
    for name, each, rest in (("truth", CHUNK, ".0.0"), ("samples", 1, ".0.0.0")):
        home = folder / f"{name}.zarr" / "t2m"
        for i in range(made // each, times // each):
            (home / f"{i}{rest}").hardlink_to(home / f"{i % (made // each)}{rest}")


def judge(folder: Path, domain: str) -> dict[str, Any]:
    """One `scigen evaluate`, with its report."""
    from scigen.cli import main

    words = [f"truth={folder / 'truth.zarr'}", f"samples={{ours: {folder / 'samples.zarr'}}}", f"domain={domain}"]
    process: dict[str, Any] = {}
    with Peak() as peak:
        began = time.perf_counter()
        assert main(["evaluate", *words, f"output={folder / 'judged'}"]) == 0
        process["seconds"], process["cpu_s"] = round(time.perf_counter() - began, 1), round(time.process_time(), 1)
    size = sum(xr.open_zarr(folder / f"{n}.zarr").nbytes for n in ("truth", "samples")) / 1e6
    tenths = peak.tenths()
    return process | {"MB_per_s": round(size / process["seconds"], 1), "peak_GB": max(tenths), "by_tenth": tenths}


def peers(folder: Path, only: str) -> dict[str, Any]:
    """Every library that imports, each on the whole archive."""
    import dask

    x, y = (xr.open_zarr(folder / f"{n}.zarr")["t2m"] for n in ("samples", "truth"))
    y = y.chunk(time=1)
    calls: dict[str, Callable[[Any, xr.DataArray, xr.DataArray], dict[str, Any]]] = {
        "scores": _scores, "xskillscore": _xskillscore, "scoringrules": _scoringrules,
    }  # fmt: skip
    out: dict[str, Any] = {}
    for name, asked in calls.items():
        if only not in ("all", name):
            continue
        try:
            library = importlib.import_module(name)
        except ImportError as error:
            out[name] = f"not installed: {error}"
            continue
        with Peak() as peak:
            began, busy = time.perf_counter(), time.process_time()
            lazy = asked(library, x, y)
            found = dict(zip(lazy, dask.compute(*lazy.values()), strict=True))
            seconds, busy = time.perf_counter() - began, time.process_time() - busy
        told = {k: np.asarray(v).ravel().round(5).tolist()[:3] for k, v in found.items()}
        out[name] = {
            "version": library.__version__, "seconds": round(seconds, 1), "cpu_s": round(busy, 1),
            "MB_per_s": round((x.nbytes + y.nbytes) / 1e6 / seconds, 1), "peak_GB": max(peak.tenths()), "found": told,
        }  # fmt: skip
    return out


def _plain(x: xr.DataArray, y: xr.DataArray) -> dict[str, Any]:
    """What no library is needed for."""
    return {"spread": x.var("member", ddof=1).mean() ** 0.5}


def _scores(library: Any, x: xr.DataArray, y: xr.DataArray) -> dict[str, Any]:
    from scores import continuous, probability

    mean = x.mean("member")
    return _plain(x, y) | {
        "crps": probability.crps_for_ensemble(x, y, "member", method="fair"),
        "rmse": continuous.rmse(mean, y),
        "mae": continuous.mae(mean, y),
        "ranks": probability.rank_histogram(x, y, "member"),
        "brier": probability.brier_score_for_ensemble(x, y, "member", list(QUANTILES)),
    }


def _xskillscore(library: Any, x: xr.DataArray, y: xr.DataArray) -> dict[str, Any]:
    mean, space = x.mean("member"), ["latitude", "longitude"]  # over a dimension of several chunks it cannot go
    return _plain(x, y) | {
        "crps_not_fair": library.crps_ensemble(y, x),
        "rmse": library.mse(mean, y, dim=space).mean() ** 0.5,
        "mae": library.mae(mean, y, dim=space).mean(),
        "ranks": library.rank_histogram(y, x),
        "brier_not_fair": library.threshold_brier_score(y, x, list(QUANTILES)),
    }


def _scoringrules(library: Any, x: xr.DataArray, y: xr.DataArray) -> dict[str, Any]:
    """By xarray's own parallel blocks: the library scores arrays, not archives."""

    def crps(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return library.crps_ensemble(truth, members, estimator="fair")

    def brier(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
        hits = [(library.brier_score((truth > q).astype(float), (members > q).mean(-1))) for q in QUANTILES]
        return np.stack(hits, -1)

    mean = x.mean("member")
    many = {"input_core_dims": [["member"], []], "dask": "parallelized", "output_dtypes": [float]}
    events = {"output_core_dims": [["threshold"]], "dask_gufunc_kwargs": {"output_sizes": {"threshold": 3}}}
    return _plain(x, y) | {
        "crps": xr.apply_ufunc(crps, x, y, **many).mean(),
        "rmse": ((mean - y) ** 2).mean() ** 0.5,
        "mae": abs(mean - y).mean(),
        "brier_not_fair": xr.apply_ufunc(brier, x, y, **many, **events).mean(("time", "latitude", "longitude")),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["make", "judge", "peers"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--domain", default="shared")
    parser.add_argument("--only", default="all")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.part == "make":
        result = make(args.folder, args.gigabytes, args.members, args.size)
    elif args.part == "judge":
        result = judge(args.folder, args.domain)
    else:
        result = peers(args.folder, args.only)
    print(json.dumps({args.part: result}))
