"""Pictures of any set of contenders, on any grid."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.plots import style
from scigen.weather import plots
from scigen.weather.metrics import evaluate

RNG = np.random.default_rng(2)


def ensemble(members=4, y=6, x=9, geographic=True, variables=("t2m", "u10"), **attrs):
    dims = ("time", "member", "latitude", "longitude") if geographic else ("time", "member", "y", "x")
    coords = {"time": pd.date_range("2020", periods=3)}
    if geographic:
        coords |= {"latitude": 55 - 0.25 * np.arange(y), "longitude": 350 + 0.25 * np.arange(x)}
    values = RNG.standard_normal((3, members, y, x))
    data = {v: (dims, values + 280 * (v == "t2m"), {"units": "K" if v == "t2m" else "m s-1"}) for v in variables}
    return xr.Dataset(data, coords, attrs)


def contenders(**grid):
    return {
        "exact": ensemble(scigen_role="exact", **grid),
        "teacher": ensemble(scigen_role="teacher", scigen_nfe=40, **grid),
        "few": ensemble(scigen_role="teacher", scigen_nfe=1, **grid),
        "other": ensemble(**grid),
        "student": ensemble(scigen_role="student", scigen_nfe=1, **grid),
        "interpolation": ensemble(members=1, **grid).isel(member=0),
    }


def draw(tmp_path, samples, **grid):
    truth = ensemble(members=1, **grid).isel(member=0)
    return plots.figures(evaluate(truth, samples), truth, samples, tmp_path)


def test_every_variable_has_maps_and_all_share_the_rest(tmp_path):
    drawn = draw(tmp_path, contenders())
    assert [p.name for _, p in drawn] == ["maps_t2m.png", "maps_u10.png", "spectra.png", "calibration.png", "ranks.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for _, p in drawn)
    assert "t2m [K] at 2020-01-02 00:00" in drawn[0][0] and "exact, teacher, student, other" in drawn[0][0]


def test_pages_of_maps_show_the_converged_teacher_and_students_before_others():
    samples = contenders()
    report = evaluate(ensemble(members=1).isel(member=0), samples)
    assert plots._ensembles(report) == ["teacher", "student", "other"]


def test_a_deterministic_contender_alone_can_be_drawn(tmp_path):
    drawn = draw(tmp_path, {"interpolation": ensemble(members=1).isel(member=0)})
    assert [p.name for _, p in drawn] == ["maps_t2m.png", "maps_u10.png", "spectra.png"]


@pytest.mark.parametrize("grid", [{"geographic": False}, {"y": 2, "x": 3}, {"variables": ("u10",)}])
def test_other_grids_and_single_variables_can_be_drawn(tmp_path, grid):
    assert len(draw(tmp_path, {"a": ensemble(members=2, **grid)}, **grid)) == 3 + len(grid.get("variables", "12"))


def test_only_the_shown_time_is_read(tmp_path):
    dask_array = pytest.importorskip("dask.array")
    truth, samples = ensemble(members=1).isel(member=0), ensemble()
    report = evaluate(truth, {"a": samples})
    read = []

    def trace(block, block_info=None):
        read.append(block_info[0]["chunk-location"][0])
        return block

    lazy = samples.chunk(time=1)
    lazy = lazy.map(lambda v: v.copy(data=dask_array.map_blocks(trace, v.data, dtype=v.dtype, meta=v.data._meta)))
    plots.figures(report, truth, {"a": lazy}, tmp_path, time=truth["time"].values[2])
    assert set(read) == {2}


def shown(ds):
    """(image as drawn from the top row down, tick labels of y) of a map."""
    dims = ("latitude", "longitude")
    with style.canvas(3, 3) as figure:
        ax = figure.subplots()
        box = plots._Box(ds, dims)
        image = plots._map(ax, ds["t2m"].values, "", box, {})
        box.ticks(ax, bottom=True, left=True)
        figure.canvas.draw()
        low, high = (ax.transData.transform((350.5, v))[1] for v in (54.0, 55.0))
        labels = [t.get_text() for t in (*ax.get_yticklabels(), *ax.get_xticklabels())]
        top = image.get_extent()[3] > image.get_extent()[2]
        return low < high, image.get_array()[-1 if top else 0], labels


def test_north_is_up_whichever_way_the_rows_run():
    ds = ensemble(members=1).isel(member=0, time=0)
    for one in (ds, ds.isel(latitude=slice(None, None, -1))):
        upright, top, labels = shown(one)
        assert upright
        np.testing.assert_array_equal(top, ds["t2m"].values[0])  # 55°N is the first row of ds
        assert any(label.endswith("°N") for label in labels) and any(label.endswith("°W") for label in labels)


def test_fields_of_both_signs_are_centred_on_zero_and_others_are_not():
    wind, warm = (plots._field_scale(v + RNG.standard_normal((3, 50))) for v in (0.0, 280.0))
    assert wind["vmin"] == -wind["vmax"] and warm["vmin"] > 270
    assert plots._field_scale(np.full((2, 2), 5.0))["vmax"] > 5
