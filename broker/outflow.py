"""What is written to one client: once per turn of the event loop, and never before what it follows from is safe.

However many messages arrived in a turn, one write takes the answers first, then what the session is owed while the
socket takes it. What the socket does not take stays in the session as references. Where sessions are kept on disk, a
write waits for the commit of all that was noted before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from broker.journal import Journal
from broker.packets import Payload
from broker.session import Session
from broker.settings import KIB, MIB
from broker.stats import Counters

FLUSH_BYTES = 256 * KIB  # written per client and turn of the loop, so that a fast reader does not starve the others
UNSENT_HIGH, UNSENT_LOW = 256 * KIB, 64 * KIB  # bytes in the transport at which a session stops and starts
UNREAD_ANSWERS = MIB  # unsent bytes, beside one packet, at which a client that only asks and never reads is too much


class Outflow:
    """The writing half of a connection. `overflow` is called when a client does not read the answers it asks for."""

    def __init__(
        self, journal: Journal, counters: Counters, max_packet_size: int, overflow: Callable[[], None]
    ) -> None:
        self.session: Session | None = None  # once the client is let in
        self.writable = True
        self._journal = journal
        self._counters = counters
        self._limit = UNREAD_ANSWERS + max_packet_size
        self._overflow = overflow
        self._loop = asyncio.get_running_loop()
        self._answers: list[Payload] = []
        self._due = self._ended = False
        self._written = 0  # bytes ever given to the transport

    def attach(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(UNSENT_HIGH, UNSENT_LOW)

    @property
    def sent(self) -> int:
        """Bytes that the kernel took: a sign of life."""
        return self._written - self._transport.get_write_buffer_size()

    def answer(self, data: bytes) -> None:
        if not self._ended:
            self._answers.append(data)
            self._counters.packets_out += 1
            self.wake()

    def wake(self) -> None:
        """Write in this turn of the loop, after all that it has received."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._due = False
        if self._ended:
            return
        parts, self._answers = self._answers, []
        session = self.session
        if session is not None and self.writable:
            taken = session.queue.taken
            parts += session.take(FLUSH_BYTES, self._loop.time())
            self._counters.messages_out += session.queue.taken - taken
            self._counters.packets_out += session.queue.taken - taken
            if session.queue.ready:
                self.wake()
        self._write(parts)

    def _write(self, parts: list[Payload]) -> None:
        if parts and self._journal.pending:
            self._journal.after_commit(lambda: self._put(parts))
        elif parts:
            self._put(parts)

    def _put(self, parts: list[Payload]) -> None:
        if self._transport.is_closing():
            return
        data = b"".join(parts)
        self._counters.bytes_out += len(data)
        self._written += len(data)
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > self._limit:
            self._overflow()

    def end(self, last_words: bytes, then: Callable[[], None]) -> None:
        """Write what was already answered and `last_words`, and nothing after; `then` follows it."""
        parts, self._answers, self._ended = self._answers, [], True
        if last_words:
            parts.append(last_words)
        self._write(parts)
        if self._journal.pending:
            self._journal.after_commit(then)
        else:
            then()
