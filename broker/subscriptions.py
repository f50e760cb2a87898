"""Who subscribed to what: one copy for each client however its filters overlap, and one for each `$share` group.

What matches a topic is remembered until a subscription or an access rule changes, so the trees are walked once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

from broker.topics import SHARE, TopicTree

S = TypeVar("S", bound=Hashable)

MATCH_CACHE = 4096  # topics whose subscribers are remembered


class Subscription(NamedTuple):
    """What a client asked for with one topic filter; `topic_filter` is without `$share/<group>/`."""

    topic_filter: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    identifier: int = 0  # 0: none
    group: str = ""  # of a shared subscription


class Grant(NamedTuple):
    """How a message reaches one subscriber: all its matching subscriptions in one."""

    qos: int
    retain_as_published: bool
    identifiers: tuple[int, ...]

    @staticmethod
    def of(subscriptions: Iterable[Subscription]) -> Grant | None:
        """The greatest QoS, and every identifier; None for no subscription."""
        found = list(subscriptions)
        if not found:
            return None
        identifiers = tuple(one.identifier for one in found if one.identifier)
        return Grant(max(one.qos for one in found), any(one.retain_as_published for one in found), identifiers)


class Match(NamedTuple, Generic[S]):
    """One subscriber of a topic: what it gets of others' messages, and what of its own (No Local)."""

    subscriber: S
    grant: Grant | None
    own: Grant | None


class Group(Generic[S]):
    """The members of one shared subscription, in the order in which it is their turn."""

    def __init__(self, topic_filter: str = "") -> None:
        self.topic_filter = topic_filter  # whole, with `$share/`
        self.members: dict[S, Subscription] = {}

    def choose(self, rank: Callable[[S], int]) -> tuple[S, Grant] | None:
        """The first member of the highest rank, who then goes to the end; None where all rank below 0.

        `rank` is 2 for a connected member with room, 1 for a connected one, 0 for one that is away. The search ends
        at the first 2.
        """
        best, highest = None, -1
        for member in self.members:
            if (ranked := rank(member)) > highest:
                best, highest = member, ranked
                if ranked == 2:
                    break
        if best is None:
            return None
        subscription = self.members[best] = self.members.pop(best)
        identifiers = (subscription.identifier,) if subscription.identifier else ()
        return best, Grant(subscription.qos, subscription.retain_as_published, identifiers)


class Routes(NamedTuple, Generic[S]):
    """Where a topic's messages go."""

    matches: tuple[Match[S], ...]
    groups: tuple[Group[S], ...]


class Subscriptions(Generic[S]):
    """All subscriptions of all clients."""

    def __init__(self, may_read: Callable[[S, str], bool]) -> None:
        self._may_read = may_read
        self._plain: TopicTree[dict[S, Subscription]] = TopicTree()
        self._shared: TopicTree[dict[str, Group[S]]] = TopicTree()
        self._routes: dict[str, Routes[S]] = {}

    def add(self, subscriber: S, subscription: Subscription) -> None:
        """Subscribe, or replace a subscription to the same filter."""
        self._routes.clear()
        if subscription.group:
            groups = self._shared.setdefault(subscription.topic_filter, {})
            name = f"{SHARE}{subscription.group}/{subscription.topic_filter}"
            groups.setdefault(subscription.group, Group(name)).members[subscriber] = subscription
        else:
            self._plain.setdefault(subscription.topic_filter, {})[subscriber] = subscription

    def remove(self, subscriber: S, subscription: Subscription) -> None:
        self._routes.clear()
        path = subscription.topic_filter
        if not subscription.group:
            subscribers = self._plain.get(path) or {}
            if subscribers.pop(subscriber, None) is not None and not subscribers:
                self._plain.remove(path)
        elif (groups := self._shared.get(path)) and (group := groups.get(subscription.group)):
            group.members.pop(subscriber, None)
            if not group.members:
                del groups[subscription.group]
            if not groups:
                self._shared.remove(path)

    def group(self, subscription: Subscription) -> Group[S] | None:
        return (self._shared.get(subscription.topic_filter) or {}).get(subscription.group)

    def forget_routes(self) -> None:
        """The access rules changed."""
        self._routes.clear()

    def of(self, topic: str) -> Routes[S]:
        """Each subscriber and each group once; subscribers that may not read the topic are left out."""
        routes = self._routes.get(topic)
        if routes is None:
            if len(self._routes) >= MATCH_CACHE:
                self._routes.clear()
            routes = self._routes[topic] = self._find(topic)
        return routes

    def _find(self, topic: str) -> Routes[S]:
        found: dict[S, list[Subscription]] = {}
        for subscribers in self._plain.under_filters_of(topic):
            for subscriber, subscription in subscribers.items():
                found.setdefault(subscriber, []).append(subscription)
        matches = tuple(
            Match(subscriber, Grant.of(all_), Grant.of(one for one in all_ if not one.no_local))
            for subscriber, all_ in found.items()
            if self._may_read(subscriber, topic)
        )
        groups = (group for named in self._shared.under_filters_of(topic) for group in named.values())
        return Routes(matches, tuple(groups))
