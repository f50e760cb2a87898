"""Settings, limits and access rules of the embedded broker, and the error both brokers raise."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

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


def anywhere(client_id: str, topic: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Access:
    """Who may connect, publish and subscribe. Called on the event loop: each must answer within microseconds.

    `authenticate` is asked before any session is touched, so a wrong password never disturbs its victim.
    A refused publication is dropped and counted: MQTT 5 is told 0x87, but MQTT 3.1.1 has no negative PUBACK, so it is
    acknowledged. A refused subscription is answered 0x87, or 0x80 on 3.1.1. `may_read` is asked for each topic that a
    granted subscription matches: a wildcard brings only what its client may read.
    """

    authenticate: Callable[[str, str | None, bytes | None], bool] = _anyone
    may_publish: Callable[[str, str], bool] = anywhere
    may_subscribe: Callable[[str, str], bool] = anywhere
    may_read: Callable[[str, str], bool] = anywhere


@dataclass(frozen=True, slots=True)
class AccessFiles:
    """Who may do what, from Mosquitto's files; asked beside `Access`, and both must agree.

    `anonymous` lets in who gives no user name. `username_is_client_id` refuses a client whose id is not its user name,
    and names a nameless client so.
    """

    users: Path | None = None  # of mosquitto_passwd; None: no passwords
    acl: Path | None = None  # as acl_file of mosquitto.conf; None: everybody may everything
    anonymous: bool = False
    username_is_client_id: bool = False


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The certificate of a listener, and those that it asks of its clients. Files are PEM."""

    certificate: Path
    key: Path
    ca: Path | None = None  # who signs clients' certificates
    require_certificate: bool = False
    crl: Path | None = None  # of `ca`; needs the extra `secure`
    identity_as_username: bool = False  # a client's user name is the common name of its certificate

    def __post_init__(self) -> None:
        if self.ca is None and (self.require_certificate or self.crl is not None or self.identity_as_username):
            raise BrokerError("clients' certificates can only be checked with a ca")


@dataclass(frozen=True, slots=True)
class Listener:
    """One more address to listen on."""

    host: str = "127.0.0.1"
    port: int = 0
    tls: TlsSettings | None = None
    websocket: bool = False


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """Where the embedded broker listens and what bounds it. Sizes are bytes, times are seconds."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: any free port
    tls: TlsSettings | None = None
    websocket: bool = False  # MQTT over WebSocket; needs the extra `web`
    listeners: tuple[Listener, ...] = ()  # further ones
    access: Access = field(default_factory=Access)
    access_files: AccessFiles | None = None
    persistence: Path | None = None  # a SQLite file for sessions and retained messages; None keeps them in memory
    persistence_fsync: bool = False  # survive the loss of power too, not only of the process

    max_packet_size: int = MIB  # a whole packet with its header; a model travels in 64 KiB chunks
    max_connections: int = 1024
    max_sessions: int = 4096  # connected and waiting; the one longest away makes room
    session_expiry: float = 14 * 86_400.0  # after which a session nobody came back to is forgotten, whatever it asked
    max_subscriptions: int = 256  # per client
    max_inflight_messages: int = 32  # QoS 1 and 2 messages sent to one client and not acknowledged
    max_queued_messages: int = 4096  # per client, connected or away
    max_queued_bytes: int = 16 * MIB  # per client, in flight and waiting
    max_offline_bytes: int = 512 * MIB  # of all clients that are away, together
    max_withheld_messages: int = 64  # PUBACKs and PUBRECs withheld from one publisher before its socket is not read
    max_withheld_bytes: int = 4 * MIB
    max_retained_messages: int = 10_000
    max_retained_bytes: int = 64 * MIB
    receive_maximum: int = 1024  # QoS 1 and 2 publications that one client may have unfinished
    topic_alias_maximum: int = 64  # of one connection, each way
    max_qos: int = 2
    retain_available: bool = True
    max_keepalive: int = 60  # told to MQTT 5 clients that ask for more; 0: no limit
    explain_refusals: bool = True  # False: MQTT 5 clients learn that they may not, 0x80, and not why
    validate_utf8_payloads: bool = False  # refuse what MQTT 5 declares to be text and is not
    response_prefix: str = ""  # Response Information for MQTT 5 clients that ask: the prefix, a slash, their client id
    connect_deadline: float = 10.0  # from the TCP connection to a whole CONNECT that is let in
    drain_deadline: float = 30.0  # a full subscriber that takes nothing for so long is disconnected
    sys_interval: float = 10.0  # between two publications of $SYS; 0 turns it off

    def __post_init__(self) -> None:
        if not 1 <= self.max_inflight_messages <= 0x7FFF:  # packet ids are 16 bits
            raise BrokerError("max_inflight_messages must be from 1 to 32,767")
        if not 64 <= self.max_packet_size <= 268_435_460:  # four bytes of length, and their header
            raise BrokerError("max_packet_size must be from 64 bytes to 256 MiB")
        if not 1 <= self.receive_maximum <= 0xFFFF:
            raise BrokerError("receive_maximum must be from 1 to 65,535")
        if not 0 <= self.topic_alias_maximum <= 0xFFFF or not 0 <= self.max_keepalive <= 0xFFFF:
            raise BrokerError("topic_alias_maximum and max_keepalive must be from 0 to 65,535")
        if self.max_qos not in (0, 1, 2):
            raise BrokerError("max_qos must be 0, 1 or 2")

    @property
    def all_listeners(self) -> tuple[Listener, ...]:
        """The first is the one that `host`, `port`, `tls` and `websocket` describe."""
        return (Listener(self.host, self.port, self.tls, self.websocket), *self.listeners)
