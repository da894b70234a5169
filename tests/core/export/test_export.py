"""What is exported makes the bundle's own fields, without scigen; what cannot leave is refused."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scigen.core.bundle import Bundle
from scigen.core.export import checked
from scigen.core.export import onnx as onnx_form
from scigen.core.export.generator import Generator
from scigen.core.networks.physicsnemo import SongUNet
from scigen.core.networks.unet import UNet
from scigen.core.sampling import Sampling
from scigen.errors import UserError
from scigen.materials.calibration import Calibration
from scigen.materials.physics import MicrostructureCodec
from scigen.materials.quantities import quantities
from scigen.mri.physics import ReconstructionCodec
from scigen.weather.grid import Grid
from scigen.weather.physics import DownscalingCodec, Statistics
from scigen.weather.transforms import Bounded, Root

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters' and PhysicsNeMo's own
ROOT = Path(__file__).parents[3]
LEVELS = (20.0, 2.0, 0.5, 0.1)
UNET = "scigen.core.networks.unet.UNet"


def bundle_of(codec: Any, sampling: Sampling | None = None, **own: Any) -> Bundle:
    sampling = sampling or Sampling("few_step", LEVELS, trained=True)
    scalars = codec.scalars + (11 if sampling.two_times else 0)
    args = dict(
        channels=codec.shape[0], condition_fields=codec.fields, condition_scalars=scalars, widths=[8, 8], embedding=8,
        space=len(codec.shape) - 1, **own,
    )  # fmt: skip
    torch.manual_seed(0)
    network = UNet(**args)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return Bundle(network, UNET, args, 1.0, codec, sampling, "test", "student", two_times=sampling.two_times)


@pytest.fixture
def rain(archive) -> DownscalingCodec:
    """A held variable, a scaled one, a bounded one that the coarse fields lack; the sun."""
    units = {"t2m": {"units": "K"}, "tp": {"units": "mm"}, "tcc": {"units": "1"}}
    coarse = {n: units[n] for n in ("tp", "t2m")}
    stats = Statistics(np.array([[1.0, 280.0], [0.4, 3.0]]), np.array([[0.0, 0.0, 0.8], [1.0, 0.3, 0.3]]))
    return DownscalingCodec(
        Grid.of(archive), 4, units, {"orography": np.arange(64.0).reshape(8, 8)}, stats, inputs=coarse,
        transforms={"tp": Root(3.0, dry=0.05), "tcc": Bounded(0.0, 1.0)}, features=("place", "sun"),
    )  # fmt: skip


def microstructures(**own: Any) -> MicrostructureCodec:
    phases = ["pore", "solid", "binder"]
    known = [q.fitted(np.linspace(0.2, 0.7, 11)) for q in quantities(phases, ["pore"], ["coarsening_time"])]
    return MicrostructureCodec(
        (8,) * 3, phases, known, **{"periodic": (True, False, True), "mean": [0.3, 0.3, 0.4], **own}
    )


def scanner() -> ReconstructionCodec:
    return ReconstructionCodec((16, 12), 3, np.exp(-np.linspace(0, 4, 40)), 0.3, iterations=2)


def far(bundle: Bundle, steps: int | None, write: Any, path: Path) -> float:
    generator = Generator(bundle, steps)
    return checked.compared(generator, write(generator, generator.example(3)[0], path))


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("field", ["rain", "microstructure", "scan"])
def test_the_generator_is_the_bundle(rain, field, steps):
    codec = {"rain": rain, "scan": scanner()}.get(field) or microstructures(inpaint=True, calibrations=BIASED)
    generator = Generator(bundle_of(codec), steps)
    for batch in (1, 4):
        ports, wanted = generator.example(batch, seed=steps)
        assert generator.traced.distance(generator(ports), wanted) < 5e-5


BIASED = {1: Calibration(0.5, (0.1, -0.05, -0.05)), 2: Calibration(0.7, (-0.4, 0.2, 0.2))}


@pytest.mark.parametrize("sampler", ["heun", "flow_map"])
def test_solvers_and_flow_maps_leave_at_other_batches_than_traced(bundle, tmp_path, sampler):
    assert far(bundle_of(bundle.codec, Sampling(sampler, LEVELS)), 2, checked.pt2.write, tmp_path / "x.pt2") < 5e-5


@pytest.mark.parametrize(
    ("field", "form"),
    [
        ("rain", "pt2"),
        ("rain", "onnx"),
        pytest.param("microstructure", "pt2", marks=pytest.mark.slow),
        ("microstructure", "onnx"),
    ],
)
def test_fields_leave_with_their_measurement_inside(rain, tmp_path, field, form):
    if form == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    codec = rain if field == "rain" else microstructures(inpaint=True, calibrations=BIASED)
    about = checked.export(bundle_of(codec), form, tmp_path / f"x.{form}", 2)
    assert about["checked"]["distance"] < 5e-5 and about["calls"] == 2
    assert {p.name for p in tmp_path.iterdir()} == {f"x.{form}", "x.json"}


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize(
    ("field", "form"),
    [(f, e) for f in ("rain", "microstructure", "scan") for e in ("pt2", "onnx") if (f, e) != ("scan", "onnx")],
)
def test_files_of_every_field_are_the_bundle_at_every_number_of_steps(rain, tmp_path, field, form, steps):
    if form == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    codec = {"rain": rain, "scan": scanner()}.get(field) or microstructures(inpaint=True, calibrations=BIASED)
    about = checked.export(bundle_of(codec), form, tmp_path / f"x.{form}", steps)
    assert about["checked"] == {"distance": pytest.approx(0, abs=1e-4), "batches": [1, 2, 5]}
    assert about["calls"] == steps


@pytest.mark.slow
def test_a_scan_leaves_as_onnx(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    codec = ReconstructionCodec((16, 12), 3, np.exp(-np.linspace(0, 4, 40)), 0.3, iterations=1)
    about = checked.export(bundle_of(codec), "onnx", tmp_path / "x.onnx", 1)
    assert about["checked"]["distance"] < 1e-4


@pytest.mark.parametrize("sampler", ["euler", "dpm_solver", "unipc", "ipndm", "churn"])
def test_the_generator_walks_as_every_sampler_does(bundle, sampler):
    generator = Generator(bundle_of(bundle.codec, Sampling(sampler, LEVELS)), 4)
    ports, wanted = generator.example(2)
    assert generator.traced.distance(generator(ports), wanted) < 5e-5


def test_scans_leave_with_conjugate_gradients_inside(tmp_path):
    assert far(bundle_of(scanner()), 1, checked.pt2.write, tmp_path / "x.pt2") < 5e-5


def test_bf16_is_the_bundle_s_bf16_and_another_thing_than_fp32(bundle, tmp_path):
    student = bundle_of(bundle.codec)
    assert far(student.quick("bf16"), 1, checked.pt2.write, tmp_path / "x.pt2") < 5e-5
    (_, one), (_, two) = (Generator(b, 1).example(3) for b in (student, student.quick("bf16")))
    assert Generator(student, 1).traced.distance(two, one) > 2e-4


def test_the_example_runs_a_file_where_scigen_is_not(bundle, tmp_path):
    checked.export(bundle_of(bundle.codec), "pt2", tmp_path / "x.pt2", 2)
    code = f"import sys, runpy; sys.modules['scigen'] = None; sys.argv = ['run', {str(tmp_path / 'x.pt2')!r}, '3'];"
    code += f"runpy.run_path({str(ROOT / 'examples' / 'run_exported.py')!r})"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fields (3, 2, 8, 8)")


def test_the_json_names_every_input_with_its_shape_and_units(bundle, tmp_path):
    checked.export(bundle_of(bundle.codec), "pt2", tmp_path / "x.pt2", 2)
    about = json.loads((tmp_path / "x.json").read_text())
    ports = {p["name"]: p for p in about["inputs"]}
    assert ports["noise"]["shape"] == ["batch", 2, 2, 8, 8]
    assert ports["coarse"]["channels"] == ["t2m", "u10"] and ports["coarse"]["units"] == ["K", "m s-1"]
    assert about["levels"] == [20.0, 2.0]


def test_a_file_that_disagrees_is_not_left(bundle, tmp_path, monkeypatch):
    write = checked.pt2.write

    def wrong(*words: Any) -> Any:
        run = write(*words)
        return lambda ports: run(ports) + 1e-2 * ports["noise"][:, 0]

    monkeypatch.setattr(checked.pt2, "write", wrong)
    with pytest.raises(UserError, match="disagrees"):
        checked.export(bundle_of(bundle.codec), "pt2", tmp_path / "x.pt2", 1)
    assert not list(tmp_path.iterdir())


def test_what_cannot_leave_is_refused_in_a_line(bundle, tmp_path, monkeypatch):
    student, path = bundle_of(bundle.codec), tmp_path / "x.pt2"
    with pytest.raises(UserError, match="expected one of pt2"):
        checked.export(student, "tflite", path)
    with pytest.raises(UserError, match=r"end in \.onnx"):
        checked.export(student, "onnx", path)
    path.touch()
    with pytest.raises(UserError, match="overwrite=true"):
        checked.export(student, "pt2", path)
    path.unlink()
    with pytest.raises(UserError, match="exact=false"):
        checked.export(bundle_of(microstructures(exact=True)), "pt2", path)
    with pytest.raises(UserError, match="tiles"):
        checked.export(student.tiled(8), "pt2", path)
    with pytest.raises(UserError, match="not UNet"):
        checked.export(student, "mdlus", tmp_path / "x.mdlus")
    with pytest.raises(UserError, match="1 to 4 steps"):
        checked.export(student, "pt2", path, 5)
    with pytest.raises(UserError, match="downscaling"):
        checked.export(bundle_of(scanner()), "earth2studio", tmp_path / "pack", 1)
    with pytest.raises(UserError, match="bf16"):
        onnx_form.check(Generator(student.quick("bf16"), 1))
    own = student.network.forward
    monkeypatch.setattr(student.network, "forward", lambda x, *a: own(x, *a) * (1 if float(x.sum()) > 0 else 2))
    with pytest.raises(UserError, match="cannot trace"):
        checked.export(student, "pt2", path, 1)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def song(bundle) -> Bundle:
    args: dict[str, Any] = dict(channels=2, condition_fields=bundle.codec.fields, condition_scalars=4)
    args |= dict(model_channels=8, channel_mult=[1, 2], resolution=8, attn_resolutions=[4])
    torch.manual_seed(0)
    network = SongUNet(**args)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return replace(
        bundle, network=network, network_class="scigen.core.networks.physicsnemo.SongUNet", network_args=args
    )


def test_a_physicsnemo_checkpoint_is_the_denoiser(song, tmp_path):
    assert checked.export(song, "mdlus", tmp_path / "x.mdlus")["checked"]["distance"] < 1e-5
    assert {p.name for p in tmp_path.iterdir()} == {"x.mdlus", "x.json"}


@pytest.mark.parametrize("steps", [1, 2])
def test_one_step_goes_through_no_sampler_of_physicsnemo(song, tmp_path, steps):
    checked.export(song, "earth2studio", tmp_path / "pack", steps)
    names = {p.name for p in (tmp_path / "pack").iterdir()}
    assert {"generator.pt2", "metadata.json", "stats.json", "output_latlon_grid.nc", "README.md"} <= names
    assert ("diffusion.mdlus" in names) == (steps > 1)
    stats = json.loads((tmp_path / "pack" / "stats.json").read_text())
    assert stats["input"]["t2m"] == {"mean": 280.0, "std": 1.0} and set(stats) == {"input", "output", "invariants"}


def test_the_unet_compiles_as_one_graph_with_the_same_result(bundle):
    student = bundle_of(bundle.codec)
    ports, wanted = Generator(student, 1).example(3)
    compiled = replace(student)
    compiled.inner.network = torch.compile(student.network, backend="eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(Generator(compiled, 1)(ports), wanted, rtol=1e-6, atol=1e-4, check_dtype=False)
