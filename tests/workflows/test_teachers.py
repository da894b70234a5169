"""Teachers from elsewhere in a fit: what scigen makes of them is what their own library makes, and students follow."""

import json
import os
import re
import shutil
import sys
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # PhysicsNeMo's save asks for git

from scigen.cli import main
from scigen.config import compose
from scigen.core.bundle import load
from scigen.core.denoise import Denoiser
from scigen.core.networks.physicsnemo import library
from scigen.core.noise import karras_sigmas
from scigen.core.sample import heun
from scigen.core.teachers import package as packages
from scigen.errors import UserError
from scigen.weather.domain import Weather
from scigen.weather.package import adopt
from scigen.workflows.convergence import cheapest, table
from scigen.workflows.teacher import errors_gain, found, give_student, joined

from .conftest import TINY

SYNTH = {"size": 16, "times": 240, "step_hours": 12, "seed": 0}
NAMES = ["t2m", "u10"]
NET = dict(
    img_resolution=[16, 16], model_type="SongUNet", model_channels=16, channel_mult=[1, 2], num_blocks=1,
    attn_resolutions=[], dropout=0.1,
)  # fmt: skip


def made(name, args, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = library()[name](**args)
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return net.eval()


def saved(net, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.save(str(path))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return Weather(synth=SYNTH).synth(tmp_path_factory.mktemp("data") / "climate.zarr")


@pytest.fixture
def data(archive, tmp_path):
    return Weather(path=str(archive), variables=NAMES, factor=4).open(tmp_path)


@pytest.fixture(scope="module")
def pair(archive, tmp_path_factory):
    """A package in Earth2Studio's layout, its inputs in another order than the data's; and its two networks."""
    folder = tmp_path_factory.mktemp("package")
    regression = made("CorrDiffRegressionUNet", NET | dict(img_in_channels=3, img_out_channels=2), 0)
    diffusion = made(
        "EDMPrecondSuperResolution", NET | dict(img_in_channels=5, img_out_channels=2, embedding_type="zero"), 1
    )
    saved(regression, folder / packages.REGRESSION)
    saved(diffusion, folder / packages.DIFFUSION)
    metadata = {
        "input_variables": ["u10m", "t2m"], "output_variables": ["t2m", "u10m"], "invariant_variables": ["elev_mean"],
        "number_of_samples": 1, "number_of_steps": 18, "solver": "heun", "hr_mean_conditioning": True,
        "sigma_min": 0.01, "sigma_max": 200.0,
    }  # fmt: skip
    stats = {
        "input": {"t2m": {"mean": 281.0, "std": 11.0}, "u10m": {"mean": 0.5, "std": 4.0}},
        "output": {"t2m": {"mean": 280.0, "std": 12.0}, "u10m": {"mean": 0.2, "std": 5.0}},
        "invariant": {"elev_mean": {"mean": 100.0, "std": 50.0}},
    }
    (folder / "metadata.json").write_text(json.dumps(metadata))
    (folder / "stats.json").write_text(json.dumps(stats))
    with xr.open_zarr(archive) as ds:
        lat, lon = np.meshgrid(ds["latitude"].values, ds["longitude"].values, indexing="ij")
    xr.Dataset({"lat": (("y", "x"), lat), "lon": (("y", "x"), lon)}).to_netcdf(folder / "output_latlon_grid.nc")
    height = np.random.default_rng(0).normal(100, 50, (16, 16))
    xr.Dataset({"elev_mean": (("y", "x"), height)}).to_netcdf(folder / "invariants.nc")
    return folder, regression, diffusion, stats, height


def test_a_package_makes_the_fields_that_its_own_networks_make(pair, data):
    folder, regression, diffusion, stats, height = pair
    codec, network, _ = adopt(packages.load(folder), data.codec)
    inputs = data.test.inputs.isel(time=slice(0, 3))
    condition = codec.condition(inputs, slice(None))
    # what Earth2Studio's wrapper would show its networks: inputs and invariants in the package's order, normalised
    up = codec.interpolation(torch.from_numpy(np.stack([inputs[n].values for n in NAMES], 1)).double())
    rows = [(up[:, 1], *stats["input"]["u10m"].values()), (up[:, 0], *stats["input"]["t2m"].values())]
    shown = torch.stack([(f - m) / s for f, m, s in rows], 1).float()
    fixed = torch.from_numpy((height - 100) / 50).float().expand(3, 1, 16, 16)
    seen = torch.cat([shown, fixed], 1)
    noisy, sigma = 3 * torch.randn(3, 2, 16, 16), torch.tensor([0.02, 1.0, 30.0])
    with torch.no_grad():
        told = regression(torch.zeros(3, 2, 16, 16), seen)
        expected = diffusion(noisy, torch.cat([told, seen], 1), sigma)
        own = Denoiser(network, network.sigma_data)(noisy, sigma.double(), condition)
        fields = codec.decode(own, condition)
    worst = (own - expected).abs().amax((1, 2, 3)) / expected.abs().amax((1, 2, 3))
    assert worst.max() < 1e-5
    mean = torch.tensor([280.0, 0.2]).reshape(2, 1, 1)
    std = torch.tensor([12.0, 5.0]).reshape(2, 1, 1)
    torch.testing.assert_close(fields.float(), mean + std * (told + expected), rtol=1e-5, atol=1e-4)
    # and what is encoded is decoded again
    truth = data.test.truth.isel(time=slice(0, 3))
    x = codec.encode(truth, inputs, slice(None))
    torch.testing.assert_close(
        codec.decode(x, condition).numpy(), np.stack([truth[n].values for n in NAMES], 1).astype(float), rtol=0,
        atol=1e-3,
    )  # fmt: skip


def test_a_package_is_a_bundle_that_is_saved_whole(pair, data, tmp_path):
    whole, bundle = joined(found(str(pair[0])), data, "weather")
    again = load(bundle.save(tmp_path / "teacher.safetensors"))
    assert again.fingerprint() == bundle.fingerprint()
    assert bundle.sampling.sigmas[0] == pytest.approx(200) and bundle.sampling.sigmas[-1] == pytest.approx(0.01)
    inputs = whole.test.inputs.isel(time=slice(0, 1))
    (_, a), (_, b) = (next(m.blocks(inputs, 2, steps=3)) for m in (bundle, again))
    np.testing.assert_array_equal(a, b)


SMOKE = [*TINY, "data.variables=[t2m,u10]"]


def test_a_package_is_distilled_without_any_other_file(pair, tmp_path, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *SMOKE, f"teacher={pair[0]}", "run=run"]) == 0
    (student,) = (tmp_path / "run").glob("regression-*/student.safetensors")
    bundle = load(student)
    assert bundle.network_class.endswith("package.Residual") and bundle.codec.mean is not None
    assert list(bundle.codec.variables) == NAMES and bundle.provenance["method"] == "regression"


def test_a_flow_map_of_a_network_without_a_place_for_it_is_refused(pair, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *SMOKE, f"teacher={pair[0]}", "method=flow_map"]) == 2
    assert re.search(r"embedding_type: zero.*student=", re.sub(r"\s+", " ", capsys.readouterr().err))


def test_bad_packages_are_refused(pair, data, tmp_path):
    folder, *_ = pair

    def broken(**changes):
        own = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(folder, own)
        for name, change in changes.items():
            path = own / f"{name}.json"
            change_of = json.loads(path.read_text())
            change(change_of)
            path.write_text(json.dumps(change_of))
        return own

    def without(name):
        own = broken()
        (own / name).unlink()
        return own

    exchanged = broken()
    shutil.copy(folder / packages.DIFFUSION, exchanged / packages.REGRESSION)
    for own, match in (
        (without("stats.json"), r"lacks stats.json"),
        (without("diffusion.mdlus"), r"lacks diffusion.mdlus"),
        (without("invariants.nc"), r"lacks invariants.nc"),
        (broken(stats=lambda s: s["input"].pop("t2m")), "no mean and std of 't2m' under 'input'"),
        (broken(stats=lambda s: s["output"]["t2m"].update(std=0)), "normalise nothing"),
        (broken(stats=lambda s: s["output"]["t2m"].update(mean=float("nan"))), "normalise nothing"),
        (broken(stats=lambda s: s.update(invariants={})), "contradicts itself"),
        (broken(metadata=lambda m: m.update(hr_mean_conditioning=False)), r"diffusion.mdlus makes 2 channels from 5"),
        (broken(metadata=lambda m: m.update(input_variables=["t2m"])), r"regression.mdlus makes 2 channels from 3"),
        (broken(metadata=lambda m: m.pop("output_variables")), "names no output_variables"),
        (exchanged, r"regression.mdlus makes 2 channels from 5"),
        (broken(stats=lambda s: s.update(output=[1])), "no mean and std of 't2m' under 'output'"),
        (broken(stats=lambda s: s.pop("input")), "no mean and std of 'u10m' under 'input'"),
        (broken(metadata=lambda m: m.update(sigma_max=0.001)), "are no range"),
        (broken(metadata=lambda m: m.update(sigma_max="high")), "sigma_max='high' are no range"),
        (broken(metadata=lambda m: m.update(input_variables=["t2m", "t2m"])), "must be a list of names, each once"),
        (broken(metadata=lambda m: m.update(output_variables="t2m")), "must be a list of names"),
        (broken(metadata=lambda m: m.update(hr_mean_conditioning="false")), "neither true nor false"),
    ):
        with pytest.raises(UserError, match=match):
            found(str(own))
    nowhere = broken()
    ds = xr.load_dataset(nowhere / "output_latlon_grid.nc")
    (nowhere / "output_latlon_grid.nc").unlink()
    (ds * np.nan).to_netcdf(nowhere / "output_latlon_grid.nc")
    with pytest.raises(UserError, match="cannot be checked"):
        found(str(nowhere))
    moved = broken()
    ds = xr.load_dataset(moved / "output_latlon_grid.nc")
    (moved / "output_latlon_grid.nc").unlink()
    ds.isel(y=slice(None, None, -1)).to_netcdf(moved / "output_latlon_grid.nc")
    with pytest.raises(UserError, match="rows may run"):
        joined(found(str(moved)), data, "weather")


# ------------------------------------------------------------------------------------------------ the user's function

FUNCTION = """
import torch

class Gaussian(torch.nn.Module):
    # E[noise | y] of white data of variance 1 under a linear VP schedule
    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = gain

    def forward(self, y, time, condition):
        assert condition["fields"].shape[2:] == y.shape[2:] and condition["scalars"].shape == (len(y), 4)
        alpha = torch.exp(-0.5 * (0.1 * time + 0.5 * 19.9 * time**2)).reshape(-1, 1, 1, 1)
        return self.gain * (1 - alpha**2).sqrt() * y

def nan(y, time, condition):
    return y * float("nan")

def half(y, time, condition):
    return y[..., ::2]

def word(y, time, condition):
    return "y"

def broken(y, time, condition):
    raise ValueError("boom")

def imaginary(y, time, condition):
    return y + 1j

def sparse(y, time, condition):  # NaN for noise alone
    return y / (y == 0)

number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "their_teacher.py").write_text(FUNCTION)
    (tmp_path / "their_mistake.py").write_text("def f(:")
    monkeypatch.syspath_prepend(tmp_path)
    yield "their_teacher"
    sys.modules.pop("their_teacher", None)


def test_a_function_is_a_denoiser_by_its_prediction_and_schedule(module, data):
    words = {"call": f"{module}:Gaussian", "predicts": "epsilon", "schedule": "vp_linear"}
    _, bundle = joined(found(words), data, "weather")
    x, sigma = torch.randn(4, 2, 16, 16), torch.tensor([0.01, 0.5, 2.0, 50.0])
    condition = data.codec.condition(data.test.inputs, slice(0, 4))
    own = bundle.inner(x, sigma, condition)
    torch.testing.assert_close(own, x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2), rtol=1e-3, atol=1e-4)


def test_heun_samples_of_a_function_are_those_of_the_closed_form(module, data):
    words = {"call": f"{module}:Gaussian", "predicts": "epsilon", "schedule": "vp_linear"}
    _, bundle = joined(found(words), data, "weather")
    grid = karras_sigmas(9, 0.02, 50.0).tolist()
    gain = grid[0]
    for now, then in pairwise([*grid, 0.0]):  # on white data of variance 1, D = x/(1 + σ²): each step is a factor
        slope = now / (1 + now**2)
        ahead = 1 + (then - now) * slope
        gain *= 1 + (then - now) * 0.5 * (slope + ahead * then / (1 + then**2)) if then else ahead
    noise = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    condition = data.codec.condition(data.test.inputs, slice(0, 2))
    with torch.no_grad():
        own = heun(bundle.inner, grid[0] * noise, grid, condition)
    torch.testing.assert_close(own, gain * noise, rtol=2e-4, atol=2e-4)


def test_what_a_function_gets_wrong_is_told_at_once(module, data):
    good = {"predicts": "x0", "schedule": "edm"}
    for name, changes, match in (
        ("nan", {}, "gives NaN"),
        ("half", {}, r"predicts the shape \(2, 2, 16, 8\) for samples of \(2, 2, 16, 16\)"),
        ("word", {}, "returns a str"),
        ("imaginary", {}, "predicts complex numbers"),
        ("sparse", {}, "gives NaN or infinity"),
        ("half", {"sigma_max": "high"}, "are no range"),
        ("half", {"sigma_data": float("inf")}, "must be a positive number"),
        ("broken", {}, "fails on samples .*ValueError: boom"),
        ("number", {}, "cannot be called"),
        ("missing", {}, "no attribute 'missing'"),
        ("half", {"predicts": "noise"}, "needs predicts"),
        ("half", {"schedule": "cosine"}, "schedule=cosine: unknown"),
        ("half", {"scheduler": "edm"}, "teacher.scheduler is unknown"),
        ("half", {"sigma_min": 3, "sigma_max": 1}, "are no range"),
        ("half", {"sigma_data": -1}, "must be a positive number"),
    ):
        with pytest.raises(UserError, match=match):
            joined(found(good | changes | {"call": f"{module}:{name}"}), data, "weather")
    with pytest.raises(UserError, match=r"expected package\.module:function"):
        joined(found(good | {"call": "their_teacher"}), data, "weather")
    with pytest.raises(UserError, match="cannot be imported: SyntaxError"):
        joined(found(good | {"call": "their_mistake:f"}), data, "weather")
    with pytest.raises(UserError, match="No module named 'nowhere'"):
        joined(found(good | {"call": "nowhere:f"}), data, "weather")


def test_a_student_of_a_function_has_a_network_of_scigens_own(module, tmp_path, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    words = "teacher={call: 'their_teacher:Gaussian', predicts: epsilon, schedule: vp_linear}"
    assert main(["fit", *SMOKE, words, "run=run", "noise.sigma_min=0.02", "noise.sigma_max=20"]) == 0
    (student,) = (tmp_path / "run").glob("regression-*/student.safetensors")
    sys.modules.pop("their_teacher")
    sys.path.remove(str(tmp_path))
    bundle = load(student)  # nothing of the user's is needed
    assert bundle.network_class.endswith("unet.UNet") and "their_teacher" not in sys.modules


# -------------------------------------------------------------------------------------------------------- other files


def test_a_checkpoint_of_a_prior_is_a_teacher_and_one_of_other_channels_is_not(data, tmp_path):
    saved(made("EDMPrecond", NET | {"img_channels": 2}, 0), tmp_path / "prior.mdlus")
    _, bundle = joined(found(str(tmp_path / "prior.mdlus")), data, "weather")
    again = load(bundle.save(tmp_path / "bundle.safetensors"))
    assert again.fingerprint() == bundle.fingerprint() and again.network.condition_fields == data.codec.fields
    for changes in ({"sigma_min": 0}, {"sigma_max": "high"}, {"sigma_max": float("inf")}):
        with pytest.raises(UserError, match="are no range"):
            found({"path": str(tmp_path / "prior.mdlus"), **changes})
    narrowed = found({"path": str(tmp_path / "prior.mdlus"), "sigma_max": 5})
    assert narrowed.sigmas == (0.002, 5.0)
    saved(made("EDMPrecond", NET | {"img_channels": 3}, 0), tmp_path / "other.mdlus")
    with pytest.raises(UserError, match=r"makes 3 channels.*the data have 2 channels"):
        joined(found(str(tmp_path / "other.mdlus")), data, "weather")
    saved(made("CorrDiffRegressionUNet", NET | dict(img_in_channels=3, img_out_channels=2), 0), tmp_path / "reg.mdlus")
    with pytest.raises(UserError, match="is a regression network"):
        found(str(tmp_path / "reg.mdlus"))


def test_a_checkpoint_without_labels_is_told_the_fields_alone(data, tmp_path, caplog):
    theirs = made("EDMPrecondSuperResolution", NET | dict(img_in_channels=data.codec.fields, img_out_channels=2), 0)
    saved(theirs, tmp_path / "net.mdlus")
    _, bundle = joined(found(str(tmp_path / "net.mdlus")), data, "weather")
    assert f"none of its {data.codec.scalars} scalars" in caplog.text and "prior" not in caplog.text
    again = load(bundle.save(tmp_path / "bundle.safetensors"))
    condition = data.codec.condition(data.test.inputs, slice(0, 3))
    x, sigma = 3 * torch.randn(3, 2, 16, 16), torch.tensor([0.02, 1.0, 30.0])
    with torch.no_grad():
        expected = theirs(x, condition["fields"], sigma)
        own = Denoiser(again.network, again.network.sigma_data)(x, sigma.double(), condition)
    worst = (own - expected).abs().amax((1, 2, 3)) / expected.abs().amax((1, 2, 3))
    assert worst.max() < 1e-5
    fewer = made("EDMPrecondSuperResolution", NET | dict(img_in_channels=3, img_out_channels=2), 0)
    saved(fewer, tmp_path / "fewer.mdlus")
    with pytest.raises(UserError, match=r"from 3 condition fields and 0 scalars"):
        joined(found(str(tmp_path / "fewer.mdlus")), data, "weather")


@pytest.mark.parametrize(("name", "gain"), [("EDMPrecond", 1.0), ("VPPrecond", 150.0), ("VEPrecond", 100.0)])
def test_predictions_of_noise_make_large_errors_at_large_levels(name, gain, data, tmp_path, caplog):
    saved(made(name, NET | {"img_channels": 2}, 0), tmp_path / "net.mdlus")
    _, bundle = joined(found(str(tmp_path / "net.mdlus")), data, "weather")
    # what an error of 1 in the prediction is in D: σ for noise, c_out for EDM's F
    assert errors_gain(bundle) == pytest.approx(gain, rel=0.05)
    cfg = compose("fit", ["domain=weather"])
    caplog.clear()
    give_student(cfg, bundle, stored=True)
    assert ("predicts the noise" in caplog.text) == (gain > 10) and cfg.student is None
    caplog.clear()
    give_student(compose("fit", ["domain=weather", "student={widths: [8,8]}"]), bundle, stored=True)
    assert not caplog.text


def test_paths_that_are_no_teacher(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.pt").write_bytes(b"")
    (tmp_path / "x.nc").write_bytes(b"")
    for name, match in (("empty", "is no teacher"), ("x.pt", "is a pickle"), ("x.nc", "a teacher is a scigen bundle")):
        with pytest.raises(UserError, match=match):
            found(str(tmp_path / name))
    save_file({"x": torch.zeros(1)}, tmp_path / "own.safetensors", {"scigen": "{}"})
    for words, match in (
        ({"path": str(tmp_path / "own.safetensors")}, "is a bundle of scigen's own"),
        ({"path": 3}, "give path="),
        ({"path": "a", "sigma": 3}, "teacher.sigma is unknown"),
        ({"precond": "x"}, "give path="),
    ):
        with pytest.raises(UserError, match=match):
            found(words)
    assert found(None) is None


# ------------------------------------------------------------------------------------------------------------ inspect


def test_inspect_tells_what_a_package_is(pair, monkeypatch, capsys):
    for words in ([str(pair[0])], [f"teacher={pair[0]}"]):
        monkeypatch.setattr("scigen.workflows.inspect_teacher.CALLS", (3, 33) if words[0][0] == "/" else (33,))
        assert main(["inspect", *words]) == 0
        said = capsys.readouterr().out
        for match in (
            r"CorrDiff package", r"input +u10m \(0.5 ± 4\), t2m \(281 ± 11\)", r"output +t2m \(280 ± 12\)",
            r"invariant +elev_mean \(100 ± 50\)", r"hr_mean_conditioning +True", r"σ ∈ \[0.01, 200\], σ_data = 0.5",
            r"2, from 5 condition fields and 0 scalars", r"16 × 16", r"ms a member", r"heun +33 calls",
        ):  # fmt: skip
            assert re.search(match, said), match


def test_inspect_tells_what_a_checkpoint_is_and_refuses_what_is_none(tmp_path, capsys):
    saved(made("VPPrecond", NET | {"img_channels": 2}, 0), tmp_path / "vp.mdlus")
    assert main(["inspect", str(tmp_path / "vp.mdlus")]) == 0
    said = capsys.readouterr().out
    assert "VPPrecond" in said and "epsilon on the schedule vp_linear" in said
    (tmp_path / "vp.pt").write_bytes(b"")
    (tmp_path / "cut.mdlus").write_bytes((tmp_path / "vp.mdlus").read_bytes()[:5000])
    for words, match in (
        ([str(tmp_path / "vp.pt")], "is a pickle"),
        ([str(tmp_path / "cut.mdlus")], "no whole .mdlus file"),
        (["teacher={call: 'a:b', predicts: x0, schedule: edm}"], "a function is called once when a fit"),
        ([], "needs a path"),
    ):
        assert main(["inspect", *words]) == 2
        assert match in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_convergence_counts_calls_until_the_ensemble_stops_changing():
    def gaussian(x, sigma, condition):  # white data of variance 1
        return x / (1 + sigma.to(x).reshape(-1, 1) ** 2)

    noise = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = {(r.solver, r.calls): r for r in table(gaussian, noise, {}, (0.002, 80.0), (5, 17, 33, 129))}
    # Euler's gain on white data is known: a product over its steps

    def euler(n):
        grid = [*karras_sigmas(n, 0.002, 80.0).tolist(), 0.0]
        gain = 80.0
        for now, then in pairwise(grid):
            gain *= 1 / (1 + now**2) + then / now * now**2 / (1 + now**2)
        return gain

    exact = 80 / (1 + 80**2) ** 0.5
    assert rows["euler", 17].spread == pytest.approx(euler(17) / exact, rel=4e-3)
    assert rows["euler", 5].spread < rows["euler", 33].spread < 1  # under-dispersive, ever less so
    assert not rows["euler", 5].converged and rows["heun", 129].converged
    assert cheapest(list(rows.values())).calls == min(r.calls for r in rows.values() if r.converged)
    assert cheapest([rows["euler", 5]]) is None
