"""Pictures of any set of contenders, on any grid."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from scigen.plots import style
from scigen.weather import plots
from scigen.weather.metrics import evaluate
from scigen.weather.variables import find_variables

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


def test_curvilinear_cells_are_drawn_where_they_lie(lambert, kind):
    """Each cell of the picture lies around its own latitude and longitude, the date line or not."""
    for turn in (0.0, 277.25):
        ds = find_variables(lambert(kind=kind), ["t2m"])
        ds = ds.assign_coords(longitude=(ds["longitude"] + turn + 180) % 360 - 180)
        one = ds.isel(time=0)
        box = plots._Box(one, ds["t2m"].dims[1:])
        with style.canvas(3, 3) as figure:
            ax = figure.subplots()
            mesh = plots._map(ax, one["t2m"].values, "", box, {})
            box.ticks(ax, bottom=True, left=True)
            figure.canvas.draw()
            labels = [t.get_text() for t in (*ax.get_xticklabels(), *ax.get_yticklabels())]
            path = mesh.get_coordinates()  # corners (Y + 1, X + 1, 2)
        np.testing.assert_array_equal(mesh.get_array(), one["t2m"])
        middle = (path[1:, 1:] + path[:-1, 1:] + path[1:, :-1] + path[:-1, :-1]) / 4
        np.testing.assert_allclose(middle[..., 1], one["latitude"], atol=1e-5)
        np.testing.assert_allclose((middle[..., 0] - one["longitude"] + 180) % 360, 180, atol=1e-4)
        assert np.ptp(path[..., 0]) < 1 and any(label.endswith("°N") for label in labels)
        assert any(label.endswith("°W") for label in labels)


def test_a_grid_around_the_pole_is_drawn_in_its_own_rows_and_columns():
    y, x = np.meshgrid(np.arange(-4.0, 5), np.arange(-4.0, 5), indexing="ij")
    place = {"latitude": (("y", "x"), 90 - np.hypot(y, x)), "longitude": (("y", "x"), np.rad2deg(np.arctan2(y, x)))}
    ds = xr.Dataset(
        {"t2m": (("y", "x"), y)},
        coords={**place, "y": ("y", 1e5 * y[:, 0], {"units": "m"}), "x": ("x", 1e5 * x[0], {"units": "m"})},
    )
    box = plots._Box(ds, ("y", "x"))
    assert box.corners is None and box.extent == (-4.5e5, 4.5e5, -4.5e5, 4.5e5)
    with style.canvas(3, 3) as figure:
        ax = figure.subplots()
        plots._map(ax, y, "", box, {})
        box.ticks(ax, bottom=True, left=True)
        figure.canvas.draw()
        assert all(t.get_text().endswith(" km") for t in ax.get_xticklabels() if t.get_text())


def test_reports_of_curvilinear_grids_have_all_pictures(tmp_path, lambert, kind):
    truth = find_variables(lambert(kind=kind), ["t2m"])
    noise = RNG.standard_normal((3, 3, 12, 16))
    samples = truth.expand_dims(member=3, axis=1) + noise
    samples["t2m"].attrs = truth["t2m"].attrs
    drawn = plots.figures(evaluate(truth, {"a": samples}), truth, {"a": samples}, tmp_path)
    assert [p.name for _, p in drawn] == ["maps_t2m.png", "spectra.png", "calibration.png", "ranks.png"]


def test_ticks_of_a_globe_are_quarters():
    ds = xr.Dataset(coords={"latitude": np.linspace(-90, 90, 19), "longitude": np.arange(-180, 180, 10.0)})
    box = plots._Box(ds, ("latitude", "longitude"))
    with style.canvas(4, 3) as figure:
        ax = figure.subplots()
        plots._map(ax, np.zeros((19, 36)), "", box, {})
        box.ticks(ax, bottom=True, left=True)
        figure.canvas.draw()
        labels = {t.get_text() for t in ax.get_xticklabels()}
    assert {"180°", "90°W", "0°", "90°E"} <= labels
