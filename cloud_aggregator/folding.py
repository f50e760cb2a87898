"""The aggregation of one cloud: its family, its state, and all that changes it, one at a time.

`take` and `roll_back` block; the caller runs one of them at a time, in a thread. What they return is on disk.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from cloud_aggregator.aggregator import Arrival, Folded, State, expire, fold, live, resumed, start
from cloud_aggregator.checks import Standing, doubts, known_groups, refusal
from cloud_aggregator.history import check_rollback
from cloud_aggregator.quarantine import Bounds, Quarantine
from cloud_aggregator.settings import CloudSettings
from cloud_aggregator.store import Release, Store, UpdateRow
from megace2_iot.blobs import Blob
from megace2_iot.deltas import decode_delta
from megace2_iot.parameters import Layout, ModelUpdate
from megace2_iot.tensors import decode_tensors, flat_view, tensor_parts
from megace2_iot.update_checks import RECENT, Objection, finite, norm_of


@dataclass(frozen=True, slots=True)
class Family:
    """The family that this cloud aggregates."""

    name: str
    config: str
    layout: Layout
    stem: str
    stem_size: int
    stem_blob: memoryview


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an update; an accepted one has its release, others a reason."""

    verdict: Literal["accepted", "quarantined", "refused"]
    reason: str = ""
    release: Release | None = None
    pushed_out: int = 0  # held updates that had to go for this one


class Folding:
    """The family begun last in `store`, which must have one."""

    def __init__(self, settings: CloudSettings, store: Store) -> None:
        self._settings, self._store, self._checks = settings, store, settings.checks
        self.quarantine = Quarantine(store, Bounds(settings.checks.quarantine, settings.checks.quarantine_bytes))
        row = store.family()
        assert row is not None
        tensors, _ = decode_tensors(store.blobs.view(store.latest(row.family).sha256))
        stem_blob = store.blobs.view(row.stem)
        layout = Layout.of(tensors)
        self.family = Family(row.family, row.config, layout, row.stem, len(stem_blob), stem_blob)
        self._state = self._rebuilt()

    @property
    def live_edges(self) -> int:
        """The edges whose examples count."""
        return len(live(self._state))

    # -- the state --------------------------------------------------------------------
    def _rebuilt(self) -> State:
        """The aggregation state as it was: the newest update of each edge over its base, then the newest release."""
        name, layout = self.family.name, self.family.layout
        newest = self._store.latest(name)
        vector = flat_view(self._store.blobs.view(newest.sha256), layout)
        state = start(self._settings.rule, layout, vector, newest.version)
        for row, at in self._store.journal.accepted_arrivals(name):
            delta = decode_delta(self._store.journal.body_of(row.sha256), row.codec, layout.size)
            state, _ = fold(state, _arrival(row, delta, at), self._vector(row.base_version))
        return expire(resumed(state.at(newest.version, vector), time.time()), time.time())

    def _vector(self, version: int) -> np.ndarray[Any, Any] | None:
        blob = self._store.release(self.family.name, version)
        return None if blob is None else flat_view(blob, self.family.layout)

    # -- updates ----------------------------------------------------------------------
    def objection(self, row: UpdateRow) -> Objection | None:
        """Why an offer can never be folded, told without its body."""
        family = self.family
        rolled_back = self._store.rolled_back(family.name, row.base_version)
        return refusal(row, family.name, family.layout, self._state.version, rolled_back)

    def turn_away(self, row: UpdateRow, reason: str) -> None:
        """Refuse an offer whose body is not wanted, or did not come; it is in the ledger all the same."""
        lag = self._store.lag(row.family, row.base_version) if row.family == self.family.name else None
        self._store.journal.turn_away(replace(row, num_examples=known_groups(row, self.family.layout)), reason, lag)

    def take(self, row: UpdateRow, body: Blob, *, by_hand: bool = False) -> Outcome:
        """Fold in an update that was journalled and release, or hold it, or refuse it.

        `by_hand` folds in one that is held without doubting again; where that cannot be, it stays held.
        """
        outcome, state = self._judged(row, body, by_hand)
        if state is not None:
            self._state = state
        return outcome

    def _judged(self, row: UpdateRow, body: Blob, by_hand: bool) -> tuple[Outcome, State | None]:
        if found := self.objection(row):  # again: its base may have been taken back since it was offered
            return self._refused(row, str(found), None, by_hand), None
        try:
            delta = decode_delta(body, row.codec, self.family.layout.size)
        except ValueError as error:
            return self._refused(row, f"schema: {error}", None, by_hand), None
        norm = norm_of(delta)
        if found := finite(norm):
            return self._refused(row, str(found), None, by_hand), None
        now = time.time()
        state, outcome = fold(expire(self._state, now), _arrival(row, delta, now), self._vector(row.base_version))
        if not isinstance(outcome, Folded):
            return self._refused(row, outcome.reason, norm, by_hand), None
        if not by_hand and (against := doubts(row, norm, self._standing(row.base_version), self._checks)):
            reason = "; ".join(map(str, against))
            return Outcome("quarantined", reason, None, self.quarantine.hold(row.id, reason, norm)), None
        layout, config = self.family.layout, self.family.config
        blob = tensor_parts(layout.unflatten(outcome.vector), {"config": config})
        return Outcome("accepted", "", self._store.journal.accept(row.id, blob, now, norm)), state

    def _refused(self, row: UpdateRow, reason: str, norm: float | None, by_hand: bool) -> Outcome:
        if not by_hand:
            self._store.journal.refuse(row.id, reason, norm)
        return Outcome("refused", reason)

    def _standing(self, base_version: int) -> Standing:
        recent = self._store.journal.norms(self.family.name, RECENT)
        needed = self._checks.norm_bound().needs_model(recent)
        lag = self._store.lag(self.family.name, base_version)
        return Standing(lag, recent, norm_of(self._state.vector) if needed else 0.0)

    # -- releases ---------------------------------------------------------------------
    def roll_back(self, version: int) -> Release:
        """Release the content of an earlier release as the newest; raises `Problem` where that cannot be.

        Aggregation begins anew from it: what edges contributed before counts only as far as it is in that release.
        """
        name, newest = self.family.name, self._store.latest(self.family.name)
        if newest.source == version:
            return newest  # asked for twice
        check_rollback(self._store.ledger, version)
        release = self._store.roll_back(name, version)
        vector = flat_view(self._store.blobs.view(release.sha256), self.family.layout)
        self._state = start(self._settings.rule, self.family.layout, vector, release.version)
        return release


def _arrival(row: UpdateRow, delta: np.ndarray[Any, Any], at: float) -> Arrival:
    return Arrival(row.edge, ModelUpdate(row.base_version, row.num_examples, delta), row.id, at)
