"""The messages of one topic filter: a bounded inbox whose reader acknowledges."""

from __future__ import annotations

import asyncio
from typing import Self

from megace2_iot.mqtt import Connection, Delivery


class Subscription:
    """Messages of one topic filter; iterate over it. `dropped` counts what found the inbox full."""

    def __init__(self, topic_filter: str, qos: int, limit: int, *, patient: bool) -> None:
        self.topic_filter, self.qos = topic_filter, qos
        self.dropped = 0
        self._high, self._low = (3 * limit // 4, limit // 2) if patient else (limit + 1, -1)
        self._inbox: asyncio.Queue[tuple[Connection, Delivery]] = asyncio.Queue(limit)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        connection, delivery = await self._inbox.get()
        connection.acknowledge(delivery)
        if self._inbox.qsize() == self._low:
            connection.resume_reading()
        return delivery

    def __len__(self) -> int:
        return self._inbox.qsize()

    def _let_go(self) -> None:
        """Acknowledge what nobody will read: it would take up the broker's window for the connection's life."""
        while not self._inbox.empty():
            connection, delivery = self._inbox.get_nowait()
            connection.acknowledge(delivery)

    def _deliver(self, connection: Connection, delivery: Delivery) -> bool:
        try:
            self._inbox.put_nowait((connection, delivery))
        except asyncio.QueueFull:
            self.dropped += 1
            return False
        if self._inbox.qsize() >= self._high:
            connection.pause_reading()
        return True
