"""What an edge says to its devices about their packets: queued, and published a few at a time."""

from __future__ import annotations

import asyncio
from collections import Counter

from megace2_iot.bus import Bus, NotPublished
from megace2_iot.messages import Prediction
from megace2_iot.topics import Topics

SENDERS = 32  # replies on their way at once
SHARE = 4  # to one device at most one in so many of those that wait


class Replies:
    """At most `limit` wait; one more is dropped and counted, since its device asks again.

    To one device at most a quarter of them do: who floods with what is answered at once pushes out its own answers.
    """

    def __init__(self, bus: Bus, topics: Topics, edge: str, limit: int) -> None:
        self._bus, self._topics, self._edge = bus, topics, edge
        self._waiting: asyncio.Queue[tuple[str, str, str, bytes]] = asyncio.Queue(limit)
        self._each, self._of = max(1, limit // SHARE), Counter[str]()

    def put(self, device: str, status: str, payload: bytes, kind: str = Prediction.kind) -> None:
        """Queue one; `status` names its counter, `answers_<status>`."""
        if self._waiting.full() or self._of[device] >= self._each:
            self._bus.telemetry.count("answers_dropped")
            return
        self._of[device] += 1
        self._waiting.put_nowait((device, kind, status, payload))

    async def send(self) -> None:
        """Publish for ever, `SENDERS` at a time."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(SENDERS):
                tasks.create_task(self._send(), name=f"answers-{number}")

    async def _send(self) -> None:
        while True:
            device, kind, status, payload = await self._waiting.get()
            self._of[device] -= 1
            if not self._of[device]:
                del self._of[device]
            try:
                await self._bus.publish(self._topics.device_down(device, kind, self._edge), payload)
                self._bus.telemetry.count(f"answers_{status}")
            except NotPublished:
                self._bus.telemetry.count("answers_lost")  # its device asks again
