"""The cloud of a simulated site: the aggregator's own `fold` at each arrival, or equation (4) once all edges are in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cloud_aggregator.aggregator import Arrival, Folded, expire, fold, start
from edge_gateway.rounds import Closed, Rounds, RoundSettings
from megace2_iot.parameters import Layout, ModelUpdate, Vector

KEPT_RELEASES = 20  # as `CloudSettings.keep_releases`: an update over an older one needs the model anew
NEVER = 1e12  # s: who waits for all has no deadline
SYNCHRONOUS = "sync"  # the rule's name beside those of the aggregator


class Verdict(NamedTuple):
    """What becomes of an update; `released` says that a new release came of it."""

    accepted: bool
    reason: str = ""
    released: bool = False


class SimulatedCloud(Protocol):
    """`newest` is the newest release's version."""

    newest: int
    waits_for_all: bool

    def vector(self, version: int) -> Vector | None:
        """The model of a release that is still kept."""

    def receive(self, edge: str, update: ModelUpdate, update_id: str, now: float) -> Verdict:
        """Take an update in."""


class _Releases:
    """The newest `KEPT_RELEASES` models by version."""

    def __init__(self, first: Vector) -> None:
        self.newest = 1
        self._kept = {1: first}

    def vector(self, version: int) -> Vector | None:
        return self._kept.get(version)

    def _release(self, vector: Vector) -> None:
        self.newest += 1
        self._kept[self.newest] = vector
        self._kept.pop(self.newest - KEPT_RELEASES, None)


class AsynchronousCloud(_Releases):
    """Folds each update in as it arrives, by one of the aggregator's four rules."""

    waits_for_all = False

    def __init__(self, rule: str, layout: Layout, first: Vector) -> None:
        super().__init__(first)
        self._state = start(rule, layout, first, 1)

    def receive(self, edge: str, update: ModelUpdate, update_id: str, now: float) -> Verdict:
        arrival = Arrival(edge, update, update_id, now)
        state, outcome = fold(expire(self._state, now), arrival, self.vector(update.base_version))
        if not isinstance(outcome, Folded):
            return Verdict(False, outcome.reason)
        self._state = state
        self._release(outcome.vector)
        return Verdict(True, released=True)


class SynchronousCloud(_Releases):
    """Waits for every edge: what an edge does with its devices, one tier higher."""

    waits_for_all = True

    def __init__(self, edges: Sequence[str], layout: Layout, first: Vector) -> None:
        super().__init__(first)
        self._edges, self._layout = tuple(edges), layout
        self._rounds = Rounds(RoundSettings(min_deadline=NEVER, max_deadline=NEVER, quorum=1.0), 0)
        self._number = self._rounds.open(self._edges, 1, 0.0, layout).number

    def receive(self, edge: str, update: ModelUpdate, update_id: str, now: float) -> Verdict:
        if reason := self._rounds.delta(edge, self._number, update, now):
            return Verdict(False, reason)
        outcome = self._rounds.tick(now)
        if not isinstance(outcome, Closed):
            return Verdict(True)
        base = self.vector(outcome.base_version)
        assert base is not None
        self._release(base + outcome.delta)
        self._number = self._rounds.open(self._edges, self.newest, now, self._layout).number
        return Verdict(True, released=True)


def cloud_of(rule: str, edges: Sequence[str], layout: Layout, first: Vector) -> SimulatedCloud:
    """The cloud that aggregates by `rule`. Raises ValueError for an unknown one."""
    if rule == SYNCHRONOUS:
        return SynchronousCloud(edges, layout, first)
    return AsynchronousCloud(rule, layout, first)
