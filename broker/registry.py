"""Every known session: opened, taken over, left, expired; and the wills of those that left; no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from broker.journal import FORGETFUL, Journal
from broker.message import Outlet
from broker.packets import Will
from broker.session import Identity, Link, Session
from broker.settings import EmbeddedSettings
from broker.stats import DropReason


class PendingWill(NamedTuple):
    due: float  # of the router's clock
    will: Will


class Arrival(NamedTuple):
    """What a client brings to its session. `expiry` is seconds after its connection ends."""

    identity: Identity
    clean_start: bool
    expiry: float
    link: Link
    outlet: Outlet
    receive_maximum: int


class Registry:
    """The sessions by client id. `ended` is called for a session that is over, `speak` for a will that is due."""

    def __init__(
        self,
        settings: EmbeddedSettings,
        journal: Journal,
        dropped: Counter[DropReason],
        ended: Callable[[Session, float], None],
        speak: Callable[[Identity, Will, float], None],
    ) -> None:
        self.connected = 0
        self.away_bytes = 0  # waiting for clients that are not connected
        self._settings = settings
        self._journal = journal
        self._dropped = dropped
        self._ended = ended
        self._speak = speak
        self._sessions: dict[str, Session] = {}
        self._wills: dict[str, PendingWill] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, client_id: str) -> Session | None:
        return self._sessions.get(client_id)

    def has_room_for(self, identity: Identity) -> bool:
        """Whether one more may connect; who takes its own place always may."""
        known = self._sessions.get(identity.client_id)
        return self.connected < self._settings.max_connections or (known is not None and known.link is not None)

    def open(self, arrival: Arrival, now: float) -> tuple[Session, bool]:
        """The client's session and whether it existed; another connection of the same client id is closed."""
        client_id = arrival.identity.client_id
        old = self._sessions.get(client_id)
        if old is not None and old.link is not None:
            old.link.close("takeover")
            old = self._sessions.get(client_id)
        if old is not None and arrival.clean_start:
            self.forget(old, now)
            old = None
        self._wills.pop(client_id, None)  # the client is back in time
        session = self._new(arrival, now) if old is None else old
        if old is not None:
            self.away_bytes -= session.queue.size
        session.expiry = arrival.expiry
        session.journal.opened(*arrival.identity, arrival.expiry)
        session.attach(arrival.link, arrival.outlet, arrival.receive_maximum)
        self.connected += 1
        return session, old is not None

    def _new(self, arrival: Arrival, now: float) -> Session:
        away = [session for session in self if session.link is None]
        if len(self._sessions) >= self._settings.max_sessions and away:
            self.forget(min(away, key=lambda session: session.away_since), now)
        journal = self._journal if arrival.expiry > 0 else FORGETFUL
        session = Session(arrival.identity, arrival.expiry, self._settings, journal=journal, dropped=self._dropped)
        self._sessions[session.client_id] = session
        return session

    def restore(self, session: Session) -> None:
        """Put back what was there before a restart."""
        self._sessions[session.client_id] = session
        self.away_bytes += session.queue.size

    def leave(self, session: Session, will: Will | None, now: float) -> None:
        """The client's connection ended; `will` is None where it said goodbye."""
        self.connected -= 1
        session.detach(now)
        self.away_bytes += session.queue.size
        session.journal.left(session.client_id, session.expiry)
        delay = min(will.properties.will_delay or 0, session.expiry) if will else 0
        if will is not None and delay > 0:
            self._wills[session.client_id] = PendingWill(now + delay, will)
        elif will is not None:
            self._speak(session.identity, will, now)
        if session.expiry <= 0 and self._sessions.get(session.client_id) is session:
            self.forget(session, now)

    def expire(self, now: float) -> None:
        """Forget sessions to which nobody came back in time, and publish the wills that are due."""
        for client_id, pending in [*self._wills.items()]:
            if pending.due <= now:
                del self._wills[client_id]
                self._speak(self._sessions[client_id].identity, pending.will, now)
        for session in [session for session in self if session.link is None]:
            if now - session.away_since > min(session.expiry, self._settings.session_expiry):
                self.forget(session, now)
            else:
                before = session.queue.size
                session.queue.drop_expired(now)
                self.away_bytes += session.queue.size - before

    def forget(self, session: Session, now: float) -> None:
        """The session is over, and a will that waited for its end is due."""
        pending = self._wills.pop(session.client_id, None)
        if pending is not None:
            self._speak(session.identity, pending.will, now)
        self.away_bytes -= session.queue.size
        del self._sessions[session.client_id]
        self._ended(session, now)
        for delivery in session.queue:
            session.journal.done(delivery)
        session.journal.forgotten(session.client_id)
