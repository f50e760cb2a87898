"""Settings, limits and access rules of the embedded broker, and the error both brokers raise."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

from megace2_iot.problems import Problem

KIB = 1024
MIB = 1024 * KIB
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class BrokerError(Problem):
    """A broker could not start, or ended; the message says what to do about it."""


def port_in_use(host: str, port: int, error: OSError) -> BrokerError:
    """The error for `error`, which a bind to `host` and `port` raised."""
    if error.errno == errno.EADDRINUSE:
        return BrokerError(f"port {port} on {host} is in use: stop what listens there or choose another with --port")
    return BrokerError(f"cannot listen on {host}:{port}: {error.strerror or error}")


def _anyone(client_id: str, username: str | None, password: bytes | None) -> bool:
    return True


def _anywhere(client_id: str, topic: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect, publish and subscribe. Called on the event loop: each must answer within microseconds.

    `authenticate` is asked before any session is touched, so a wrong password never disturbs its victim.
    A refused publish is acknowledged, dropped and counted, since MQTT 3.1.1 has no negative PUBACK; a refused
    subscription is answered 0x80.
    """

    authenticate: Callable[[str, str | None, bytes | None], bool] = _anyone
    may_publish: Callable[[str, str], bool] = _anywhere
    may_subscribe: Callable[[str, str], bool] = _anywhere


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """Where the embedded broker listens and what bounds it. Sizes are bytes, times are seconds."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: any free port
    max_packet_size: int = MIB  # a whole packet with its header; a model travels in 64 KiB chunks
    max_connections: int = 1024
    max_sessions: int = 4096  # connected and waiting; the one longest away makes room
    session_expiry: float = 14 * 86_400.0  # after which a session nobody came back to is forgotten
    max_subscriptions: int = 256  # per client
    max_inflight_messages: int = 32  # QoS 1 messages sent to one client and not acknowledged
    max_queued_messages: int = 4096  # per client, connected or away
    max_queued_bytes: int = 16 * MIB  # per client, in flight and waiting
    max_offline_bytes: int = 512 * MIB  # of all clients that are away, together
    max_withheld_messages: int = 64  # PUBACKs withheld from one publisher before its socket is not read
    max_withheld_bytes: int = 4 * MIB
    max_retained_messages: int = 10_000
    max_retained_bytes: int = 64 * MIB
    connect_deadline: float = 10.0  # from the TCP connection to a whole CONNECT
    drain_deadline: float = 30.0  # a full subscriber that takes nothing for so long is disconnected
    sys_interval: float = 10.0  # between two publications of $SYS; 0 turns it off
    access: Access = field(default_factory=Access)

    def __post_init__(self) -> None:
        if not 1 <= self.max_inflight_messages <= 0x7FFF:  # packet ids are 16 bits
            raise BrokerError("max_inflight_messages must be from 1 to 32,767")
        if not 64 <= self.max_packet_size <= 268_435_460:  # four bytes of length, and their header
            raise BrokerError("max_packet_size must be from 64 bytes to 256 MiB")
