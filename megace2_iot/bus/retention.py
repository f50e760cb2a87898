"""Whether the broker gives retained messages to whoever subscribes with a wildcard, and from whichever node of it.

RabbitMQ has them for exact filters only, and each of its nodes has its own. Both are one lack here: who finds nothing
under a wildcard takes it that the other fails, too, and repeats what it retains. A cluster of NATS has them, and loses
one to whoever subscribes in the moment in which it is published: what is new is said twice there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from megace2_iot.bus.settings import BrokerSettings, Presence
from megace2_iot.mqtt import Connection, Delivery

AT_ONCE = 0.5  # s after the broker has confirmed the subscription
PATIENCE = 3.0  # s for what was published now
LOOKS = 3  # at most, where nothing came: a cluster that has just started takes its time


class Retention:
    """Looked at after the first connect: the node's own birth is to come back under a wildcard.

    Where it does not, it is published again. If that comes, the broker could have given what it retained. If not even
    that comes, the node may not read what it says or the broker is slow: it looks again, and takes a single broker for
    one that has retained messages meanwhile, and a cluster for one that has not. In an enrolled site it is not looked
    at: the access list lets no node read what it says, and its Mosquitto has retained messages.
    """

    def __init__(self, settings: BrokerSettings, presence: Presence | None) -> None:
        self._clustered = settings.clustered
        self.lacking = settings.repeat_retained == "yes" and presence is not None
        self.twice = self._clustered and settings.repeat_retained != "no"  # say what is new once more
        looks = settings.repeat_retained == "auto" and settings.identity is None
        self._topic, self._family = (presence.topic, presence.family) if presence and looks else ("", "")
        self._kept, self._live = asyncio.Event(), asyncio.Event()
        self._looks = 0

    @property
    def is_unsure(self) -> bool:
        """Whether to look again."""
        return bool(self._family)

    def saw(self, delivery: Delivery) -> None:
        """Any message that came; the node's own state comes by this look only."""
        if self._family and delivery.topic == self._topic:
            (self._kept if delivery.retained else self._live).set()

    async def look(self, connection: Connection, kept: Mapping[str, bytes]) -> None:
        """Raises what the connection raises; nothing is known then."""
        if not self._family:
            return
        self._looks += 1
        try:
            await connection.listen([(self._family, 0)])
            if not await _within(AT_ONCE, self._kept):
                await connection.send(self._topic, kept[self._topic], qos=1, retain=True)
                await _within(PATIENCE, self._live)
            await connection.unsubscribe(self._family)
        finally:
            had, heard = self._kept.is_set(), self._live.is_set()
            self.lacking = not had and (heard or self._clustered)
            if had or heard or self._looks == LOOKS:
                self._family = ""


async def _within(seconds: float, event: asyncio.Event) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
