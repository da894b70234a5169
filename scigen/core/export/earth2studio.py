"""A folder in the layout of Earth2Studio's CorrDiff packages, with the whole generator as a torch.export file in it.

The generator is the form to run: it needs no sampler, and no one-step student may go through PhysicsNeMo's, which
returns NaN there. Networks that are PhysicsNeMo's lie beside it as checkpoints, the denoiser's for two steps or more.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from scigen.core.export import mdlus
from scigen.core.export.generator import Generator
from scigen.core.networks.physicsnemo import PhysicsNeMo
from scigen.errors import UserError

README = """# {title}

`generator.pt2` makes fields from noise and coarse fields, in physical units, with torch alone:

    run = torch.export.load("generator.pt2").module()
    fields = run({{"noise": torch.randn(batch, {noise}), …}})

`generator.json` says what its inputs and outputs are: names, shapes, units. It makes {calls} network call(s) and needs
no sampler. `metadata.json`, `stats.json` and the grids are as in CorrDiff packages of Earth2Studio.
{networks}"""
ONE = """
There is no `diffusion.mdlus`: this model is sampled in one step, for which PhysicsNeMo's own sampler returns NaN.
"""
OTHER = """
There is no `diffusion.mdlus`: the network is scigen's own, or PhysicsNeMo could not take it as it is ({reason}).
"""
SEVERAL = """
`diffusion.mdlus` is the denoiser of normalised fields, an EDMPreconditioner: {notes}
scigen's networks are told the clock beside the fields, which Earth2Studio's CorrDiff does not pass: load it by itself.
"""


def write(generator: Generator, folder: Path) -> None:
    """Write all but the generator into a folder that is there.

    Args:
        generator: of a downscaling bundle.
        folder: where `generator.pt2` lies or will lie.

    Raises:
        UserError: for a bundle that downscales nothing.
    """
    bundle, traced = generator.bundle, generator.traced
    tables = traced.package()
    steps = len(generator.levels)
    metadata = {
        **tables["metadata"], "number_of_samples": 1, "number_of_steps": steps, "solver": generator.sampling.sampler,
        "sampler_type": "deterministic" if generator.draws == 1 else "stochastic", "inference_mode": "both",
        "hr_mean_conditioning": bundle.codec.regression is not None, "seed": 0, "sigma_min": generator.levels[-1],
        "sigma_max": generator.levels[0],
    }  # fmt: skip
    _json(folder / "metadata.json", metadata)
    _json(folder / "stats.json", tables["stats"])
    for name, grid in tables["grids"].items():
        grid.to_netcdf(folder / name)
    _regression(bundle.codec.regression, folder)
    words = ONE
    if steps > 1:
        try:
            far = mdlus.distance(bundle, mdlus.write(bundle, folder / "diffusion.mdlus"))
            if not far <= 1e-4:
                raise UserError(f"it is {far:.1g} away")
            words = SEVERAL.format(notes=mdlus.NOTES)
        except UserError as error:
            (folder / "diffusion.mdlus").unlink(missing_ok=True)
            words = OTHER.format(reason=str(error).partition(":")[0])
    noise = ", ".join(map(str, generator.ports[0].shape))
    title = f"{bundle.role.capitalize()} of {', '.join(bundle.codec.variables)}"
    text = README.format(title=title, noise=noise, calls=bundle.nfe(generator.steps), networks=words)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _regression(mean: Any, folder: Path) -> None:
    """The regression network as a checkpoint, where it is PhysicsNeMo's."""
    if mean is not None and isinstance(mean.network, PhysicsNeMo):
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            mean.network.inner.save(str(folder / "regression.mdlus"))


def _json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
