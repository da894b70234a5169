import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scigen.io.plan import ITEM_BYTES, ITEM_WORK, Item, extent, plan

few = st.integers(1, 40)


@given(few, few, few, few)
def test_items_cover_every_field_once_and_none_crosses_a_shard(t: int, m: int, block: int, group: int) -> None:
    seen = np.zeros((t, m), int)
    items = plan(t, m, block, group)
    for item in items:
        seen[item.start : item.stop, item.low : item.high] += 1
        assert item.start % block == 0 and item.low % group == 0
        assert item.fields == (item.stop - item.start) * (item.high - item.low) > 0
    assert (seen == 1).all()
    assert [i.number for i in items] == list(range(len(items)))


def test_order_is_samples_outside_and_members_inside() -> None:
    assert plan(3, 4, 2, 2)[:3] == [Item(0, 0, 2, 0, 2), Item(1, 0, 2, 2, 4), Item(2, 2, 3, 0, 2)]
    assert plan(3, 4, 2, 2)[2].name == "000002"


@given(few, few, st.integers(1, 2**28), st.integers(1, 2**27), st.booleans())
def test_extent_keeps_its_limits_and_is_never_empty(t: int, m: int, size: int, work: int, together: bool) -> None:
    block, group = extent(t, m, size, work, together=together)
    assert 1 <= block <= t and 1 <= group <= m
    least = m if together else 1
    assert block * group == least or block * group * size <= ITEM_BYTES
    assert block * group == least or block * group * work <= ITEM_WORK
    assert group == m or block == 1  # members first
    assert group == m or not together


def test_extent_of_known_sizes() -> None:
    assert extent(100, 16, 2**20, 1) == (4, 16)  # 64 MiB: 64 fields of 1 MiB
    assert extent(100, 16, 2**23, 1) == (1, 8)
    assert extent(100, 16, 2**23, 1, together=True) == (1, 16)
    assert extent(100, 16, 1, 2**20) == (2, 16)  # 2^25 cell·calls: 32 fields
    assert extent(10, 32, 2**26 // 30, 1) == (1, 16)  # two even groups rather than 30 and 2


@pytest.mark.parametrize("numbers", [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0)])
def test_nothing_to_do_is_a_defect(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        plan(*numbers)
