"""A small YAML tree with one of everything, in place of the shipped one."""

from pathlib import Path

import pytest

TREE = {
    "fit.yaml": """\
# Train a teacher and distil it. Repeating the command goes on.
#
#   scigen fit domain=weather
#   scigen fit domain=weather 'data.variables=[t2m]'
defaults:
  - _self_
  - domain: ???
  - method@teaching: denoising
  - method: regression
  - optional experiment: null

run: null  # run folder
members: 19  # members per sample
samples: null  # archives by name
trainer:
  precision: 32-true  # bits
  limits: {steps: null, members: 5}  # for a quick look
""",
    "sample.yaml": """\
# Draw an ensemble.
bundle: ???  # a .safetensors file
output: ???  # .zarr or .nc
members: 16  # per sample
""",
    "domain/weather.yaml": """\
# @package _global_
# Downscaling of weather.
domain:
  _target_: collections.Counter
data:
  path: null  # archive
  factor: 8  # cells
""",
    "domain/mri.yaml": "# @package _global_\n# Undersampled k-space.\ndata:\n  acceleration: 4  # nominal\n",
    "method/denoising.yaml": "# The teacher.\nsteps: 10  # of the optimiser\n",
    "method/regression.yaml": "# One step.\nsteps: 20\nsigma: ${members}\n",
    "network/unet.yaml": "# A U-Net.\nwidth: 8\n",
    "experiment/quick.yaml": """\
# @package _global_
# A quick look.
defaults:
  - override /domain: weather
members: 5
""",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shipped"
    write(folder, TREE)
    monkeypatch.setattr("scigen.config.tree.config_dir", lambda: folder)
    return folder


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder
