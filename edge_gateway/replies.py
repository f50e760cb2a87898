"""What an edge says to its devices about their packets: queued, and published a few at a time."""

from __future__ import annotations

import asyncio

from megace2_iot.bus import Bus, NotPublished
from megace2_iot.messages import Prediction
from megace2_iot.topics import Topics

SENDERS = 32  # replies on their way at once


class Replies:
    """At most `limit` wait; one more is dropped and counted, since its device asks again."""

    def __init__(self, bus: Bus, topics: Topics, edge: str, limit: int) -> None:
        self._bus, self._topics, self._edge = bus, topics, edge
        self._waiting: asyncio.Queue[tuple[str, str, bytes]] = asyncio.Queue(limit)

    def put(self, device: str, status: str, payload: bytes, kind: str = Prediction.kind) -> None:
        """Queue one; `status` names its counter, `answers_<status>`."""
        try:
            self._waiting.put_nowait((self._topics.device_down(device, kind, self._edge), status, payload))
        except asyncio.QueueFull:
            self._bus.telemetry.count("answers_dropped")

    async def send(self) -> None:
        """Publish for ever, `SENDERS` at a time."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(SENDERS):
                tasks.create_task(self._send(), name=f"answers-{number}")

    async def _send(self) -> None:
        while True:
            topic, status, payload = await self._waiting.get()
            try:
                await self._bus.publish(topic, payload)
                self._bus.telemetry.count(f"answers_{status}")
            except NotPublished:
                self._bus.telemetry.count("answers_lost")  # its device asks again
