"""What an observer of a site sees: the state and health of every node, from retained messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from megace2_iot.bus import Bus, Delivery
from megace2_iot.codec import DecodeError
from megace2_iot.messages import Health, ModelPointer, State
from megace2_iot.telemetry import Rate, Telemetry, merged
from megace2_iot.topics import Topics


@dataclass(slots=True)
class Node:
    """One node as seen."""

    tier: str
    id: str
    edge: str = ""  # of a device
    state: str = "?"
    session: int = -1
    software: str = ""
    figures: Telemetry = field(default_factory=Telemetry)
    facts: dict[str, Any] = field(default_factory=dict)
    version: int | None = None
    seen_at: float = 0.0
    rate: Rate = field(default_factory=Rate)


class Watch:
    """Keeps the newest of every node."""

    def __init__(self, bus: Bus, topics: Topics) -> None:
        self._bus, self._topics = bus, topics
        self.nodes: dict[tuple[str, str], Node] = {}
        self.rejected = 0
        self.retained = 0  # messages that were there before we came

    async def subscribe(self) -> list[AsyncIterator[Delivery]]:
        """Subscribe to every state, health and model pointer."""
        filters = [*self._topics.observe("state"), *self._topics.observe("health")]
        filters += [self._topics.edge_all("+", "model"), self._topics.cloud_all("model")]
        return [await self._bus.subscribe(topic_filter, limit=4096) for topic_filter in filters]

    async def follow(self, messages: AsyncIterator[Delivery]) -> None:
        """Take messages for ever."""
        async for delivery in messages:
            self.take(delivery)

    async def run(self) -> None:
        """Subscribe and take everything for ever."""
        async with asyncio.TaskGroup() as tasks:
            for number, messages in enumerate(await self.subscribe()):
                tasks.create_task(self.follow(messages), name=f"watch-{number}")

    def take(self, delivery: Delivery) -> None:
        address = self._topics.parse(delivery.topic)
        self.retained += delivery.retained
        if not delivery.payload:
            return
        key = (address.tier, address.node)
        node = self.nodes.setdefault(key, Node(*key))
        node.edge = address.peer if address.tier == "device" else ""
        try:
            self._update(node, address.kind, delivery.payload)
        except (DecodeError, KeyError, ValueError, TypeError):
            self.rejected += 1

    def _update(self, node: Node, kind: str, payload: bytes) -> None:
        if kind == "state":
            state = State.decode(payload)
            if state.session >= node.session:
                node.state, node.session, node.software = state.state, state.session, state.software
        elif kind == "model":
            node.version = ModelPointer.decode(payload).version
        elif kind == "health":
            health = Health.decode(payload)
            node.figures, node.facts, node.seen_at = Telemetry.from_snapshot(health.figures), health.facts, health.at
            done = node.figures.counters["windows_answered"] or node.figures.counters["windows_received"]
            node.rate.note(done, time.monotonic())

    def of_tier(self, tier: str) -> list[Node]:
        return sorted((node for node in self.nodes.values() if node.tier == tier), key=lambda node: node.id)

    def total(self, tier: str, edge: str = "") -> Telemetry:
        """The figures of a tier, or of one edge's devices, added up."""
        return merged(node.figures for node in self.of_tier(tier) if not edge or node.edge == edge)
