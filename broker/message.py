"""A publication on its way, and how one connection writes it: version, aliases, expiry, largest packet."""

from __future__ import annotations

from collections import OrderedDict
from math import ceil
from typing import Any

from broker.codec import publish_header
from broker.fields import U16, U32, encode_field, encode_length
from broker.packets import V5, V311, Payload, Publish, Will
from broker.properties import forwarded, with_length
from broker.subscriptions import Group

MESSAGE_OVERHEAD = 128  # bytes that a waiting message is taken to cost beside its topic and payload
NEVER = float("inf")


class Message:
    """One publication, shared by all who receive it. `size` is its cost in bytes.

    `properties` are the encoded ones that every receiver gets; `expires_at` is of the router's clock. `row` and `uses`
    belong to whoever keeps it on disk.
    """

    __slots__ = ("expires_at", "payload", "properties", "row", "size", "topic", "topic_field", "uses")

    def __init__(self, topic: str, payload: Payload, properties: bytes = b"", expires_at: float = NEVER) -> None:
        self.topic = topic
        self.topic_field = encode_field(topic)
        self.payload = payload
        self.properties = properties
        self.expires_at = expires_at
        self.size = len(payload) + len(self.topic_field) + len(properties) + MESSAGE_OVERHEAD
        self.row = self.uses = 0

    @classmethod
    def of(cls, topic: str, packet: Publish | Will, now: float) -> Message:
        """The message of a will, or of a PUBLISH whose topic alias, if it had one, stands for `topic`."""
        expiry = packet.properties.message_expiry
        expires_at = NEVER if expiry is None else now + expiry
        return cls(topic, packet.payload, forwarded(packet.properties), expires_at)


class Delivery:
    """A message owed to one subscriber. `packet_id` is 0 until it is in flight; `row` belongs to the journal."""

    __slots__ = ("group", "identifiers", "message", "packet_id", "qos", "released", "retain", "row")

    def __init__(
        self,
        message: Message,
        qos: int,
        retain: bool = False,
        identifiers: tuple[int, ...] = (),
        group: Group[Any] | None = None,
    ) -> None:
        self.message = message
        self.qos = qos
        self.retain = retain
        self.identifiers = identifiers
        self.group = group  # of the shared subscription that it came by
        self.packet_id = 0
        self.released = False  # QoS 2: the receiver has it, and only its PUBCOMP is to come
        self.row = 0


class Outlet:
    """How PUBLISH packets are written to one connection."""

    def __init__(self, version: int = V311, max_packet_size: int | None = None, max_aliases: int = 0) -> None:
        self._version = version
        self._max_packet_size = max_packet_size
        self._max_aliases = max_aliases
        self._aliases: OrderedDict[str, int] = OrderedDict()  # the least lately used first

    def header(self, delivery: Delivery, dup: bool, now: float) -> bytes | None:
        """All before the payload; None where the packet would be larger than the client takes."""
        message = delivery.message
        topic_field, section = message.topic_field, b""
        if self._version == V5:
            alias = self._aliases.get(message.topic)
            section = self._section(delivery, now, alias or self._next_alias())
            if alias:
                topic_field = b"\0\0"
        size = len(message.payload)
        packet_id = delivery.packet_id
        header = publish_header(topic_field, size, delivery.qos, delivery.retain, dup, packet_id, section)
        if self._max_packet_size is not None and len(header) + size > self._max_packet_size:
            return None
        if self._max_aliases:
            self._remember(message.topic)
        return header

    def _section(self, delivery: Delivery, now: float, alias: int) -> bytes:
        message = delivery.message
        if not (message.properties or delivery.identifiers or alias) and message.expires_at == NEVER:
            return b"\0"
        parts = [message.properties]
        if message.expires_at != NEVER:
            parts.append(b"\x02" + U32.pack(max(0, ceil(message.expires_at - now))))
        parts += [b"\x0b" + encode_length(identifier) for identifier in delivery.identifiers]
        if alias:
            parts.append(b"\x23" + U16.pack(alias))
        return with_length(b"".join(parts))

    def _next_alias(self) -> int:
        """The alias that a topic without one would get: a new one, or that of the topic least lately sent."""
        if len(self._aliases) < self._max_aliases:
            return len(self._aliases) + 1
        return next(iter(self._aliases.values()), 0)

    def _remember(self, topic: str) -> None:
        if topic in self._aliases:
            self._aliases.move_to_end(topic)
            return
        alias = self._next_alias()
        if len(self._aliases) >= self._max_aliases:
            self._aliases.popitem(last=False)
        self._aliases[topic] = alias
