"""Retained messages: the last one of each topic, bounded in number and in bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from broker.journal import FORGETFUL, Journal
from broker.message import NEVER, Message
from broker.topics import MAX_LEVELS, RESERVED, TopicTree


class Retained(NamedTuple):
    message: Message
    qos: int  # that it was published with


class RetainedStore:
    """The last retained message of each topic. What the broker says of itself is not kept over a restart."""

    def __init__(self, max_messages: int, max_bytes: int, journal: Journal = FORGETFUL) -> None:
        self.messages = 0
        self.bytes = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._journal = journal
        self._tree: TopicTree[Retained] = TopicTree()
        self._expiring: dict[str, Message] = {}

    def put(self, message: Message, qos: int) -> bool:
        """Keep `message` in place of its topic's last; an empty payload clears. False where it does not fit.

        The topic's old message is forgotten even where the new one does not fit: a stale state is worse than
        none.
        """
        self._clear(message.topic)
        if not message.payload:
            return True
        fits = self.messages < self._max_messages and self.bytes + message.size <= self._max_bytes
        if not fits or message.topic.count("/") >= MAX_LEVELS:
            return False
        self.restore(message, qos)
        if not message.topic.startswith(RESERVED):
            self._journal.retained(message, qos)
        return True

    def restore(self, message: Message, qos: int) -> None:
        """Put back what was retained before a restart."""
        self._tree.put(message.topic, Retained(message, qos))
        self.messages += 1
        self.bytes += message.size
        if message.expires_at != NEVER:
            self._expiring[message.topic] = message

    def matching(self, topic_filter: str, now: float) -> Iterator[Retained]:
        for one in self._tree.under_topics_of(topic_filter):
            if one.message.expires_at > now:
                yield one

    def expire(self, now: float) -> None:
        """Forget what is older than its publisher wanted."""
        for message in [message for message in self._expiring.values() if message.expires_at <= now]:
            self._clear(message.topic)

    def _clear(self, topic: str) -> None:
        old = self._tree.get(topic)
        if old is None:
            return
        self._tree.remove(topic)
        self._expiring.pop(topic, None)
        self.messages -= 1
        self.bytes -= old.message.size
        if not topic.startswith(RESERVED):
            self._journal.cleared(topic, old.message)
