"""One client's TCP connection: bytes to packets, packets to the router, deliveries to bytes.

Writing happens once per turn of the event loop (`_flush`), however many messages arrived in it: answers first, then
what the session is owed while the socket takes it. What the socket does not take stays in the session as references.

Reading stops only when the client has more publications unanswered than the settings allow. It goes on while a few
PUBACKs are withheld, because a client's own PUBACKs come the same way: two clients that are full of each other's
messages would otherwise wait for ever.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import cast

from broker import packets
from broker.backpressure import DrainWatch, Hold, WithheldAcks
from broker.codec import encode, encode_puback
from broker.framing import PacketReader
from broker.packets import (
    Connack,
    Connect,
    Disconnect,
    PacketTooLargeError,
    Pingreq,
    Pingresp,
    ProtocolError,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from broker.router import Router
from broker.session import Message, Session
from broker.settings import KIB, MIB
from broker.stats import EndReason

FLUSH_BYTES = 256 * KIB  # written per client and turn of the loop, so that a fast reader does not starve the others
UNSENT_HIGH, UNSENT_LOW = 256 * KIB, 64 * KIB  # bytes in the transport at which a session stops and starts
UNREAD_ANSWERS = MIB  # unsent bytes at which a client that only asks and never reads is disconnected
MAX_CONNECT_SIZE = 128 * KIB  # before anybody is authenticated
LINGER = 5.0  # seconds for the last bytes of an ended connection

ROUTINE: frozenset[EndReason] = frozenset({"disconnect", "lost", "shutdown"})

_log = logging.getLogger("megace2.broker")


class Connection(asyncio.BufferedProtocol):
    """From accept to close. Everything it does is synchronous; `tick` is called about twice a second."""

    def __init__(self, router: Router, connections: set[Connection]) -> None:
        self._router = router
        self._connections = connections
        self._settings = router.settings
        self._counters = router.counters
        self._loop = asyncio.get_running_loop()
        self._reader = PacketReader(min(MAX_CONNECT_SIZE, router.settings.max_packet_size))
        self._session: Session | None = None
        self._connect: Connect | None = None
        self._answers: list[packets.Payload] = []
        self._flush_due = False
        self._writable = True
        self._reading = True
        self._denied = False
        self._withheld = WithheldAcks(router.settings.max_withheld_messages, router.settings.max_withheld_bytes)
        self._drain = DrainWatch(router.settings.drain_deadline)
        self._written = 0  # bytes ever given to the transport
        self._made_at = self._heard_at = self._loop.time()
        self._ended_at: float | None = None

    # --- asyncio ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # asyncio sets TCP_NODELAY on it
        self._transport.set_write_buffer_limits(UNSENT_HIGH, UNSENT_LOW)
        self._connections.add(self)
        if len(self._connections) > 2 * self._settings.max_connections:
            self.close("crowded")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("lost")
        self._connections.discard(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self._counters.bytes_in += nbytes
        self._heard_at = self._loop.time()
        self._reader.advance(nbytes)
        self._process()

    def eof_received(self) -> None:
        self._end("lost")

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self.wake()

    # --- packets in -------------------------------------------------------------------------------------------

    def _process(self) -> None:
        try:
            while self._reading and self._ended_at is None and (packet := self._reader.next()) is not None:
                self._counters.packets_in += 1
                self._receive(packet)
        except PacketTooLargeError as error:
            self.close("oversize", str(error))
        except ProtocolError as error:
            self.close("protocol", str(error))

    def _receive(self, packet: packets.Packet) -> None:
        session = self._session
        if session is None:
            if not isinstance(packet, Connect):
                raise ProtocolError("the first packet is not CONNECT")
            self._on_connect(packet)
            return
        match packet:
            case Publish():
                self._on_publish(session, packet)
            case Puback(packet_id):
                session.acknowledge(packet_id)
            case Pingreq():
                self._answer(encode(Pingresp()))
            case Subscribe():
                self._on_subscribe(session, packet)
            case Unsubscribe(packet_id, filters):
                for topic_filter in filters:
                    self._router.unsubscribe(session, topic_filter)
                self._answer(encode(Unsuback(packet_id)))
            case Disconnect():
                self._connect = None  # and the will with it
                self.close("disconnect", flush=True)
            case _:
                raise ProtocolError(f"a client must not send {type(packet).__name__.upper()} now")

    def _on_connect(self, connect: Connect) -> None:
        code = self._router.judge(connect)
        if code != packets.ACCEPTED:
            self._answer(encode(Connack(code)))
            told = f"{connect.client_id!r} was answered CONNACK {code}"
            self.close("refused", told, flush=True, quiet=code == packets.BAD_LEVEL)
            return
        client_id = connect.client_id or f"auto-{secrets.token_hex(8)}"
        self._connect = connect
        self._reader.max_packet_size = self._settings.max_packet_size
        self._session, present = self._router.open(client_id, connect.clean_session, self)
        self._answer(encode(Connack(session_present=present)))
        _log.debug("%s connected, %s", client_id, "session resumed" if present else "new session")

    def _on_publish(self, session: Session, packet: Publish) -> None:
        if packet.qos == 2:
            self.close("qos2", f"QoS 2 to {packet.topic!r}; this broker serves QoS 0 and 1")
            return
        self._counters.messages_in += 1
        full: list[Session] = []
        if self._router.may_publish(session.client_id, packet.topic):
            full = self._router.publish(Message(packet.topic, packet.payload), packet.qos, packet.retain)
        else:
            self._counters.dropped["denied"] += 1
            level = logging.DEBUG if self._denied else logging.WARNING  # once: it may go on all day
            _log.log(level, "%r may not publish to %r", session.client_id, packet.topic)
            self._denied = True
        if packet.qos and (full or self._withheld):
            self._withhold(packet, full)
        elif packet.qos:
            self._answer(encode_puback(packet.packet_id))

    def _on_subscribe(self, session: Session, packet: Subscribe) -> None:
        if session.full:
            # Every repetition would add all retained messages to a queue that this client does not empty.
            self.close("stuck", "it subscribed while its queue was full")
            return
        codes = [self._router.subscribe(session, *request) for request in packet.requests]
        self._answer(encode(Suback(packet.packet_id, tuple(codes))))
        for (topic_filter, _), code in zip(packet.requests, codes, strict=True):
            if code != packets.SUBSCRIPTION_REFUSED:
                self._router.replay(session, topic_filter, code)

    # --- back-pressure ----------------------------------------------------------------------------------------

    def _withhold(self, packet: Publish, full: list[Session]) -> None:
        hold = Hold(self, packet.packet_id, len(packet.payload), len(full))
        for session in full:
            session.holds.append(hold)
        self._withheld.add(hold)
        if self._reading and self._withheld.full:
            self._reading = False
            self._transport.pause_reading()

    def release(self) -> None:
        """Send the PUBACKs that nothing holds back any more."""
        for packet_id in self._withheld.free():
            self._answer(encode_puback(packet_id))
        if not self._reading and not self._withheld.full and self._ended_at is None:
            self._reading = True
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        self._heard_at = self._loop.time()  # the silence was ours
        self._process()
        if self._reading and self._ended_at is None:
            self._transport.resume_reading()

    # --- packets out ------------------------------------------------------------------------------------------

    def _answer(self, data: bytes) -> None:
        if self._ended_at is None:
            self._answers.append(data)
            self._counters.packets_out += 1
            self.wake()

    def wake(self) -> None:
        """Write in this turn of the loop, after all that it has received."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._ended_at is not None:
            return
        parts, self._answers = self._answers, []
        session = self._session
        if session is not None and self._writable:
            taken = session.taken
            parts += session.take(FLUSH_BYTES)
            self._counters.messages_out += session.taken - taken
            self._counters.packets_out += session.taken - taken
        self._write(parts)
        if session is not None and self._writable and session.ready:
            self.wake()

    def _write(self, parts: list[packets.Payload]) -> None:
        if not parts:
            return
        data = b"".join(parts)
        self._counters.bytes_out += len(data)
        self._written += len(data)
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > UNREAD_ANSWERS + self._settings.max_packet_size:
            self.close("not_reading")

    # --- the end ----------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """End what is overdue. `now` is the loop's clock."""
        session, connect = self._session, self._connect
        if self._ended_at is not None:
            if now - self._ended_at > LINGER:
                self._transport.abort()
        elif session is None or connect is None:
            if now - self._made_at > self._settings.connect_deadline:
                self.close("connect_deadline")
        elif self._reading and connect.keepalive and now - self._heard_at > 1.5 * connect.keepalive:
            self.close("keepalive", f"silent for {now - self._heard_at:.1f} s")
        elif not session.full:
            self._drain.clear()
        elif self._drain.is_stuck((session.acknowledged, self._sent()), now):
            self.close("stuck", "its queue is full and it takes nothing")

    def _sent(self) -> int:
        return self._written - self._transport.get_write_buffer_size()

    def close(self, reason: EndReason, detail: str = "", *, flush: bool = False, quiet: bool = False) -> None:
        """End the connection now; with `flush`, after what was already answered. `quiet`: it is nobody's mistake."""
        if self._ended_at is not None:
            return
        level = logging.DEBUG if quiet or reason in ROUTINE else logging.WARNING
        _log.log(level, "connection of %s closed (%s) %s", self._name(), reason, detail)
        if flush:
            self._write(self._answers)
            self._end(reason)
            self._transport.close()
        else:
            self._end(reason)
            self._transport.abort()

    def abort(self) -> None:
        """Drop what could not be sent yet."""
        self._transport.abort()

    def _name(self) -> str:
        return repr(self._session.client_id) if self._session else "an unknown client"

    def _end(self, reason: EndReason) -> None:
        """Give up the session and publish the will, once, before the transport is done."""
        if self._ended_at is not None:
            return
        self._ended_at = self._loop.time()
        self._counters.ended[reason] += 1
        self._answers = []
        if self._session is not None:
            self._router.leave(self._session, self._ended_at)
        will = self._connect.will if self._connect is not None else None
        if will is not None and reason != "shutdown":
            self._router.publish(Message(will.topic, will.payload), min(will.qos, 1), will.retain)
