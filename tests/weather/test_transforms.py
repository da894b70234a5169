"""Transforms of variables: inverses, bounds, atoms, refusals."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scigen.errors import UserError
from scigen.weather.transforms import Bounded, Identity, Log, Root, default, transform

ALL = [
    (Identity(), (-50.0, 50.0)), (Root(3.0), (0.0, 80.0)), (Root(2.0), (0.0, 80.0)), (Log(0.1), (0.0, 80.0)),
    (Bounded(0.0, 100.0), (0.0, 100.0)), (Bounded(-1.0, 1.0), (-1.0, 1.0)),
]  # fmt: skip


@pytest.mark.parametrize(("bend", "span"), ALL, ids=lambda v: getattr(v, "kind", ""))
def test_inverse_undoes_and_order_is_kept(bend, span):
    x = torch.linspace(*span, 401, dtype=torch.float64)
    z = bend.forward(x)
    torch.testing.assert_close(bend.inverse(z), x, rtol=1e-9, atol=1e-9)
    assert (z.diff() > 0).all()


@given(st.floats(-1e3, 1e3))
def test_whatever_a_network_says_becomes_a_possible_value(z):
    value = torch.tensor([z / 100], dtype=torch.float64)
    assert Root().inverse(value) >= 0 and Log().inverse(value) >= 0
    assert 0 <= Bounded(0, 1).inverse(value) <= 1


def test_an_atom_survives_noise_around_it():
    """Dry cells that a network misses by a little, on either side, are dry; so are clear and overcast skies."""
    noise = 0.05 * torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (Root(3.0, dry=0.05).inverse(noise) == 0).all()
    assert (Root(3.0).inverse(noise) > 0).any()
    sky = Bounded(0.0, 1.0, snap=0.05)
    for bound in (0.0, 1.0):
        assert (sky.inverse(sky.forward(torch.full((1000,), bound, dtype=torch.float64)) + noise) == bound).all()


def test_linear_and_positive_say_what_can_be_conserved():
    """Means commute with a linear transform and with no other."""
    x = torch.tensor([0.0, 8.0], dtype=torch.float64)
    for bend, _ in ALL:
        if bend != Bounded(-1.0, 1.0):
            same = torch.allclose(bend.forward(x).mean(), bend.forward(x.mean()))
            assert same == bend.linear
    assert Root().positive and Log().positive and not Identity().positive and not Bounded().positive


@pytest.mark.parametrize("bend", [b for b, _ in ALL])
def test_bundles_keep_them(bend):
    assert transform(bend.to_dict()) == bend


def test_defaults_by_name_and_units():
    assert default("t2m", "K") == Identity()
    assert isinstance(default("tp", "mm h-1"), Root)
    assert default("r2", "%") == Bounded(0, 100, snap=0.005) and default("tcc", "1") == Bounded(0, 1, snap=0.005)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: transform("cube"), "'cube' is none of identity, root, log, bounded"),
        (lambda: transform({"kind": "root", "base": 2}), "root with .*base.* takes power, dry"),
        (lambda: transform({"kind": "root", "power": -1}), "power=-1"),
        (lambda: transform({"kind": "log", "scale": 0}), "scale=0"),
        (lambda: transform({"kind": "bounded", "low": 1, "high": 0}), "low=1"),
        (lambda: Root().forward(torch.tensor([1.0, -0.5])), "-0.5 is below 0"),
        (lambda: Log().forward(torch.tensor([-5.0])), "-5 is below 0"),
        (lambda: Bounded(0, 1).forward(torch.tensor([0.5, 40.0])), r"0.5 to 40 lie outside \[0, 1\]"),
        (lambda: Bounded(0, 1).forward(torch.tensor([float("nan")])), "lie outside"),
    ],
)
def test_refusals(act, message):
    with pytest.raises(UserError, match=message):
        act()


def test_rounding_below_zero_is_zero():
    assert Root().forward(torch.tensor([-1e-7], dtype=torch.float64)) == 0
