"""MQTT packets as values, of versions 3.1.1 and 5; `codec` has their bytes.

What only MQTT 5 has (`properties`, reason codes) has a default here, and is not written to a connection of 3.1.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from broker.properties import NO_PROPERTIES, Properties
from broker.reasons import ACCEPTED, Reason

Payload = bytes | memoryview  # large payloads stay where the socket wrote them

V311, V5 = 4, 5  # protocol levels


class ProtocolError(Exception):
    """The peer's bytes are not MQTT, or not what they may be now: close the connection, with `reason` on MQTT 5."""

    def __init__(self, message: str, reason: Reason = Reason.MALFORMED_PACKET) -> None:
        super().__init__(message)
        self.reason = reason


class PacketTooLargeError(ProtocolError):
    """A packet's announced size is over the limit."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Reason.PACKET_TOO_LARGE)


class BadConnectError(ProtocolError):
    """A CONNECT of MQTT 5 that is wrong: it may be answered by a CONNACK with `reason`."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for a client that goes without DISCONNECT."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Connect:
    """CONNECT; where `level` is neither 4 nor 5, all but `level` is unknown. `keepalive` is seconds, 0 for none.

    `clean_session` is what MQTT 5 calls Clean Start: forget what was. That a session ends with its connection is
    `session_expiry` there; here the one flag says both.
    """

    client_id: str
    clean_session: bool = True
    keepalive: int = 0
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    level: int = V311
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Connack:
    """CONNACK; `return_code` is a reason code on MQTT 5."""

    return_code: int = ACCEPTED
    session_present: bool = False
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Publish:
    """PUBLISH; `packet_id` is 0 where `qos` is 0."""

    topic: str
    payload: Payload
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class _Ack:
    packet_id: int
    reason: int = Reason.SUCCESS
    properties: Properties = NO_PROPERTIES


class Puback(_Ack):
    """QoS 1: the message is taken."""


class Pubrec(_Ack):
    """QoS 2, first answer: the message is taken."""


class Pubrel(_Ack):
    """QoS 2, second step of the sender: the packet id is given back."""


class Pubcomp(_Ack):
    """QoS 2, last answer."""


class Request(NamedTuple):
    """One topic filter of a SUBSCRIBE and its options. All but `qos` is MQTT 5's."""

    topic_filter: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0  # retained messages: 0 always, 1 where the subscription is new, 2 never


@dataclass(frozen=True, slots=True)
class Subscribe:
    """SUBSCRIBE; a request may be given as a plain pair of topic filter and QoS."""

    packet_id: int
    requests: tuple[Request | tuple[str, int], ...]
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Suback:
    """SUBACK; one granted QoS, or a failure, per request."""

    packet_id: int
    codes: tuple[int, ...]
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    packet_id: int
    filters: tuple[str, ...]
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Unsuback:
    """UNSUBACK; MQTT 3.1.1 has no `codes`."""

    packet_id: int
    codes: tuple[int, ...] = ()
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Pingreq:
    pass


@dataclass(frozen=True, slots=True)
class Pingresp:
    pass


@dataclass(frozen=True, slots=True)
class Disconnect:
    """DISCONNECT; MQTT 5 only where the broker sends it."""

    reason: int = Reason.SUCCESS
    properties: Properties = NO_PROPERTIES


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH, MQTT 5 only."""

    reason: int = Reason.SUCCESS
    properties: Properties = NO_PROPERTIES


Packet = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)
