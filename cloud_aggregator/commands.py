"""What people ask of the running cloud: requests of the ledger, done between two folds and answered there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cloud_aggregator.folding import Folding
from cloud_aggregator.requests import Request, Requests, Told
from cloud_aggregator.store import Release, Store, UpdateRow
from megace2_iot.problems import Problem
from megace2_iot.telemetry import Telemetry

_log = logging.getLogger("megace2.cloud")
LOOK_EVERY = 0.25  # s


class Commands:
    """`turn` is held while one is done; `released` tells the edge and the site what was folded in by hand."""

    def __init__(
        self,
        store: Store,
        folding: Folding,
        telemetry: Telemetry,
        turn: asyncio.Lock,
        released: Callable[[UpdateRow | None, Release], Awaitable[None]],
    ) -> None:
        self._store, self._folding, self._telemetry = store, folding, telemetry
        self._requests, self._turn, self._released = Requests(store.ledger), turn, released

    async def run(self) -> None:
        """Look for requests, and do them, for ever."""
        while True:
            for request in await asyncio.to_thread(self._requests.waiting):
                async with self._turn:
                    told = await self._done(request)
                await asyncio.to_thread(self._requests.settle, request.number, told)
                _log.info("asked for %s %s: %s", request.kind, request.argument[:12], told.text)
            await asyncio.sleep(LOOK_EVERY)

    async def _done(self, request: Request) -> Told:
        try:
            if request.kind == "release":
                return await self._release(request.argument)
            if request.kind == "rollback":
                return await self._roll_back(int(request.argument))
            return await asyncio.to_thread(self._drop, request.argument)
        except Problem as problem:
            return Told(False, str(problem))

    async def _release(self, update_id: str) -> Told:
        known = self._store.journal.find(update_id)
        if known is None or known[1].verdict != "quarantined":
            return _not_held(update_id, "" if known is None else known[1].verdict)
        row, _ = known
        body = self._store.journal.body_of(row.sha256)
        outcome = await asyncio.to_thread(self._folding.take, row, body, by_hand=True)
        if outcome.release is None:
            return Told(False, f"update {row.id[:8]} stays held, it cannot be folded in: {outcome.reason}")
        self._telemetry.count("updates_released")
        await self._released(row, outcome.release)
        return Told(True, f"update {row.id[:8]} of {row.edge} is folded in: release {outcome.release.version}")

    async def _roll_back(self, version: int) -> Told:
        release = await asyncio.to_thread(self._folding.roll_back, version)
        self._telemetry.count("rollbacks")
        await self._released(None, release)
        return Told(True, f"release {release.version} is what release {version} was")

    def _drop(self, update_id: str) -> Told:
        if update_id == "*":
            return Told(True, f"{self._folding.quarantine.drop_all()} held updates are dropped")
        if self._folding.quarantine.drop(update_id):
            return Told(True, f"update {update_id[:8]} is dropped")
        known = self._store.journal.verdict_of(update_id)
        return _not_held(update_id, "" if known is None else known.verdict)


def _not_held(update_id: str, verdict: str) -> Told:
    return Told(False, f"update {update_id[:8]} is not held: it was {verdict or 'never offered'}")
