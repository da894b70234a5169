"""The verbs sample, evaluate, inspect and synth."""

import json

import numpy as np
import pytest
import xarray as xr

import scigen
from scigen.cli import main


def test_zarr_and_netcdf_hold_the_same_ensemble_as_python_gives(inside, tmp_path):
    archive = xr.open_zarr(inside.archive).isel(time=slice(0, 6))
    archive.to_netcdf(tmp_path / "in.nc")
    common = [f"bundle={inside.student}", f"input={tmp_path / 'in.nc'}", "members=3", "seed=2", "batch=8"]
    for suffix in ("zarr", "nc"):
        assert main(["sample", *common, f"output={tmp_path / 'out'}.{suffix}"]) == 0
    zarr, netcdf = xr.open_zarr(tmp_path / "out.zarr"), xr.open_dataset(tmp_path / "out.nc")
    python = scigen.load(inside.student).sample(archive, members=3, seed=2, batch=8)
    for name in ("t2m", "u10", "v10"):
        assert zarr[name].dims == ("time", "member", "latitude", "longitude") and zarr[name].dtype == np.float32
        np.testing.assert_array_equal(zarr[name], netcdf[name])
        np.testing.assert_array_equal(zarr[name], python[name])
        assert zarr[name].attrs["units"] == netcdf[name].attrs["units"] == archive[name].attrs["units"]
    for name in ("time", "latitude", "longitude"):
        np.testing.assert_array_equal(zarr[name], archive[name])
        np.testing.assert_array_equal(netcdf[name], archive[name])
    for ds in (zarr, netcdf):
        assert ds.attrs["scigen_bundle"] == scigen.load(inside.student).fingerprint() and ds.attrs["scigen_seed"] == 2
        assert np.isnan(ds["t2m"].encoding["_FillValue"]) and ds.attrs["Conventions"].startswith("CF-")


def test_a_span_of_time_is_the_part_of_the_whole(inside, tmp_path):
    common = [f"bundle={inside.student}", f"input={inside.archive}", "members=2", "batch=8"]
    assert main(["sample", *common, "time=2015-01-02:2015-01-05", f"output={tmp_path}/part.zarr"]) == 0
    assert main(["sample", *common, "time=2015-01-01:2015-01-08", f"output={tmp_path}/whole.zarr"]) == 0
    part, whole = xr.open_zarr(tmp_path / "part.zarr"), xr.open_zarr(tmp_path / "whole.zarr")
    assert part.sizes["time"] == 8
    np.testing.assert_array_equal(part["t2m"], whole["t2m"].sel(time=part.time))


def test_coarse_input_gives_what_fine_input_gives(inside, tmp_path):
    from scigen.weather.coarsen import coarsen

    fine = xr.open_zarr(inside.archive)[["t2m", "u10", "v10"]].isel(time=slice(0, 3)).load()
    coarsen(fine, 4).to_netcdf(tmp_path / "coarse.nc")
    bundle = scigen.load(inside.student)
    a = bundle.sample(fine, members=2, batch=8)
    b = bundle.sample(xr.open_dataset(tmp_path / "coarse.nc"), members=2, batch=8)
    for name in ("t2m", "u10", "v10"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(b["latitude"], fine["latitude"])


def test_evaluate_judges_archives(inside, tmp_path):
    (teacher,) = (inside.run / "samples").glob("teacher-4-steps-*.zarr")
    exact = inside.run / "samples" / "exact.zarr"
    words = [f"truth={inside.archive}", f"samples={{one: '{teacher}', two: '{exact}'}}"]
    assert main(["evaluate", *words, f"output={tmp_path / 'judged'}"]) == 0
    models = json.loads((tmp_path / "judged" / "metrics.json").read_text())["models"]
    assert set(models) == {"one", "two"}
    assert models["one"]["t2m"]["conservation"] < 1e-3
    own = json.loads((inside.stage / "metrics.json").read_text())["models"]
    assert models["one"]["t2m"]["crps"] == pytest.approx(own["teacher, 4 steps"]["t2m"]["crps"], rel=1e-6)
    page = (tmp_path / "judged" / "report.html").read_text()
    assert "data:image/png;base64," in page and "http" not in page.split("</style>")[0]


def test_inspect_tells_bundles_and_archives(inside, capsys):
    assert main(["inspect", f"path={inside.student}"]) == 0
    shown = capsys.readouterr().out
    assert "student" in shown and "few_step" in shown and "t2m [K]" in shown
    assert main(["inspect", f"path={inside.archive}"]) == 0
    assert "known as u10, 0 % missing" in capsys.readouterr().out


def test_inspect_says_what_a_bundle_takes_of_an_archive(inside, tmp_path, capsys):
    assert main(["inspect", str(inside.archive), f"bundle={inside.student}"]) == 0
    shown = capsys.readouterr().out
    assert "takes        t2m [K], u10" in shown and "240 samples (time), on latitude 16 × longitude 16" in shown
    xr.Dataset({"t2m": ("x", [1.0])}).to_netcdf(tmp_path / "other.nc")
    assert main(["inspect", str(tmp_path / "other.nc"), f"bundle={inside.student}"]) == 2
    assert "No dimension is known as Y" in capsys.readouterr().err


def test_synth_writes_the_default_data_once(inside, tmp_path, capsys):
    synth = "data.synth={size: 8, times: 20, step_hours: 6, seed: 1}"
    words = ["domain=weather", synth, f"output={tmp_path / 'a.zarr'}"]
    assert main(["synth", *words]) == 0
    assert xr.open_zarr(tmp_path / "a.zarr").sizes["time"] == 20
    assert main(["synth", *words]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bundle=none.safetensors", "input={archive}", "output={out}.zarr"], "no bundle at"),
        (["bundle={student}", "input=none.nc", "output={out}.zarr"], "none.nc"),
        (["bundle={student}", "input={archive}", "output={out}.csv"], ".csv"),
        (["bundle={student}", "input={archive}", "output={out}.zarr", "members=0"], "members=0"),
        (["bundle={student}", "input={archive}", "output={out}.zarr", "steps=5"], "1 to 1 steps"),
        (["bundle={student}", "input={archive}", "output={out}.zarr", "time=1999-01-01:1999-02-01"], "holds no sample"),
        (["bundle={student}", "input={archive}", "output={out}.zarr", "time=soon"], "time=soon"),
        (["bundle={student}", "input={wrong}", "output={out}.zarr"], "grid"),
        (["bundle={student}", "input={gaps}", "output={out}.zarr"], "2015-01-01T12"),
        (["bundle={student}", "input={archive}", "output={out}.zarr", "device=abacus"], "device=abacus"),
    ],
)
def test_mistakes_get_one_line_and_leave_no_output(inside, tmp_path, capsys, words, message):
    ds = xr.open_zarr(inside.archive).isel(time=slice(0, 4)).load()
    ds.assign_coords(latitude=ds.latitude * 1.5).to_netcdf(tmp_path / "wrong.nc")
    ds["t2m"][1, 2, 3] = np.nan
    ds.to_netcdf(tmp_path / "gaps.nc")
    names = {k: tmp_path / v for k, v in {"out": "out", "wrong": "wrong.nc", "gaps": "gaps.nc"}.items()}
    names |= {"student": inside.student, "archive": inside.archive}
    assert main(["sample", "batch=8", *(w.format(**names) for w in words)]) == 2
    shown = capsys.readouterr().err.replace("\n", " ")
    assert message in shown and "Traceback" not in shown
    if (tmp_path / "out.zarr").exists():  # what is wrong within the input is found when it is read
        with xr.open_zarr(tmp_path / "out.zarr") as left:
            assert left.attrs["scigen_complete"] == 0 and np.isnan(left["t2m"]).all()


def test_an_existing_output_is_kept_unless_told(inside, tmp_path, capsys):
    words = [f"bundle={inside.student}", f"input={inside.archive}", "time=2015-01-02", "members=2", "batch=8"]
    words.append(f"output={tmp_path}/o.zarr")
    assert main(["sample", *words]) == 0
    assert main(["sample", *words]) == 0  # there is nothing left to do
    assert main(["sample", *words, "seed=9"]) == 2
    assert "seed: there 0, asked for 9" in capsys.readouterr().err
    assert main(["sample", *words, "overwrite=true", "seed=9"]) == 0
    assert xr.open_zarr(tmp_path / "o.zarr").attrs["scigen_seed"] == 9


def test_another_region_by_its_static_fields(inside, tmp_path):
    """The bundle's own region, given as a new one, makes the same ensemble; a larger one is sampled whole."""
    archive = xr.open_zarr(inside.archive).isel(time=slice(0, 2)).load()
    archive[["orography"]].to_netcdf(tmp_path / "same.nc")
    wide = xr.concat([archive, archive.assign_coords(longitude=archive.longitude + 4.0)], "longitude")
    wide = wide.assign(
        orography=wide.orography.isel(time=0, drop=True) if "time" in wide.orography.dims else wide.orography
    )
    wide[["orography"]].to_netcdf(tmp_path / "wide_static.nc")
    wide.to_netcdf(tmp_path / "wide.nc")
    archive.to_netcdf(tmp_path / "in.nc")
    common = [f"bundle={inside.student}", "members=2", "batch=4"]
    for name, words in {
        "own": [f"input={tmp_path}/in.nc"],
        "same": [f"input={tmp_path}/in.nc", f"static={tmp_path}/same.nc"],
        "wide": [f"input={tmp_path}/wide.nc", f"static={tmp_path}/wide_static.nc"],
    }.items():
        assert main(["sample", *common, *words, f"output={tmp_path}/{name}.zarr"]) == 0
    own, same, new = (xr.open_zarr(tmp_path / f"{n}.zarr") for n in ("own", "same", "wide"))
    np.testing.assert_array_equal(own["t2m"], same["t2m"])
    assert new.sizes["longitude"] == 32 and np.isfinite(new["t2m"]).all()


def test_static_fields_of_another_spacing_end_with_a_message(inside, tmp_path, capsys):
    ds = xr.open_zarr(inside.archive)[["orography"]].load()
    ds.assign_coords(longitude=2 * ds.longitude).to_netcdf(tmp_path / "static.nc")
    words = [f"bundle={inside.student}", f"input={inside.archive}", f"output={tmp_path}/out.zarr"]
    assert main(["sample", *words, f"static={tmp_path}/static.nc"]) == 2
    assert "made for a spacing of 0.25 by 0.25" in " ".join(capsys.readouterr().err.split())


def first_times(inside, count: int = 6) -> xr.Dataset:
    return xr.open_zarr(inside.archive)[["t2m", "u10", "v10"]].isel(time=slice(0, count)).load().drop_encoding()


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_every_calendar_comes_out_as_it_went_in(inside, tmp_path, calendar, suffix):
    times = xr.date_range("2001-02-27", periods=6, freq="12h", calendar=calendar, use_cftime=calendar != "standard")
    ds = first_times(inside).assign_coords(time=("time", times))
    ds["time"].encoding = {"units": "hours since 1850-01-01", "calendar": calendar}
    ds.to_netcdf(tmp_path / "in.nc") if suffix == "nc" else ds.to_zarr(tmp_path / "in.zarr", zarr_format=2)
    words = [f"bundle={inside.student}", f"input={tmp_path}/in.{suffix}", f"output={tmp_path}/out.{suffix}"]
    assert main(["sample", *words, "members=2", "batch=8"]) == 0
    out = xr.open_dataset(tmp_path / f"out.{suffix}", decode_timedelta=False)
    assert out.indexes["time"].equals(times if calendar != "standard" else ds.indexes["time"])
    assert out["time"].encoding["calendar"] == calendar and out["time"].encoding["units"].startswith("hours since 1850")
    assert np.isfinite(out["t2m"]).all()
    part = f"time={'2001-02-28'}"
    assert main(["sample", *words, "members=2", "batch=8", part, "overwrite=true"]) == 0
    assert xr.open_dataset(tmp_path / f"out.{suffix}", decode_timedelta=False).sizes["time"] == 2


def write_grib(ds: xr.Dataset, path):
    """The same by ecCodes, a message a field, 16 bits a value."""
    eccodes = pytest.importorskip("eccodes", reason="the extra grib is not installed")
    lat, lon = ds.latitude.values, ds.longitude.values
    grid = dict(
        Ni=len(lon), Nj=len(lat), jScansPositively=1, latitudeOfFirstGridPointInDegrees=lat[0],
        latitudeOfLastGridPointInDegrees=lat[-1], longitudeOfFirstGridPointInDegrees=lon[0] % 360,
        longitudeOfLastGridPointInDegrees=lon[-1] % 360, iDirectionIncrementInDegrees=lon[1] - lon[0],
        jDirectionIncrementInDegrees=lat[1] - lat[0],
    )  # fmt: skip
    with path.open("wb") as file:
        for name, short in (("u10", "10u"), ("t2m", "2t"), ("v10", "10v")):
            for field in ds[name]:
                handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
                when = field.time.dt.strftime("%Y%m%d %H00").item().split()
                for key, value in {
                    **grid,
                    "shortName": short,
                    "dataDate": int(when[0]),
                    "dataTime": int(when[1]),
                }.items():
                    eccodes.codes_set(handle, key, value)
                eccodes.codes_set_values(handle, field.values.astype(float).ravel())
                eccodes.codes_write(handle, file)
                eccodes.codes_release(handle)
    return path


@pytest.mark.parametrize("kind", ["packed", "zarr2", "zarr3", "zarr3 consolidated", "north first", "groups", "grib"])
def test_however_an_archive_is_kept_the_ensemble_is_the_same(inside, tmp_path, kind):
    ds = first_times(inside)
    path, tolerance = tmp_path / f"in.{'nc' if kind in ('packed', 'groups', 'north first') else 'zarr'}", 0.0
    match kind:
        case "packed":
            packing = {
                n: {
                    "dtype": "int16",
                    "scale_factor": 2e-3,
                    "add_offset": float(ds[n].mean()),
                    "_FillValue": np.int16(-32768),
                }
                for n in ds
            }
            ds.to_netcdf(path, encoding=packing)
            tolerance = 0.05
        case "north first":
            ds.isel(latitude=slice(None, None, -1)).to_netcdf(path)
            tolerance = 1e-3
        case "grib":
            path, tolerance = write_grib(ds, tmp_path / "in.grib"), 0.05
        case "groups":
            xr.DataTree.from_dict({"/here": ds}).to_netcdf(path)
            path = f"{path}::here"
        case _:
            ds.to_zarr(path, zarr_format=int(kind[4]), consolidated="consolidated" in kind)
    words = [f"bundle={inside.student}", f"input={path}", f"output={tmp_path}/out.zarr", "members=2", "batch=8"]
    assert main(["sample", *words]) == 0
    out, expected = xr.open_zarr(tmp_path / "out.zarr"), scigen.load(inside.student).sample(ds, members=2, batch=8)
    for name in ("t2m", "u10", "v10"):
        np.testing.assert_allclose(out[name].sel(latitude=ds.latitude), expected[name], rtol=0, atol=tolerance)
    if kind == "north first":
        assert float(out["latitude"][0]) > float(out["latitude"][-1])


def test_missing_cells_are_filled_or_their_times_left_out(inside, tmp_path, capsys):
    ds = first_times(inside)
    expected = scigen.load(inside.student).sample(ds, members=2, batch=8)
    ds["u10"][4, 2:4, 3] = np.nan
    ds.to_netcdf(tmp_path / "in.nc")
    words = [f"bundle={inside.student}", f"input={tmp_path}/in.nc", "members=2", "batch=8"]
    assert main(["sample", *words, f"output={tmp_path}/no.zarr"]) == 2
    assert "missing=skip" in capsys.readouterr().err
    for missing in ("fill", "skip"):
        assert main(["sample", *words, f"output={tmp_path}/{missing}.zarr", f"missing={missing}"]) == 0
    assert "1 of 6 times of the input" in capsys.readouterr().err.replace("\n", " ")
    filled, skipped = (xr.open_zarr(tmp_path / f"{m}.zarr") for m in ("fill", "skip"))
    np.testing.assert_array_equal(skipped["time"], ds["time"][[0, 1, 2, 3, 5]])
    np.testing.assert_array_equal(skipped["t2m"], expected["t2m"][[0, 1, 2, 3, 5]])
    np.testing.assert_array_equal(filled["u10"].isel(time=slice(0, 4)), expected["u10"][:4])
    assert np.isfinite(filled["u10"]).all() and filled.attrs["scigen_missing"] == "fill"
    ds["u10"][5] = np.nan
    ds.to_netcdf(tmp_path / "worse.nc")
    words[1] = f"input={tmp_path}/worse.nc"
    assert main(["sample", *words, f"output={tmp_path}/f.zarr", "missing=fill"]) == 2
    assert "at most a third" in capsys.readouterr().err.replace("\n", " ")
    assert main(["sample", *words, f"output={tmp_path}/f.zarr", "missing=drop"]) == 2
    assert main(["sample", *words, f"output={tmp_path}/f.zarr", "missing=fill", "time=2015-01-01"]) == 0
