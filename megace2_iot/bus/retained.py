"""What a node retains at the broker: published at each connect, and again where the broker does not give it to all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterable

import aiomqtt

from megace2_iot.bus.retention import Retention
from megace2_iot.bus.settings import BrokerSettings, Presence
from megace2_iot.mqtt import Connection, Delivery, NotPublished

_log = logging.getLogger("megace2.bus")


class Retained:
    """The node's birth and what it keeps, by topic."""

    def __init__(self, settings: BrokerSettings, presence: Presence | None) -> None:
        self._every = settings.repeat_every
        self._presence = presence
        self._retention = Retention(settings, presence)
        self._kept = {presence.topic: b""} if presence else {}  # the birth goes first
        self._new: set[str] = set()  # of these, what was not repeated yet

    @property
    def repeats(self) -> bool:
        """Whether all of it is published again and again."""
        return self._retention.lacking

    def put(self, topic: str, payload: bytes) -> None:
        """An empty payload takes it out."""
        if payload:
            self._kept[topic] = payload
            self._new.add(topic)
        else:
            self._kept.pop(topic, None)
            self._new.discard(topic)

    def saw(self, delivery: Delivery) -> None:
        self._retention.saw(delivery)

    async def begin(self, connection: Connection, session: int) -> float:
        """Publish all of it over a new connection; returns the round trip of the birth, 0 where there is none."""
        took, topics = 0.0, list(self._kept)
        if self._presence:
            self._kept[self._presence.topic] = self._presence.payload("online", session)
            began = time.monotonic()
            await self._publish(connection, [topics.pop(0)])
            took = time.monotonic() - began
        await self._publish(connection, topics)
        self._new.update(self._kept)
        return took

    async def repeat(self, connection: Connection) -> None:
        """Publish all of it once more."""
        await self._publish(connection, self._kept)

    async def keep_repeating(self, connection: Connection) -> None:
        """While the connection lasts: all of it where the broker lacks what makes this needless, else what is new."""
        retention, told = self._retention, False
        with contextlib.suppress(NotPublished):  # the link is lost, and whoever waits for it knows
            while True:
                with contextlib.suppress(NotPublished, aiomqtt.MqttError):  # refused, say
                    await retention.look(connection, self._kept)
                if not (retention.lacking or retention.twice or retention.is_unsure):
                    return
                if retention.lacking and not told:
                    told = True
                    _log.info("retained messages do not reach all: they are repeated every %g s", self._every)
                await asyncio.sleep(self._every * random.uniform(0.5, 1.5))
                new, self._new = self._new, set()
                await self._publish(connection, self._kept if retention.lacking else new if retention.twice else ())

    async def _publish(self, connection: Connection, topics: Iterable[str]) -> None:
        for topic in list(topics):
            if payload := self._kept.get(topic):  # not taken out meanwhile
                await connection.send(topic, payload, qos=1, retain=True)
