"""The weather domain: what it makes of an archive, what it refuses, and where the exact law is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from scigen.core.domain import Split
from scigen.errors import UserError
from scigen.weather.data import open_pair
from scigen.weather.domain import Weather, _block
from scigen.weather.normalise import make_codec
from scigen.weather.physics import DownscalingCodec, Statistics
from scigen.weather.synth import Law, make

LAW = Law(size=8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """120 times of the synthetic climate on 8 × 8 cells."""
    make(LAW, 120).to_netcdf(tmp_path / "fine.nc")
    return tmp_path / "fine.nc"


def changed(path: Path, change) -> str:
    """The path of a changed copy of an archive."""
    out = path.with_name("changed.nc")
    with xr.open_dataset(path) as ds:
        change(ds.load()).to_netcdf(out)
    return str(out)


def opened(path, **kwargs):
    return Weather(str(path), **({"factor": 4, "gap": 0} | kwargs)).open(Path("nowhere"))


def test_residuals_and_coarse_fields_of_the_training_split_are_normalised(path):
    data = opened(path)
    x = data.codec.encode(data.train.truth, data.train.inputs, slice(None)).double()
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(x.square().mean((0, 2, 3)), torch.ones(3).double(), rtol=1e-5, atol=0)
    coarse = data.codec.condition(data.train.inputs, slice(None))["fields"][:, 3:6].double()  # constant in each block
    torch.testing.assert_close(coarse.mean((0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(coarse.square().mean((0, 2, 3)), torch.ones(3).double(), rtol=1e-5, atol=0)


def test_splits_do_not_overlap_and_use_every_time(path):
    data = opened(path)
    times = [set(s.truth.time.values) for s in (data.train, data.validation, data.test)]
    assert len(set.union(*times)) == sum(map(len, times)) == 120
    for split in (data.train, data.validation, data.test):
        np.testing.assert_array_equal(split.truth.time, split.inputs.time)


def test_a_field_without_detail_is_refused(path):
    """Up to the rounding of float32: a residual that is rounding alone would be learnt as noise."""

    def flat(ds):
        rounding = np.random.default_rng(0).choice([-1e-5, 0.0, 1e-5], ds["u10"].shape)
        return ds.assign(u10=(ds["u10"].dims, (250 + rounding).astype(np.float32), ds["u10"].attrs))

    with pytest.raises(UserError, match=r"u10 does not differ.*nothing to learn"):
        opened(changed(path, flat))


def test_a_mean_of_zero_is_kept(path):
    """Fields that balance exactly: their mean is 0, not a stand-in for it."""

    def balanced(ds):
        signs = np.where(np.arange(120) % 2 == 0, 1.0, -1.0).astype(np.float32)[:, None, None]
        return ds.assign(u10=(ds["u10"].dims, signs * ds["u10"].values[:1], ds["u10"].attrs))

    codec = opened(changed(path, balanced), split=(0.5, 0.25, 0.25)).codec
    assert codec.statistics.coarse[0, 1] == pytest.approx(0.0, abs=1e-6)


def test_missing_cells_are_refused_filled_or_their_times_left_out(path, caplog):
    def holed(ds):
        ds["u10"][[7, 100], 2, 3] = np.nan
        return ds

    other = changed(path, holed)
    with pytest.raises(UserError, match=r"'u10' has 2 in .*missing=skip.*missing=fill"):
        opened(other)
    with caplog.at_level("INFO", "scigen"):
        skipped = opened(other, missing="skip")
    assert "2 of 120 times of the archive miss values" in caplog.text
    filled, whole = opened(other, missing="fill"), opened(path)
    count = {k: sum(len(s.truth.time) for s in (d.train, d.validation, d.test)) for k, d in
             {"skipped": skipped, "filled": filled, "whole": whole}.items()}  # fmt: skip
    assert count == {"skipped": 118, "filled": 120, "whole": 120}
    assert np.isfinite(filled.train.truth["u10"]).all() and np.isfinite(filled.train.inputs["u10"]).all()
    same = np.isin(whole.train.truth.time, whole.train.truth.time[7], invert=True)
    np.testing.assert_array_equal(filled.train.truth["u10"][same], whole.train.truth["u10"][same])
    with pytest.raises(UserError, match="missing=drop"):
        opened(other, missing="drop")


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_calendars_of_climate_models_are_fitted(path, calendar):
    times = xr.date_range("2001-02-20", periods=120, freq="6h", calendar=calendar, use_cftime=True)
    data = opened(changed(path, lambda ds: ds.assign_coords(time=("time", times))), gap="1D")
    assert data.test.truth.indexes["time"][-1] == times[-1] and _block(data.train.truth) == 8
    assert data.codec.condition(data.train.inputs, slice(0, 4))["scalars"].shape == (4, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(factor=2), "factor of 4, not for data.factor=2"),
        (dict(variables=["u10", "t2m", "v10"]), "in this order"),
        (dict(variables=["t2m"]), "in this order"),
    ],
)
def test_an_archive_that_a_teacher_was_not_made_for_is_refused(path, settings, message):
    teacher = opened(path).codec
    with pytest.raises(UserError, match=message):
        Weather(str(path), **({"factor": 4, "gap": 0} | settings)).open(Path("nowhere"), teacher)


def test_a_teacher_goes_on_in_another_region_of_its_spacing(path):
    """With its statistics, on the archive's grid and static fields; another spacing is refused."""
    teacher = opened(path).codec
    there = changed(path, lambda ds: ds.assign(orography=2 * ds.orography).assign_coords(latitude=ds.latitude + 3))
    data = Weather(there, factor=4, gap=0).open(Path("nowhere"), teacher)
    assert data.codec.grid.y[0] == teacher.grid.y[0] + 3 and data.codec.statistics is teacher.statistics
    np.testing.assert_array_equal(data.codec.static["orography"], 2 * teacher.static["orography"])
    assert opened(path).codec.grid.same(teacher.grid)
    wide = changed(path, lambda ds: ds.assign_coords(longitude=2 * ds.longitude))
    with pytest.raises(UserError, match=r"made for a spacing of 0\.25 by 0\.25"):
        Weather(wide, factor=4, gap=0).open(Path("nowhere"), teacher)


def test_inputs_regridded_otherwise_are_refused(path):
    data = opened(path)
    teacher = data.codec
    teacher.regrid = "linear"
    with pytest.raises(UserError, match=r"made with data\.regrid=linear, not null"):
        Weather(str(path), factor=4, gap=0).open(Path("nowhere"), teacher)


def test_exact_law_is_reported_for_its_own_archive(path):
    data = opened(path)
    domain = Weather(str(path), factor=4)
    known = domain.known(data.codec, data.test)
    assert set(known) == {"t2m", "u10", "v10"} and known["t2m"]["exact_crps"] > 0
    blocks = list(domain.exact(data.codec, data.test, 3, 0))
    assert [start for start, _ in blocks] == list(range(0, 30, 16))
    fields = np.concatenate([block for _, block in blocks])
    assert fields.shape == (30, 3, 3, 8, 8)
    means = data.codec.mean_operator(torch.from_numpy(fields[:, 0].astype(np.float64)))
    expected = np.stack([data.test.inputs[v].values for v in data.codec.variables], 1)
    np.testing.assert_allclose(means, expected, atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: ds.isel(latitude=slice(None, None, -1)),
        lambda ds: ds.assign_coords(longitude=ds.longitude + 90),
        lambda ds: ds.isel(latitude=slice(0, 4)),
        lambda ds: ds.assign_attrs(scigen_law='{"size": 8, "of another version": 1}'),
        lambda ds: ds.assign_attrs(scigen_law="no JSON"),
    ],
)
def test_exact_law_is_not_claimed_for_archives_that_were_changed(path, change):
    other = changed(path, change)
    data = opened(other)
    assert Weather(other, factor=4).known(data.codec, data.test) is None
    assert Weather(other, factor=4).exact(data.codec, data.test, 3, 0) is None


def test_exact_law_is_not_claimed_for_a_variable_that_it_does_not_have(path):
    data = opened(path)
    pressure = {**data.codec.variables, "sp": {"units": "Pa"}}
    codec = DownscalingCodec(data.codec.grid, 4, pressure, {}, Statistics(np.ones((2, 4)), np.ones((2, 4))))
    assert Weather(str(path), factor=4).known(codec, data.test) is None


def test_default_data_are_made_once_and_unknown_settings_refused(tmp_path):
    domain = Weather(synth=dict(size=8, times=40, step_hours=6, seed=1), factor=4, gap=0)
    first = domain.open(tmp_path)
    (archive,) = tmp_path.iterdir()
    before = {p: p.stat().st_mtime_ns for p in archive.rglob("*")}
    assert domain.open(tmp_path).fingerprint == first.fingerprint
    assert before == {p: p.stat().st_mtime_ns for p in archive.rglob("*")}
    with pytest.raises(UserError, match="colour"):
        Weather(synth=dict(size=8, colour=3)).synth(tmp_path / "other.zarr")


@pytest.mark.parametrize(("hours", "times", "block"), [(6, 100, 8), (24, 100, 2), (96, 100, 1), (6, 12, 3), (6, 5, 1)])
def test_bootstrap_blocks_span_two_days_but_a_quarter_at_most(hours, times, block):
    assert _block(make(LAW, times, hours)) == block


def test_codec_of_one_time_is_finite(path):
    data = opened(path)
    one = Split(*(ds.isel(time=[0]) for ds in (data.train.truth, data.train.inputs)))
    codec = make_codec(open_pair(path, variables=["t2m", "u10", "v10"], factor=4), one, conserve=True)
    assert np.isfinite(codec.statistics.coarse).all() and (codec.statistics.residual[1] > 0).all()
