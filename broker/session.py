"""One client's state: what it subscribed to, what it is owed, and whom it holds up while it is full; no I/O.

A full session refuses QoS 0, but takes QoS 1 and 2 while its client is connected: the publisher's PUBACK or PUBREC is
then withheld until there is room (a `Hold`), so a session overshoots its bound by no more than what publishers had in
flight. While the client is away nobody waits for it: its oldest waiting messages go, and are counted.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, Protocol

from broker.backpressure import Hold
from broker.journal import FORGETFUL, Journal
from broker.message import Delivery, Outlet
from broker.outgoing import MAX_PACKET_ID, Outgoing
from broker.packets import Payload
from broker.settings import EmbeddedSettings
from broker.stats import DropReason, EndReason
from broker.subscriptions import Subscription


class Identity(NamedTuple):
    """Who a client is: the id that it chose, and the user that it proved to be, if any."""

    client_id: str
    username: str | None = None


class Link(Protocol):
    """A session's connection."""

    def wake(self) -> None:
        """There is something to take."""

    def close(self, reason: EndReason) -> None:
        """End the connection now."""


class Session:
    """Outlives its client's connection by `expiry` seconds."""

    def __init__(
        self,
        identity: Identity,
        expiry: float,
        settings: EmbeddedSettings,
        *,
        journal: Journal = FORGETFUL,
        dropped: Counter[DropReason] | None = None,
    ) -> None:
        self.identity = identity
        self.client_id = identity.client_id
        self.expiry = expiry
        self.journal = journal
        self.subscriptions: dict[str, Subscription] = {}
        self.incoming: set[int] = set()  # packet ids of QoS 2 publications that wait for their PUBREL
        self.link: Link | None = None
        self.away_since = 0.0  # seconds of the router's clock; meaningful without a link
        self.acknowledged = 0  # PUBACKs, PUBRECs and PUBCOMPs ever, a sign of life
        self.holds: list[Hold] = []
        self.queue = Outgoing(
            identity.client_id, settings.max_inflight_messages, journal, Counter() if dropped is None else dropped
        )
        self._max_messages = settings.max_queued_messages
        self._max_bytes = settings.max_queued_bytes

    @property
    def full(self) -> bool:
        return self.queue.size > self._max_bytes or self.queue.messages > self._max_messages

    def offer(self, delivery: Delivery, *, force: bool = False) -> bool:
        """Queue a message for the connected client; False where it is QoS 0 and, without `force`, has no room."""
        if not delivery.qos and not force and self.full:
            return False
        self.queue.add(delivery)
        if self.link is not None:
            self.link.wake()
        return True

    def store(self, delivery: Delivery) -> int:
        """Queue a QoS 1 or 2 message for the absent client; how many of the oldest had to go for it."""
        self.queue.add(delivery)
        dropped = 0
        while self.full and self.queue.drop_oldest():
            dropped += 1
        return dropped

    def take(self, room: int, now: float) -> list[Payload]:
        """What to send now, about `room` bytes of it."""
        out = self.queue.take(room, now)
        self._let_go_if_room()
        return out

    # --- answers ----------------------------------------------------------------------------------------------

    def acknowledge(self, packet_id: int) -> None:
        """PUBACK: the client has the message."""
        if self.queue.acknowledge(packet_id):
            self._answered()

    def receive(self, packet_id: int, *, refused: bool) -> bool:
        """PUBREC: the client has the QoS 2 message, or refuses it; False where no such message is in flight."""
        known = self.queue.receive(packet_id, refused=refused)
        if known:
            self._answered()
        return known

    def complete(self, packet_id: int) -> None:
        """PUBCOMP: the packet id is free again."""
        if self.queue.complete(packet_id):
            self._answered()

    def _answered(self) -> None:
        self.acknowledged += 1
        if self.link is not None and self.queue.ready:
            self.link.wake()
        self._let_go_if_room()

    # --- the connection ---------------------------------------------------------------------------------------

    def attach(self, link: Link, outlet: Outlet | None = None, receive_maximum: int = MAX_PACKET_ID) -> None:
        """The client is here."""
        self.link = link
        self.queue.connect(outlet or Outlet(), receive_maximum)
        link.wake()

    def detach(self, now: float) -> None:
        """The client is gone, and nobody waits for it any more."""
        self.link = None
        self.away_since = now
        self.queue.disconnect()
        self._let_go()

    def _let_go_if_room(self) -> None:
        if self.holds and not self.full:
            self._let_go()

    def _let_go(self) -> None:
        """End the holds that this session caused."""
        holds, self.holds = self.holds, []
        for hold in holds:
            hold.let_go()
