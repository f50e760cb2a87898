"""Sessions and retained messages on disk: every change in order, committed in groups by a thread of its own.

The loop only notes what changed. At the end of its turn the thread commits all of it at once, while the next group
gathers; what is said to clients waits for the commit that it follows from (`Connection._write`). A message is stored
once, however many sessions wait for it. Without `fsync` a commit survives the end of the process, with it also the
loss of power.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from broker.database import open_database
from broker.journal import FORGETFUL, Journal
from broker.message import NEVER, Delivery, Message
from broker.restoring import load, restore
from broker.router import Router
from broker.settings import MIB, BrokerError, EmbeddedSettings
from broker.subscriptions import Subscription

MAX_UNCOMMITTED = 32 * MIB  # bytes of messages that the thread has not written; publishers are not read beyond it

_log = logging.getLogger("megace2.broker")

_Change = tuple[str, Sequence[Any]]


class SqliteJournal:
    """A `Journal` in a SQLite file. All methods are called in the event loop."""

    def __init__(self, database: sqlite3.Connection, thread: ThreadPoolExecutor, last_row: int) -> None:
        self._database = database
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self._ahead = time.time() - self._loop.time()  # from the router's clock to the wall's
        self._last_row = last_row
        self._changes: list[_Change] = []
        self._actions: list[Callable[[], None]] = []
        self._bytes = self._writing_bytes = 0
        self._due = self._writing = False
        self._failure: BaseException | None = None

    # --- groups -----------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        return self._writing or bool(self._changes) or bool(self._actions) or self.failed

    @property
    def crowded(self) -> bool:
        return self._bytes + self._writing_bytes > MAX_UNCOMMITTED

    @property
    def failed(self) -> bool:
        return self._failure is not None

    def after_commit(self, action: Callable[[], None]) -> None:
        if not self.pending:
            action()
            return
        if not self.failed:
            self._actions.append(action)
            self._write_soon()

    def check(self) -> None:
        if self._failure is not None:
            raise BrokerError(f"sessions cannot be kept any more: {self._failure}") from self._failure

    def _note(self, statement: str, *values: Any) -> None:
        if not self.failed:
            self._changes.append((statement, values))
            self._write_soon()

    def _write_soon(self) -> None:
        """After two turns: what arrived in this one is sent in the next, and belongs to the same group."""
        if not (self._due or self._writing or self.failed):
            self._due = True
            self._loop.call_soon(self._loop.call_soon, self._write)

    def _write(self) -> None:
        if self._writing:
            return
        self._due, self._writing = False, True
        changes, self._changes = self._changes, []
        actions, self._actions = self._actions, []
        self._writing_bytes, self._bytes = self._bytes, 0
        self._future = self._loop.run_in_executor(self._thread, _commit, self._database, changes)
        self._future.add_done_callback(lambda done: self._written(done, actions))

    def _written(self, future: asyncio.Future[None], actions: list[Callable[[], None]]) -> None:
        self._writing, self._writing_bytes = False, 0
        if (error := future.exception()) is not None:
            # Nothing more is answered: what was not acknowledged is still the publishers'.
            self._failure = error
            self._changes, self._actions = [], []
            _log.critical("sessions cannot be kept any more", exc_info=error)
            return
        for action in actions:
            action()
        if self._changes or self._actions:
            self._write_soon()

    async def close(self) -> None:
        """Commit the last changes."""
        while self.pending and not self.failed:
            self._write()
            await asyncio.wait([self._future])
            await asyncio.sleep(0)  # for its callback

    # --- changes ----------------------------------------------------------------------------------------------

    def opened(self, client_id: str, username: str | None, expiry: float) -> None:
        self._note("REPLACE INTO session VALUES (?, ?, ?, NULL)", client_id, username, expiry)

    def left(self, client_id: str, expiry: float) -> None:
        self._note("UPDATE session SET expiry = ?, left_at = ? WHERE client_id = ?", expiry, time.time(), client_id)

    def forgotten(self, client_id: str) -> None:
        for table in ("session", "subscription", "incoming"):
            self._note(f"DELETE FROM {table} WHERE client_id = ?", client_id)

    def subscribed(self, client_id: str, topic_filter: str, subscription: Subscription) -> None:
        options = subscription[1:5]
        self._note("REPLACE INTO subscription VALUES (?, ?, ?, ?, ?, ?)", client_id, topic_filter, *options)

    def unsubscribed(self, client_id: str, topic_filter: str) -> None:
        self._note("DELETE FROM subscription WHERE client_id = ? AND topic_filter = ?", client_id, topic_filter)

    def queued(self, client_id: str, delivery: Delivery) -> None:
        self._use(delivery.message)
        delivery.row = self._new_row()
        identifiers = ",".join(map(str, delivery.identifiers))
        share = delivery.group.topic_filter if delivery.group else ""
        columns = (delivery.row, client_id, delivery.message.row, delivery.qos, delivery.retain, identifiers, share)
        self._note("INSERT INTO delivery VALUES (?, ?, ?, ?, ?, ?, ?, 0)", *columns)

    def sent(self, delivery: Delivery) -> None:
        self._note("UPDATE delivery SET packet_id = ? WHERE id = ?", delivery.packet_id, delivery.row)

    def released(self, delivery: Delivery) -> None:
        self._note("UPDATE delivery SET message = NULL WHERE id = ?", delivery.row)
        self._unuse(delivery.message)

    def done(self, delivery: Delivery) -> None:
        self._note("DELETE FROM delivery WHERE id = ?", delivery.row)
        if not delivery.released:
            self._unuse(delivery.message)

    def received(self, client_id: str, packet_id: int) -> None:
        self._note("REPLACE INTO incoming VALUES (?, ?)", client_id, packet_id)

    def completed(self, client_id: str, packet_id: int) -> None:
        self._note("DELETE FROM incoming WHERE client_id = ? AND packet_id = ?", client_id, packet_id)

    def retained(self, message: Message, qos: int) -> None:
        self._use(message)
        self._note("REPLACE INTO retained VALUES (?, ?, ?)", message.topic, message.row, qos)

    def cleared(self, topic: str, message: Message) -> None:
        self._note("DELETE FROM retained WHERE topic = ?", topic)
        self._unuse(message)

    def _new_row(self) -> int:
        self._last_row += 1
        return self._last_row

    def _use(self, message: Message) -> None:
        """One more row refers to the message; the first brings it into the file."""
        message.uses += 1
        if message.uses > 1:
            return
        message.row = self._new_row()
        self._bytes += message.size
        expires_at = None if message.expires_at == NEVER else message.expires_at + self._ahead
        columns = (message.row, message.topic, message.payload, message.properties, expires_at)
        self._note("INSERT INTO message VALUES (?, ?, ?, ?, ?)", *columns)

    def _unuse(self, message: Message) -> None:
        message.uses -= 1
        if message.uses == 0:
            self._note("DELETE FROM message WHERE id = ?", message.row)


def _commit(database: sqlite3.Connection, changes: list[_Change]) -> None:
    """One transaction; in the journal's thread."""
    if not changes:
        return
    database.execute("BEGIN")
    try:
        for statement, values in changes:
            database.execute(statement, values)
        database.execute("COMMIT")
    except BaseException:  # an interrupt, too, must leave all of it or nothing
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


Restore = Callable[[Router, float], None]


@asynccontextmanager
async def open_journal(settings: EmbeddedSettings) -> AsyncIterator[tuple[Journal, Restore]]:
    """The journal that the settings ask for, and how to fill a router with what it kept. Raises BrokerError."""
    if settings.persistence is None:
        yield FORGETFUL, lambda router, now: None
        return
    path, fsync, loop = settings.persistence, settings.persistence_fsync, asyncio.get_running_loop()
    with ThreadPoolExecutor(1, "broker persistence") as thread:
        database, kept = await loop.run_in_executor(thread, open_database, path, fsync, load)
        try:
            journal = SqliteJournal(database, thread, kept.last_row)
            yield journal, lambda router, now: restore(kept, router, now)
            await journal.close()
        finally:
            await loop.run_in_executor(thread, database.close)
