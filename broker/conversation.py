"""What is said with one client, packet by packet, from CONNECT to DISCONNECT; no I/O.

A conversation has a session from the moment that its client is let in. Refusals before that touch nobody's session.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from typing import Protocol

from broker import intake
from broker.admission import expiry_of, granted_expiry, judge, keepalive_of, welcome
from broker.codec import encode, encode_ack
from broker.message import Outlet
from broker.outgoing import MAX_PACKET_ID
from broker.packets import (
    V5,
    BadConnectError,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    ProtocolError,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Request,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)
from broker.properties import NO_PROPERTIES, PUBREL, Properties
from broker.reasons import FAILURE, Reason, return_code
from broker.registry import Arrival
from broker.router import Router
from broker.session import Identity, Link, Session
from broker.stats import EndReason
from broker.topics import SHARE

SMALL = 128  # bytes; a client that takes no larger packets gets no reason strings

_log = logging.getLogger("megace2.broker")


class Line(intake.Line, Link, Protocol):
    """The connection: `answer` in order, `close` after what was answered."""


class Conversation:
    """One client's side of the protocol. Methods raise ProtocolError, upon which the connection is to be closed."""

    def __init__(self, router: Router, line: Line, certified: str | None = None) -> None:
        self.session: Session | None = None
        self.version = 0  # until there is a CONNECT
        self.keepalive = 0
        self.certified = certified  # the user that the client's certificate names
        self._router = router
        self._settings = router.settings
        self._line = line
        self._connect: Connect | None = None
        self._refusal = Reason.SUCCESS
        self._identity = Identity("")
        self._will: Will | None = None
        self._max_packet_size: int | None = None
        self._problem_info = True

    # --- CONNECT ----------------------------------------------------------------------------------------------

    def greet(self, connect: Connect) -> bool | Callable[[], bool]:
        """Whether the client is who it says, or a slow function that tells; `admit` is to be called with the answer."""
        self._connect, self.version = connect, connect.level
        properties = connect.properties
        self._max_packet_size = properties.maximum_packet_size
        small = self._max_packet_size is not None and self._max_packet_size < SMALL
        self._problem_info = properties.request_problem_info != 0 and not small
        if (reason := judge(connect, self._settings)) != Reason.SUCCESS:
            self.refuse(reason)
            return False
        username = self.certified if self.certified is not None else connect.username
        identity = self._router.guard.names(connect.client_id, username)
        if identity is None:
            self.refuse(Reason.NOT_AUTHORIZED)
            return False
        self._identity = identity
        return self._router.guard.check(identity, connect.password, certified=self.certified is not None)

    def admit(self, known: bool, now: float) -> bool:
        """Open the client's session where it is `known` and nothing else stands against it."""
        connect, identity = self._connect, self._identity
        if connect is None or self._refusal:
            return False
        if not identity.client_id:
            identity = Identity(f"auto-{secrets.token_hex(8)}", identity.username)
        reason = self._router.judge(identity, connect.will) if known else Reason.BAD_LOGIN
        if reason != Reason.SUCCESS:
            self.refuse(reason)
            return False
        self._will, self.keepalive = connect.will, keepalive_of(connect, self._settings)
        properties = connect.properties
        aliases = min(properties.topic_alias_maximum or 0, self._settings.topic_alias_maximum)
        outlet = Outlet(connect.level, self._max_packet_size, aliases)
        window = properties.receive_maximum or MAX_PACKET_ID
        arrival = Arrival(
            identity, connect.clean_session, expiry_of(connect, self._settings), self._line, outlet, window
        )
        self.session, present = self._router.registry.open(arrival, now)
        self._intake = intake.Intake(self._router, self._line, self.version, self._problem_info)
        told = welcome(connect, identity.client_id, self._settings)
        self._say(Connack(session_present=present, properties=told))
        _log.debug("%s connected, %s", identity.client_id, "session resumed" if present else "new session")
        return True

    @property
    def name(self) -> str:
        """The client, for a log."""
        return repr(self.session.client_id) if self.session is not None else "an unknown client"

    @property
    def refusal(self) -> str:
        """What the client was told, for a log."""
        client_id = self._connect.client_id if self._connect else ""
        return f"{client_id!r} was answered CONNACK {self._refusal:#04x} ({self._refusal.text})"

    @property
    def is_refused_for_its_version(self) -> bool:
        return self._refusal == Reason.UNSUPPORTED_PROTOCOL

    def refuse_malformed(self, error: BadConnectError) -> None:
        """Answer a CONNECT of MQTT 5 that could not be read."""
        self.version = V5
        self.refuse(error.reason)

    def refuse(self, reason: Reason) -> None:
        """Answer the CONNECT with a failure, in its own version's words."""
        self._refusal = reason
        if self.version >= V5:
            told = Properties(reason_string=reason.text) if self._problem_info else NO_PROPERTIES
            self._line.answer(encode(Connack(reason, properties=told), V5))
        else:
            self._line.answer(encode(Connack(return_code(reason))))

    # --- packets ----------------------------------------------------------------------------------------------

    def receive(self, session: Session, packet: Packet, now: float) -> None:
        """Any packet after CONNECT. Raises ProtocolError."""
        match packet:
            case Publish():
                self._intake.publish(session, packet, now)
            case Puback(packet_id):
                session.acknowledge(packet_id)
            case Pubrec(packet_id, reason):
                self._on_pubrec(session, packet_id, reason)
            case Pubrel(packet_id):
                self._intake.release(session, packet_id)
            case Pubcomp(packet_id):
                session.complete(packet_id)
            case Pingreq():
                self._say(Pingresp())
            case Subscribe():
                self._on_subscribe(session, packet, now)
            case Unsubscribe(packet_id, filters):
                codes = tuple(self._router.unsubscribe(session, topic_filter) for topic_filter in filters)
                self._say(Unsuback(packet_id, codes))
            case Disconnect():
                self._on_disconnect(session, packet)
            case _:
                name = type(packet).__name__.upper()
                raise ProtocolError(f"a client must not send {name} now", Reason.PROTOCOL_ERROR)

    def _on_pubrec(self, session: Session, packet_id: int, reason: int) -> None:
        refused = reason >= FAILURE
        known = session.receive(packet_id, refused=refused)
        if not known and self.version == V5:
            self._say(Pubrel(packet_id, Reason.PACKET_ID_NOT_FOUND))
        elif not refused:
            self._line.answer(encode_ack(PUBREL, packet_id))

    def _on_subscribe(self, session: Session, packet: Subscribe, now: float) -> None:
        requests = [Request(*request) for request in packet.requests]
        if any(one.no_local and one.topic_filter.startswith(SHARE) for one in requests):
            raise ProtocolError("No Local on a shared subscription", Reason.PROTOCOL_ERROR)
        identifier = next(iter(packet.properties.subscription_ids), 0)
        codes = [self._router.subscribe(session, request, identifier, now) for request in requests]
        if self.version != V5 or not self._settings.explain_refusals:
            codes = [min(code, FAILURE) for code in codes]
        failures = [Reason(code).text for code in codes if code >= FAILURE]
        told = Properties(reason_string=failures[0]) if failures and self._problem_info else NO_PROPERTIES
        self._say(Suback(packet.packet_id, tuple(codes), told))

    def _on_disconnect(self, session: Session, packet: Disconnect) -> None:
        expiry = packet.properties.session_expiry
        if expiry is not None:
            if expiry and session.expiry == 0:
                raise ProtocolError("a session that ends with its connection cannot be kept", Reason.PROTOCOL_ERROR)
            session.expiry = granted_expiry(expiry, self._settings)
        if packet.reason == Reason.SUCCESS:
            self._will = None
        self._line.close("disconnect")

    def _say(self, packet: Packet) -> None:
        data = encode(packet, self.version)
        if self._max_packet_size is not None and len(data) > self._max_packet_size:
            raise ProtocolError(f"its limit of {self._max_packet_size} bytes is too small", Reason.PACKET_TOO_LARGE)
        self._line.answer(data)

    # --- the end ----------------------------------------------------------------------------------------------

    def farewell(self, reason: Reason, detail: str) -> bytes:
        """A DISCONNECT that says why, where the client can understand one; nothing before it was let in."""
        if self.session is None or self.version != V5:
            return b""
        told = Properties(reason_string=detail[:SMALL]) if detail and self._problem_info else NO_PROPERTIES
        data = encode(Disconnect(reason, told), V5)
        return data if self._max_packet_size is None or len(data) <= self._max_packet_size else b""

    def leave(self, reason: EndReason, now: float) -> None:
        """The connection ended, once."""
        if self.session is not None:
            self._router.leave(self.session, None if reason == "shutdown" else self._will, now)
