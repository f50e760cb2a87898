"""Retained messages: the last one of each topic, bounded in number and in bytes."""

from __future__ import annotations

from collections.abc import Iterator

from broker.session import Message
from broker.topics import MAX_LEVELS, TopicTree


class RetainedStore:
    """The last retained message of each topic, with the QoS that it was published with."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.messages = 0
        self.bytes = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._tree: TopicTree[tuple[Message, int]] = TopicTree()

    def put(self, message: Message, qos: int) -> bool:
        """Keep `message` in place of its topic's last; an empty payload clears. False where it does not fit.

        The topic's old message is forgotten even where the new one does not fit: a stale state is worse than
        none.
        """
        old = self._tree.get(message.topic)
        if old is not None:
            self._tree.remove(message.topic)
            self.messages -= 1
            self.bytes -= old[0].size
        if not message.payload:
            return True
        fits = self.messages < self._max_messages and self.bytes + message.size <= self._max_bytes
        if not fits or message.topic.count("/") >= MAX_LEVELS:
            return False
        self._tree.put(message.topic, (message, qos))
        self.messages += 1
        self.bytes += message.size
        return True

    def matching(self, topic_filter: str) -> Iterator[tuple[Message, int]]:
        return self._tree.under_topics_of(topic_filter)
