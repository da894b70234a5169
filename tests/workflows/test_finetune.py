"""Training on from a bundle: on own data, all parameters or few, with the codec that the weights were made for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import scigen
from scigen.cli import main

from .conftest import ONE

OWN = [w.replace("seed: 0", "seed: 7") for w in ONE]  # another climate on the same grid


@pytest.fixture
def home(taught, unjudged, monkeypatch):
    monkeypatch.chdir(taught)
    return taught


def test_a_teacher_is_trained_on_with_its_own_statistics(home, tmp_path):
    run, old = tmp_path / "tuned", scigen.load(home / "teacher.safetensors")
    words = [*OWN, "method=denoising", f"init={home / 'teacher.safetensors'}", f"run={run}"]
    assert main(["fit", *words, "+method.training.parameters=affine"]) == 0
    new = scigen.load(run / "teacher.safetensors")
    assert new.role == "teacher" and new.provenance["init"] == old.fingerprint()
    assert new.provenance["data_fingerprint"] != old.provenance["data_fingerprint"]
    for k, v in old.codec.state()[1].items():
        np.testing.assert_array_equal(v, new.codec.state()[1][k])
    was, now = old.network.state_dict(), new.network.state_dict()
    moved = {k for k in was if not torch.equal(was[k], now[k])}
    assert moved and all("film" in k or k.endswith((".bias", ".gain")) for k in moved)
    before = (run / "teacher.safetensors").stat().st_mtime_ns
    assert main(["fit", *words, "+method.training.parameters=affine"]) == 0
    assert (run / "teacher.safetensors").stat().st_mtime_ns == before, "what is finished is not done again"
    assert main(["fit", *words]) == 2, "a folder of another training"


def test_all_parameters_move_unless_few_are_asked_for(home, tmp_path):
    words = [*OWN, "method=denoising", f"init={home / 'teacher.safetensors'}", f"run={tmp_path / 'tuned'}"]
    assert main(["fit", *words]) == 0
    was, now = (scigen.load(p).network.state_dict() for p in
                (home / "teacher.safetensors", tmp_path / "tuned" / "teacher.safetensors"))  # fmt: skip
    assert not torch.equal(was["stem.conv.weight"], now["stem.conv.weight"])


def test_a_student_is_trained_on_in_few_parameters(home, tmp_path):
    given = [f"teacher={home / 'teacher.safetensors'}", f"run={tmp_path / 'run'}"]
    assert main(["fit", *ONE, *given]) == 0
    (path,) = (tmp_path / "run").glob("regression-*/student.safetensors")
    words = ["method=crps", f"init={path}", "+method.training.parameters=affine"]
    assert main(["fit", *ONE, *given, *words]) == 0
    (tuned,) = (tmp_path / "run").glob("crps-*/student.safetensors")
    was, now = (scigen.load(p).network.state_dict() for p in (path, tuned))
    moved = {k for k in was if not torch.equal(was[k], now[k])}
    assert moved and all("film" in k or k.endswith((".bias", ".gain")) for k in moved)


def test_another_region_is_trained_on_as_it_is(home, tmp_path):
    """A smaller one: the codec moves there, with the statistics that the weights know; a student of it follows."""
    start = scigen.load(home / "teacher.safetensors")
    words = [w for w in ONE if not w.startswith("data.synth")]
    words += ["data.synth={size: 12, times: 240, step_hours: 12, seed: 0}", f"run={tmp_path / 'run'}"]
    assert main(["fit", *words, "method=denoising", f"init={home / 'teacher.safetensors'}"]) == 0
    tuned = scigen.load(tmp_path / "run" / "teacher.safetensors")
    assert start.codec.shape == (1, 16, 16) and tuned.codec.shape == (1, 12, 12)
    for kind in ("coarse", "residual", "static"):
        one, other = (getattr(b.codec.statistics, kind) for b in (start, tuned))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (dict(role="student"), [], "goes on training a teacher"),
        (dict(domain="mri"), [], "domain=mri"),
        ({}, ["data.variables=[u10]"], "in this order"),
        ({}, ["+data.synth.spacing=0.5"], "made for a spacing of 0.25 by 0.25"),
        ({}, ["noise.sigma_max=1e4"], "The teacher knows"),
        ({}, ["+method.training.parameters=nonsense"], "matches no parameter"),
        ({}, ["teacher=x.safetensors"], "leave one of them out"),
    ],
)
def test_starts_that_do_not_fit_are_refused(home, tmp_path, capsys, change, words, message):
    path = replace(scigen.load(home / "teacher.safetensors"), **change).save(tmp_path / "start.safetensors")
    words = [w for w in ONE if w.split("=")[0] not in {x.split("=")[0] for x in words}] + words
    assert main(["fit", *words, "method=denoising", f"init={path}", f"run={tmp_path / 'run'}"]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
