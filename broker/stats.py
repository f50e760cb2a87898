"""What the embedded broker counts, and the part of it that it publishes under $SYS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

DropReason = Literal[
    "slow_subscriber",  # QoS 0, or retained messages asked for again, of a client that does not keep up
    "away",  # the oldest QoS 1 or 2 of a client that stayed away too long
    "denied",  # the publisher may not publish to the topic
    "expired",  # waited longer than its publisher wanted
    "client_limit",  # larger than the packets that the subscriber takes
    "retained_full",  # delivered, but not retained
]
EndReason = Literal[
    "disconnect",  # the client said goodbye
    "lost",  # the network did not
    "takeover",  # the same client id connected again
    "refused",  # CONNECT was answered with a return code other than 0
    "revoked",  # its certificate or its user is not valid any more
    "protocol",  # not MQTT, or not what it allows
    "oversize",  # a packet over max_packet_size
    "keepalive",  # silent for 1.5 times its keepalive
    "connect_deadline",  # no CONNECT in time
    "stuck",  # full, and took nothing for drain_deadline seconds: it held up its publishers
    "not_reading",  # let the answers to its own packets pile up
    "crowded",  # too many connections
    "shutdown",  # the broker stops
]


@dataclass(slots=True)
class Counters:
    """Monotone counts since the start. A message is a PUBLISH; a packet is any packet."""

    packets_in: int = 0
    packets_out: int = 0
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter)
    ended: Counter[EndReason] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class BrokerStats:
    """A snapshot: the counters, and what is held now. `uptime` is seconds."""

    uptime: float
    connections: int
    sessions: int
    subscriptions: int
    retained: int
    retained_bytes: int
    queued: int
    queued_bytes: int
    packets_in: int
    packets_out: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    dropped: Mapping[DropReason, int]
    ended: Mapping[EndReason, int]


def sys_topics(stats: BrokerStats) -> dict[str, str]:
    """Topic and payload of each $SYS message, under Mosquitto's names and in its formats."""
    return {
        "$SYS/broker/version": f"megace2 embedded broker {_version()}",
        "$SYS/broker/uptime": f"{stats.uptime:.0f} seconds",
        "$SYS/broker/clients/connected": str(stats.connections),
        "$SYS/broker/clients/total": str(stats.sessions),
        "$SYS/broker/subscriptions/count": str(stats.subscriptions),
        "$SYS/broker/retained messages/count": str(stats.retained),
        "$SYS/broker/messages/received": str(stats.packets_in),
        "$SYS/broker/messages/sent": str(stats.packets_out),
        "$SYS/broker/publish/messages/received": str(stats.messages_in),
        "$SYS/broker/publish/messages/sent": str(stats.messages_out),
        "$SYS/broker/publish/messages/dropped": str(sum(stats.dropped.values())),
        "$SYS/broker/bytes/received": str(stats.bytes_in),
        "$SYS/broker/bytes/sent": str(stats.bytes_out),
    }


def _version() -> str:
    try:
        return version("megace2-iot")
    except PackageNotFoundError:
        return "(not installed)"
