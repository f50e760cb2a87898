"""Which releases the newest one stands on, when some were rolled back."""

from __future__ import annotations

from collections.abc import Mapping


def standing(newest: int, rollbacks: Mapping[int, int]) -> tuple[range, ...]:
    """The versions that `newest` descends from, itself among them, newest range first.

    A release follows the one before it, or, where `rollbacks` has it, the earlier release whose content it took. Those
    in between were rolled back: nothing that was trained over them counts any more.
    """
    ranges = []
    while newest > 0:
        last = max((version for version in rollbacks if version <= newest), default=1)
        ranges.append(range(last, newest + 1))
        newest = rollbacks.get(last, 0)
    return tuple(ranges)
