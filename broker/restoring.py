"""From the file back into a router: sessions as they were left, down to the packet ids of what was in flight."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field
from typing import Any

from broker.message import NEVER, Delivery, Message
from broker.router import Router
from broker.session import Identity, Session
from broker.subscriptions import Subscription
from broker.topics import split_share

_Rows = list[tuple[Any, ...]]


@dataclass
class Kept:
    """What was in the file. Rows are in the order of the tables' columns."""

    last_row: int
    messages: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    sessions: _Rows = field(default_factory=list)
    subscriptions: _Rows = field(default_factory=list)
    deliveries: _Rows = field(default_factory=list)
    incoming: _Rows = field(default_factory=list)
    retained: _Rows = field(default_factory=list)


def load(database: sqlite3.Connection) -> Kept:
    """Read everything; messages that nobody waits for any more are removed. In the journal's thread."""
    database.execute(
        "DELETE FROM message WHERE id NOT IN (SELECT message FROM delivery WHERE message IS NOT NULL)"
        " AND id NOT IN (SELECT message FROM retained)"
    )
    database.execute("DELETE FROM delivery WHERE client_id NOT IN (SELECT client_id FROM session)")

    def rows(table: str) -> _Rows:
        return database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()

    messages, deliveries = rows("message"), rows("delivery")
    last = max(messages[-1][0] if messages else 0, deliveries[-1][0] if deliveries else 0)
    return Kept(
        last,
        {row[0]: row for row in messages},
        rows("session"),
        rows("subscription"),
        deliveries,
        rows("incoming"),
        rows("retained"),
    )


def restore(kept: Kept, router: Router, now: float) -> None:
    """Fill a new router. A client that was connected when the broker died has been away since now."""
    wall, settings = time.time(), router.settings
    sessions: dict[str, Session] = {}
    for client_id, username, expiry, left_at in kept.sessions:
        session = Session(
            Identity(client_id, username),
            expiry,
            settings,
            journal=router.journal,
            dropped=router.counters.dropped,
        )
        session.away_since = now if left_at is None else now - max(0.0, wall - left_at)
        sessions[client_id] = session
    for client_id, topic_filter, qos, no_local, retain_as_published, identifier in kept.subscriptions:
        found = split_share(topic_filter)
        if client_id in sessions and found is not None:
            flags = bool(no_local), bool(retain_as_published)
            subscription = Subscription(found[1], qos, *flags, identifier, found[0])
            router.restore_subscription(sessions[client_id], topic_filter, subscription)
    for client_id, packet_id in kept.incoming:
        if client_id in sessions:
            sessions[client_id].incoming.add(packet_id)
    messages = {row: _message(columns, now - wall) for row, columns in kept.messages.items()}
    _restore_deliveries(kept, router, sessions, messages)
    for session in sessions.values():
        router.registry.restore(session)
    for _, row, qos in kept.retained:
        messages[row].uses += 1
        router.retained.restore(messages[row], qos)


def _message(columns: tuple[Any, ...], ahead: float) -> Message:
    row, topic, payload, properties, expires_at = columns
    message = Message(topic, payload, properties, NEVER if expires_at is None else expires_at + ahead)
    message.row = row
    return message


def _restore_deliveries(kept: Kept, router: Router, sessions: dict[str, Session], messages: dict[int, Message]) -> None:
    for row, client_id, message_row, qos, retain, identifiers, share, packet_id in kept.deliveries:
        session = sessions.get(client_id)
        if session is None:
            continue
        message = Message("", b"") if message_row is None else messages[message_row]
        numbers = tuple(map(int, identifiers.split(","))) if identifiers else ()
        delivery = Delivery(message, qos, bool(retain), numbers, router.group_of(session, share) if share else None)
        delivery.row, delivery.packet_id, delivery.released = row, packet_id, message_row is None
        message.uses += not delivery.released
        session.queue.restore(delivery)
