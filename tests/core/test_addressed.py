"""Noise by address."""

import numpy as np
import pytest
from scipy import stats

from scigen.core.addressed import normal, philox, sample_key

KNOWN = [  # Random123's known answers for philox4x32-10: counter, key, result
    ([0, 0, 0, 0], (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ([0xFFFFFFFF] * 4, (0xFFFFFFFF, 0xFFFFFFFF), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_known_answers(counter, key, expected):
    words = philox([np.uint64(c) for c in counter], key)
    assert " ".join(f"{int(w):08x}" for w in words) == expected


def test_numbers_are_normal_and_independent():
    z = np.stack([normal(0, "2020-01-01", m, (3, 32, 32)) for m in range(30)])
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.01
    for a, b in [(z[0], z[1]), (z[:, 0], z[:, 1]), (z[..., :-1], z[..., 1:]), (z[..., :-1, :], z[..., 1:, :])]:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)


def test_every_part_of_the_address_matters():
    base = normal(0, "a", 0, (2, 8, 8))
    others = [
        normal(1, "a", 0, (2, 8, 8)),
        normal(0, "b", 0, (2, 8, 8)),
        normal(0, "a", 1, (2, 8, 8)),
        normal(0, "a", 0, (2, 8, 8), draw=1),
    ]
    assert all(not np.isin(o, base).any() for o in others)
    assert len(np.unique(base)) == base.size
    np.testing.assert_array_equal(base, normal(0, "a", 0, (2, 8, 8)))


@pytest.mark.parametrize(
    ("shape", "cut"),
    [
        ((2, 16), (slice(5, 9),)),
        ((2, 16, 12), (slice(4, 9), slice(7, 12))),
        ((1, 6, 7, 8), (slice(1, 4), slice(2, 6), slice(3, 8))),
    ],
)
def test_a_tile_is_the_part_of_the_whole(shape, cut):
    whole = normal(3, "x", 5, shape)
    origin = [c.start for c in cut]
    tile = normal(3, "x", 5, (shape[0], *[c.stop - c.start for c in cut]), origin=origin)
    np.testing.assert_array_equal(tile, whole[(slice(None), *cut)])


def test_keys_are_fixed_for_ever():
    """Changing them would silently change every published ensemble."""
    assert sample_key(0, "2019-03-25T00:00:00") == (4121370385, 2077308259)
    assert normal(7, "2019-03-25T00:00:00", 3, (1, 2)).tolist() == [[-0.6391095519065857, 0.5052812695503235]]
