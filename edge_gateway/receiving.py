"""Packets from the broker to the intake: each device in its turn, floods dropped before anybody decodes them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from heapq import nlargest

from edge_gateway.devices import Devices
from edge_gateway.quota import FairQueue
from megace2_iot.bus import Delivery
from megace2_iot.telemetry import Telemetry
from megace2_iot.topics import Topics, check_id

_log = logging.getLogger("megace2.receiving")
AT_ONCE = 128  # packets taken from the inbox before the intake has its turn


class Receiving:
    """One edge's packets on their way from the one inbox of all its devices."""

    def __init__(self, topics: Topics, devices: Devices, queue: FairQueue[Delivery], telemetry: Telemetry) -> None:
        self._topics, self._devices, self._queue, self._telemetry = topics, devices, queue, telemetry
        self._came, self._left = asyncio.Event(), asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    async def run(
        self,
        packets: AsyncIterator[Delivery],
        take: Callable[[Delivery], int],
        room: Callable[[], Awaitable[None]],
        turn: int,
    ) -> None:
        """Hand packets to `take`, which says how many windows one held, for ever; while there is no `room` none is."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive(packets), name="receiving")
            tasks.create_task(self._hand_on(take, room, turn), name="handing-on")

    # -- in ---------------------------------------------------------------------------
    async def _receive(self, packets: AsyncIterator[Delivery]) -> None:
        taken = 0
        async for delivery in packets:
            if (device := self._sender(delivery)) is not None:
                await self._put(device, delivery)
            taken += 1
            if taken % AT_ONCE == 0:  # an inbox that is never empty does not suspend this task
                await asyncio.sleep(0)

    def _sender(self, delivery: Delivery) -> str | None:
        """Whose packet it is; None for a name that no device can have: nothing is to be remembered of it."""
        try:
            return check_id(self._topics.parse(delivery.topic).node)
        except ValueError:
            self._telemetry.count("packets_rejected")
            return None

    async def _put(self, device: str, delivery: Delivery) -> None:
        while (became := self._queue.put(device, delivery, len(delivery.payload))) == "full":
            self._left.clear()
            await self._left.wait()  # the inbox fills up, and the broker waits
        if became == "waits":
            self._came.set()
        elif (lost := self._queue.flooded[device]) & (lost - 1) == 0:  # at 1, 2, 4, 8 ...
            _log.warning("%s sends more than it may: %d of its packets were dropped unread", device, lost)
        self._telemetry.counters["packets_flooded"] = self._queue.floods

    # -- out --------------------------------------------------------------------------
    async def _hand_on(self, take: Callable[[Delivery], int], room: Callable[[], Awaitable[None]], turn: int) -> None:
        done = 0
        while True:
            found = self._queue.take(self._devices.told_rate, time.monotonic())
            if found is None:
                await self._until_one_may()
                continue
            device, delivery = found
            self._left.set()
            self._queue.charge(device, max(0, take(delivery) - 1))  # one of gaps alone is paid for as well
            done += 1
            if done % turn == 0:  # the model and the senders need the loop
                await asyncio.sleep(0)
            await room()

    async def _until_one_may(self) -> None:
        """Wait for a packet, or for a token of a device that has one waiting."""
        self._came.clear()
        wait = self._queue.wait(time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if math.isinf(wait) else wait):
                await self._came.wait()

    # -- what it says -----------------------------------------------------------------
    def flooded(self, most: int) -> dict[str, int]:
        """Packets that were dropped unread, as facts by device: of those that lost most."""
        worst = nlargest(most, self._queue.flooded.items(), key=lambda pair: pair[1])
        return {f"flooded.{device}": count for device, count in worst}
