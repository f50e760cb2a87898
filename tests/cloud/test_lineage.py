"""Which releases count when some were rolled back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloud_aggregator.lineage import standing


def versions(newest: int, rollbacks: dict[int, int]) -> list[int]:
    return sorted(version for part in standing(newest, rollbacks) for version in part)


def test_without_rollbacks_all_count() -> None:
    """From the first to the newest."""
    assert versions(4, {}) == [1, 2, 3, 4]


def test_what_lies_between_does_not_count() -> None:
    """Nor after a second rollback, which does not bring the first one's releases back."""
    assert versions(8, {7: 3}) == [1, 2, 3, 7, 8]
    assert versions(10, {7: 3, 10: 8}) == [1, 2, 3, 7, 8, 10]


def test_a_release_that_was_taken_back_can_be_chosen_again() -> None:
    """Then it and what it stood on count, and what came after the first rollback does not."""
    assert versions(10, {7: 3, 10: 5}) == [1, 2, 3, 4, 5, 10]


@given(st.lists(st.integers(0, 30), max_size=30))
def test_it_is_what_following_each_step_gives(choices: list[int]) -> None:
    """Every release has one predecessor: the one before it, or the one that it was rolled back to."""
    rollbacks = {n: 1 + choice % (n - 1) for n, choice in enumerate(choices, 2) if choice < n}
    newest, followed = len(choices) + 1, []
    version = newest
    while version:
        followed.append(version)
        version = rollbacks.get(version, version - 1)
    assert versions(newest, rollbacks) == followed[::-1]
