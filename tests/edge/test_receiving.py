"""Packets on their way to the intake: in turns, held up where nothing can take them, never stuck."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from edge_gateway import receiving as module
from edge_gateway.devices import Devices
from edge_gateway.quota import FairQueue, QuotaSettings
from edge_gateway.receiving import Receiving
from edge_gateway.scheduling import SchedulingSettings
from megace2_iot.bus import Delivery
from megace2_iot.messages import DeviceConfig
from megace2_iot.telemetry import Telemetry
from megace2_iot.topics import Topics

TOPICS = Topics()


def packet(device: str, content: bytes) -> Delivery:
    return Delivery(TOPICS.device_up(device, "packet", "edge-1"), content, False, 1, 0)


class Line:
    """A `Receiving` between an inbox and an intake, each of which does as a test says."""

    def __init__(self, settings: QuotaSettings | None = None, most: int = 8, each: int = 4) -> None:
        self.inbox: asyncio.Queue[Delivery] = asyncio.Queue()
        self.taken: list[bytes] = []
        self.room = asyncio.Event()
        self.room.set()
        self.devices, self.telemetry = Devices(SchedulingSettings(), "", 4), Telemetry()
        queue = FairQueue[Delivery](settings or QuotaSettings(windows=0, bytes=0), most, 1 << 20, each)
        self.receiving = Receiving(TOPICS, self.devices, queue, self.telemetry)

    def send(self, device: str, *contents: bytes) -> None:
        for content in contents:
            self.inbox.put_nowait(packet(device, content))

    def tell(self, device: str, rate: float) -> None:
        record = self.devices.get(device)
        assert record
        record.config = DeviceConfig.model_construct(rate=rate)

    @contextlib.asynccontextmanager
    async def running(self, windows: int = 1) -> AsyncIterator[None]:
        async def packets() -> AsyncIterator[Any]:
            while True:
                yield await self.inbox.get()

        def take(delivery: Delivery) -> int:
            self.taken.append(delivery.payload)
            return windows

        work = asyncio.create_task(self.receiving.run(packets(), take, self.room.wait, 32))  # type: ignore[arg-type]
        try:
            yield
        finally:
            work.cancel()
            await asyncio.wait([work])

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)


async def test_a_flood_waits_for_itself() -> None:
    """What another device sends meanwhile is next but one."""
    line = Line(most=100, each=50)
    line.send("flood", *(b"f%d" % number for number in range(40)))
    line.room.clear()
    async with line.running():
        await line.until(lambda: line.inbox.empty())
        line.send("quiet", b"q")
        await line.until(lambda: line.inbox.empty())
        line.room.set()
        await line.until(lambda: len(line.taken) == 41)
    assert line.taken.index(b"q") <= 3


async def test_without_room_the_inbox_fills() -> None:
    """Back-pressure: of what honest devices send nothing is dropped, it stays where the broker can see it."""
    line = Line(most=8, each=8)
    line.room.clear()
    for device in "abcdef":
        line.send(device, *(b"%s%d" % (device.encode(), number) for number in range(4)))
    async with line.running():
        await line.until(lambda: line.inbox.qsize() <= 24 - 9 - 1)
        await asyncio.sleep(0.02)
        assert line.inbox.qsize() == 24 - 9 - 1  # one is at the intake, and one in the hand
        line.room.set()
        await line.until(lambda: len(line.taken) == 24)
    assert line.telemetry.counters["packets_flooded"] == 0


async def test_what_is_dropped_is_counted_by_name(caplog: pytest.LogCaptureFixture) -> None:
    """Also seen: in the figures, in the facts of the edge's health, and a few times in the log."""
    line = Line(each=4)
    line.room.clear()
    line.send("flood", *([b"x"] * 40))
    async with line.running():
        await line.until(lambda: line.inbox.empty())
        line.room.set()
        await line.until(lambda: len(line.taken) == 4)
    assert line.telemetry.counters["packets_flooded"] == 36
    assert line.receiving.flooded(8) == {"flooded.flood": 36}
    assert len(caplog.records) == 6


async def test_what_waits_for_tokens_is_taken_in_time() -> None:
    """No further packet is needed to wake it up."""
    line = Line(QuotaSettings(windows=20.0, bytes=0, burst=0.05))
    line.send("a", b"1", b"2", b"3")
    async with line.running():
        await line.until(lambda: len(line.taken) == 3)
    assert line.taken == [b"1", b"2", b"3"]


async def test_a_full_queue_moves_on_when_tokens_come() -> None:
    """The receiver waits for room and the intake for tokens, and neither for the other."""
    line = Line(QuotaSettings(windows=50.0, bytes=0, burst=0.02), most=2, each=8)
    for number in range(4):
        line.send("ab"[number % 2], b"%d" % number)
    async with line.running():
        await line.until(lambda: len(line.taken) == 4)


async def test_a_told_rate_that_is_taken_back_frees_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a second, whatever the old rate would have asked for."""
    line = Line()
    line.tell("a", 0.001)
    line.send("a", b"1", b"2")
    async with line.running():
        await line.until(lambda: line.inbox.empty() and line.taken)
        line.tell("a", 0.0)
        await line.until(lambda: len(line.taken) == 2)


async def test_packets_of_gaps_alone_are_paid_for() -> None:
    """No windows are no way round the rate."""
    line = Line(QuotaSettings(windows=2.0, bytes=0, burst=1.0), each=100, most=100)
    line.send("a", *([b"gaps"] * 10))
    async with line.running(windows=0):
        await line.until(lambda: line.inbox.empty())
        await asyncio.sleep(0.05)
    assert 2 <= len(line.taken) <= 3


async def test_a_name_that_no_device_can_have_is_not_remembered() -> None:
    """Of a stranger's 60 kB name nothing stays; the next packet is taken."""
    line = Line()
    for name in ("", "Upper", "x" * 60_000, "sp ace"):
        line.send(name, b"x")
    line.send("a", b"1")
    async with line.running():
        await line.until(lambda: line.taken)
    assert (line.taken, line.telemetry.counters["packets_rejected"], len(line.devices)) == ([b"1"], 4, 0)


async def test_an_inbox_that_is_never_empty_lets_the_loop_turn() -> None:
    """Tasks of this process go on under a flood."""
    line, turns = Line(each=4), 0
    line.send("flood", *([b"x"] * 20 * module.AT_ONCE))
    async with line.running():
        while not line.inbox.empty():
            await asyncio.sleep(0)
            turns += 1
    assert turns > 10
