"""From publishers to sessions: who is known, who subscribed, what is retained; no I/O.

One event loop owns a router, so nothing here needs a lock and no method is ever interrupted.
"""

from __future__ import annotations

from broker import packets
from broker.packets import Connect
from broker.retained import RetainedStore
from broker.session import Delivery, Link, Message, Session
from broker.settings import EmbeddedSettings
from broker.stats import BrokerStats, Counters, sys_topics
from broker.topics import Subscriptions, is_valid_filter

MAX_CLIENT_ID = 256  # characters
RESERVED = "$SYS/"  # only the broker publishes below it


class Router:
    """The broker's whole state."""

    def __init__(self, settings: EmbeddedSettings, now: float) -> None:
        self.settings = settings
        self.counters = Counters()
        self.retained = RetainedStore(settings.max_retained_messages, settings.max_retained_bytes)
        self.connected = 0
        self._started_at = now
        self._sessions: dict[str, Session] = {}
        self._subscriptions: Subscriptions[Session] = Subscriptions()
        self._away_bytes = 0  # waiting for clients that are not connected

    # --- sessions ---------------------------------------------------------------------------------------------

    def judge(self, connect: Connect) -> int:
        """The CONNACK return code. No session has been looked at, so a refused client disturbs nobody."""
        client_id, access = connect.client_id, self.settings.access
        if connect.level != packets.PROTOCOL_LEVEL:
            return packets.BAD_LEVEL
        if len(client_id) > MAX_CLIENT_ID or (not client_id and not connect.clean_session):
            return packets.BAD_CLIENT_ID
        if not access.authenticate(client_id, connect.username, connect.password):
            return packets.BAD_LOGIN
        if connect.will is not None and not self.may_publish(client_id, connect.will.topic):
            return packets.NOT_AUTHORIZED
        known = self._sessions.get(client_id)
        takes_over = known is not None and known.link is not None
        if self.connected >= self.settings.max_connections and not takes_over:
            return packets.UNAVAILABLE
        return packets.ACCEPTED

    def open(self, client_id: str, clean: bool, link: Link) -> tuple[Session, bool]:
        """The client's session and whether it existed; another connection of the same client id is closed.

        The session is the caller's to attach, once CONNACK is on its way.
        """
        old = self._sessions.get(client_id)
        if old is not None and old.link is not None:
            old.link.close("takeover")
            old = self._sessions.get(client_id)
        if old is not None and (clean or old.clean):
            self._forget(old)
            old = None
        if old is None:
            self._make_room()
            session = self._sessions[client_id] = Session(client_id, clean, self.settings)
        else:
            session = old
            self._away_bytes -= session.size
        session.attach(link)
        self.connected += 1
        return session, old is not None

    def leave(self, session: Session, now: float) -> None:
        """The client's connection ended."""
        self.connected -= 1
        session.detach(now)
        self._away_bytes += session.size
        if session.clean:
            self._forget(session)

    def expire(self, now: float) -> None:
        """Forget sessions to which nobody came back in time."""
        for session in self._away():
            if now - session.away_since > self.settings.session_expiry:
                self._forget(session)

    def _away(self) -> list[Session]:
        return [session for session in self._sessions.values() if session.link is None]

    def _make_room(self) -> None:
        if len(self._sessions) >= self.settings.max_sessions and (away := self._away()):
            self._forget(min(away, key=lambda session: session.away_since))

    def _forget(self, session: Session) -> None:
        self._away_bytes -= session.size
        for topic_filter in session.subscriptions:
            self._subscriptions.remove(session, topic_filter)
        del self._sessions[session.client_id]

    # --- subscriptions ----------------------------------------------------------------------------------------

    def subscribe(self, session: Session, topic_filter: str, qos: int) -> int:
        """The granted QoS, at most 1, or 0x80."""
        room = len(session.subscriptions) < self.settings.max_subscriptions
        allowed = self.settings.access.may_subscribe(session.client_id, topic_filter)
        known = topic_filter in session.subscriptions
        if not is_valid_filter(topic_filter) or not allowed or not (room or known):
            return packets.SUBSCRIPTION_REFUSED
        granted = min(qos, 1)
        session.subscriptions[topic_filter] = granted
        self._subscriptions.add(session, topic_filter, granted)
        return granted

    def replay(self, session: Session, topic_filter: str, granted: int) -> None:
        """Queue the retained messages that a new subscription asks for."""
        for message, qos in self.retained.matching(topic_filter):
            session.offer(Delivery(message, min(qos, granted), retain=True), force=True)

    def unsubscribe(self, session: Session, topic_filter: str) -> None:
        if session.subscriptions.pop(topic_filter, None) is not None:
            self._subscriptions.remove(session, topic_filter)

    # --- messages ---------------------------------------------------------------------------------------------

    def may_publish(self, client_id: str, topic: str) -> bool:
        return not topic.startswith(RESERVED) and self.settings.access.may_publish(client_id, topic)

    def publish(self, message: Message, qos: int, retain: bool = False) -> list[Session]:
        """Retain and deliver; returns the connected sessions for whose sake the PUBACK should wait."""
        if retain and not self.retained.put(message, qos):
            self.counters.dropped["retained_full"] += 1
        full = []
        passing, owed = Delivery(message, 0), Delivery(message, 1)
        for session, granted in self._subscriptions.of(message.topic):
            delivery = owed if qos and granted else passing
            if session.link is None:
                if delivery is owed:
                    self._store(session, owed)
            elif not session.offer(delivery):
                self.counters.dropped["slow_subscriber"] += 1
            elif delivery is owed and session.full:
                full.append(session)
        return full

    def _store(self, session: Session, delivery: Delivery) -> None:
        before = session.size
        dropped = session.store(delivery)
        self._away_bytes += session.size - before
        while self._away_bytes > self.settings.max_offline_bytes:
            before = session.size
            if not session.drop_oldest():
                break
            self._away_bytes += session.size - before
            dropped += 1
        self.counters.dropped["away"] += dropped

    # --- what can be seen -------------------------------------------------------------------------------------

    def stats(self, now: float) -> BrokerStats:
        counters, sessions = self.counters, self._sessions.values()
        return BrokerStats(
            uptime=now - self._started_at,
            connections=self.connected,
            sessions=len(sessions),
            subscriptions=sum(len(session.subscriptions) for session in sessions),
            retained=self.retained.messages,
            retained_bytes=self.retained.bytes,
            queued=sum(map(len, sessions)),
            queued_bytes=sum(session.size for session in sessions),
            packets_in=counters.packets_in,
            packets_out=counters.packets_out,
            messages_in=counters.messages_in,
            messages_out=counters.messages_out,
            bytes_in=counters.bytes_in,
            bytes_out=counters.bytes_out,
            dropped={reason: count for reason, count in counters.dropped.items() if count},
            ended={reason: count for reason, count in counters.ended.items() if count},
        )

    def publish_stats(self, now: float) -> None:
        """Publish $SYS, retained, as Mosquitto does."""
        for topic, text in sys_topics(self.stats(now)).items():
            self.publish(Message(topic, text.encode()), qos=0, retain=True)
