"""The batcher: full or old enough, oldest first, nothing lost, never more than it may hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_gateway.batcher import LONGEST_GAP, Batcher, Pace, length_bucket


def test_a_full_bucket_goes_at_once() -> None:
    """Company is complete: nobody waits for the delay."""
    batcher: Batcher[str] = Batcher(max_batch_size=2, max_queue_delay=1.0, capacity=9)
    batcher.add("a", "x", 0.0)
    assert batcher.take(0.0) == []
    batcher.add("b", "x", 0.0)
    assert batcher.next_deadline() == float("-inf")
    assert batcher.take(0.0) == ["a", "b"]
    assert len(batcher) == 0


def test_the_oldest_waits_no_longer_than_the_delay() -> None:
    """At its deadline an item goes with whoever is in its bucket."""
    batcher: Batcher[str] = Batcher(max_batch_size=8, max_queue_delay=0.1, capacity=9)
    batcher.add("a", "x", 1.0)
    batcher.add("b", "x", 1.05)
    deadline = batcher.next_deadline()
    assert deadline == 1.1
    assert batcher.take(1.09) == []
    assert batcher.take(deadline) == ["a", "b"]
    assert batcher.next_deadline() is None


def test_buckets_do_not_mix() -> None:
    """Items of different length classes are different batches, the older first."""
    batcher: Batcher[str] = Batcher(max_batch_size=8, max_queue_delay=0.0, capacity=9)
    for item, bucket in (("a", 1), ("b", 2), ("c", 1)):
        batcher.add(item, bucket, 0.0)
    assert [batcher.take(0.0), batcher.take(0.0), batcher.take(0.0)] == [["a", "c"], ["b"], []]


def test_a_busy_bucket_does_not_starve_another() -> None:
    """An item past its deadline goes before a full bucket of younger ones."""
    batcher: Batcher[str] = Batcher(max_batch_size=2, max_queue_delay=1.0, capacity=9)
    batcher.add("a", "y", 0.0)
    batcher.add("old", "x", 0.1)
    for item in ("b", "c", "d"):
        batcher.add(item, "y", 0.5)
    assert batcher.take(0.5) == ["a", "b"]
    assert batcher.take(1.1) == ["old"]
    assert batcher.take(1.1) == ["c", "d"]


def test_more_than_a_batch_leaves_the_rest() -> None:
    """What does not fit keeps its place and its deadline."""
    batcher: Batcher[int] = Batcher(max_batch_size=2, max_queue_delay=1.0, capacity=9)
    for item in range(3):
        batcher.add(item, "x", float(item) / 10)
    assert batcher.take(0.2) == [0, 1]
    assert batcher.next_deadline() == 1.2
    assert batcher.take(0.2) == []


def test_a_full_batcher_refuses() -> None:
    """The bound is over all buckets, and a refused item is not inside."""
    batcher: Batcher[str] = Batcher(max_batch_size=8, max_queue_delay=0.0, capacity=2)
    assert batcher.add("a", "x", 0.0)
    assert batcher.add("b", "y", 0.0)
    assert not batcher.add("c", "z", 0.0)
    assert len(batcher) == 2
    batcher.take(0.0)
    assert batcher.add("c", "z", 0.0)


@given(
    st.integers(1, 4),
    st.integers(0, 5),
    st.integers(1, 12),
    st.lists(st.one_of(st.integers(0, 3), st.none()), max_size=80),
)
def test_nothing_is_lost(size: int, delay: int, capacity: int, steps: list[int | None]) -> None:
    """Every item comes out once, in order within its bucket, in batches of one bucket within the bounds, in time."""
    batcher: Batcher[tuple[int, int]] = Batcher(size, float(delay), capacity)
    inside: list[tuple[int, int]] = []
    out: list[tuple[int, int]] = []
    for now, bucket in enumerate(steps):
        if bucket is not None and batcher.add((bucket, now), bucket, float(now)):
            inside.append((bucket, now))
        promised = batcher.next_deadline()
        batch = batcher.take(float(now)) if bucket is None else []
        assert bucket is not None or bool(batch) == (promised is not None and promised <= now)
        assert len(batch) <= size
        assert len({b for b, _ in batch}) <= 1
        out += batch
        assert len(batcher) == len(inside) - len(out) <= capacity
    while batch := batcher.take(1e9):
        out += batch
    assert sorted(out) == sorted(inside)
    for bucket in range(4):
        assert [item for item in out if item[0] == bucket] == [item for item in inside if item[0] == bucket]


@given(st.integers(1, 100_000))
def test_length_classes_are_close(steps: int) -> None:
    """A class holds its lengths with at most a third of padding, and is its own class."""
    padded = length_bucket(steps)
    assert steps <= padded < 1.5 * steps + 1e-9
    assert length_bucket(padded) == padded


@pytest.mark.parametrize(("steps", "padded"), [(0, 0), (1, 1), (4, 4), (5, 6), (7, 8), (9, 12), (13, 16), (50, 64)])
def test_length_classes(steps: int, padded: int) -> None:
    """The classes are powers of two and their three quarters."""
    assert length_bucket(steps) == padded


def test_bytes_are_bounded_too() -> None:
    """A few huge windows must not take the memory of many small ones."""
    batcher: Batcher[str] = Batcher(max_batch_size=4, max_queue_delay=0.0, capacity=100, capacity_bytes=100)
    assert batcher.has_room
    assert batcher.add("a", "x", 0.0, 60)
    assert batcher.has_room
    assert batcher.add("b", "x", 0.0, 40)
    assert not batcher.has_room
    assert not batcher.add("c", "x", 0.0, 1)
    assert batcher.take(0.0) == ["a", "b"]
    assert batcher.has_room
    assert batcher.add("c", "x", 0.0, 100)


def test_a_batcher_of_one_has_room_while_it_is_empty() -> None:
    """The smallest one that can be set must still take something."""
    batcher: Batcher[str] = Batcher(max_batch_size=1, max_queue_delay=0.0, capacity=1)
    assert batcher.has_room
    batcher.add("a", "x", 0.0)
    assert not batcher.has_room


def test_an_idle_model_may_take_what_is_there() -> None:
    """`early` does not wait for the delay, and still takes the oldest bucket."""
    batcher: Batcher[str] = Batcher(max_batch_size=8, max_queue_delay=1.0, capacity=9)
    batcher.add("a", "x", 0.0)
    batcher.add("b", "y", 0.1)
    assert batcher.take(0.2) == []
    assert [batcher.take(0.2, early=True), batcher.take(0.2, early=True)] == [["a"], ["b"]]
    assert batcher.take(0.2, early=True) == []


def test_the_pace_follows_arrivals() -> None:
    """Long gaps at first and after a pause, short ones once items come quickly."""
    pace = Pace()
    pace.note(0.0)
    assert pace.gap == LONGEST_GAP
    for number in range(100):
        pace.note(0.002 * number)
    assert 0.002 <= pace.gap < 0.003
    pace.note(1000.0)
    assert pace.gap > 0.09
