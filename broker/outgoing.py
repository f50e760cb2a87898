"""Messages on their way to one client: waiting, in flight, sent again after a reconnect; no I/O.

A message waits here as a reference, so that one payload serves every subscriber, and is turned into bytes only when
the client's connection asks for more (`take`). QoS 1 and 2 messages leave in order while fewer than the window are
unfinished. QoS 0 messages do not wait behind that window.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator

from broker.codec import encode_ack
from broker.journal import Journal
from broker.message import NEVER, Delivery, Outlet
from broker.packets import Payload
from broker.properties import PUBREL
from broker.stats import DropReason

MAX_PACKET_ID = 0xFFFF


class Outgoing:
    """A session's queue. Every change of what must outlive a connection is told to the journal."""

    def __init__(self, client_id: str, window: int, journal: Journal, dropped: Counter[DropReason]) -> None:
        self.size = 0  # bytes in flight and waiting
        self.taken = 0  # messages ever given to a connection
        self._client_id = client_id
        self._journal = journal
        self._dropped = dropped
        self._inflight: dict[int, Delivery] = {}
        self._again: deque[int] = deque()  # in flight when the client came back
        self._waiting: deque[Delivery] = deque()  # QoS 1 and 2
        self._passing: deque[Delivery] = deque()  # QoS 0
        self._expires_first = NEVER  # when the first of what waits may expire; nothing waits beyond it unseen
        self._last_id = 0
        self._open = 0  # of what is in flight, how many were sent over this connection
        self._greatest_window = self._window = window  # the client may want less
        self._outlet = Outlet()

    def __iter__(self) -> Iterator[Delivery]:
        """All that is kept while the client is away, the oldest first."""
        yield from self._inflight.values()
        yield from self._waiting

    @property
    def messages(self) -> int:
        return len(self._inflight) + len(self._waiting) + len(self._passing)

    @property
    def ready(self) -> bool:
        """Whether `take` would return anything."""
        return bool(self._passing or ((self._again or self._waiting) and self._open < self._window))

    # --- in and away ------------------------------------------------------------------------------------------

    def add(self, delivery: Delivery) -> None:
        """Last in its queue."""
        if delivery.qos:
            self._wait(delivery)
            self._journal.queued(self._client_id, delivery)
        else:
            self._passing.append(delivery)
        self.size += delivery.message.size

    def restore(self, delivery: Delivery) -> None:
        """Put back what was kept over a restart, in the old order."""
        if delivery.packet_id:
            self._inflight[delivery.packet_id] = delivery
            self._last_id = delivery.packet_id
        else:
            self._wait(delivery)
        self.size += 0 if delivery.released else delivery.message.size

    def _wait(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)
        self._expires_first = min(self._expires_first, delivery.message.expires_at)

    def drop_oldest(self) -> bool:
        """Drop the oldest waiting message; False where none waits. What is in flight stays, it has an id."""
        if not self._waiting:
            return False
        self._let_go_of(self._waiting.popleft())
        return True

    def drop_expired(self, now: float) -> None:
        """Drop what waited longer than its publisher wanted."""
        if now < self._expires_first:
            return
        expired = [delivery for delivery in self._waiting if delivery.message.expires_at <= now]
        self._remove(expired)
        self._dropped["expired"] += len(expired)
        self._expires_first = min((delivery.message.expires_at for delivery in self._waiting), default=NEVER)

    def surrender(self, wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Give away what came by a shared subscription, may go to another member, and is `wanted`.

        What was begun with QoS 2 stays: only this client knows how far it came (MQTT-4.8.2-4).
        """
        given = [one for one in self if one.group and not (one.packet_id and one.qos == 2) and wanted(one)]
        self._remove(given)
        return given

    def _remove(self, gone: list[Delivery]) -> None:
        if not gone:
            return
        marked = set(map(id, gone))
        self._waiting = deque(delivery for delivery in self._waiting if id(delivery) not in marked)
        for delivery in gone:
            self._inflight.pop(delivery.packet_id, None)
            self._let_go_of(delivery)

    # --- out --------------------------------------------------------------------------------------------------

    def take(self, room: int, now: float) -> list[Payload]:
        """Headers and payloads to send now, in order: about `room` bytes, and at least one message if any may go."""
        out: list[Payload] = []
        while room > 0 and (step := self._next(now)) is not None:
            delivery, dup = step
            if delivery.released:
                out.append(encode_ack(PUBREL, delivery.packet_id))
                continue
            message = delivery.message
            header = self._outlet.header(delivery, dup, now)
            if header is None:
                self._finish(delivery)
                self._dropped["client_limit"] += 1
                continue
            out.append(header)
            if message.payload:
                out.append(message.payload)
            room -= len(message.payload) + len(header)
            self.taken += 1
        return out

    def _next(self, now: float) -> tuple[Delivery, bool] | None:
        while self._again and self._open < self._window:
            delivery = self._inflight.get(self._again.popleft())
            if delivery is not None:
                self._open += 1
                return delivery, True
        while self._passing:
            delivery = self._passing.popleft()
            self.size -= delivery.message.size
            if delivery.message.expires_at > now:
                return delivery, False
            self._dropped["expired"] += 1
        while self._waiting and self._open < self._window:
            delivery = self._waiting.popleft()
            if delivery.message.expires_at > now:
                self._begin(delivery)
                return delivery, False
            self._let_go_of(delivery)
            self._dropped["expired"] += 1
        return None

    def _begin(self, delivery: Delivery) -> None:
        while True:
            self._last_id = self._last_id % MAX_PACKET_ID + 1
            if self._last_id not in self._inflight:
                break
        delivery.packet_id = self._last_id
        self._inflight[self._last_id] = delivery
        self._open += 1
        self._journal.sent(delivery)

    # --- answers ----------------------------------------------------------------------------------------------

    def acknowledge(self, packet_id: int) -> bool:
        """PUBACK; False for an id that waits for none, which is a repetition and means nothing."""
        delivery = self._inflight.get(packet_id)
        if delivery is None or delivery.qos != 1:
            return False
        self._finish(delivery)
        return True

    def receive(self, packet_id: int, *, refused: bool) -> bool:
        """PUBREC: the client has the message, or refuses it; False where no such message is in flight."""
        delivery = self._inflight.get(packet_id)
        if delivery is None or delivery.qos != 2:
            return False
        if refused:
            self._finish(delivery)
        elif not delivery.released:
            delivery.released = True
            self.size -= delivery.message.size
            self._journal.released(delivery)
        return True

    def complete(self, packet_id: int) -> bool:
        """PUBCOMP: the packet id is free again; False where it was not in use."""
        delivery = self._inflight.get(packet_id)
        if delivery is None or not delivery.released:
            return False
        self._finish(delivery)
        return True

    def _finish(self, delivery: Delivery) -> None:
        """The delivery is over; one of QoS 0 left its queue already."""
        if delivery.packet_id:
            del self._inflight[delivery.packet_id]
            self._open = max(0, self._open - 1)  # a client may acknowledge what was not yet sent again
            self._let_go_of(delivery)

    def _let_go_of(self, delivery: Delivery) -> None:
        if not delivery.released:
            self.size -= delivery.message.size
        self._journal.done(delivery)

    # --- the connection ---------------------------------------------------------------------------------------

    def connect(self, outlet: Outlet, window: int) -> None:
        """What was in flight goes out again, marked DUP, before anything new."""
        self._outlet = outlet
        self._window = min(self._greatest_window, window)
        self._open = 0
        self._again = deque(self._inflight)

    def disconnect(self) -> None:
        """QoS 0 messages do not wait for a return."""
        self.size -= sum(delivery.message.size for delivery in self._passing)
        self._passing.clear()
