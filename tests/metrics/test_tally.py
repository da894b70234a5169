"""Tallies merge in any order, whatever the blocks; their size does not grow with the cells or members."""

import itertools

import numpy as np
import pytest
import xarray as xr

from scigen.errors import UserError
from scigen.metrics import ensemble
from scigen.metrics.grouping import Group
from scigen.metrics.matching import match
from scigen.metrics.streaming import stream
from scigen.metrics.tally import Plan, merge, tally

N, M, E, Y, X = 24, 7, 2, 12, 10


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def plan(members=M, cases=E, count=N, shape=(Y, X)) -> Plan:
    cells = int(np.prod(shape))
    half = np.zeros((count, cases), bool)
    half[::2] = True
    weights = np.stack([np.linspace(0.5, 1.5, cells), np.r_[np.ones(cells // 2), np.zeros(cells - cells // 2)]])
    groups = [Group("all", np.ones((count, cases), bool)), Group("half", half), Group("region", half, 1)]
    edges = np.linspace(-6, 6, 101)
    return Plan(
        members, shape, weights, groups, np.array([0.0, 1.0]), ("a", "b"), (0.5, 0.9), edges, 1.0, True, (False, False)
    )


def same(a, b) -> None:
    for key in a.sums:
        np.testing.assert_allclose(a.sums[key], b.sums[key], rtol=1e-12, atol=1e-12, err_msg=key)
    for key in a.series:
        np.testing.assert_allclose(a.series[key], b.series[key], rtol=1e-12, atol=1e-12, err_msg=key)


def test_parts_merged_in_any_order_are_the_whole(rng):
    x, y = rng.standard_normal((N, M, E, Y * X)).round(1), rng.standard_normal((N, E, Y * X)).round(1)
    x[3, 2, 0, 5] = y[7, 1, 9] = np.nan
    whole = tally(plan(), x, y, np.arange(N)).ordered()
    for cut in ([0, 1, 5, 13, N], [0, 12, N]):
        parts = [tally(plan(), x[a:b], y[a:b], np.arange(a, b)) for a, b in itertools.pairwise(cut)]
        rng.shuffle(parts)
        same(whole, merge(*parts).ordered())
        same(whole, merge(merge(parts[0]), *parts[1:]).ordered())


def test_a_sample_counted_twice_and_another_plan_are_refused(rng):
    x, y = rng.standard_normal((2, M, E, Y * X)), rng.standard_normal((2, E, Y * X))
    part = tally(plan(), x, y, np.arange(2))
    with pytest.raises(UserError, match="two of the tallies"):
        merge(part, part)
    other = tally(plan(members=M - 1), x[:, 1:], y, np.array([2, 3]))
    with pytest.raises(UserError, match="one plan"):
        merge(part, other)


def test_points_are_those_of_the_plain_functions(rng):
    x, y = rng.standard_normal((N, M, E, Y * X)), rng.standard_normal((N, E, Y * X))
    t, p = tally(plan(), x, y, np.arange(N)), plan()
    members = np.moveaxis(x, 1, 0)
    for region, weight in enumerate(p.weights):
        crps = (ensemble.fair_crps(members, y) * weight).sum(-1)
        np.testing.assert_allclose(t.series["crps"][..., region], crps, rtol=1e-5, atol=1e-5)
        variance = (members.var(0, ddof=1) * weight).sum(-1)
        np.testing.assert_allclose(t.series["variance"][..., region], variance, rtol=1e-5)
    rank = ensemble.ranks(members, y, rng)
    expected = np.bincount(rank.ravel(), np.broadcast_to(p.weights[0], rank.shape).ravel(), M + 1)
    np.testing.assert_allclose(t.sums["rank"][0], expected, rtol=1e-9)
    assert t.sums["rank"][0].sum() == pytest.approx(t.series["weight"][..., 0].sum())


def test_a_tied_truth_shares_its_weight_among_its_ranks():
    x = np.array([0.0, 1, 1, 2]).reshape(1, 4, 1, 1)
    p = Plan(
        4, (), np.ones((1, 1)), [Group("all", np.ones((1, 1), bool))], np.array([]), (), (0.5,), np.array([0, 3.0]), 1.0
    )
    t = tally(p, x, np.ones((1, 1, 1)), np.arange(1))
    np.testing.assert_allclose(t.sums["rank"][0], [0, 1 / 3, 1 / 3, 1 / 3, 0], atol=1e-15)


def test_missing_cells_are_left_out_and_counted(rng):
    x, y = rng.standard_normal((N, M, E, Y * X)), rng.standard_normal((N, E, Y * X))
    y[:, :, :20] = np.nan
    x[:, 0, :, 20:25] = np.nan
    t = tally(plan(), x, y, np.arange(N))
    inside = np.moveaxis(x[..., 25:], 1, 0)
    crps = (ensemble.fair_crps(inside, y[..., 25:]) * plan().weights[0][25:]).sum(-1)
    np.testing.assert_allclose(t.series["crps"][..., 0], crps, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(t.sums["points"], [N * E * Y * X, N * E * 20, N * E * 5])
    assert not t.series["fields"].any() and np.isfinite(t.sums["histogram"]).all()


def archives(rng, count, side, chunk=None):
    y = xr.Dataset({"t": (("time", "y", "x"), rng.standard_normal((count, side, side)).astype("f4"))})
    x = xr.Dataset({"t": (("time", "member", "y", "x"), rng.standard_normal((count, M, side, side)).astype("f4"))})
    return (y, x) if chunk is None else (y.chunk(time=chunk), x.chunk(time=chunk, member=2))


@pytest.mark.parametrize("budget", [1, 40_000, 10**9])
@pytest.mark.parametrize("workers", [1, 3])
def test_streams_are_the_same_by_any_blocks_chunks_and_workers(rng, budget, workers):
    truth, samples = archives(rng, N, Y)
    (found,), _ = match(truth, {"a": samples})
    (lazy,), _ = match(truth.chunk(time=5), {"a": samples.chunk(time=7, member=2)})
    p = plan(cases=1, shape=(Y, Y))
    whole = tally(
        p, samples["t"].values[:, :, None].reshape(N, M, 1, -1), truth["t"].values.reshape(N, 1, -1), np.arange(N)
    )
    for one in (found, lazy):
        same(whole, stream(one, "a", p, budget=budget, workers=workers))


def test_memory_does_not_grow_with_the_archive(rng, monkeypatch):
    """Bytes of members held at a time stay below the budget of each worker; a sample leaves a few hundred bytes."""
    import scigen.metrics.streaming as streaming

    held, most, kept = 0, [], {}
    read, judge = streaming.read_members, streaming.tally

    def reading(*args):
        nonlocal held
        values = read(*args)
        held += values.nbytes
        most.append(held)
        return values

    def judging(p, members, truth, index):
        nonlocal held
        out = judge(p, members, truth, index)
        held -= members.nbytes
        return out

    monkeypatch.setattr(streaming, "read_members", reading)
    monkeypatch.setattr(streaming, "tally", judging)
    for count in (40, 160):
        most.clear()
        (found,), _ = match(*(lambda y, x: (y, {"a": x}))(*archives(rng, count, 24)))
        p = plan(cases=1, count=count, shape=(24, 24))
        kept[count] = stream(found, "a", p, budget=10 * M * 24 * 24 * 4, workers=2).nbytes
        assert max(most) <= 2 * 10 * M * 24 * 24 * 4
    assert (kept[160] - kept[40]) / 120 < 1000


@pytest.mark.parametrize("cells", [1, 400])
def test_copies_are_counted_and_alike_members_are_not(rng, cells):
    p = Plan(
        4, (cells,), np.ones((1, cells)), [Group("all", np.ones((N, 1), bool))], np.array([]), (), (0.5,),
        np.array([-4, 4.0]), 1.0,
    )  # fmt: skip
    x, y = rng.standard_normal((N, 4, 1, cells)), rng.standard_normal((N, 1, cells))
    near = x.copy()
    near[:, 1] = near[:, 0] + 0.02 * near[:, 1]
    assert tally(p, near, y, np.arange(N)).series["copies"].sum() == 0
    x[:, 3] = x[:, 1]
    t = tally(p, x, y, np.arange(N))
    assert t.series["copies"].sum() == N
    assert np.argwhere(np.tril(t.sums["copies"][:4, :4] == N, -1)).tolist() == [[3, 1]]
