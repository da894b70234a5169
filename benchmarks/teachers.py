"""A tiny teacher of every foreign kind, trained and written by its own library, through `scigen fit`: a table.

    python benchmarks/teachers.py KIND FOLDER [--seconds 60] [--quick]
    python benchmarks/teachers.py all FOLDER

A kind is trained on the normalised residuals of the default weather data by its library's own objective in a plain
loop, saved by that library's writer, distilled into a student of one call, and judged by the fit itself. Every kind
prints one line of JSON; what is finished is not done again. `--quick` is five steps of everything.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from flow import Velocity
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from scigen.core.networks.physicsnemo import library
from scigen.weather.domain import Weather

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # PhysicsNeMo's save asks for git
warnings.filterwarnings("ignore")

SYNTH = {"size": 32, "times": 8192, "step_hours": 6, "seed": 0}
SIDE = SYNTH["size"]
BATCH = 16
SONG: dict[str, Any] = dict(
    img_resolution=[SIDE, SIDE], model_channels=16, channel_mult=[1, 1, 2], num_blocks=1, attn_resolutions=[],
    dropout=0.0,
)  # fmt: skip
DRAWN = {"P_mean": -0.4, "P_std": 1.4}
"""ln σ in training: EDM's own suits images of standard deviation 0.5; residuals have 1, most of it in large waves."""
FIT = {
    "domain": "weather", "method.pairs": "256", "method.training.steps": "200", "method.training.batch": "16",
    "samples": "16", "members": "8", "validation": "{samples: 16, members: 4}", "sampler.steps": "18",
}  # fmt: skip
OWN = {
    "network.widths": "[16,24,32]", "teaching.training.steps": "300", "teaching.training.batch": "16",
}  # fmt: skip
"""Of a student whose network is not its teacher's."""
QUICK = {
    "method.pairs": "8", "method.training.steps": "5", "teaching.training.steps": "5", "samples": "4", "members": "3",
    "validation": "{samples: 2, members: 2}",
}  # fmt: skip


class Rows(NamedTuple):
    """Targets x (B, C, Y, X) and what may be told of them, fields (B, K, Y, X) and scalars (B, K)."""

    x: Tensor
    fields: Tensor
    scalars: Tensor

    def drawn(self) -> "Rows":
        """A batch."""
        rows = torch.randint(len(self.x), (BATCH,))
        return Rows(*(v[rows] for v in self))


class Kind(NamedTuple):
    """A network in training: its loss of a batch, how it is written, and what scigen is told."""

    net: nn.Module
    loss: Callable[[Rows], Tensor]
    write: Callable[[Path], None]
    teacher: str
    more: Mapping[str, str] = {}


def opened(folder: Path) -> Rows:
    """The training split as scigen's codec shows it to networks."""
    (folder / "runs" / "data").mkdir(parents=True, exist_ok=True)
    data = Weather(synth=SYNTH).open(folder / "runs" / "data")
    own, every = data.train, slice(None)
    condition = data.codec.condition(own.inputs, every)
    return Rows(data.codec.encode(own.truth, own.inputs, every), condition["fields"].float(), condition["scalars"])


def physicsnemo(data: Rows) -> Kind:
    """EDMPreconditioner around ConcatConditionWrapper around SongUNet, by MSEDSMLoss."""
    from physicsnemo.diffusion.metrics.losses import MSEDSMLoss
    from physicsnemo.diffusion.noise_schedulers import EDMNoiseScheduler
    from tensordict import TensorDict

    kinds, channels, told = library(), data.x.shape[1], data.fields.shape[1]
    inner = kinds["SongUNet"](
        **SONG, in_channels=channels + told, out_channels=channels, label_dim=data.scalars.shape[1]
    )
    net: Any = kinds["EDMPreconditioner"](model=kinds["ConcatConditionWrapper"](model=inner), sigma_data=1.0)
    objective = MSEDSMLoss(net, EDMNoiseScheduler(sigma_data=1.0, **DRAWN))

    def loss(rows: Rows) -> Tensor:
        both = TensorDict({"cond_concat": rows.fields, "cond_vec": rows.scalars}, batch_size=[len(rows.x)])
        return objective(rows.x, condition=both)

    return Kind(net, loss, lambda folder: net.save(str(folder / "net.mdlus")), "net.mdlus")


def super_resolution(data: Rows) -> Kind:
    """The older EDMPrecondSuperResolution, by EDMLossSR."""
    from physicsnemo.diffusion.metrics.legacy_losses import EDMLossSR

    net: Any = library()["EDMPrecondSuperResolution"](
        **SONG, model_type="SongUNet", img_in_channels=data.fields.shape[1], img_out_channels=data.x.shape[1],
        sigma_data=1.0,
    )  # fmt: skip
    objective = EDMLossSR(sigma_data=1.0, **DRAWN)
    return Kind(
        net, lambda rows: objective(net, rows.x, rows.fields), lambda folder: net.save(str(folder / "net.mdlus")),
        "net.mdlus",
    )  # fmt: skip


def edm(data: Rows) -> Kind:
    """EDM's network (DDPM++) by EDM's loss and names; its first convolution takes the fields as well, labels tell the
    scalars. σ_data is EDM's, which its weights do not say.
    """
    from physicsnemo.diffusion.metrics.legacy_losses import EDMLoss

    channels = data.x.shape[1]
    net: Any = library()["EDMPrecond"](
        **SONG, model_type="SongUNet", img_channels=channels, img_in_channels=channels + data.fields.shape[1],
        img_out_channels=channels, label_dim=data.scalars.shape[1],
    )  # fmt: skip
    objective = EDMLoss(**DRAWN)

    def write(folder: Path) -> None:
        state = {k: v.contiguous() for k, v in net.state_dict().items() if k.startswith("model.")}
        save_file({k: v for k, v in state.items() if not k.endswith("map_noise.freqs")}, folder / "net.safetensors")

    return Kind(
        net, lambda rows: objective(net, rows.x, condition=rows.fields, labels=rows.scalars), write, "net.safetensors"
    )


def diffusers(predicts: str) -> Callable[[Rows], Kind]:
    """UNet2DModel with DDPMScheduler, by the mean square of what it predicts, as diffusers trains."""

    def made(data: Rows) -> Kind:
        import diffusers as theirs

        channels = data.x.shape[1]
        net: Any = theirs.UNet2DModel(
            sample_size=SIDE, in_channels=channels + data.fields.shape[1], out_channels=channels,
            block_out_channels=(16, 16, 32), layers_per_block=1, down_block_types=("DownBlock2D",) * 3,
            up_block_types=("UpBlock2D",) * 3, norm_num_groups=8, attention_head_dim=8,
        )  # fmt: skip
        law: Any = theirs.DDPMScheduler(prediction_type=predicts, clip_sample=False)

        def loss(rows: Rows) -> Tensor:
            noise, times = torch.randn_like(rows.x), torch.randint(law.config.num_train_timesteps, (len(rows.x),))
            found = net(torch.cat([law.add_noise(rows.x, noise, times), rows.fields], 1), times).sample
            wanted = noise if predicts == "epsilon" else law.get_velocity(rows.x, noise, times)
            return functional.mse_loss(found, wanted)

        def write(folder: Path) -> None:
            net.save_pretrained(folder / "pipeline" / "unet")
            law.save_pretrained(folder / "pipeline" / "scheduler")

        return Kind(net, loss, write, "pipeline")

    return made


def function(data: Rows) -> Kind:
    """A small torch module in a file of the user's, rectified flow: the mean square of its velocity."""
    sizes = [v.shape[1] for v in data]
    net = Velocity(*sizes)

    def loss(rows: Rows) -> Tensor:
        time, noise = torch.randn(len(rows.x)).sigmoid(), torch.randn_like(rows.x)
        part = time.reshape(-1, 1, 1, 1)
        own = net((1 - part) * rows.x + part * noise, time, {"fields": rows.fields, "scalars": rows.scalars})
        return functional.mse_loss(own, noise - rows.x)

    def write(folder: Path) -> None:
        shutil.copy(Path(__file__).with_name("flow.py"), folder)
        save_file(net.state_dict(), folder / "flow.safetensors")

    told = ", ".join(f"{k}: {v}" for k, v in zip(("channels", "fields", "scalars"), sizes, strict=True))
    args = f"{{{told}, weights: flow.safetensors}}"
    teacher = f"{{call: 'flow:Velocity', args: {args}, predicts: velocity, schedule: rectified_flow}}"
    return Kind(net, loss, write, teacher, OWN)


KINDS: Mapping[str, Callable[[Rows], Kind]] = {
    "physicsnemo": physicsnemo, "super_resolution": super_resolution, "diffusers_epsilon": diffusers("epsilon"),
    "diffusers_v": diffusers("v_prediction"), "edm": edm, "function": function,
    "diffusers_epsilon_own": lambda data: diffusers("epsilon")(data)._replace(
        more={"student": "{widths: [16,24,32]}", **{k: v for k, v in OWN.items() if k.startswith("teaching")}}
    ),
}  # fmt: skip


def trained(kind: Kind, data: Rows, seconds: float, most: float) -> dict[str, Any]:
    """Adam at 2e-3 with a cosine in the time that is left."""
    optimiser = torch.optim.Adam(kind.net.parameters(), lr=2e-3)
    began, losses = time.perf_counter(), []
    kind.net.train()
    while (passed := (time.perf_counter() - began) / seconds) < 1 and len(losses) < most:
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (len(losses) + 1) / 20) * 0.5 * (1 + math.cos(math.pi * passed))
        value = kind.loss(data.drawn())
        optimiser.zero_grad()
        value.mean().backward()
        nn.utils.clip_grad_norm_(kind.net.parameters(), 1.0)
        optimiser.step()
        losses.append(value.mean().item())
    kind.net.eval()
    tail = losses[-max(1, len(losses) // 10) :]
    size = sum(p.numel() for p in kind.net.parameters())
    return {
        "parameters": size, "steps": len(losses), "seconds": round(time.perf_counter() - began, 1),
        "loss": round(sum(tail) / len(tail), 4),
    }  # fmt: skip


def teach(name: str, home: Path, data: Rows, seconds: float, quick: bool) -> dict[str, Any]:
    """Train and write a kind, once; what it says of it is kept beside it."""
    note = home / "teacher.json"
    if note.exists():
        return json.loads(note.read_text())
    torch.manual_seed(0)
    kind = KINDS[name](data)
    out = trained(kind, data, seconds, 5 if quick else math.inf)
    kind.write(home)
    words = {"teacher": kind.teacher, **FIT, **kind.more, **(QUICK if quick else {})}
    out |= {"words": [f"{k}={v}" for k, v in words.items()]}
    note.write_text(json.dumps(out))
    return out


def fit(home: Path, words: list[str]) -> tuple[Path, float]:
    """`scigen fit` in the folder, once: (metrics.json, seconds)."""
    note = home / "fit.json"
    if not note.exists():
        began = time.perf_counter()
        line = [sys.executable, "-m", "scigen", "fit", *words, "run=run"]
        path = os.pathsep.join(p for p in (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")) if p)
        with (home / "fit.log").open("w") as file:
            done = subprocess.run(
                line, cwd=home, env=os.environ | {"PYTHONPATH": path}, stdout=file, stderr=file, check=False
            )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, line, (home / "fit.log").read_text())
        note.write_text(json.dumps(round(time.perf_counter() - began, 1)))
    return next((home / "run").glob("regression-*/metrics.json")), json.loads(note.read_text())


def distance(path: Path) -> dict[str, Any]:
    """The student beside its teacher: fair CRPS over the teacher's, by variable, and spread–skill of both."""
    report = json.loads(path.read_text())
    models = report["models"]
    student = next(n for n in models if n.startswith("student"))
    teacher = max((n for n in models if n.startswith("teacher")), key=lambda n: int(n.split()[1]))
    ratio, spread = {}, {}
    for name, own in models[student].items():
        ratio[name] = {k: round(v, 3) for k, v in own["crps_ratio"][teacher].items()}
        spread[name] = [round(models[m][name]["spread_skill"]["estimate"], 3) for m in (teacher, student)]
    worst = max(ratio, key=lambda n: ratio[n]["estimate"])
    exact = {n: round(v["crps_ratio"]["exact law"]["estimate"], 3) for n, v in models[teacher].items()}
    return {
        "calls": {m: int(models[m][worst]["nfe"]) for m in (teacher, student)}, "crps_ratio": ratio, "worst": worst,
        "spread_skill_teacher_student": spread, "teacher_over_exact_law": exact,
        "faster": {k: round(report["speed"][k], 1) for k in ("network", "end_to_end")},
    }  # fmt: skip


def one(name: str, folder: Path, data: Rows, seconds: float, quick: bool) -> dict[str, Any]:
    """A kind from its network to its numbers."""
    home = folder / name
    (home / "runs").mkdir(parents=True, exist_ok=True)
    if not (home / "runs" / "data").exists():
        (home / "runs" / "data").symlink_to((folder / "runs" / "data").resolve())
    about = teach(name, home, data, seconds, quick)
    metrics, took = fit(home, about["words"])
    return {"kind": name, "teacher": about, "fit_seconds": took, **distance(metrics)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=[*KINDS, "all"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60, help="of training a teacher")
    parser.add_argument("--quick", action="store_true", help="five steps of everything")
    args = parser.parse_args()
    data = opened(args.folder)
    for name in KINDS if args.kind == "all" else [args.kind]:
        try:
            print(json.dumps(one(name, args.folder, data, args.seconds, args.quick)), flush=True)
        except subprocess.CalledProcessError as error:  # the others are of worth without it
            print(json.dumps({"kind": name, "failed": error.returncode, "log": error.output[-2000:]}), flush=True)


if __name__ == "__main__":
    main()
