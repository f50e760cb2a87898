"""Topics and topic filters: which are valid, and which match (MQTT, 4.7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

V = TypeVar("V")

MAX_LEVELS = 32  # of a filter, and of a topic to retain: each level is a node that somebody must pay for
SHARE = "$share/"
RESERVED = "$SYS/"  # only the broker publishes below it


def is_valid_filter(topic_filter: str) -> bool:
    """Whether `+` and `#` stand alone in their levels, `#` last, and the depth is within MAX_LEVELS."""
    levels = topic_filter.split("/")
    if not topic_filter or len(levels) > MAX_LEVELS or "#" in levels[:-1]:
        return False
    return all(level in ("+", "#") or not ("+" in level or "#" in level) for level in levels)


def split_share(topic_filter: str) -> tuple[str, str] | None:
    """Group and plain filter of `$share/group/filter`, or of any filter with no group; None where it is invalid."""
    group = ""
    if topic_filter.startswith(SHARE):
        group, slash, topic_filter = topic_filter[len(SHARE) :].partition("/")
        if not slash or not group or "+" in group or "#" in group:
            return None
    return (group, topic_filter) if is_valid_filter(topic_filter) else None


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter matches a topic, for one pair; the trees below do it for many."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if levels[0].startswith("$") and wanted[0] in ("+", "#"):
        return False
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place == len(levels) or level not in ("+", levels[place]):
            return False
    return len(wanted) == len(levels)


def overlap(one: str, other: str) -> bool:
    """Whether some topic is matched by both of two valid filters."""
    ones, others = one.split("/"), other.split("/")
    if {ones[0], others[0]} & {"+", "#"} and (ones[0] + others[0]).count("$"):
        return False
    for left, right in zip(ones, others, strict=False):
        if "#" in (left, right):
            return True
        if left != right and "+" not in (left, right):
            return False
    longer = max(ones, others, key=len)[min(len(ones), len(others)) :]
    return not longer or longer == ["#"]


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that the filter `narrow` matches is matched by the filter `wide`."""
    wanted, levels = wide.split("/"), narrow.split("/")
    if wanted[0] in ("+", "#") and levels[0].startswith("$"):
        return False
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place == len(levels) or levels[place] == "#" or level not in ("+", levels[place]):
            return False
    return len(wanted) == len(levels)


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

    def setdefault(self, path: str, value: V) -> V:
        """The value of `path`, which becomes `value` where it has none."""
        found = self.get(path)
        if found is None:
            self.put(path, found := value)
        return found

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
