"""The materials field through the verbs: fit, sample, evaluate, in miniature."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

from scigen.cli import main
from scigen.core.bundle import load
from scigen.materials.known import UNKNOWN

TINY = [
    "domain=materials", "data.synth={size: 16, simulations: 10, snapshots: 2, time: [10, 30]}", "trainer=smoke",
    "network.widths=[8,8]", "network.embedding=8", "trainer.limits={steps: 4, pairs: 8, samples: 3, members: 2}",
    "trainer.checkpoint_every=2", "batch=4", "sampler.steps=4", "validation={samples: 2, members: 2}", "data.workers=1",
    "teaching.training.batch=8", "method.training.batch=8",
    "+teaching.training.snapshots=1", "+method.training.snapshots=1",
]  # fmt: skip


@pytest.fixture(scope="module", params=[2, 3])
def fitted(request, tmp_path_factory):
    """A folder where a fit of two or three phases has run; its run folder and stage."""
    home = tmp_path_factory.mktemp(f"materials-{request.param}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["fit", *TINY, f"data.synth.phases={request.param}", "run=r"]) == 0
    (stage,) = (p for p in (home / "r").iterdir() if p.name.startswith("regression-"))
    return home, stage


@pytest.fixture
def inside(fitted, monkeypatch):
    monkeypatch.chdir(fitted[0])
    return fitted


def test_the_report_judges_everybody(inside):
    _, stage = inside
    numbers = json.loads((stage / "metrics.json").read_text())["models"]
    assert {m["role"] for m in numbers.values()} == {"teacher", "student", "baseline"}
    for name, m in numbers.items():
        for p, v in m["fraction_error"].items():
            assert 0 <= v <= 1, (name, p)
        assert m["diffusivity_r2"] <= 1
    cut = numbers["Gaussian level cut"]
    assert max(cut["fraction_error"].values()) < 0.02  # the baseline has the fractions by construction
    pictures = {p.name for p in (stage / "figures").glob("*.png")}
    assert {"volumes.png", "two_point.png", "transport.png"} <= pictures
    page = (stage / "report.html").read_text()
    assert "Gaussian level cut" in page and "S₂ error" in page


def test_a_repeated_fit_is_done_already(inside, caplog):
    _, stage = inside
    before = (stage / "student.safetensors").stat().st_mtime_ns
    phases = len(load(stage / "student.safetensors").codec.phases)
    assert main(["fit", *TINY, f"data.synth.phases={phases}", "run=r"]) == 0
    assert (stage / "student.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_volumes_by_words(inside, tmp_path, suffix):
    """Exact fractions, another size, all formats."""
    _, stage = inside
    bundle = load(stage / "student.safetensors")
    each = {2: [0.3, 0.7], 3: [0.3, 0.4, 0.3]}[len(bundle.codec.phases)]
    share = dict(zip(bundle.codec.phases, each, strict=True))
    words = ", ".join(f"volume_fraction_{p}: {v}" for p, v in share.items())
    out = tmp_path / f"made.{suffix}"
    assert main([
        "sample", f"bundle={stage / 'student.safetensors'}", f"condition={{{words}}}", f"output={out}", "members=2",
        "size=[16,24,32]", "exact=true", "also=[tif,vti,npz,png]", "batch=2",
    ]) == 0  # fmt: skip
    with xr.open_dataset(out, engine="zarr" if suffix == "zarr" else None) as ds:
        assert ds["phase"].dims == ("specimen", "member", "z", "y", "x") and ds["phase"].dtype == np.uint8
        assert ds["phase"].shape == (1, 2, 16, 24, 32)
        assert list(np.atleast_1d(ds.attrs["voxel_size"])) == [1, 1, 1]
        for i, p in enumerate(share):
            found = (ds["phase"] == i).mean(("z", "y", "x")).values
            assert np.abs(found - share[p]).max() <= 1 / (16 * 24 * 32)
        assert not np.array_equal(ds["phase"][0, 0], ds["phase"][0, 1])
    made = {p.suffix for p in tmp_path.iterdir()}
    assert {".tif", ".vti", ".npz", ".png"} <= made


def test_known_voxels_stay(inside, tmp_path):
    home, stage = inside
    bundle = load(stage / "student.safetensors")
    (archive,) = (home / "runs" / "data").glob("materials-*.zarr")
    truth = xr.open_zarr(archive).isel(specimen=[0, 1]).load()
    known = truth["phase"].values.copy()
    known[:, :, 4:] = UNKNOWN
    asked = xr.Dataset(
        {"known": (("specimen", "z", "y", "x"), known), "volume_fraction_pore": ("specimen", [0.4, 0.5])},
        coords={"specimen": [0, 1]},
    )
    asked.to_netcdf(tmp_path / "asked.nc")
    out = tmp_path / "made.zarr"
    for exact in ("false", "true"):
        assert main([
            "sample", f"bundle={stage / 'student.safetensors'}", f"input={tmp_path / 'asked.nc'}", f"output={out}",
            "members=3", f"exact={exact}", "overwrite=true",
        ]) == 0  # fmt: skip
        made = xr.open_zarr(out)["phase"].values
        told = np.broadcast_to((known != UNKNOWN)[:, None], made.shape)
        assert np.array_equal(made[told], np.broadcast_to(known[:, None], made.shape)[told])
    assert np.abs((made == 0).mean((2, 3, 4)) - [[0.4], [0.5]]).max() < 1 / 16**3
    assert bundle.codec.inpaint


def test_a_shift_of_the_noise_is_a_shift_of_the_volume(inside):
    """Periodic volumes have no origin: network and sampler commute with shifts by the network's factor."""
    _, stage = inside
    for role in ("teacher", "student"):
        path = stage / "student.safetensors" if role == "student" else stage.parent / "teacher.safetensors"
        bundle = load(path)
        codec = bundle.codec
        condition = codec.condition(codec.prepare(codec.request({"volume_fraction_pore": 0.4}, 1)), slice(None))
        grid = bundle.sampling.grid(None)
        x = grid[0] * torch.randn(1, *codec.shape, generator=torch.Generator().manual_seed(0))
        shift = (bundle.network.multiple, -bundle.network.multiple, 2 * bundle.network.multiple)
        fresh = [x / grid[0]] * bundle.sampling.noises(len(grid))
        moved = [f.roll(shift, (2, 3, 4)) for f in fresh]
        with torch.inference_mode():
            a = bundle.sampling.run(bundle.denoiser, x, grid, condition, fresh)
            b = bundle.sampling.run(bundle.denoiser, x.roll(shift, (2, 3, 4)), grid, condition, moved)
        torch.testing.assert_close(a.roll(shift, (2, 3, 4)), b, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(a, b, atol=1e-2)


def test_a_member_is_the_same_whatever_else_is_asked_for(inside):
    _, stage = inside
    bundle = load(stage / "student.safetensors")
    asked = bundle.codec.request({"volume_fraction_pore": [0.3, 0.5, 0.6]}, 1)
    everything = bundle.sample(asked, members=3, seed=5, batch=4)
    one = bundle.sample(asked.isel(specimen=[1]), members=2, seed=5, batch=4)
    assert np.array_equal(one["phase"][0], everything["phase"][1, :2])
    assert one["phase"].dtype == np.uint8


def test_samples_are_judged_by_evaluate(inside, tmp_path, monkeypatch):
    home, stage = inside
    (archive,) = (home / "runs" / "data").glob("materials-*.zarr")
    truth = xr.open_zarr(archive).isel(specimen=slice(0, 4)).load()
    truth.to_netcdf(tmp_path / "truth.nc")
    bundle = load(stage / "student.safetensors")
    share = (truth["phase"] == 0).mean(("z", "y", "x")).values
    asked = bundle.codec.request({"volume_fraction_pore": share.tolist()}, 1)
    bundle.sample(asked, members=2).to_netcdf(tmp_path / "made.nc")
    words = [f"truth={tmp_path / 'truth.nc'}", f"samples={{made: {tmp_path / 'made.nc'}}}", f"output={tmp_path / 'e'}"]
    assert main(["evaluate", "domain=materials", *words]) == 0
    made = json.loads((tmp_path / "e" / "metrics.json").read_text())["models"]["made"]
    assert made["members"] == 2 and made["role"] == "student"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["size=18"], "multiples of 4"),
        (["size=16", "condition={volume_fraction_pore: 0.7, volume_fraction_solid: 0.7}"], "add up to 1.4"),
        (["condition={porosity: 0.3}"], "unknown to this bundle"),
        (["also=[stl]"], "stl"),
        (["boundary=closed"], "periodic or open"),
        (["static=nowhere.nc"], "nowhere.nc"),
    ],
)
def test_wrong_words_of_sample_are_refused(inside, tmp_path, words, says, capsys):
    _, stage = inside
    asked = [] if any(w.startswith("condition") for w in words) else ["condition={volume_fraction_pore: 0.4}"]
    base = ["sample", f"bundle={stage / 'student.safetensors'}", f"output={tmp_path / 'o.zarr'}", "members=1"]
    assert main([*base, *asked, *words]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "o.zarr").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data.transport=[metal]"], "data.transport=metal"),
        (["data.split=[0.5,0.6,0.1]"], "add up to 1"),
        (["data.given=[colour]"], "data.given=colour"),
        (["data.path=nothing.tif"], "nothing.tif"),
        (["data.block=64"], "larger than"),
        (["crop=8"], "crop"),
    ],
)
def test_wrong_words_of_fit_are_refused(inside, words, says, capsys):
    assert main(["fit", *TINY, "method=denoising", *words]) == 2
    assert says in capsys.readouterr().err
