"""The verb evaluate: any tool's archives, by the field that they name or by what all fields share."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.cli import main

N, M, Y, X = 40, 6, 8, 8


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    m = 280 + 3 * rng.standard_normal((N, Y, X))
    return m + rng.standard_normal(m.shape), m[:, None] + rng.standard_normal((N, M, Y, X))


@pytest.fixture
def place(tmp_path, monkeypatch, drawn):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    truth, samples = drawn
    coords = {
        "time": pd.date_range("2020-01-01", periods=N),
        "latitude": ("latitude", np.linspace(70, 42, Y), {"units": "degrees_north"}),
        "longitude": ("longitude", np.linspace(0, 28, X), {"units": "degrees_east"}),
    }
    dims = ("time", "latitude", "longitude")
    xr.Dataset({"t2m": (dims, truth, {"units": "K"})}, coords=coords).to_netcdf("truth.nc")
    ds = xr.Dataset({"t2m": (("time", "member", *dims[1:]), samples, {"units": "K"})}, coords=coords)
    ds.to_netcdf("samples.nc")
    return tmp_path


def judged(*words, output="out"):
    assert main(["evaluate", "truth=truth.nc", "draws=50", f"output={output}", *words]) == 0
    return json.loads(Path(output, "metrics.json").read_text())["models"]


@pytest.mark.parametrize("name", ["number", "realization", "ensemble"])
def test_members_of_other_tools_are_judged(place, name):
    plain = judged("samples={a: samples.nc}")["a"]["t2m"]["scores"]
    ds = xr.open_dataset("samples.nc").rename(member=name)
    ds[name] = (name, np.arange(M), {"standard_name": "realization"})
    ds.to_netcdf("other.nc")
    got = judged("samples={a: other.nc}")["a"]["t2m"]["scores"]
    assert got == plain and got["spread_skill"]["estimate"] == pytest.approx(1, abs=0.05)


def test_a_dimension_that_only_its_standard_name_tells_holds_members(place):
    ds = xr.open_dataset("samples.nc").rename(member="draws")
    ds.assign_coords(draws=("draws", np.arange(M), {"standard_name": "realization"})).to_netcdf("other.nc")
    assert judged("samples={a: other.nc}")["a"]["t2m"]["members"] == M


def test_a_file_of_corrdiff_with_groups_is_judged(place, drawn):
    """Groups truth and prediction (ensemble, time, y, x) with times and places in the root."""
    truth, samples = drawn
    lat, lon = np.meshgrid(np.linspace(24, 25, Y), np.linspace(120, 121, X), indexing="ij")
    root = xr.Dataset(
        coords={"time": pd.date_range("2020-01-01", periods=N), "lat": (("y", "x"), lat), "lon": (("y", "x"), lon)}
    )
    root.to_netcdf("corrdiff.nc")
    for group, dims, values in (
        ("truth", ("time", "y", "x"), truth),
        ("prediction", ("ensemble", "time", "y", "x"), np.moveaxis(samples, 1, 0)),
    ):
        xr.Dataset({"temperature_2m": (dims, values)}).to_netcdf("corrdiff.nc", mode="a", group=group)
    words = ["truth=corrdiff.nc::truth", "samples={c: corrdiff.nc::prediction}", "draws=50", "output=out"]
    assert main(["evaluate", *words]) == 0
    got = json.loads((place / "out" / "metrics.json").read_text())["models"]["c"]["temperature_2m"]
    assert got["members"] == M and got["scores"]["spread_skill"]["estimate"] == pytest.approx(1, abs=0.05)


def test_what_is_seen(place, capsys):
    ds = xr.open_dataset("samples.nc")
    (0.7 * (ds - ds.mean("member")) + ds.mean("member")).assign_attrs(scigen_role="student", scigen_nfe=2).to_netcdf(
        "s.nc"
    )
    ds.assign_attrs(scigen_role="teacher", scigen_nfe=40).to_netcdf("t.nc")
    with xr.set_options(keep_attrs=True):
        models = judged("samples={small: s.nc, big: t.nc}", "groups=[month]", "mask={north: {latitude: [60, 90]}}")
    shown = capsys.readouterr().out
    small = models["small"]["t2m"]
    assert small["reference"] == "big" and small["against"]["crps"]["significant"] is True
    assert small["against"]["crps"]["ratio"]["low"] > 1
    assert set(small["groups"]) == {"month=1", "month=2", "region=north"}
    assert "small, 2 calls: under-dispersed by" in shown and "certainly worse" in shown
    assert "big, 40 calls: calibrated" in shown and "t2m, by group" in shown
    page = (place / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 5 and "under-dispersed" in page


def test_area_weights_are_used_where_there_are_latitudes(place):
    ds, truth = xr.open_dataset("samples.nc"), xr.open_dataset("truth.nc")
    north = ds["t2m"] + 10 * (ds["latitude"] > 68)
    ds.assign(t2m=north.assign_attrs(units="K")).to_netcdf("other.nc")
    got = judged("samples={a: other.nc}")["a"]["t2m"]["scores"]["bias"]["estimate"]
    weight = np.cos(np.deg2rad(truth["latitude"]))
    expected = float((north.mean("member") - truth["t2m"]).weighted(weight).mean())
    assert got == pytest.approx(expected, abs=0.01) and got < 1.1


def test_samples_of_a_field_are_judged_by_it_and_domain_shared_overrules(inside, tmp_path):
    (teacher,) = (inside.run / "samples").glob("teacher-4-steps-*.zarr")
    words = [f"truth={inside.archive}", f"samples={{one: '{teacher}'}}"]
    assert main(["evaluate", *words, f"output={tmp_path / 'field'}"]) == 0
    assert main(["evaluate", "domain=shared", "draws=20", *words, f"output={tmp_path / 'shared'}"]) == 0
    field, shared = (
        json.loads((tmp_path / k / "metrics.json").read_text())["models"]["one"]["t2m"] for k in ("field", "shared")
    )
    assert "conservation" in field and "conservation" not in shared
    assert shared["scores"]["crps"]["estimate"] == pytest.approx(field["crps"], rel=1e-4)
    assert shared["scores"]["spread_skill"]["estimate"] == pytest.approx(field["spread_skill"]["estimate"], rel=1e-4)
    assert shared["scores"]["rmse"]["estimate"] == pytest.approx(field["rmse"], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["samples=samples.nc"], "give every archive a name"),
        (["samples={a: nothing.nc}"], "nothing.nc is not there"),
        (["samples={a: samples.nc}", "levels=[1.5]"], "between 0 and 1"),
        (["samples={a: samples.nc}", "bins={x: [3, 1]}"], "rising order"),
        (["samples={a: samples.nc}", "block=0"], "block=0"),
        (["samples={a: w.nc, b: m.nc}"], "different fields"),
        (["samples={a: q.nc}"], "are of the field plasma"),
        (["samples={a: w.nc}", "groups=[season]"], "groups: known to the metrics that all fields share"),
    ],
)
def test_mistakes_are_told(place, capsys, words, told):
    ds = xr.open_dataset("samples.nc")
    for name, field in (("w", "weather"), ("m", "materials"), ("q", "plasma")):
        ds.assign_attrs(scigen_domain=field).to_netcdf(f"{name}.nc")
    assert main(["evaluate", "truth=truth.nc", *words]) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_truncated_archive_is_told(place, capsys):
    shutil.copy("samples.nc", "cut.nc")
    with open("cut.nc", "r+b") as file:
        file.truncate(20_000)
    assert main(["evaluate", "truth=truth.nc", "samples={a: cut.nc}"]) == 2
    assert "cut.nc" in capsys.readouterr().err


def test_domain_shared_fits_nothing(place, capsys):
    assert main(["fit", "domain=shared", "run=r"]) == 2
    assert "judges ensembles and fits nothing" in " ".join(capsys.readouterr().err.split())
