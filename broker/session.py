"""What one client is owed: its subscriptions, messages in flight and waiting, and their bounds; no I/O.

A message waits here as a reference, so that one payload serves every subscriber, and is turned into bytes only when
the client's connection asks for more (`take`). QoS 1 messages leave in order while fewer than the window are
unacknowledged. QoS 0 messages do not wait behind that window.

A full session refuses QoS 0, but takes QoS 1 while its client is connected: the publisher's PUBACK is then withheld
until there is room (a `Hold`), so a session overshoots its bound by no more than what publishers had in flight. While
the client is away nobody waits for it: its oldest waiting messages go, and are counted.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from broker.backpressure import Hold
from broker.codec import encode_field, publish_header
from broker.packets import Payload
from broker.settings import EmbeddedSettings
from broker.stats import EndReason

MESSAGE_OVERHEAD = 128  # bytes that a waiting message is taken to cost beside its topic and payload
MAX_PACKET_ID = 0xFFFF


class Message:
    """One publication, shared by all who receive it. `size` is its cost in bytes."""

    __slots__ = ("payload", "size", "topic", "topic_field")

    def __init__(self, topic: str, payload: Payload) -> None:
        self.topic = topic
        self.topic_field = encode_field(topic)
        self.payload = payload
        self.size = len(payload) + len(self.topic_field) + MESSAGE_OVERHEAD


class Delivery(NamedTuple):
    """A message on its way to a subscriber."""

    message: Message
    qos: int
    retain: bool = False


class Link(Protocol):
    """A session's connection."""

    def wake(self) -> None:
        """There is something to take."""

    def close(self, reason: EndReason) -> None:
        """End the connection now."""


class Session:
    """One client's state, kept while it is away unless it asked for a clean session."""

    def __init__(self, client_id: str, clean: bool, settings: EmbeddedSettings) -> None:
        self.client_id = client_id
        self.clean = clean
        self.subscriptions: dict[str, int] = {}
        self.link: Link | None = None
        self.away_since = 0.0  # seconds of the loop's clock; meaningful without a link
        self.size = 0  # bytes in flight and waiting
        self.taken = 0  # messages ever given to a connection
        self.acknowledged = 0  # PUBACKs ever, a sign of life
        self.holds: list[Hold] = []
        self._inflight: dict[int, Delivery] = {}
        self._again: deque[int] = deque()  # in flight when the client came back
        self._waiting: deque[Delivery] = deque()  # QoS 1
        self._passing: deque[Delivery] = deque()  # QoS 0
        self._last_id = 0
        self._window = settings.max_inflight_messages
        self._max_messages = settings.max_queued_messages
        self._max_bytes = settings.max_queued_bytes

    def __len__(self) -> int:
        return len(self._inflight) + len(self._waiting) + len(self._passing)

    @property
    def full(self) -> bool:
        return self.size > self._max_bytes or len(self) > self._max_messages

    @property
    def ready(self) -> bool:
        """Whether `take` would return anything."""
        return bool(self._again or self._passing or (self._waiting and len(self._inflight) < self._window))

    def offer(self, delivery: Delivery, *, force: bool = False) -> bool:
        """Queue a message for the connected client; False where it is QoS 0 and, without `force`, has no room."""
        if delivery.qos:
            self._waiting.append(delivery)
        elif force or not self.full:
            self._passing.append(delivery)
        else:
            return False
        self.size += delivery.message.size
        if self.link is not None:
            self.link.wake()
        return True

    def store(self, delivery: Delivery) -> int:
        """Queue a QoS 1 message for the absent client; how many of the oldest had to go for it."""
        self._waiting.append(delivery)
        self.size += delivery.message.size
        dropped = 0
        while self.full and self.drop_oldest():
            dropped += 1
        return dropped

    def drop_oldest(self) -> bool:
        """Drop the oldest waiting message; False where none waits. What is in flight stays, it has an id."""
        if not self._waiting:
            return False
        self.size -= self._waiting.popleft().message.size
        return True

    def take(self, room: int) -> list[Payload]:
        """Headers and payloads to send now, in order: about `room` bytes, and at least one message if any may go."""
        out: list[Payload] = []
        while room > 0 and (step := self._next()) is not None:
            delivery, packet_id, dup = step
            message, qos, retain = delivery
            size = len(message.payload)
            out.append(publish_header(message.topic_field, size, qos, retain, dup, packet_id))
            if size:
                out.append(message.payload)
            room -= size + len(message.topic_field)
            self.taken += 1
        if self.holds and not self.full:
            self.let_go()
        return out

    def _next(self) -> tuple[Delivery, int, bool] | None:
        while self._again:
            packet_id = self._again.popleft()
            if packet_id in self._inflight:
                return self._inflight[packet_id], packet_id, True
        if self._passing:
            delivery = self._passing.popleft()
            self.size -= delivery.message.size
            return delivery, 0, False
        if self._waiting and len(self._inflight) < self._window:
            delivery = self._waiting.popleft()
            packet_id = self._new_id()
            self._inflight[packet_id] = delivery
            return delivery, packet_id, False
        return None

    def _new_id(self) -> int:
        while True:
            self._last_id = self._last_id % MAX_PACKET_ID + 1
            if self._last_id not in self._inflight:
                return self._last_id

    def acknowledge(self, packet_id: int) -> None:
        """The client has message `packet_id`; an unknown id is a repetition and means nothing."""
        delivery = self._inflight.pop(packet_id, None)
        if delivery is None:
            return
        self.acknowledged += 1
        self.size -= delivery.message.size
        if self._waiting and self.link is not None:
            self.link.wake()
        if self.holds and not self.full:
            self.let_go()

    def attach(self, link: Link) -> None:
        """The client is here: what was in flight goes out again, marked DUP, before anything new."""
        self.link = link
        self._again = deque(self._inflight)
        link.wake()

    def detach(self, now: float) -> None:
        """The client is gone, and with it its QoS 0 messages; nobody waits for it any more."""
        self.link = None
        self.away_since = now
        self.size -= sum(delivery.message.size for delivery in self._passing)
        self._passing.clear()
        self.let_go()

    def let_go(self) -> None:
        """End the holds that this session caused."""
        holds, self.holds = self.holds, []
        for hold in holds:
            hold.let_go()
