"""A CorrDiff pair through scigen and out again: trained by PhysicsNeMo's losses, distilled, exported, judged as files.

    python benchmarks/corrdiff.py package FOLDER [--steps 300]   # the pair, as an Earth2Studio package
    python benchmarks/corrdiff.py inspect FOLDER                 # what scigen says that it is
    python benchmarks/corrdiff.py fit     FOLDER                 # scigen fit domain=weather teacher=FOLDER/package
    python benchmarks/corrdiff.py export  FOLDER                 # scigen export, one and two calls: earth2studio, ONNX
    python benchmarks/corrdiff.py judge   FOLDER                 # the exports beside the pair's own sampler

Every part prints one line of JSON and leaves what the next one reads. `judge` runs the exports with torch.export and
onnxruntime alone, and the pair with PhysicsNeMo's samplers as Earth2Studio's CorrDiff calls them, on the same times of
the test split of the default weather data.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from scigen.core.domain import Data, Split
from scigen.metrics.ensemble import fair_crps
from scigen.weather.domain import Weather
from scigen.weather.physics import DownscalingCodec

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # PhysicsNeMo's save asks for git
warnings.filterwarnings("ignore")

SYNTH = {"size": 32, "times": 8192, "step_hours": 6, "seed": 0}
THEIRS = {"t2m": "t2m", "u10": "u10m", "v10": "v10m"}
NET: dict[str, Any] = dict(
    img_resolution=[32, 32], model_type="SongUNetPosEmbd", gridtype="sinusoidal", N_grid_channels=4, model_channels=16,
    channel_mult=[1, 2, 2], num_blocks=1, attn_resolutions=[], dropout=0.0, embedding_type="zero",
)  # fmt: skip
CALLS = (1, 2)
SIGMAS = (0.002, 800.0)


def data_of(folder: Path) -> Data:
    """The default weather data, made once; found by `scigen fit` in its own working directory."""
    (folder / "runs" / "data").mkdir(parents=True, exist_ok=True)
    return Weather(synth=SYNTH).open(folder / "runs" / "data")


def seen(codec: DownscalingCodec, inputs: xr.Dataset, stats: dict[str, Any]) -> Tensor:
    """[inputs, invariant] (B, K, Y, X), normalised, on the fine grid: what both networks see."""
    coarse = torch.from_numpy(np.stack([inputs[n].values for n in THEIRS], axis=1)).double()
    fields = codec.interpolation(coarse)
    mean, std = (
        torch.tensor([stats["input"][n][k] for n in THEIRS.values()]).reshape(-1, 1, 1) for k in ("mean", "std")
    )
    height = torch.from_numpy(np.array(next(iter(codec.static.values())))).double()
    own = stats["invariants"]["elev_mean"]
    fixed = ((height - own["mean"]) / own["std"]).expand(len(fields), 1, *height.shape)
    return torch.cat([(fields - mean) / std, fixed], dim=1).float()


def truth_of(split: Split) -> np.ndarray:
    """(T, C, Y, X)."""
    return np.stack([split.truth[n].values for n in THEIRS], axis=1)


def package(folder: Path, steps: int) -> dict[str, Any]:
    """Train the regression network, then the diffusion network on its residuals, and write both."""
    from physicsnemo.diffusion.metrics.legacy_losses import RegressionLoss, ResidualLoss

    from scigen.core.networks.physicsnemo import library

    data, codec = _opened(folder)
    truth = truth_of(data.train)
    coarse = np.stack([data.train.inputs[n].values for n in THEIRS], axis=1)
    height = next(iter(codec.static.values()))
    stats: dict[str, Any] = {
        "input": _moments(coarse), "output": _moments(truth),
        "invariants": {"elev_mean": {"mean": float(np.mean(height)), "std": float(np.std(height))}},
    }  # fmt: skip
    mean, std = _columns(stats["output"])
    y = (torch.from_numpy(truth) - mean) / std
    x = seen(codec, data.train.inputs, stats)
    torch.manual_seed(0)
    kinds, count = library(), len(THEIRS)
    regression = kinds["CorrDiffRegressionUNet"](
        **NET, img_in_channels=count + 1 + NET["N_grid_channels"], img_out_channels=count
    )
    diffusion = kinds["EDMPrecondSuperResolution"](
        **NET, img_in_channels=2 * count + 1 + NET["N_grid_channels"], img_out_channels=count
    )
    took, losses = {}, {}
    took["regression"], losses["regression"] = trained(regression, RegressionLoss(), y, x, steps)
    regression.eval().requires_grad_(False)
    residual = ResidualLoss(regression, P_mean=-1.2, P_std=1.2, hr_mean_conditioning=True)
    took["diffusion"], losses["diffusion"] = trained(diffusion, residual, y, x, 2 * steps)
    out = folder / "package"
    out.mkdir(exist_ok=True)
    for name, network in (("regression", regression), ("diffusion", diffusion)):
        network.eval().save(str(out / f"{name}.mdlus"))
    theirs = list(THEIRS.values())
    metadata = {
        "input_variables": theirs, "output_variables": theirs, "invariant_variables": ["elev_mean"],
        "number_of_samples": 1, "number_of_steps": 18, "solver": "heun", "sampler_type": "stochastic",
        "inference_mode": "both", "hr_mean_conditioning": True, "seed": 0, "sigma_min": SIGMAS[0],
        "sigma_max": SIGMAS[1],
    }  # fmt: skip
    (out / "metadata.json").write_text(json.dumps(metadata, indent=1))
    (out / "stats.json").write_text(json.dumps(stats, indent=1))
    both = codec.grid.latlon()
    assert both is not None
    xr.Dataset({n: (("y", "x"), np.array(v)) for n, v in zip(("lat", "lon"), both, strict=True)}).to_netcdf(
        out / "output_latlon_grid.nc"
    )
    xr.Dataset({"elev_mean": (("y", "x"), np.array(height))}).to_netcdf(out / "invariants.nc")
    sizes = [sum(p.numel() for p in n.parameters()) for n in (regression, diffusion)]
    return {"parameters": sizes, "steps": [steps, 2 * steps], "seconds": took, "loss": losses}


def trained(net: nn.Module, loss: Callable[..., Tensor], y: Tensor, x: Tensor, steps: int) -> tuple[float, float]:
    """Adam at 1e-3 with a cosine; (seconds, mean loss of the last tenth)."""
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    law = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    began, seen_losses = time.perf_counter(), []
    net.train()
    for _ in range(steps):
        rows = torch.randint(len(y), (32,))
        value = loss(net, y[rows].float(), x[rows]).mean()
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        law.step()
        seen_losses.append(value.item())
    tail = seen_losses[-max(1, steps // 10) :]
    return round(time.perf_counter() - began, 1), round(float(np.mean(tail)), 4)


def scigen(folder: Path, *words: str) -> tuple[str, float]:
    """The command, in the folder; (what it prints, seconds)."""
    began = time.perf_counter()
    line = [sys.executable, "-m", "scigen", *words]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in (os.getcwd(), *sys.path) if p)}
    done = subprocess.run(line, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(line[1:])}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout, round(time.perf_counter() - began, 1)


def fit(folder: Path, pairs: int, steps: int) -> dict[str, Any]:
    """The default method, for one and two calls."""
    words = [
        "domain=weather", "teacher=package", "run=runs/student", "method.sigmas=['${noise.sigma_max}', 1.5]",
        f"method.pairs={pairs}", f"method.training.steps={steps}", "sampler.steps=18", "samples=16", "members=8",
        "validation={samples: 16, members: 4}",
    ]  # fmt: skip
    _, seconds = scigen(folder, "fit", *words)
    report = json.loads(next((folder / "runs" / "student").glob("regression-*/metrics.json")).read_text())
    return {"pairs": pairs, "steps": steps, "seconds": seconds, "verdict": report["verdict"]}


def export(folder: Path) -> dict[str, Any]:
    """As folders of Earth2Studio's and as ONNX."""
    student = next((folder / "runs" / "student").glob("regression-*/student.safetensors")).relative_to(folder)
    out: dict[str, Any] = {}
    for calls in CALLS:
        for form, name in (("earth2studio", f"earth{calls}"), ("onnx", f"student{calls}.onnx")):
            words = (f"bundle={student}", f"format={form}", f"output={name}", f"steps={calls}", "overwrite=true")
            said, seconds = scigen(folder, "export", *words)
            out[name] = {"seconds": seconds, "said": said.strip().splitlines()[-1].strip()}
    return out


def judge(folder: Path, samples: int, members: int) -> Iterator[dict[str, Any]]:
    """Fair CRPS a variable, calls, and seconds a member, of every contender."""
    data, codec = _opened(folder)
    whole = data.test.inputs.sizes["time"]
    index = np.linspace(0, whole - 1, samples).round().astype(int)
    inputs, truth = data.test.inputs.isel(time=index), truth_of(data.test)[index]
    for name, calls, run in contenders(folder, codec, inputs):
        run(1, 0)  # what is compiled or loaded at first
        fields, began = [], time.perf_counter()
        for member in range(members):
            fields.append(run(samples, member))
        seconds = time.perf_counter() - began
        own = np.stack(fields)
        crps = fair_crps(own, truth).mean((0, 2, 3))
        spread = own.std(0, ddof=1).mean((0, 2, 3))
        yield {
            "model": name, "calls": calls, "crps": _named(crps),
            "spread": _named(spread),
            "ms_per_member": round(1e3 * seconds / (samples * members), 2),
        }  # fmt: skip


Sampler = Callable[[int, int], np.ndarray]
"""(number of times, member) to fields (T, C, Y, X)."""


def contenders(folder: Path, codec: DownscalingCodec, inputs: xr.Dataset) -> Iterator[tuple[str, int, Sampler]]:
    """Name, network calls a member (that of the mean among them), sampler: files first, then the pair."""
    for calls in CALLS:
        if (folder / f"earth{calls}").is_dir():
            yield (
                f"student, {calls} step{'s' * (calls > 1)}, generator.pt2",
                calls + 1,
                _torch(folder / f"earth{calls}", inputs),
            )
        if (folder / f"student{calls}.onnx").is_file():
            yield (
                f"student, {calls} step{'s' * (calls > 1)}, onnx",
                calls + 1,
                _onnx(folder / f"student{calls}.onnx", inputs),
            )
    yield from _pair(folder, codec, inputs)


def _torch(folder: Path, inputs: xr.Dataset) -> Sampler:
    module = torch.export.load(folder / "generator.pt2").module()
    about = json.loads((folder / "generator.json").read_text())
    return lambda count, member: module(_ports(about, inputs, count, member)).numpy()


def _onnx(path: Path, inputs: xr.Dataset) -> Sampler:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    about = json.loads(path.with_suffix(".json").read_text())

    def run(count: int, member: int) -> np.ndarray:
        ports = {n: v.numpy() for n, v in _ports(about, inputs, count, member).items()}
        return session.run(None, ports)[0]

    return run


def _ports(about: dict[str, Any], inputs: xr.Dataset, count: int, member: int) -> dict[str, Tensor]:
    """What the JSON beside an export asks for, from archives of coarse fields, without scigen."""
    ports = {p["name"]: p for p in about["inputs"]}
    when = inputs["time"].dt
    hour = when.hour.values[:count].astype(np.float32)
    return {
        "noise": torch.randn(count, *ports["noise"]["shape"][1:], generator=torch.Generator().manual_seed(member)),
        "coarse": torch.from_numpy(
            np.stack([inputs[n].values[:count] for n in ports["coarse"]["channels"]], 1)
        ).float(),
        "hour": torch.from_numpy(hour),
        "season": torch.from_numpy((when.dayofyear.values[:count] - 1 + hour / 24) / 365.25).float(),
    }


def _pair(folder: Path, codec: DownscalingCodec, inputs: xr.Dataset) -> Iterator[tuple[str, int, Sampler]]:
    """The package by PhysicsNeMo: mean and residual, as Earth2Studio's CorrDiff puts them together."""
    from physicsnemo.diffusion.samplers import deterministic_sampler, stochastic_sampler

    from scigen.core.networks.physicsnemo import library

    kinds, own = library(), folder / "package"
    stats = json.loads((own / "stats.json").read_text())
    regression = kinds["CorrDiffRegressionUNet"].from_checkpoint(str(own / "regression.mdlus")).eval()
    diffusion = kinds["EDMPrecondSuperResolution"].from_checkpoint(str(own / "diffusion.mdlus")).eval()
    mean, std = _columns(stats["output"])
    x = seen(codec, inputs, stats)
    low, high = SIGMAS

    def made(sampler: Callable[..., Tensor], **words: Any) -> Sampler:
        @torch.inference_mode()
        def run(count: int, member: int) -> np.ndarray:
            noise = torch.Generator().manual_seed(member)
            told = regression(torch.zeros(count, len(THEIRS), *x.shape[2:]), x[:count])
            latents = torch.randn(told.shape, generator=noise)
            left = sampler(
                net=diffusion, latents=latents, img_lr=torch.cat([told, x[:count]], 1), sigma_min=low, sigma_max=high,
                randn_like=lambda t: torch.randn(t.shape, generator=noise, dtype=t.dtype), **words,
            )  # fmt: skip
            return (mean + std * (told + left)).float().numpy()

        return run

    for steps in (18, 9):  # Heun's last step is Euler's; the mean is a call, too
        yield f"pair, stochastic, {steps} steps", 2 * steps, made(stochastic_sampler, num_steps=steps)
    for steps in (18, 9):
        sampler = made(deterministic_sampler, num_steps=steps, solver="euler")
        yield f"pair, deterministic Euler, {steps} steps", steps + 1, sampler

    @torch.inference_mode()
    def only(count: int, member: int) -> np.ndarray:
        told = regression(torch.zeros(count, len(THEIRS), *x.shape[2:]), x[:count])
        return (mean + std * told).float().numpy()

    yield "regression alone", 1, only


def _named(values: np.ndarray) -> dict[str, float]:
    return {n: round(float(v), 4) for n, v in zip(THEIRS, values, strict=True)}


def _opened(folder: Path) -> tuple[Data, DownscalingCodec]:
    data = data_of(folder)
    assert isinstance(data.codec, DownscalingCodec)
    return data, data.codec


def _moments(values: np.ndarray) -> dict[str, dict[str, float]]:
    parts = np.moveaxis(values.astype(np.float64), 1, 0)
    return {n: {"mean": float(v.mean()), "std": float(v.std())} for n, v in zip(THEIRS.values(), parts, strict=True)}


def _columns(stats: dict[str, dict[str, float]]) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of the outputs, (C, 1, 1)."""
    mean, std = (torch.tensor([stats[n][k] for n in THEIRS.values()]).reshape(-1, 1, 1) for k in ("mean", "std"))
    return mean, std


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["package", "inspect", "fit", "export", "judge"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--members", type=int, default=8)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.part == "package":
        results = iter([package(args.folder, args.steps)])
    elif args.part == "inspect":
        said, seconds = scigen(args.folder, "inspect", "package")
        results = iter([{"seconds": seconds, "said": said.splitlines()}])
    elif args.part == "fit":
        results = iter([fit(args.folder, args.pairs, args.steps)])
    elif args.part == "export":
        results = iter([export(args.folder)])
    else:
        results = judge(args.folder, args.samples, args.members)
    for result in results:
        print(json.dumps({args.part: result}, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
