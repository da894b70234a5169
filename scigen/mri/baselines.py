"""Cheap answers that need no training: what a network has to beat."""

import numpy as np
import torch
import xarray as xr

from scigen.core.domain import Split
from scigen.mri.operator import Sense, posterior_mean
from scigen.mri.physics import ReconstructionCodec
from scigen.mri.spectrum import on_grid
from scigen.mri.variation import total_variation


def baselines(codec: ReconstructionCodec, split: Split) -> dict[str, xr.Dataset]:
    """Zero-filled, SENSE by conjugate gradients, the Gaussian prior's mean, total variation."""
    inputs, scale = split.inputs, torch.from_numpy(split.inputs["scale"].values)[:, None, None]
    condition = codec.condition(inputs, slice(None))
    sense = Sense(condition["sens_maps"], condition["mask"])
    aliased, noise = condition["aliased"], condition["noise"]
    power = float(on_grid(codec.profile, codec.size).mean())  # of a pixel's parts: the white prior's variance
    white = torch.full_like(condition["mask"], 1 / power)
    images = {
        "zero-filled": aliased,
        "CG-SENSE": posterior_mean(
            sense, torch.zeros_like(aliased), aliased, noise, white, condition["density"], 40, 1e-5
        ),
    }
    if codec.conditional:
        images["Gaussian prior"] = condition["mean"]
    found = {name: (v * scale).numpy() for name, v in images.items()}
    if "kspace" in split.truth:
        t = split.truth
        found["total variation"] = total_variation(
            t["kspace"].values, t["mask"].values, t["sens_maps"].values, t["noise_std"].values
        )
    layout, out = codec.layout(inputs), {}
    for name, image in found.items():
        ds = layout.coords.copy()
        for (n, attrs), part in zip(codec.variables.items(), (image.real, image.imag), strict=True):
            ds[n] = (("slice", "member", "y", "x"), part[:, None].astype(np.float32), attrs)
        out[name] = ds.assign_attrs(codec.attributes)
    return out
