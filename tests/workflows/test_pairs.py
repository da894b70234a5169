"""Cached pairs: end points and states of the teacher's own path, shared, gone on with, and never taken for others."""

import json
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from scigen.core import sample
from scigen.core.bundle import Bundle
from scigen.core.methods.base import Batch
from scigen.core.methods.regression import Regression
from scigen.core.networks.unet import UNet
from scigen.core.sampling import Sampling
from scigen.core.trace import through
from scigen.errors import UserError
from scigen.weather.grid import Grid
from scigen.weather.physics import DownscalingCodec, Statistics
from scigen.workflows import pairs as module
from scigen.workflows.pairs import Pairs, pair_stream

LEVELS = (20.0, 3.0, 0.4)


def data() -> xr.Dataset:
    dims = ("time", "latitude", "longitude")
    values = 280 + np.random.default_rng(0).standard_normal((7, 8, 8)).astype("float32")
    coords = {
        "time": pd.date_range("2020-01-01", periods=7, freq="6h"),
        "latitude": ("latitude", 50 + 0.5 * np.arange(8), {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": ("longitude", 0.5 * np.arange(8), {"standard_name": "longitude", "units": "degrees_east"}),
    }
    return xr.Dataset({"t2m": (dims, values, {"units": "K"})}, coords=coords)


def build(seed: int = 0, sampler: str = "dpm_solver") -> Bundle:
    archive = data()
    codec = DownscalingCodec(
        Grid.of(archive), 4, {"t2m": {"units": "K"}}, {},
        Statistics(np.array([[280.0], [1.0]]), np.array([[0.0], [1.0]])),
    )  # fmt: skip
    args = dict(channels=1, condition_fields=codec.fields, condition_scalars=codec.scalars, widths=[8, 8], embedding=8)
    torch.manual_seed(seed)
    network = UNet(**args)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return Bundle(
        network, "scigen.core.networks.unet.UNet", args, 1.0, codec, Sampling.solver(sampler, 5, 0.05, 20.0, rho=5.0),
        "weather", "teacher",
    )  # fmt: skip


@pytest.fixture(scope="module")
def teacher() -> Bundle:
    return build()


@pytest.fixture(scope="module")
def inputs(teacher) -> xr.Dataset:
    return teacher.codec.prepare(data())


def stream(teacher, inputs, run, levels=LEVELS, pairs=10, seed=3, batch=4, **settings):
    return pair_stream(teacher, inputs, pairs, 5, 2, run, seed=seed, batch=batch, levels=levels, **settings)


def whole(found) -> Batch:
    return found.get(np.arange(found.count))


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_solver"])
def test_end_points_are_the_teachers_from_the_pairs_own_noise(inputs, tmp_path, sampler):
    """Sampling the teacher on the same grid from the batch's noise and condition leads to the batch's x."""
    teacher = build(sampler=sampler)
    batch = whole(stream(teacher, inputs, tmp_path))
    grid = through(teacher.sampling.grid(), LEVELS[1:])
    with torch.no_grad():
        end = getattr(sample, sampler)(teacher.denoiser, grid[0] * batch.noise, grid, batch.condition)
    torch.testing.assert_close(batch.x, end, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_from_a_state_of_the_path_the_rest_of_the_grid_leads_to_the_end_point(inputs, tmp_path, level, sampler):
    """One-step solvers forget, so to go on from a state is the same path."""
    teacher = build(sampler=sampler)
    batch = whole(stream(teacher, inputs, tmp_path))
    grid = through(teacher.sampling.grid(), LEVELS[1:])
    rest = grid[grid.index(LEVELS[level]) :]
    with torch.no_grad():
        end = getattr(sample, sampler)(teacher.denoiser, batch.path[:, level - 1], rest, batch.condition)
    torch.testing.assert_close(batch.x, end, rtol=1e-4, atol=1e-4)


def test_pairs_are_spread_evenly_and_no_two_share_their_noise(teacher, inputs):
    plan = Pairs(teacher, inputs, 17, 0, 4)
    samples, members = plan.samples(), plan.members()
    counts = np.bincount(samples, minlength=7)
    assert counts.min() >= 2 and counts.max() <= 3
    assert len({(s, m) for s, m in zip(samples, members, strict=True)}) == 17
    assert all(sorted(members[samples == s]) == list(range(n)) for s, n in enumerate(counts))
    few = Pairs(teacher, inputs, 3, 0, 4)
    assert few.samples().tolist() == [0, 2, 4] and few.members().tolist() == [0, 0, 0]


def test_without_levels_there_are_end_points_alone_on_the_teachers_own_grid(teacher, inputs, tmp_path):
    batch = whole(stream(teacher, inputs, tmp_path, levels=()))
    assert batch.path is None
    grid = teacher.sampling.grid()
    with torch.no_grad():
        end = sample.dpm_solver(teacher.denoiser, grid[0] * batch.noise, grid, batch.condition)
    torch.testing.assert_close(batch.x, end, rtol=1e-4, atol=1e-4)
    assert torch.equal(whole(stream(teacher, inputs, tmp_path, levels=LEVELS[:1])).x, batch.x)
    assert len(list(tmp_path.iterdir())) == 1  # a student of one level takes the same archive


def test_a_pair_does_not_depend_on_the_others(teacher, inputs, tmp_path):
    """Row i is a function of its address: another compute batch changes roundings only."""
    one = whole(stream(teacher, inputs, tmp_path / "a", batch=4))
    other = whole(stream(teacher, inputs, tmp_path / "b", batch=16))
    torch.testing.assert_close(one.x, other.x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.path, other.path, rtol=1e-4, atol=1e-4)


def test_batches_feed_regression_at_all_levels(teacher, inputs, tmp_path):
    found = stream(teacher, inputs, tmp_path)
    method = Regression(build(1).denoiser, build(0).denoiser, LEVELS, pairs=10)
    torch.manual_seed(0)
    assert torch.isfinite(method.loss("student", found.get(found.indices(0)))["loss"])


def test_what_is_there_is_not_made_again_and_other_methods_share_it(teacher, inputs, tmp_path, monkeypatch):
    first = whole(stream(teacher, inputs, tmp_path))
    monkeypatch.setattr(module, "trace", lambda *_: pytest.fail("made again"))
    again = whole(stream(teacher, inputs, tmp_path, pairs=10))
    assert torch.equal(first.x, again.x) and torch.equal(first.path, again.path)


class Death(BaseException):
    """Caught by nothing."""


@pytest.mark.parametrize("after", [1, 2])
def test_a_kill_loses_pieces_not_bits(teacher, inputs, tmp_path, monkeypatch, after):
    straight = whole(stream(teacher, inputs, tmp_path / "straight"))
    calls, real = [], module.trace

    def dying(*args):
        if len(calls) == after:
            raise Death
        calls.append(1)
        return real(*args)

    monkeypatch.setattr(module, "trace", dying)
    with pytest.raises(Death):
        stream(teacher, inputs, tmp_path / "killed")
    made = []
    monkeypatch.setattr(module, "trace", lambda *args: made.append(1) or real(*args))
    resumed = whole(stream(teacher, inputs, tmp_path / "killed"))
    assert len(made) == 3 - after
    assert torch.equal(straight.x, resumed.x) and torch.equal(straight.path, resumed.path)


def test_a_worker_alone_makes_the_same_pairs_and_two_share_them(teacher, inputs, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = whole(stream(teacher, inputs, tmp_path / "one"))
        plan = Pairs(teacher, inputs, 10, 3, 4, LEVELS)
        worker = get_context("spawn").Process(target=module._help, args=(plan, tmp_path / "other", "cpu", 1))
        worker.start()
        worker.join(60)
        assert worker.exitcode == 0 and plan.archive(tmp_path / "other").left() == []
        found = [stream(teacher, inputs, tmp_path / "other"), stream(teacher, inputs, tmp_path / "two", workers=2)]
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    for other in map(whole, found):
        assert torch.equal(one.x, other.x) and torch.equal(one.path, other.path)


def test_a_large_archive_stays_on_the_disk_and_reads_the_same(teacher, inputs, tmp_path, monkeypatch):
    small = stream(teacher, inputs, tmp_path)
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    large = stream(teacher, inputs, tmp_path)
    assert isinstance(small.states, np.ndarray) and not isinstance(large.states, np.ndarray)
    for a, b in zip(small, large, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.path, b.path)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: dict(teacher=build(1)),
        lambda t: dict(teacher=replace(t, sampling=Sampling.solver("dpm_solver", 6, 0.05, 20.0, rho=5.0))),
        lambda t: dict(teacher=replace(t, sampling=Sampling.solver("heun", 5, 0.05, 20.0, rho=5.0))),
        lambda t: dict(seed=4),
        lambda t: dict(pairs=11),
        lambda t: dict(levels=(20.0, 3.0)),
        lambda t: dict(inputs=t.codec.prepare(data().isel(time=slice(1, None)))),
        lambda t: dict(inputs=t.codec.prepare(data() + 1)),
    ],
    ids=["weights", "steps", "sampler", "seed", "pairs", "levels", "samples", "values"],
)
def test_other_pairs_get_an_archive_of_their_own_and_are_refused_in_anothers(teacher, inputs, tmp_path, change):
    settings = dict(teacher=teacher, inputs=inputs, pairs=4, seed=3, levels=LEVELS) | change(teacher)
    stream(teacher, inputs, tmp_path, pairs=4)
    (mine,) = tmp_path.iterdir()
    other = Pairs(settings["teacher"], settings["inputs"], settings["pairs"], settings["seed"], 4, settings["levels"])
    found = other.archive(tmp_path)
    assert found.folder != mine
    for name in ("rows.zarr", "pieces"):  # as if someone had renamed a folder
        (found.folder / name).rename(tmp_path / f"{name}.aside")
        (mine / name).rename(found.folder / name)
    with pytest.raises(UserError, match="was made with another"):
        other.archive(tmp_path)


def test_the_archive_says_what_it_holds(teacher, inputs, tmp_path):
    stream(teacher, inputs, tmp_path)
    (store,) = tmp_path.glob("pairs-*/rows.zarr")
    found = xr.open_zarr(store)
    assert found["rows"].dims == ("pair", "level", "channel", "y", "x") and found["rows"].shape == (10, 3, 1, 8, 8)
    assert found["sigma"].values.tolist() == [3.0, 0.4, 0.0]
    assert found.attrs["teacher"] == teacher.fingerprint() and found.attrs["seed"] == 3
    assert json.dumps(found.attrs)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((15.0, 3.0), "σ_max, 20"),
        ((20.0, 0.01), "outside the teacher's grid"),
        ((20.0, 3.0, 5.0), "decreasing"),
    ],
)
def test_levels_that_do_not_fit_the_teacher_are_refused(teacher, inputs, tmp_path, levels, message):
    """Noise scaled by another σ_max than the teacher's would be noise of other end points."""
    with pytest.raises(UserError, match=message):
        stream(teacher, inputs, tmp_path, levels=levels)
    assert not list(tmp_path.iterdir())


def test_a_stochastic_teacher_makes_no_pairs(inputs, tmp_path):
    with pytest.raises(UserError, match=r"sampler=churn draws noise.*sampler=dpm_solver"):
        stream(build(sampler="churn"), inputs, tmp_path, levels=())
