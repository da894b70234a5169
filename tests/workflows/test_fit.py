"""The verb fit from end to end, in miniature."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import scigen
from scigen.cli import main
from scigen.weather.coarsen import coarsen
from scigen.workflows.folder import alone

from .conftest import ONE, TINY


def test_everything_is_there_and_says_what_it_is(fitted):
    for path in (fitted.teacher, fitted.student, fitted.stage / "metrics.json", fitted.stage / "report.html"):
        assert path.is_file()
    assert not list(fitted.home.rglob("*.partial"))
    for folder in (fitted.run / "teacher", fitted.stage):  # two snapshots and three widths were judged
        table = pd.read_csv(folder / "validation.csv")
        assert len(table) == 5 and np.isfinite(table).all(axis=None)
    metrics = json.loads((fitted.stage / "metrics.json").read_text())
    models = {"exact law", "teacher, 4 steps", "teacher, 1 step", "student, 1 step", "interpolation"}
    assert set(metrics["models"]) == models
    assert metrics["speed"]["network"] > 0 and metrics["known"]["t2m"]["exact_crps"] > 0
    student = scigen.load(fitted.student)
    assert student.role == "student" and student.nfe() == 1
    assert student.provenance["teacher"] and student.provenance["data_fingerprint"]


def test_contenders_share_noise_and_samples(fitted):
    """Every archive has the same times and members, and the exact law's members move with the teacher's noise."""
    exact = xr.open_zarr(fitted.run / "samples" / "exact.zarr")
    (path,) = (fitted.run / "samples").glob("teacher-4-steps-*.zarr")
    teacher = xr.open_zarr(path)
    assert exact.sizes == teacher.sizes and np.array_equal(exact.time, teacher.time)
    assert exact["t2m"].dims == ("time", "member", "latitude", "longitude")


def test_repeating_the_command_trains_and_samples_nothing_again(inside, quick, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in (inside.teacher, inside.student)}
    for place in ("scigen.core.driver.Driver.training_step", "scigen.core.bundle.Bundle.draw"):
        monkeypatch.setattr(place, lambda *_, **__: pytest.fail("done again"))
    assert main(["fit", *TINY]) == 0
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_another_method_takes_the_same_teacher(inside, unjudged):
    before = inside.teacher.stat().st_mtime_ns
    assert main(["fit", *TINY, "method=consistency", "method.levels=[2,3]"]) == 0
    (stage,) = (p for p in inside.run.iterdir() if p.name.startswith("consistency-"))
    student, first = scigen.load(stage / "student.safetensors"), scigen.load(inside.student)
    assert student.nfe() == 2 and student.nfe(1) == 1
    assert inside.teacher.stat().st_mtime_ns == before
    assert student.provenance["teacher"] == first.provenance["teacher"]


def test_a_given_teacher_skips_the_first_stage(inside, tmp_path, unjudged):
    run = tmp_path / "mine"
    assert main(["fit", *TINY, f"teacher={inside.teacher}", f"run={run}"]) == 0
    assert not (run / "teacher.safetensors").exists()
    (student,) = run.glob("regression-*/student.safetensors")
    assert scigen.load(student).provenance["teacher"] == scigen.load(inside.student).provenance["teacher"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run={run}", "seed=5"], "belongs to another configuration"),
        (["teacher={teacher}", "data.variables=[v10,u10,t2m]"], "in this order"),
        (["teacher={teacher}", "data.factor=8"], "factor"),
        (["teacher={teacher}", "+data.synth.spacing=0.5"], "made for a spacing of 0.25 by 0.25"),
        (["teacher={teacher}", "method=denoising"], "leave one of them out"),
        (["teacher=nothing.safetensors"], "no bundle at"),
        (["teacher={teacher}", "noise.sigma_max=1e4"], "The teacher knows"),
        (["data.path=nowhere.nc"], "nowhere.nc"),
        (["data.variables=[t2m,q]"], "q"),
        (["data.split=[0.5,0.1,0.1]"], "add up to 1"),
        (["data.factor=32"], "factor"),
        (["method.training.lr=0"], "lr=0"),
        (["method.sigmas=[1.0,2.0]"], "decreasing"),
        (["trainer.accelerator=tpu_of_tomorrow"], "tpu_of_tomorrow"),
    ],
)
def test_mistakes_get_one_line(inside, capsys, words, message):
    words = [w.format(run=inside.run, teacher=inside.teacher) for w in words]
    assert main(["fit", *TINY, *words]) == 2
    shown = capsys.readouterr().err.replace("\n", " ")
    assert message in shown and "Traceback" not in shown


def test_a_folder_at_work_is_left_alone(inside, capsys):
    with alone(inside.run):
        assert main(["fit", *TINY]) == 2
    assert "at work in" in capsys.readouterr().err.replace("\n", " ")


def test_a_teacher_of_another_field_is_refused(inside, tmp_path, capsys):
    foreign = replace(scigen.load(inside.teacher), domain="mri").save(tmp_path / "mri.safetensors")
    assert main(["fit", *TINY, f"teacher={foreign}"]) == 2
    assert "domain=mri" in capsys.readouterr().err.replace("\n", " ")


def test_pairs_lie_in_the_run_folder_for_every_method_of_the_same_teacher(inside):
    (rows,) = inside.run.glob("pairs-*/rows.zarr")
    found = xr.open_zarr(rows)
    assert found.sizes["pair"] == 8 and found["sigma"].values.tolist() == [0.0]
    assert found.attrs["teacher"] == scigen.load(inside.teacher).fingerprint()
    assert np.isfinite(found["rows"].values).all()


def test_kill_and_resume_give_the_same_student(taught, tmp_path, unjudged, monkeypatch):
    """SIGKILL in the middle of the student's training, then the same command: the weights of an undisturbed run."""
    monkeypatch.chdir(taught)
    words = [w.replace("steps: 4", "steps: 24") for w in ONE] + [f"teacher={taught / 'teacher.safetensors'}"]
    command = [sys.executable, "-m", "scigen", "fit", *words]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed = subprocess.Popen([*command, f"run={tmp_path / 'killed'}"], **quiet)
    checkpoint = None
    for _ in range(6000):
        checkpoint = next((tmp_path / "killed").glob("*/last.ckpt"), None)
        if checkpoint or killed.poll() is not None:
            break
        time.sleep(0.01)
    assert checkpoint, "it never came to a checkpoint"
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not list((tmp_path / "killed").glob("*/student.safetensors")), "it was too fast to be killed"
    for name in ("killed", "straight"):
        assert main(["fit", *words, f"run={tmp_path / name}"]) == 0
    students = [next((tmp_path / n).glob("*/student.safetensors")) for n in ("killed", "straight")]
    assert scigen.load(students[0]).fingerprint() == scigen.load(students[1]).fingerprint()


def test_rain_and_a_variable_that_is_no_input(tmp_path, monkeypatch, quick):
    """Three variables out of two, with rain: fitted, sampled from coarse fields without the third, conserved."""
    monkeypatch.chdir(tmp_path)
    words = ["data.variables=[t2m,u10,tp]", "data.inputs=[t2m,tp]", "data.features=[sun,place]", "run=rain"]
    words += ["data.transforms={tp: {kind: root, power: 2, dry: 0.05}}"]
    own = [w for w in ONE if not w.startswith("data.variables")]
    assert main(["fit", *own, *words]) == 0
    student = next((tmp_path / "rain").glob("regression-*/student.safetensors"))
    (archive,) = (tmp_path / "runs" / "data").glob("*.zarr")
    ds = xr.open_zarr(archive)[["t2m", "u10", "tp"]].isel(time=slice(0, 3)).load()
    coarse = coarsen(ds, 4)
    out = scigen.load(student).sample(coarse[["t2m", "tp"]], members=2, batch=6)
    for name, tolerance in (("t2m", 1e-3), ("tp", 1e-5)):
        means = coarsen(out[[name]], 4)[name]
        np.testing.assert_allclose(means, coarse[name].expand_dims(member=2, axis=1), atol=tolerance)
    assert (out["tp"] >= 0).all() and (out["tp"] == 0).any() and np.isfinite(out["u10"]).all()


def test_trained_on_crops_and_sampled_whole(tmp_path, monkeypatch, quick):
    """Teacher and a student from data see crops; bundles and samples are of the whole region."""
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *ONE, "crop=8", "method=consistency", "run=crops", "data.features=[place]"]) == 0
    student = scigen.load(next((tmp_path / "crops").glob("consistency-*/student.safetensors")))
    (archive,) = (tmp_path / "runs" / "data").glob("*.zarr")
    out = student.sample(xr.open_zarr(archive).isel(time=slice(0, 2)), members=2, batch=4)
    assert out["t2m"].shape == (2, 2, 16, 16) and np.isfinite(out["t2m"]).all()


def test_crops_that_do_not_fit_end_with_a_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *ONE, "crop=6"]) == 2
    assert "multiples of 4" in " ".join(capsys.readouterr().err.split())
