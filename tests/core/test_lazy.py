"""Ensembles that are generated where they are looked at: equal to the whole, and no more of it than is asked for."""

import numpy as np
import pytest
import torch


@pytest.fixture
def counted(bundle, monkeypatch):
    """The bundle, and the (sample, member) pairs that it has drawn."""
    drawn: list[tuple[str, int]] = []
    own = type(bundle).generate

    def generate(self, condition, samples, members, *rest):
        drawn.extend(zip(samples, members, strict=True))
        return own(self, condition, samples, members, *rest)

    monkeypatch.setattr(type(bundle), "generate", generate)
    return bundle, drawn


def test_nothing_is_made_before_values_are_asked_for(counted, archive):
    made, drawn = counted
    ensemble = made.sample(archive, members=5, seed=3, batch=4)
    part = ensemble.isel(time=slice(1, 3), member=[0, 4])
    assert not drawn and "t2m" in repr(ensemble)
    values = part["t2m"].values
    keys = made.codec.samples(made.codec.prepare(archive))
    assert set(drawn) == {(keys[i], m) for i in (1, 2) for m in (0, 4)}
    before = len(drawn)
    part["u10"].load()  # made together with t2m
    assert len(drawn) == before
    np.testing.assert_array_equal(values, ensemble.load()["t2m"].values[1:3][:, [0, 4]])


@pytest.mark.parametrize(
    "index",
    [
        dict(time=2),
        dict(time=-1, member=1),
        dict(member=[3, 0]),
        dict(latitude=5),
        dict(longitude=slice(2, 7, 3)),
        dict(time=[2, 0], latitude=slice(None, None, -1)),
        dict(time=0, member=0, latitude=3, longitude=2),
        dict(time=slice(2, 2)),
    ],
)
def test_any_index_gives_what_the_whole_has_there(bundle, archive, index):
    whole = bundle.sample(archive, members=4, seed=1, batch=4).load()
    for name in ("t2m", "u10"):
        lazy = bundle.sample(archive, members=4, seed=1, batch=4)[name].isel(index)
        assert lazy.identical(whole[name].isel(index))


def test_member_numbers_say_which_members(bundle, archive):
    whole = bundle.sample(archive, members=6, batch=4)
    some = bundle.sample(archive, members=[4, 1], batch=4)
    assert some["member"].values.tolist() == [4, 1]
    np.testing.assert_array_equal(some["t2m"].values, whole["t2m"].sel(member=[4, 1]).values)


def test_the_network_in_bfloat16_is_close_and_the_state_stays_single(bundle, archive):
    exact = bundle.sample(archive, members=2, batch=4)["u10"].values
    rough = bundle.quick("bf16").sample(archive, members=2, batch=4)["u10"].values
    assert rough.dtype == np.float32 and 0 < np.abs(rough - exact).max() < 0.05 * np.abs(exact).max()
    assert next(bundle.network.parameters()).dtype == torch.float32
