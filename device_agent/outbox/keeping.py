"""The outbox in time: commits what came and left together, lets sources wait for room, tells the figures."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from device_agent.outbox.file import OutboxError
from device_agent.outbox.outbox import Outbox
from megace2_iot.telemetry import Telemetry

_log = logging.getLogger("megace2.outbox")
LOOK = 60.0  # s after which it is looked for what is too old although nothing changed
RETRY = 5.0  # s after which a disk that refused is asked again
ROOM = 1.0  # s after which room is looked for although nothing left: what is too old may leave


class Keeper:
    """One outbox's; `note` is to be called whenever a window came or left."""

    def __init__(self, outbox: Outbox, telemetry: Telemetry, interval: float) -> None:
        """Changes of `interval` s share a commit."""
        self._outbox, self._telemetry, self._interval = outbox, telemetry, interval
        self._changed, self._left = asyncio.Event(), asyncio.Event()

    def note(self) -> None:
        self._changed.set()
        self._left.set()

    async def run(self) -> None:
        """Commit for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._changed.wait()
            await asyncio.sleep(self._interval)
            self._changed.clear()
            try:
                self.flush()
            except OutboxError as error:
                _log.error("%s", error)
                await asyncio.sleep(RETRY)
            if self._outbox.unsaved:
                self._changed.set()

    def flush(self) -> None:
        """Commit, and tell the figures. Raises `OutboxError`."""
        try:
            self._outbox.expire(time.time())
            self._outbox.flush()
        finally:
            self.tell()

    def tell(self) -> None:
        outbox, counters = self._outbox, self._telemetry.counters
        counters["windows_accepted"] = outbox.accepted
        counters["windows_lost"] = outbox.lost + outbox.unreadable
        counters["windows_untold"] = outbox.untold
        for reason, count in outbox.shed.items():
            counters[f"windows_shed_{reason}"] = count
        self._telemetry.gauge("outbox_windows", len(outbox))
        self._telemetry.gauge("outbox_bytes", outbox.size)
        self._telemetry.gauge("outbox_gaps", outbox.gaps)

    async def room(self, size: int) -> None:
        """Wait until a record of `size` bytes need not push out another."""
        while not self._outbox.has_room(size, time.time()):
            self._left.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROOM):
                    await self._left.wait()

    async def until_empty(self) -> None:
        """Wait until nothing is waiting and nothing is unanswered."""
        while len(self._outbox):
            self._left.clear()
            await self._left.wait()
