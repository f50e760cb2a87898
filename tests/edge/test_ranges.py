"""Numbers as ranges: exactly a set, until there is no room for more ranges."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edge_gateway.ranges import Ranges

Pairs = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair))), max_size=40)


@given(Pairs, st.integers(0, 70), st.integers(0, 20))
def test_they_agree_with_a_set(pairs: list[tuple[int, int]], first: int, span: int) -> None:
    """Membership, holes, and ranges that neither touch nor overlap."""
    ranges, plain = Ranges(), set[int]()
    for pair in pairs:
        ranges.add(*pair)
        plain |= set(range(pair[0], pair[1] + 1))
    assert all((number in ranges) == (number in plain) for number in range(80))
    assert ranges.missing(first, first + span) == len(set(range(first, first + span + 1)) - plain)
    assert all(one[1] + 1 < other[0] for one, other in pairwise(ranges.pairs()))


def test_without_room_the_lowest_hole_is_closed() -> None:
    """What is oldest is known least exactly, and nothing that was in is ever out."""
    ranges = Ranges(most=3)
    for number in (1, 10, 20, 30):
        ranges.add(number, number)
    assert ranges.pairs() == [(1, 10), (20, 20), (30, 30)]


def test_what_fills_a_hole_joins_its_sides() -> None:
    """Windows that come in any order end as one range."""
    ranges = Ranges([(1, 3), (5, 7), (9, 9)])
    ranges.add(4, 8)
    assert ranges.pairs() == [(1, 9)]
