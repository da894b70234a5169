"""Rows and verdict say what the report says."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.metrics.report import reference
from scigen.weather.metrics import evaluate
from scigen.weather.tables import tables, verdict

DIMS = ("time", "member", "y", "x")


def ensemble(seed, spread=1.0, members=9, **attrs):
    values = spread * np.random.default_rng(seed).standard_normal((10, members, 8, 8))
    data = {"t2m": (DIMS, values, {"units": "K"}), "u10": (DIMS, 2 * values, {"units": "m s-1"})}
    return xr.Dataset(data, {"time": pd.date_range("2020", periods=10)}, attrs)


TRUTH = ensemble(0, members=1).isel(member=0)


@pytest.fixture(scope="module")
def report():
    samples = {
        "exact": ensemble(1, scigen_role="exact", scigen_nfe=0),
        "teacher": ensemble(2, scigen_role="teacher", scigen_nfe=40),
        "teacher at one call": ensemble(3, 0.3, scigen_role="teacher", scigen_nfe=1),
        "student": ensemble(4, 0.7, members=4, scigen_role="student", scigen_nfe=1),
        "interpolation": ensemble(5, 0.5, members=1),
    }
    return evaluate(TRUTH, samples, factor=4)


def cells(table, model):
    row = next(r for r in table.rows if r[0][0] == model)
    return dict(zip([c.title for c in table.columns], (" ".join(filter(None, c)) for c in row), strict=True))


def test_the_converged_teacher_is_the_reference(report):
    assert reference(report, "teacher") == "teacher" and reference(report, "exact") == "exact"
    assert reference(report, "guru") is None


def test_one_table_a_variable_one_row_a_contender(report):
    both = tables(report)
    assert [t.title for t in both] == ["t2m [K]: 10 times", "u10 [m s-1]: 10 times"]
    assert all([r[0][0] for r in t.rows] == report["model"].values.tolist() for t in both)


def test_cells_are_the_numbers_of_the_report(report):
    row = cells(tables(report)[1], "student")
    one = report.sel(model="student", variable="u10")
    assert row["calls"] == "1" and row["members"] == "4"
    assert float(row["fair CRPS"]) == pytest.approx(one["crps"].item(), rel=1e-3)
    estimate, low, high = one["crps_ratio"].sel(reference="teacher").values
    assert row["÷ teacher"] == f"{estimate:.3f} [{low:.3f}–{high:.3f}]"
    assert row["cover 80 %"] == f"{100 * one['coverage'].sel(level=0.9).item():.1f} %"  # nine members reach 8/10
    assert row["worst power"].endswith(f"k={int(one['power_ratio_where'])}")
    assert float(row["‖Ax−y‖"]) == pytest.approx(one["conservation"].item(), rel=0.05)


def test_unknowns_are_dashes_and_a_contender_is_one_of_itself(report):
    table = tables(report)[0]
    row = cells(table, "interpolation")
    assert row["spread / skill"] == row["cover 80 %"] == row["ranks"] == row["calls"] == "–"
    assert cells(table, "exact")["calls"] == "–" and cells(table, "exact")["÷ exact"] == "1"


def test_unequal_members_are_noted(report):
    assert "exact 80.0 %" in tables(report)[0].notes[0] and "student 60.0 %" in tables(report)[0].notes[0]


def test_columns_without_numbers_are_left_out():
    alone = tables(evaluate(TRUTH, {"mine": ensemble(6)}))[0]
    titles = [c.title for c in alone.columns]
    assert not [t for t in titles if "÷" in t or "A" in t]
    assert alone.notes == []


def test_deterministic_contenders_alone_have_a_table():
    table = tables(evaluate(TRUTH, {"interpolation": ensemble(7, members=1)}))[0]
    assert cells(table, "interpolation")["cover 90 %"] == "–"


def test_the_verdict_sets_students_against_the_converged_teacher_and_it_against_the_law(report):
    first, second = verdict(report).splitlines()
    assert first.startswith("student, 1 call: at worst, fair CRPS") and "that of teacher, 40 calls" in first
    assert second.startswith("teacher, 40 calls: at worst") and "that of exact (" in second
    worst = report["crps_ratio"].sel(model="student", reference="teacher", interval="estimate").max().item()
    assert f"fair CRPS {worst:.3f} [" in first
    skill = report["spread_skill"].sel(model="student", interval="estimate")
    assert f"spread–skill {skill.min().item():.2f} against" in first


def test_there_is_no_verdict_without_a_pair():
    assert verdict(evaluate(TRUTH, {"mine": ensemble(6)})) == ""
