"""Topics and topic filters: which are valid, which match, and who subscribed to what (MQTT 3.1.1, 4.7)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

V = TypeVar("V")
S = TypeVar("S", bound=Hashable)

MAX_LEVELS = 32  # of a filter, and of a topic to retain: each level is a node that somebody must pay for
MATCH_CACHE = 4096  # topics whose subscribers are remembered until a subscription changes


def is_valid_filter(topic_filter: str) -> bool:
    """Whether `+` and `#` stand alone in their levels, `#` last, and the depth is within MAX_LEVELS."""
    levels = topic_filter.split("/")
    if not topic_filter or len(levels) > MAX_LEVELS or "#" in levels[:-1]:
        return False
    return all(level in ("+", "#") or not ("+" in level or "#" in level) for level in levels)


class _Node(Generic[V]):
    __slots__ = ("children", "value")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.value: V | None = None


class TopicTree(Generic[V]):
    """Values under topics or topic filters, one tree node per level."""

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()

    def get(self, path: str) -> V | None:
        node: _Node[V] | None = self._root
        for level in path.split("/"):
            if node is None:
                return None
            node = node.children.get(level)
        return node.value if node else None

    def put(self, path: str, value: V) -> None:
        node = self._root
        for level in path.split("/"):
            node = node.children.setdefault(level, _Node())
        node.value = value

    def remove(self, path: str) -> None:
        """Forget `path`'s value, if it has one, and every node that it alone needed."""
        node, trail = self._root, []
        for level in path.split("/"):
            if level not in node.children:
                return
            trail.append((node, level))
            node = node.children[level]
        node.value = None
        for parent, level in reversed(trail):
            child = parent.children[level]
            if child.children or child.value is not None:
                return
            del parent.children[level]

    def under_filters_of(self, topic: str) -> Iterator[V]:
        """Values whose path, read as a topic filter, matches `topic`."""
        nodes = [self._root]
        for depth, level in enumerate(topic.split("/")):
            wildcards = depth > 0 or not level.startswith("$")  # a leading wildcard must not match $SYS
            deeper = []
            for node in nodes:
                if wildcards and (rest := node.children.get("#")) is not None and rest.value is not None:
                    yield rest.value
                if wildcards and (any_level := node.children.get("+")) is not None:
                    deeper.append(any_level)
                if (exact := node.children.get(level)) is not None:
                    deeper.append(exact)
            nodes = deeper
        for node in nodes:
            if node.value is not None:
                yield node.value
            if (rest := node.children.get("#")) is not None and rest.value is not None:
                yield rest.value  # "a/#" matches "a" itself

    def under_topics_of(self, topic_filter: str) -> Iterator[V]:
        """Values whose path, read as a topic, is matched by `topic_filter`."""
        nodes = [self._root]
        for depth, level in enumerate(topic_filter.split("/")):
            if level == "#":
                yield from self._below(nodes, depth)
                return
            if level == "+":
                nodes = [child for node in nodes for child in self._matched_by_wildcard(node, depth)]
            else:
                nodes = [node.children[level] for node in nodes if level in node.children]
        yield from (node.value for node in nodes if node.value is not None)

    def _below(self, nodes: list[_Node[V]], depth: int) -> Iterator[V]:
        waiting = []
        for node in nodes:
            if depth > 0 and node.value is not None:
                yield node.value
            waiting += self._matched_by_wildcard(node, depth)
        while waiting:
            node = waiting.pop()
            if node.value is not None:
                yield node.value
            waiting += node.children.values()

    @staticmethod
    def _matched_by_wildcard(node: _Node[V], depth: int) -> list[_Node[V]]:
        return [child for level, child in node.children.items() if depth > 0 or not level.startswith("$")]


class Subscriptions(Generic[S]):
    """Who subscribed to which topic filter with which QoS."""

    def __init__(self) -> None:
        self._tree: TopicTree[dict[S, int]] = TopicTree()
        self._matches: dict[str, tuple[tuple[S, int], ...]] = {}

    def add(self, subscriber: S, topic_filter: str, qos: int) -> None:
        """Subscribe, or change the QoS of a subscription."""
        self._matches.clear()
        subscribers = self._tree.get(topic_filter)
        if subscribers is None:
            self._tree.put(topic_filter, {subscriber: qos})
        else:
            subscribers[subscriber] = qos

    def remove(self, subscriber: S, topic_filter: str) -> None:
        self._matches.clear()
        subscribers = self._tree.get(topic_filter)
        if subscribers is None or subscribers.pop(subscriber, None) is None:
            return
        if not subscribers:
            self._tree.remove(topic_filter)

    def of(self, topic: str) -> tuple[tuple[S, int], ...]:
        """Each subscriber once, with the greatest QoS of its filters that match `topic`."""
        found = self._matches.get(topic)
        if found is None:
            greatest: dict[S, int] = {}
            for subscribers in self._tree.under_filters_of(topic):
                for subscriber, qos in subscribers.items():
                    greatest[subscriber] = max(qos, greatest.get(subscriber, 0))
            found = tuple(greatest.items())
            if len(self._matches) >= MATCH_CACHE:
                self._matches.clear()
            self._matches[topic] = found
        return found
