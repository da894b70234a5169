"""Every network of configs/network/ goes through a fit, and through the bundles and verbs after it."""

import numpy as np
import pytest
import xarray as xr

from scigen.cli import main
from scigen.config import config_dir

OPTIONS = sorted(p.stem for p in (config_dir() / "network").glob("*.yaml"))
WORDS = [
    "domain=weather", "data.synth={size: 16, times: 240, step_hours: 12, seed: 0}", "data.factor=4", "trainer=smoke",
    "data.variables=[t2m]", "batch=8", "sampler.steps=4", "trainer.limits={steps: 4, pairs: 4, samples: 2, members: 2}",
    "trainer.checkpoint_every=2", "teaching.training.batch=8", "+teaching.training.snapshots=2",
    "method.training.batch=8", "validation={samples: 2, members: 2}",
]  # fmt: skip
SMALL = {
    "dhariwal": ["network.channel_mult=[1,2]"],
    "dit": ["network.resolution=16", "network.hidden_size=32", "network.depth=2"],
    "songunet": ["network.model_channels=8", "network.channel_mult=[1,2]"],
    "songunet_posembd": ["network.resolution=16", "network.model_channels=8", "network.channel_mult=[1,2]"],
    "unet": ["network.widths=[8,8]", "network.embedding=8"],
}

pytestmark = pytest.mark.filterwarnings("ignore")  # PhysicsNeMo's own, of many kinds


def test_every_option_is_fitted_here() -> None:
    assert sorted(SMALL) == OPTIONS


@pytest.mark.parametrize(
    ("option", "method"),
    [
        pytest.param(option, method, marks=[] if (option, method) == ("dit", "flow_map") else pytest.mark.slow)
        for option in SMALL
        for method in ("regression", "flow_map")
    ],
)
def test_a_fit_ends_in_bundles_that_sample(option, method, tmp_path, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    words = [*WORDS, f"network={option}", *SMALL[option], f"method={method}", "run=fit"]
    assert main(["fit", *words]) == 0
    (stage,) = (tmp_path / "fit").glob(f"{method}-*")
    (data,) = (tmp_path / "runs" / "data").glob("*.zarr")
    for i in range(2):
        sample = [f"bundle={stage / 'student.safetensors'}", f"input={data}", "members=2", f"output={i}.zarr"]
        assert main(["sample", *sample]) == 0
    a, b = (xr.open_zarr(f"{i}.zarr") for i in range(2))
    assert a.equals(b) and bool(np.isfinite(a["t2m"]).all()) and a["t2m"].sizes["member"] == 2


def test_a_network_for_another_size_stops_the_fit_with_both_sizes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *WORDS, "network=dit", "network.resolution=[16,24]", "run=fit"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "16 × 24" in said and "16 × 16" in said and "network.resolution=[16,16]" in said


def test_a_network_that_cannot_wrap_around_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *WORDS, "network=dhariwal", "network.periodic=true", "run=fit"]) == 2
    assert "network=unet, whose axes may be periodic" in " ".join(capsys.readouterr().err.split())
