"""The virtual clock keeps the order of events, and stops where it is told to."""

from __future__ import annotations

from megace2_iot.cli.experiments.clock import Clock


def test_events_happen_in_the_order_of_time() -> None:
    """Whatever the order in which they were arranged; those of one instant in that order."""
    clock, seen = Clock(), list[tuple[str, float]]()
    for name, when in (("late", 3.0), ("first", 1.0), ("second", 1.0)):
        clock.at(when, lambda name=name: seen.append((name, clock.now)))
    clock.run()
    assert seen == [("first", 1.0), ("second", 1.0), ("late", 3.0)]


def test_an_event_may_arrange_others() -> None:
    """What it arranges in the past happens at once, and time never goes back."""
    clock, seen = Clock(), list[float]()
    clock.at(5.0, lambda: clock.at(1.0, lambda: seen.append(clock.now)))
    clock.run()
    assert seen == [5.0]


def test_it_runs_no_further_than_it_should() -> None:
    """The rest waits for the next run."""
    clock, seen = Clock(), list[float]()
    for when in (1.0, 2.0, 3.0):
        clock.at(when, lambda: seen.append(clock.now))
    clock.run(2.5)
    assert (seen, clock.now) == ([1.0, 2.0], 2.5)
    clock.run()
    assert seen == [1.0, 2.0, 3.0]


def test_an_event_may_stop_it() -> None:
    """As when there are releases enough."""
    clock, seen = Clock(), list[float]()
    clock.at(1.0, clock.stop)
    clock.at(2.0, lambda: seen.append(clock.now))
    clock.run(10.0)
    assert (seen, clock.now) == ([], 1.0)
