"""Training from an archive larger than memory: peak memory, and the time of a step against training from memory.

    python benchmarks/streaming.py                        # 10 GB on disk, a network of 50 ms a step
    python benchmarks/streaming.py --gigabytes 1 --network unet

The archive (zarr, three variables on 128 × 128, float32) is written in blocks to a temporary folder and deleted.
Three processes run in turn, so that each has a peak memory of its own: imports alone, steps from disk, and steps from
memory on the first part of the archive. The first steps, which wait for the first blocks, are not timed.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZE, NAMES = 128, ("t2m", "u10", "v10")
SAMPLE = SIZE * SIZE * 4 * len(NAMES)
WARM = 20


def make(path: Path, times: int, chunk: int, compress: bool) -> None:
    """Smooth noise that moves, in blocks."""
    import numpy as np
    import pandas as pd
    import zarr

    root = zarr.open_group(path, mode="w")
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((256, SIZE + 64, SIZE + 64)).astype("float32").cumsum(-1).cumsum(-2) / SIZE
    pool -= pool.mean((-1, -2), keepdims=True)
    pool += 0.1 * rng.standard_normal(pool.shape, dtype="float32")
    extra = {} if compress else {"compressors": None}
    arrays = [
        root.create_array(
            n, shape=(times, SIZE, SIZE), chunks=(chunk, SIZE, SIZE), dtype="float32", attributes={"units": u},
            dimension_names=("time", "latitude", "longitude"), **extra,
        )
        for n, u in zip(NAMES, ("K", "m s-1", "m s-1"), strict=True)
    ]  # fmt: skip
    for name, values, units in (
        ("time", np.arange(times, dtype="int64"), "hours since 1970-01-01"),
        ("latitude", np.linspace(40, 60, SIZE), "degrees_north"),
        ("longitude", np.linspace(0, 20, SIZE), "degrees_east"),
    ):
        attrs = {"units": units} | ({"calendar": "standard"} if name == "time" else {"standard_name": name})
        root.create_array(name, data=values, dimension_names=(name,), attributes=attrs)
    assert len(pd.date_range("1970", periods=2, freq="h")) == 2
    for start in range(0, times, chunk):
        stop = min(start + chunk, times)
        for k, array in enumerate(arrays):
            rows = rng.integers(len(pool), size=stop - start)
            i, j = rng.integers(64, size=2)
            array[start:stop] = pool[rows, i : i + SIZE, j : j + SIZE] + (280.0 if k == 0 else 0.0)


def peak() -> float:
    """GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def imports() -> dict[str, float]:
    import lightning  # noqa: F401

    import scigen.core.streaming
    import scigen.core.train
    import scigen.weather.domain  # noqa: F401

    return {"peak": peak()}


def steps(path: Path, memory: str, times: int, count: int, batch: int, network: str, milliseconds: float) -> dict:
    """Open, make a codec, train: peak memory and seconds a step."""
    import functools
    import logging

    import lightning
    import torch
    import xarray as xr

    from scigen.core.denoise import Denoiser
    from scigen.core.driver import Schedule
    from scigen.core.methods.denoising import Denoising
    from scigen.core.networks.unet import UNet
    from scigen.core.noise import LogUniform
    from scigen.core.streaming import archive_stream
    from scigen.core.train import train
    from scigen.weather.domain import Weather

    class Stub(torch.nn.Module):
        """A parameter and a nap, as a GPU takes."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, c_noise, condition=None):
            time.sleep(milliseconds / 1000)
            return self.weight * x

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    began = time.monotonic()
    if times:
        part = path.with_name("part.zarr")
        if not part.exists():
            xr.open_zarr(path, consolidated=False).isel(time=slice(times)).to_zarr(part, consolidated=False)
        path = part
    data = Weather(path=str(path), variables=list(NAMES), factor=8, split=(0.9, 0.05, 0.05), in_memory=memory).open(
        path
    )
    opened, codec, before = time.monotonic() - began, data.codec, peak()
    torch.manual_seed(0)
    if network == "unet":
        net = UNet(len(NAMES), condition_fields=codec.fields, condition_scalars=codec.scalars)
    else:
        net = Stub()
    schedule = Schedule(steps=count, batch=batch, lr=1e-4)
    stream = archive_stream(codec, data.train.truth, data.train.inputs, batch, count)
    clock: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = functools.partial(lightning.Trainer, accelerator="cpu", devices=1)
        train(
            Denoising(Denoiser(net), LogUniform(0.02, 20.0)), stream, schedule, trainer, Path(folder),
            checkpoint_every=10**9, report=lambda *_: clock.append(time.monotonic()),
        )  # fmt: skip
    each = (clock[-1] - clock[WARM]) / (len(clock) - 1 - WARM)
    return {"peak": peak(), "peak_open": before, "step": each, "open": opened, "samples": float(stream.count)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--chunk", type=int, default=64, help="times in a chunk of the archive")
    parser.add_argument("--network", choices=("stub", "unet"), default="stub")
    parser.add_argument("--milliseconds", type=float, default=50.0, help="of the stub")
    parser.add_argument("--compress", action="store_true")
    parser.add_argument("--part", nargs=7, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        what, path, memory, times, *rest = given.part
        if what == "imports":
            print(json.dumps(imports()))
        else:
            print(
                json.dumps(
                    steps(Path(path), memory, int(times), int(rest[0]), int(rest[1]), rest[2], given.milliseconds)
                )
            )
        return
    home = Path(tempfile.mkdtemp(prefix="scigen-streaming-"))
    try:
        times = int(given.gigabytes * 1e9 / SAMPLE)
        began = time.monotonic()
        make(home / "all.zarr", times, given.chunk, given.compress)
        print(f"{times} times, {times * SAMPLE / 1e9:.1f} GB, written in {time.monotonic() - began:.0f} s")

        def part(what: str, memory: str, few: int) -> dict[str, float]:
            words = [what, str(home / "all.zarr"), memory, str(few), str(given.steps), str(given.batch), given.network]
            command = [sys.executable, __file__, "--milliseconds", str(given.milliseconds), "--part", *words]
            return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])

        bare = part("imports", "0", 0)
        disk = part("steps", "1MB", 0)
        memory = part("steps", "100GB", min(times, 5000))
        print(f"imports alone       peak {bare['peak']:.2f} GB")
        for name, r in (("from disk", disk), ("from memory", memory)):
            pace = f"{1000 * r['step']:.1f} ms a step, opened in {r['open']:.0f} s"
            print(f"{name:<12} {r['samples']:6.0f} samples, {pace}")
            print(f"{'':<12} peak {r['peak']:.2f} GB, {r['peak_open']:.2f} GB of it when it was opened")
        print(f"a step from disk takes {disk['step'] / memory['step']:.3f} times as long as one from memory")
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
