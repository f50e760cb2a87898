"""Answers that wait for the link: bounded, and nobody's pushes out another's."""

from __future__ import annotations

import asyncio
from typing import Any

from edge_gateway.replies import Replies
from megace2_iot.telemetry import Telemetry
from megace2_iot.topics import Topics


class Link:
    """In the place of a bus: takes what is published when it is told to."""

    def __init__(self) -> None:
        self.telemetry, self.up = Telemetry(), asyncio.Event()
        self.said: list[bytes] = []

    async def publish(self, topic: str, payload: bytes) -> None:
        await self.up.wait()
        self.said.append(payload)


async def test_a_flood_pushes_out_its_own_answers() -> None:
    """Who asks for what is answered at once, and does not take the answers, leaves room for those of others."""
    link: Any = Link()
    replies = Replies(link, Topics(), "edge-1", 100)
    sending = asyncio.create_task(replies.send())
    for number in range(200):
        replies.put("flood", "repeated", b"f%d" % number)
    for number in range(25):
        replies.put("cam", "answered", b"c%d" % number)
    assert link.telemetry.counters["answers_dropped"] == 200 - 25
    link.up.set()
    while len(link.said) < 50:
        await asyncio.sleep(0)
    assert link.said[:26] == [*(b"f%d" % number for number in range(25)), b"c0"]
    for _ in range(25):
        replies.put("flood", "repeated", b"again")
    assert link.telemetry.counters["answers_dropped"] == 200 - 25
    sending.cancel()
    await asyncio.wait([sending])


async def test_all_that_wait_are_bounded() -> None:
    """However many devices they go to."""
    link: Any = Link()
    replies = Replies(link, Topics(), "edge-1", 100)
    for number in range(300):
        replies.put(f"cam-{number}", "answered", b"x")
    assert link.telemetry.counters["answers_dropped"] == 200
