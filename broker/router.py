"""From publishers to sessions: who may what, who subscribed, what is retained; no I/O.

One event loop owns a router, so nothing here needs a lock and no method is ever interrupted. `now` is of one clock
that never goes back.
"""

from __future__ import annotations

from typing import NamedTuple

from broker.access import Guard
from broker.journal import FORGETFUL, Journal
from broker.message import Delivery, Message
from broker.packets import Request, Will
from broker.reasons import Reason
from broker.registry import Registry
from broker.retained import RetainedStore
from broker.session import Identity, Session
from broker.settings import EmbeddedSettings
from broker.stats import BrokerStats, Counters, sys_topics
from broker.subscriptions import Grant, Group, Subscription, Subscriptions
from broker.topics import RESERVED, SHARE, split_share


class Reached(NamedTuple):
    """What became of a publication: whether anybody wanted it, and for whose sake its acknowledgement should wait."""

    matched: bool
    full: list[Session]


def _has_connected_member(delivery: Delivery) -> bool:
    return delivery.group is not None and any(member.link is not None for member in delivery.group.members)


class Router:
    """The broker's whole state."""

    def __init__(self, settings: EmbeddedSettings, now: float, journal: Journal = FORGETFUL) -> None:
        self.settings = settings
        self.guard = Guard(settings.access, settings.access_files)
        self.journal = journal
        self.counters = Counters()
        self.retained = RetainedStore(settings.max_retained_messages, settings.max_retained_bytes, journal)
        self.registry = Registry(settings, journal, self.counters.dropped, self._ended, self._speak)
        self._started_at = now
        self._subscriptions: Subscriptions[Session] = Subscriptions(self._may_read)

    # --- sessions ---------------------------------------------------------------------------------------------

    def judge(self, identity: Identity, will: Will | None) -> Reason:
        """Whether a client whose password is right may have its session. No session has been touched yet."""
        if will is not None and not self.may_publish(identity, will.topic):
            return Reason.NOT_AUTHORIZED
        known = self.registry.get(identity.client_id)
        if known is not None and known.identity.username != identity.username:
            return Reason.BAD_CLIENT_ID  # it is somebody else's
        return Reason.SUCCESS if self.registry.has_room_for(identity) else Reason.SERVER_BUSY

    def _ended(self, session: Session, now: float) -> None:
        """A session is over: others take what it shared."""
        for topic_filter in list(session.subscriptions):
            self._drop_subscription(session, topic_filter)
        self._pass_on(session.queue.surrender(lambda delivery: True))

    # --- subscriptions ----------------------------------------------------------------------------------------

    def subscribe(self, session: Session, request: Request, identifier: int, now: float) -> int:
        """The granted QoS or a failure; the retained messages that the subscription asks for are queued."""
        found, known = split_share(request.topic_filter), request.topic_filter in session.subscriptions
        if found is None:
            return Reason.TOPIC_FILTER_INVALID
        group, topic_filter = found
        if not self.guard.may_subscribe(session.identity, topic_filter):
            return Reason.NOT_AUTHORIZED
        if not known and len(session.subscriptions) >= self.settings.max_subscriptions:
            return Reason.QUOTA_EXCEEDED
        granted = min(request.qos, self.settings.max_qos)
        flags = request.no_local, request.retain_as_published
        subscription = Subscription(topic_filter, granted, *flags, identifier, group)
        self.restore_subscription(session, request.topic_filter, subscription)
        session.journal.subscribed(session.client_id, request.topic_filter, subscription)
        if not group and (request.retain_handling == 0 or (request.retain_handling == 1 and not known)):
            self._replay(session, subscription, now)
        return granted

    def restore_subscription(self, session: Session, topic_filter: str, subscription: Subscription) -> None:
        session.subscriptions[topic_filter] = subscription
        self._subscriptions.add(session, subscription)

    def group_of(self, session: Session, topic_filter: str) -> Group[Session] | None:
        """The group of a shared subscription."""
        subscription = session.subscriptions.get(topic_filter)
        return self._subscriptions.group(subscription) if subscription else None

    def _replay(self, session: Session, subscription: Subscription, now: float) -> None:
        """All retained messages of one filter, even beyond the session's bound, but no more while it is full."""
        identifiers, full = (subscription.identifier,) if subscription.identifier else (), session.full
        for message, qos in self.retained.matching(subscription.topic_filter, now):
            if not self._may_read(session, message.topic):
                continue
            if full:  # else each repetition of a filter would add them all again
                self.counters.dropped["slow_subscriber"] += 1
            else:
                session.offer(Delivery(message, min(qos, subscription.qos), True, identifiers), force=True)

    def unsubscribe(self, session: Session, topic_filter: str) -> Reason:
        if topic_filter not in session.subscriptions:
            return Reason.NO_SUBSCRIPTION_EXISTED
        group = self.group_of(session, topic_filter)
        self._drop_subscription(session, topic_filter)
        session.journal.unsubscribed(session.client_id, topic_filter)
        if group is not None:
            self._pass_on(session.queue.surrender(lambda one: one.group is group and not one.packet_id))
        return Reason.SUCCESS

    def _drop_subscription(self, session: Session, topic_filter: str) -> None:
        self._subscriptions.remove(session, session.subscriptions.pop(topic_filter))

    # --- messages ---------------------------------------------------------------------------------------------

    def may_publish(self, identity: Identity, topic: str) -> bool:
        return not topic.startswith(RESERVED) and self.guard.may_publish(identity, topic)

    def _may_read(self, session: Session, topic: str) -> bool:
        return not self.guard.filters_reading or self.guard.may_read(session.identity, topic)

    def publish(self, message: Message, qos: int, retain: bool = False, publisher: Session | None = None) -> Reached:
        """Retain and deliver."""
        if retain and not self.retained.put(message, qos):
            self.counters.dropped["retained_full"] += 1
        full: list[Session] = []
        routes = self._subscriptions.of(message.topic)
        for session, grant, own in routes.matches:
            if session is publisher:
                grant = own
            if grant is not None:
                kept = retain and grant.retain_as_published
                self._deliver(session, Delivery(message, min(qos, grant.qos), kept, grant.identifiers), full)
        for group in routes.groups:
            chosen = self._choose(group, message.topic)
            if chosen is not None:
                session, grant = chosen
                kept = retain and grant.retain_as_published
                self._deliver(session, Delivery(message, min(qos, grant.qos), kept, grant.identifiers, group), full)
        return Reached(bool(routes.matches or routes.groups), full)

    def _choose(self, group: Group[Session], topic: str) -> tuple[Session, Grant] | None:
        """Whose turn it is: connected members with room first."""

        def rank(session: Session) -> int:
            if not self._may_read(session, topic):
                return -1
            return 0 if session.link is None else 1 if session.full else 2

        return group.choose(rank)

    def _deliver(self, session: Session, delivery: Delivery, full: list[Session]) -> None:
        if session.link is None:
            if delivery.qos:
                self._store(session, delivery)
        elif not session.offer(delivery):
            self.counters.dropped["slow_subscriber"] += 1
        elif delivery.qos and session.full:
            full.append(session)

    def _store(self, session: Session, delivery: Delivery) -> None:
        before = session.queue.size
        dropped = session.store(delivery)
        while self.registry.away_bytes + session.queue.size - before > self.settings.max_offline_bytes:
            if not session.queue.drop_oldest():
                break
            dropped += 1
        self.registry.away_bytes += session.queue.size - before
        self.counters.dropped["away"] += dropped

    def leave(self, session: Session, will: Will | None, now: float) -> None:
        """The client's connection ended; connected members of its groups take over what it did not acknowledge."""
        self.registry.leave(session, will, now)
        if any(topic_filter.startswith(SHARE) for topic_filter in session.subscriptions):
            before = session.queue.size
            self._pass_on(session.queue.surrender(_has_connected_member))
            self.registry.away_bytes += session.queue.size - before

    def _pass_on(self, given: list[Delivery]) -> None:
        """Give what one member of a group left to another, with the QoS of its new owner at most."""
        for one in given:
            chosen = self._choose(one.group, one.message.topic) if one.group else None
            if chosen is None:
                self.counters.dropped["away"] += 1
                continue
            session, grant = chosen
            qos = min(one.qos, grant.qos)
            self._deliver(session, Delivery(one.message, qos, one.retain, grant.identifiers, one.group), [])

    def _speak(self, identity: Identity, will: Will, now: float) -> None:
        """Publish a will. The access rules may have changed since it was left."""
        if not self.may_publish(identity, will.topic):
            self.counters.dropped["denied"] += 1
            return
        self.publish(Message.of(will.topic, will, now), will.qos, will.retain)

    # --- what can be seen -------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        self.registry.expire(now)
        self.retained.expire(now)

    def reload(self) -> None:
        """Read the access files again. Raises BrokerError, and then everything stays as it was."""
        self.guard.reload()
        self._subscriptions.forget_routes()

    def stats(self, now: float) -> BrokerStats:
        counters, sessions = self.counters, list(self.registry)
        return BrokerStats(
            uptime=now - self._started_at,
            connections=self.registry.connected,
            sessions=len(sessions),
            subscriptions=sum(len(session.subscriptions) for session in sessions),
            retained=self.retained.messages,
            retained_bytes=self.retained.bytes,
            queued=sum(session.queue.messages for session in sessions),
            queued_bytes=sum(session.queue.size for session in sessions),
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
