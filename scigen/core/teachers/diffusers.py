"""A folder that diffusers wrote: UNet2DModel with its scheduler, whose two JSON files scigen reads itself.

Weights are safetensors alone; the network is built through diffusers (`pip install scigen[diffusers]`).
"""

import json
import math
import warnings
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from scigen.core.denoise import Condition
from scigen.core.teachers.bounds import Bounded
from scigen.core.teachers.converted import Converted
from scigen.core.teachers.predictions import Affine, affine
from scigen.core.teachers.schedule import RectifiedFlow, Schedule
from scigen.core.teachers.table import Table
from scigen.core.teachers.teacher import Teacher
from scigen.errors import UserError

NETWORKS = ("UNet2DModel",)
WEIGHTS = "diffusion_pytorch_model.safetensors"
TABLES = (
    "DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler", "DEISMultistepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler", "LMSDiscreteScheduler", "KDPM2DiscreteScheduler",
)  # fmt: skip
"""Schedulers of DDPM's discrete times, whose samplers differ and whose networks do not."""
FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
USUAL = {"timestep_type": "discrete", "invert_sigmas": False, "use_flow_sigmas": False}
"""Words of schedulers that change what the network is told or predicts, and how they must be."""
REASONS = {
    "UNet3DConditionModel": " It attends to text tokens, which no field of scigen has.",
    "UNet2DConditionModel": " It attends to text tokens, which no field of scigen has.",
    "UNetSpatioTemporalConditionModel": " It is told of an image and its frame rate, not of a volume.",
    "UNetMotionModel": " It attends to text tokens, which no field of scigen has.",
    "UNet1DModel": " It is of 1-D fields, which scigen has not.",
}
"""Why others are not taken."""
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}


class Diffusers(Converted):
    """A UNet2DModel; channels that it takes beyond those that it gives are condition fields."""

    def __init__(
        self, channels: int, condition_fields: int = 0, condition_scalars: int = 0, *, config: Mapping[str, Any],
        scheduler: Mapping[str, Any], space: int = 2,
    ) -> None:  # fmt: skip
        """Build the network, not trained.

        Args:
            channels: C.
            condition_fields: K of condition["fields"] (B, K, Y, X); a network that takes none heeds none.
            condition_scalars: not heeded.
            config: content of its config.json.
            scheduler: content of the scheduler_config.json.
            space: must be 2.

        Raises:
            UserError: if diffusers is not installed, or the files describe something else.
        """
        own, fields = channels_of(config, scheduler)
        if (channels, space) != (own, 2) or fields not in (0, condition_fields):
            raise UserError(
                f"The {config['_class_name']} makes {own} channels of 2-D fields from {fields} condition fields; the"
                f" data have {channels} channels in {space}-D, {condition_fields} fields and {condition_scalars}"
                " scalars. A network of scigen's own, student=, is told all of them."
            )
        super().__init__(channels, condition_fields, condition_scalars, 1.0)
        self.heard = fields
        self.schedule, self.predicts = terms(scheduler)
        self.inner: Any = _built(config).eval()

    def affine(self, sigma: Tensor) -> Affine:
        """Of the scheduler's schedule and prediction."""
        return affine(self.schedule, self.predicts, sigma)

    def predict(self, y: Tensor, time: Tensor, condition: Condition, scale: Tensor) -> Tensor:
        """The network's output, of learnt variances only the means."""
        h = torch.cat([y, condition["fields"].to(y)], dim=1) if self.heard else y
        return self.inner(h, time, return_dict=False)[0][:, : self.channels]


def channels_of(config: Mapping[str, Any], scheduler: Mapping[str, Any]) -> tuple[int, int]:
    """Channels C and condition fields of a UNet2DModel.

    Raises:
        UserError: for another network, one with classes, or channels that make no sense.
    """
    kind = config.get("_class_name")
    if kind not in NETWORKS:
        raise UserError(
            f"config.json describes a {kind}; scigen takes {', '.join(NETWORKS)}.{REASONS.get(str(kind), '')} Wrap the"
            " network in a function that is given its further inputs: teacher={call: 'module:function', predicts: …,"
            " schedule: …}, in 2-D or 3-D."
        )
    if config.get("num_class_embeds") or config.get("class_embed_type"):
        raise UserError("The UNet2DModel is conditioned on classes, which no field of scigen has.")
    seen, out = config.get("in_channels", 3), config.get("out_channels", 3)
    if str(scheduler.get("variance_type", "")).startswith("learned") and isinstance(out, int) and out % 2 == 0:
        out //= 2  # the other half are variances
    if not (isinstance(seen, int) and isinstance(out, int) and 0 < out <= seen):
        raise UserError(f"config.json: in_channels={seen} and out_channels={out} are none of a denoiser of samples.")
    return out, seen - out


def terms(scheduler: Mapping[str, Any]) -> tuple[Schedule, str]:
    """Schedule and prediction of a scheduler_config.json.

    Raises:
        UserError: for a scheduler, betas or a prediction type that scigen does not know.
    """
    kind = scheduler.get("_class_name")
    times = scheduler.get("num_train_timesteps", 1000)
    if not isinstance(times, int) or isinstance(times, bool) or not 2 <= times <= 100_000:
        raise UserError(f"scheduler_config.json: num_train_timesteps={times!r} is no number of times.")
    if strange := [k for k, usual in USUAL.items() if scheduler.get(k, usual) not in (usual, None)]:
        raise UserError(
            f"scheduler_config.json: {strange[0]}={scheduler[strange[0]]!r} tells the network other times than"
            " scigen would, or predicts otherwise. Wrap it in a function, teacher={call: …}, with a schedule by name."
        )
    if kind in FLOWS:
        return RectifiedFlow(float(times), first=1 / times), "velocity"
    if kind not in TABLES:
        raise UserError(f"scheduler_config.json describes a {kind}; scigen knows {', '.join((*TABLES, *FLOWS))}.")
    said = scheduler.get("prediction_type", "epsilon")
    if said not in PREDICTIONS:
        raise UserError(
            f"scheduler_config.json: prediction_type={said!r} is unknown; it must be {', '.join(PREDICTIONS)}."
        )
    try:
        alphas = torch.cumprod(1 - _betas(scheduler, times), 0)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"scheduler_config.json: its betas are no numbers ({str(error).splitlines()[0]}).") from error
    if scheduler.get("rescale_betas_zero_snr"):
        root = alphas.sqrt()
        alphas = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return Table.of_alphas(alphas), PREDICTIONS[said]


def _betas(scheduler: Mapping[str, Any], times: int) -> Tensor:
    """β of every time, (times,) float64."""
    if (given := scheduler.get("trained_betas")) is not None:
        return torch.tensor(given, dtype=torch.float64)
    low, high = scheduler.get("beta_start", 1e-4), scheduler.get("beta_end", 0.02)
    law = scheduler.get("beta_schedule", "linear")
    if law == "linear":
        return torch.linspace(low, high, times, dtype=torch.float64)
    if law == "scaled_linear":
        return torch.linspace(low**0.5, high**0.5, times, dtype=torch.float64) ** 2
    if law == "squaredcos_cap_v2":
        bars = [math.cos((i / times + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(times + 1)]
        return torch.tensor([min(1 - b / a, 0.999) for a, b in pairwise(bars)], dtype=torch.float64)
    if law == "sigmoid":
        return torch.linspace(-6, 6, times, dtype=torch.float64).sigmoid() * (high - low) + low
    raise UserError(
        f"scheduler_config.json: beta_schedule={law!r} is unknown; scigen knows linear, scaled_linear,"
        " squaredcos_cap_v2, sigmoid and trained_betas."
    )


def _built(config: Mapping[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of diffusers, at import
            import diffusers
    except ImportError as error:
        raise UserError(f"A diffusers folder needs diffusers: pip install 'scigen[diffusers]' ({error}).") from error
    try:
        return getattr(diffusers, config["_class_name"]).from_config(dict(config))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"diffusers refuses config.json: {str(error).splitlines()[0]}") from error


def found(folder: Path) -> bool:
    """Whether a folder is one of diffusers."""
    return any((folder / p).is_file() for p in ("model_index.json", "unet/config.json", "scheduler_config.json")) or (
        (folder / "config.json").is_file() and (folder / "scheduler").is_dir()
    )


def load(folder: Path) -> Teacher:
    """A teacher from a pipeline's folder (unet/, scheduler/), or from one that holds both configurations.

    Raises:
        UserError: if a file is missing or damaged, is a pickle, or describes something else.
    """
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    law = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    config, scheduler = _read(unet / "config.json"), _read(law / "scheduler_config.json")
    schedule, predicts = terms(scheduler)
    channels, fields = channels_of(config, scheduler)
    path = unet / WEIGHTS
    if not path.is_file():
        others = [p.name for p in unet.glob("*.bin")]
        raise UserError(
            f"{unet} holds {others[0]}, a pickle, and no {WEIGHTS}: save it again where it is trusted, by"
            " model.save_pretrained(folder, safe_serialization=True)."
            if others
            else f"There is no {path}."
        )
    args: dict[str, Any] = dict(channels=channels, condition_fields=fields, condition_scalars=0, space=2, config=config,
                scheduler=scheduler)  # fmt: skip
    try:
        state = load_file(path)
        with Bounded(state, config, path):
            network = Diffusers(**args)
        network.inner.load_state_dict(state)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} is no whole safetensors file ({error}). Copy it again.") from error
    except RuntimeError as error:
        raise UserError(f"{path} does not fit config.json: {str(error).splitlines()[-1].strip()}") from error
    return Teacher(
        f"diffusers {config['_class_name']} with {scheduler['_class_name']}", network, f"{__name__}.Diffusers", args,
        schedule.ends, predicts, schedule.kind, facts={"diffusers": config.get("_diffusers_version", "unknown")},
    )  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        out = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"There is no {path}: a diffusers folder has it.") from error
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path} is no JSON ({error}).") from error
    if not isinstance(out, dict):
        raise UserError(f"{path} is no JSON object.")
    return out
