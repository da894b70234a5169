"""Weights of NVlabs' EDM (and of its VP, VE, iDDPM) as safetensors: the network is read off their names and shapes.

PhysicsNeMo's U-Nets are descendants of these and take their names, those of attention after a rename of its own.

Source: github.com/NVlabs/edm, training/networks.py.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file
from torch import Tensor

from scigen.core.teachers import mdlus
from scigen.core.teachers.bounds import Bounded
from scigen.core.teachers.teacher import Teacher
from scigen.errors import UserError

KINDS = ("EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond")
PREFIX = "model."


def load(path: Path, kind: str | None = None) -> Teacher:
    """A teacher from EDM's weights.

    Args:
        path: safetensors of the whole preconditioned network (`ema`), as its state_dict names them.
        kind: one of KINDS; None for iDDPMPrecond if its table `u` is there, else EDMPrecond.

    Raises:
        UserError: if the weights are of no such network, or of another kind.
    """
    try:
        state = load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} is no whole safetensors file ({error}). Copy it again.") from error
    kind = kind or ("iDDPMPrecond" if "u" in state else "EDMPrecond")
    if kind not in KINDS:
        raise UserError(f"precond={kind}: expected one of {', '.join(KINDS)}.")
    try:
        network = network_of({k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)})
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise UserError(
            f"{path} holds no weights of EDM's U-Nets, whose names begin with {PREFIX}enc.…: {error!r}. Names are those"
            " of the state_dict of the whole preconditioned network."
        ) from error
    seen, out = network.pop("in_channels"), network.pop("out_channels")
    sizes: dict[str, Any] = {"img_channels": out}
    if kind == "EDMPrecond":
        sizes |= {"img_in_channels": seen, "img_out_channels": out}
    elif kind == "iDDPMPrecond":
        sizes = {"img_channels": seen}
    description = {"class": kind, "args": network | sizes}
    own = mdlus.sizes(description)
    args: dict[str, Any] = {
        "channels": own.channels, "condition_fields": own.fields, "condition_scalars": own.scalars, "space": 2,
        "description": description,
    }  # fmt: skip
    with Bounded(state, description, path):
        built = mdlus.Checkpoint(**args)
    mdlus.fill(built.inner, _completed(state, built.inner.state_dict()), path)
    law, predicts = mdlus.terms(kind, built.inner)
    return Teacher(
        f"EDM weights, {kind} around {network['model_type']}", built, f"{mdlus.__name__}.Checkpoint", args, law.ends,
        predicts, law.kind,
    )  # fmt: skip


def _completed(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the constants of the preconditioner, which EDM does not store."""
    return {k: v for k, v in wanted.items() if not k.startswith(PREFIX)} | {
        k: v for k, v in state.items() if k.startswith(PREFIX) or k in wanted
    }


def network_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of the U-Net that has these weights, with `model_type`.

    Raises:
        KeyError: if it is none.
    """
    blocks: dict[int, set[int]] = {}
    for name in state:
        if found := re.match(r"enc\.(\d+)x\d+_block(\d+)\.", name):
            blocks.setdefault(int(found[1]), set()).add(int(found[2]))
    levels = sorted(blocks, reverse=True)
    top = levels[0]
    first = state[f"enc.{top}x{top}_conv.weight"]
    width, seen = first.shape[:2]
    song = f"dec.{top}x{top}_aux_conv.weight" in state
    last = state[f"dec.{top}x{top}_aux_conv.weight" if song else "out_conv.weight"]
    attended = {int(m[1]) for k in state if (m := re.match(r"enc\.(\d+)x\d+_block\d+\.(attn\.)?qkv\.", k))}
    out: dict[str, Any] = {
        "model_type": "SongUNet" if song else "DhariwalUNet", "img_resolution": top, "in_channels": seen,
        "out_channels": last.shape[0], "model_channels": width, "num_blocks": len(blocks[top]),
        "channel_mult": [state[f"enc.{r}x{r}_block0.conv1.weight"].shape[0] // width for r in levels],
        "attn_resolutions": sorted(attended, reverse=True), "dropout": 0.0,
        "label_dim": _columns(state, "map_label.weight"), "augment_dim": _columns(state, "map_augment.weight"),
    }  # fmt: skip
    if not song:
        return out | {"channel_mult_emb": state["map_layer0.weight"].shape[0] // width}
    low = levels[-1]
    encoders = {m[1] for k in state if (m := re.match(r"enc\.\d+x\d+_aux_(skip|residual)", k))}
    decoded = {int(m[1]) for k in state if (m := re.match(r"dec\.(\d+)x\d+_aux_conv\.", k))}
    taps = max((v.shape[-1] for k, v in state.items() if k.endswith("resample_filter")), default=2)
    out |= {
        "encoder_type": encoders.pop() if encoders else "standard",
        "decoder_type": "skip" if len(decoded) > 1 else "standard",
        "resample_filter": [1, 1] if taps == 2 else [1, 3, 3, 1],
        "bottleneck_attention": any(re.match(rf"dec\.{low}x{low}_in0\.(attn\.)?qkv\.", k) for k in state),
    }
    if "map_layer0.weight" not in state:
        return out | {"embedding_type": "zero"}
    embedded, noise = state["map_layer0.weight"].shape
    return out | {
        "embedding_type": "fourier" if _random(state.get("map_noise.freqs")) else "positional",
        "channel_mult_emb": embedded // width, "channel_mult_noise": noise // width,
    }  # fmt: skip


def _columns(state: Mapping[str, Tensor], name: str) -> int:
    return int(state[name].shape[1]) if name in state else 0


def _random(frequencies: Tensor | None) -> bool:
    """Whether an embedding's frequencies are random (Fourier); fixed ones fall from 1, and EDM does not store them."""
    return frequencies is not None and not (float(frequencies[0]) == 1 and bool((frequencies.diff() < 0).all()))
