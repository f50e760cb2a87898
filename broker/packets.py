"""MQTT 3.1.1 packets as values (OASIS standard, chapters 2 and 3); `codec` has their bytes."""

from __future__ import annotations

from dataclasses import dataclass

Payload = bytes | memoryview  # large payloads stay where the socket wrote them

PROTOCOL_LEVEL = 4  # MQTT 3.1.1

CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 8, 9, 10, 11
PINGREQ, PINGRESP, DISCONNECT = 12, 13, 14

ACCEPTED, BAD_LEVEL, BAD_CLIENT_ID, UNAVAILABLE, BAD_LOGIN, NOT_AUTHORIZED = range(6)  # CONNACK return codes
SUBSCRIPTION_REFUSED = 0x80


class ProtocolError(Exception):
    """The peer's bytes are not MQTT 3.1.1, or not what this broker serves: close the connection."""


class PacketTooLargeError(ProtocolError):
    """A packet's announced size is over the limit."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for a client that goes without DISCONNECT."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Connect:
    """CONNECT; where `level` is not 4, all but `level` is unknown. `keepalive` is seconds, 0 for none."""

    client_id: str
    clean_session: bool = True
    keepalive: int = 0
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    level: int = PROTOCOL_LEVEL


@dataclass(frozen=True, slots=True)
class Connack:
    return_code: int = ACCEPTED
    session_present: bool = False


@dataclass(frozen=True, slots=True)
class Publish:
    """PUBLISH; `packet_id` is 0 where `qos` is 0."""

    topic: str
    payload: Payload
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0


@dataclass(frozen=True, slots=True)
class Puback:
    packet_id: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """SUBSCRIBE; `requests` are pairs of a topic filter and the greatest QoS wanted."""

    packet_id: int
    requests: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Suback:
    """SUBACK; one granted QoS, or 0x80, per request."""

    packet_id: int
    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unsuback:
    packet_id: int


@dataclass(frozen=True, slots=True)
class Pingreq:
    pass


@dataclass(frozen=True, slots=True)
class Pingresp:
    pass


@dataclass(frozen=True, slots=True)
class Disconnect:
    pass


Packet = (
    Connect | Connack | Publish | Puback | Subscribe | Suback | Unsubscribe | Unsuback | Pingreq | Pingresp | Disconnect
)
