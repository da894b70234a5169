"""Model cards: every entry is filled, those of a fit tell what was measured, and a bundle alone tells the rest."""

import json
import math

import numpy as np
import pytest

import scigen
from scigen.core.card import FORMAT, SECTIONS, UNKNOWN, filled, markdown, small
from scigen.workflows.card import cohort

NEEDED = {
    "model": {"field", "role", "fingerprint", "network", "parameters", "variables"},
    "intended_use": {"use", "out_of_scope"},
    "data": {"source", "fingerprint", "splits", "variables", "cells", "demographics"},
    "training": {"method", "settings", "noise", "teacher", "started_from", "convergence", "precision"},
    "teacher": {"sampler", "calls", "variance_of_gaussian_modes"},
    "sampling": {"sampler", "sigmas", "steps", "network_calls_a_member"},
    "calibration": {"verdict", "test", "summary", "contenders", "exact_law", "spread_ledger"},
    "limits": {"of_the_field", "worst_samples"},
    "cost": {"training_seconds", "hardware", "threads", "calls_a_member", "speed"},
    "reproducibility": {"seed", "command", "versions", "seed_rule", "configuration"},
    "licences": {"code", "data", "weights"},
}
"""The schema: entries that every card has."""


def empty(value, where=""):
    """Places of a card that hold nothing."""
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in empty(v, f"{where}.{k}")] if value else [where]
    if isinstance(value, list):
        return [p for i, v in enumerate(value) for p in empty(v, f"{where}[{i}]")] if value else [where]
    return [where] if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)) else []


def check(content):
    assert content["format"] == FORMAT and tuple(content)[1:] == SECTIONS
    for section, keys in NEEDED.items():
        assert keys <= set(content[section]), section
    assert empty(content) == []
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_a_fit_writes_a_card_beside_every_bundle(fitted):
    paths = sorted(fitted.home.rglob("*.safetensors"))
    bundles = [p for p in paths if p.parent.name not in ("averages",)]
    assert {p.name for p in bundles} == {"teacher.safetensors", "student.safetensors"}
    for path in bundles:
        content = json.loads(path.with_name("card.json").read_text())
        check(content)
        assert content["model"]["fingerprint"] == scigen.load(path).fingerprint()
        page = path.with_name("card.md").read_text("utf-8")
        assert content["intended_use"]["use"] in page and page.count("\n## ") == len(SECTIONS)


def test_the_students_card_tells_what_was_measured(fitted):
    content = json.loads((fitted.stage / "card.json").read_text())
    metrics = json.loads((fitted.stage / "metrics.json").read_text())
    told = content["calibration"]
    assert told["verdict"] == metrics["verdict"] and set(told["contenders"]) == set(metrics["models"])
    measured = metrics["models"]["student, 1 step"]["t2m"]["spread_skill"]["estimate"]
    assert told["contenders"]["student, 1 step"]["t2m"]["spread_skill"]["estimate"] == pytest.approx(measured)
    assert set(told["spread_ledger"]) == {"t2m", "u10", "v10"}
    assert content["training"]["method"] == "regression" and content["training"]["teacher"] != UNKNOWN
    assert content["training"]["convergence"]["best"] <= content["training"]["convergence"]["last"]
    splits = content["data"]["splits"]
    assert [splits[k]["samples"] for k in ("train", "validation", "test")] == [165, 12, 59]
    assert splits["train"]["last"] < splits["test"]["first"]  # in time
    assert content["data"]["variables"]["t2m"] == "K" and content["cost"]["speed"]["network"] > 0
    assert content["licences"]["data"] == UNKNOWN  # nobody said it


def test_the_solver_is_told_in_closed_form(fitted):
    """Four calls of DPM-Solver++(2M) over a wide range of σ are far from converged, and the card shows it."""
    content = json.loads((fitted.run / "card.json").read_text())
    assert content["teacher"]["calls"] == 4
    assert max(abs(v - 1) for v in content["teacher"]["variance_of_gaussian_modes"].values()) > 0.05


def test_a_bundle_alone_says_unknown_of_what_it_cannot_know(fitted):
    student = scigen.load(fitted.student)
    content = student.card()
    check(content)
    assert content["calibration"]["verdict"] == UNKNOWN and content["data"]["source"] != UNKNOWN
    student.provenance = {}
    check(student.card())
    assert student.card()["reproducibility"]["seed"] == UNKNOWN


def test_nothing_stays_empty():
    found = filled({"a": None, "b": "", "c": [], "d": {}, "e": math.nan, "f": 0, "g": False, "h": [None, 1]})
    assert found == {**dict.fromkeys("abcde", UNKNOWN), "f": 0, "g": False, "h": [UNKNOWN, 1]}


def test_every_field_says_what_its_models_are_for(fitted):
    """MRI's is research only; the limits are told in each."""
    from scigen.materials.physics import MicrostructureCodec
    from scigen.mri.physics import ReconstructionCodec

    for kind in (MicrostructureCodec, ReconstructionCodec, type(scigen.load(fitted.student).codec)):
        purpose = kind.purpose.fget(None)
        assert purpose["use"] and purpose["not"] and len(purpose["limits"]) >= 3
    mri = ReconstructionCodec.purpose.fget(None)
    assert "Research use only" in mri["use"] and "Diagnosis" in mri["not"]


def test_notebooks_show_a_small_card_with_every_text_escaped(fitted):
    student = scigen.load(fitted.student)
    student.provenance["data"] = "<script>alert(1)</script>"
    shown = student._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown
    assert "t2m [K]" in shown and student.fingerprint() in shown and small(student.card()) == shown
    assert "&" not in markdown(student.card()).splitlines()[0]


def test_the_cohort_names_subjects_and_a_licence(fitted):
    """Of archives that tell them: counted, not listed."""
    import xarray as xr

    from scigen.core.domain import Data, Split

    codec = scigen.load(fitted.student).codec
    archive = xr.open_zarr(fitted.archive)[["t2m", "u10", "v10"]]
    inputs = codec.prepare(archive.isel(time=slice(0, 4))).assign_coords(subject=("time", list("aabb")))
    truth = archive.isel(time=slice(0, 4)).assign_attrs(license="CC BY 4.0")
    split = Split(truth, inputs)
    found = cohort(Data(split, split, split, codec, "0" * 16, "x"))
    assert found["licence"] == "CC BY 4.0" and found["splits"]["test"]["subjects"] == 2
    assert found["cells"] == [16, 16] and np.all(found["splits"]["train"]["samples"] == 4)
