"""One client's connection: bytes to packets, packets to its conversation, and why and how it ends.

Reading stops only when the client has more publications unanswered than the settings allow. It goes on while a few
answers are withheld, because a client's own PUBACKs come the same way: two clients that are full of each other's
messages would otherwise wait for ever.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from typing import cast

from broker.backpressure import DrainWatch
from broker.conversation import Conversation
from broker.framing import PacketReader
from broker.outflow import Outflow
from broker.packets import BadConnectError, Connect, Packet, PacketTooLargeError, ProtocolError
from broker.reasons import Reason
from broker.router import Router
from broker.settings import KIB, Listener
from broker.stats import EndReason
from broker.tls import common_name

MAX_CONNECT_SIZE = 128 * KIB  # before anybody is authenticated
LINGER = 5.0  # seconds for the last bytes of an ended connection
_SINK = memoryview(bytearray(64 * KIB))  # takes what an ended connection still sends

ROUTINE: frozenset[EndReason] = frozenset({"disconnect", "lost", "shutdown"})
STILL_SENDING: frozenset[EndReason] = frozenset({"protocol", "oversize"})
FAREWELLS: dict[EndReason, Reason] = {  # what a client of MQTT 5 is told; nothing to who said goodbye
    "takeover": Reason.SESSION_TAKEN_OVER,
    "revoked": Reason.NOT_AUTHORIZED,
    "keepalive": Reason.KEEP_ALIVE_TIMEOUT,
    "stuck": Reason.QUOTA_EXCEEDED,
    "not_reading": Reason.QUOTA_EXCEEDED,
    "shutdown": Reason.SERVER_SHUTTING_DOWN,
}

_log = logging.getLogger("megace2.broker")


class Connection(asyncio.BufferedProtocol):
    """From accept to close. Everything it does is synchronous; `tick` is called about twice a second."""

    def __init__(self, router: Router, connections: set[Connection], listener: Listener, threads: Executor) -> None:
        settings = router.settings
        self.listener = listener
        self.conversation = Conversation(router, self)
        self._settings = settings
        self._connections = connections
        self._threads = threads
        self._counters = router.counters
        self._journal = router.journal
        self._loop = asyncio.get_running_loop()
        self._reader = PacketReader(min(MAX_CONNECT_SIZE, settings.max_packet_size))
        self._out = Outflow(
            router.journal, router.counters, settings.max_packet_size, lambda: self.close("not_reading")
        )
        self._pauses = 0  # reasons not to read
        self._drain = DrainWatch(settings.drain_deadline)
        self._made_at = self._heard_at = self._loop.time()
        self._ended_at: float | None = None
        self.answer, self.wake = self._out.answer, self._out.wake

    # --- asyncio ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # asyncio sets TCP_NODELAY on it
        self._out.attach(self._transport)
        tls = self.listener.tls
        if tls is not None and tls.identity_as_username:
            self.conversation.certified = common_name(self.peer_certificate())
        self._connections.add(self)
        if len(self._connections) > 2 * self._settings.max_connections:
            self.close("crowded")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("lost")
        self._connections.discard(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.buffer() if self._ended_at is None else _SINK

    def buffer_updated(self, nbytes: int) -> None:
        if self._ended_at is not None:
            return
        self._counters.bytes_in += nbytes
        self._heard_at = self._loop.time()
        self._reader.advance(nbytes)
        self._process()

    def eof_received(self) -> None:
        self._end("lost")

    def pause_writing(self) -> None:
        self._out.writable = False

    def resume_writing(self) -> None:
        self._out.writable = True
        self.wake()

    def peer_certificate(self) -> dict[str, object] | None:
        """The client's certificate, checked; of a listener with TLS that asks for one."""
        return cast("dict[str, object] | None", self._transport.get_extra_info("peercert"))

    # --- packets in -------------------------------------------------------------------------------------------

    def _process(self) -> None:
        try:
            while not self._pauses and self._ended_at is None and (packet := self._reader.next()) is not None:
                self._counters.packets_in += 1
                self._receive(packet)
        except BadConnectError as error:
            self.conversation.refuse_malformed(error)
            self.close("protocol", str(error))
        except PacketTooLargeError as error:
            self.close("oversize", str(error), code=error.reason)
        except ProtocolError as error:
            self.close("protocol", str(error), code=error.reason)

    def _receive(self, packet: Packet) -> None:
        session = self.conversation.session
        if session is not None:
            self.conversation.receive(session, packet, self._heard_at)
        elif isinstance(packet, Connect):
            self._greet(packet)
        else:
            raise ProtocolError("the first packet is not CONNECT")
        if self._journal.crowded and not self._pauses:
            self.pause()
            self._journal.after_commit(self.resume)

    def _greet(self, connect: Connect) -> None:
        verdict = self.conversation.greet(connect)
        if isinstance(verdict, bool):
            self._admit(verdict)
            return
        self.pause()  # what follows the CONNECT waits for the answer to it
        future = self._loop.run_in_executor(self._threads, verdict)
        future.add_done_callback(self._checked)

    def _checked(self, future: asyncio.Future[bool]) -> None:
        if self._ended_at is not None or future.cancelled():
            return
        try:
            self._admit(future.result())
        except ProtocolError as error:
            self.close("protocol", str(error), code=error.reason)
        self.resume()

    def _admit(self, known: bool) -> None:
        if self.conversation.admit(known, self._loop.time()):
            self._out.session = self.conversation.session
            self._reader.max_packet_size = self._settings.max_packet_size
        else:
            self.close("refused", self.conversation.refusal, quiet=self.conversation.is_refused_for_its_version)

    def pause(self) -> None:
        self._pauses += 1
        if self._pauses == 1 and self._ended_at is None:
            self._transport.pause_reading()

    def resume(self) -> None:
        self._pauses -= 1
        if not self._pauses and self._ended_at is None:
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        self._heard_at = self._loop.time()  # the silence was ours
        self._process()
        if not self._pauses and self._ended_at is None:
            self._transport.resume_reading()

    # --- the end ----------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """End what is overdue. `now` is the loop's clock."""
        session, keepalive = self.conversation.session, self.conversation.keepalive
        if self._ended_at is not None:
            if now - self._ended_at > LINGER:
                self._transport.abort()
        elif session is None:
            if now - self._made_at > self._settings.connect_deadline:
                self.close("connect_deadline")
        elif not self._pauses and keepalive and now - self._heard_at > 1.5 * keepalive:
            self.close("keepalive", f"silent for {now - self._heard_at:.1f} s")
        elif not session.full:
            self._drain.clear()
        elif self._drain.is_stuck((session.acknowledged, self._out.sent), now):
            self.close("stuck", "its queue is full and it takes nothing")

    def close(self, reason: EndReason, detail: str = "", *, code: Reason | None = None, quiet: bool = False) -> None:
        """End the connection after what was already answered; a client of MQTT 5 is told why.

        `code` overrides what it is told; `quiet`: it is nobody's mistake.
        """
        if self._ended_at is not None:
            return
        level = logging.DEBUG if quiet or reason in ROUTINE else logging.WARNING
        _log.log(level, "connection of %s closed (%s) %s", self.conversation.name, reason, detail)
        code = code or FAREWELLS.get(reason)
        farewell = self.conversation.farewell(code, detail) if code is not None else b""
        self._end(reason)
        if not self._out.writable or self._journal.failed:  # nothing more would be read, or may be said
            self._transport.abort()
            return
        lingers = farewell and reason in STILL_SENDING
        self._out.end(farewell, self._half_close if lingers else self._transport.close)

    def _half_close(self) -> None:
        """Close our half only: a socket closed with unread bytes would throw our last words away."""
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Drop what could not be sent yet."""
        self._transport.abort()

    def _end(self, reason: EndReason) -> None:
        """Give up the session, and with it publish the will, once, before the transport is done."""
        if self._ended_at is None:
            self._ended_at = self._loop.time()
            self._counters.ended[reason] += 1
            self._out.session = None
            self.conversation.leave(reason, self._ended_at)
