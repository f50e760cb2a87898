"""Models beside packets: what a 14 kB packet waits while 50 MB leave on the same 20 Mbit/s link, and merged pulls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts import EDGE, TOPICS, tasks
from benchmarks.rows import Row
from broker.mosquitto import MosquittoSettings, private_mosquitto
from megace2_iot.blobs import BlobStore, Holder, Puller, chunk_tag, digest
from megace2_iot.bus import BrokerSettings, Bus, Subscription, connect
from megace2_iot.messages import BlobRequest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from link import ShapedLink  # shared with the tests

MODEL, PACKET, EVERY, LINK = 50_000_000, 14_000, 0.1, 20e6  # bytes, bytes, s, bit/s
DEVICES, APART = 8, 0.02  # s between the devices' first requests: they hear of a release at the same moment
BROKER = MosquittoSettings(max_packet_size=1_000_000)


def measure() -> list[Row]:
    alone = asyncio.run(_waits(0))
    waits = asyncio.run(_waits(MODEL))
    sent, pulled = asyncio.run(_merged())
    note = f"{len(waits)} packets during the transfer; ceiling: the same on the idle link"
    return [
        Row("wait of a 14 kB packet beside 50 MB, p50", _ms(waits, 50), "ms", _ms(alone, 50), 200.0, note=note),
        Row("wait of a 14 kB packet beside 50 MB, p95", _ms(waits, 95), "ms", _ms(alone, 95), 200.0),
        Row("the longest wait", _ms(waits, 100), "ms", _ms(alone, 100)),
        Row(
            f"bytes an edge sends while {DEVICES} devices pull one model",
            sent / MODEL,
            "models",
            1.0,
            1.5,
            note=f"pulled by all in {pulled:.1f} s",
        ),
    ]


def _ms(waits: list[float], q: float) -> float:
    return 1000 * float(np.percentile(waits, q))


async def _waits(size: int) -> list[float]:
    """s from publishing a packet to its arrival, for packets sent while a model of `size` bytes leaves."""
    blob = os.urandom(max(1, size))
    with tempfile.TemporaryDirectory() as folder:
        async with (
            private_mosquitto(BROKER) as broker,
            ShapedLink(broker.port, rate_bit_s=LINK) as link,
            connect(BrokerSettings(url=f"mqtt://127.0.0.1:{link.port}"), EDGE) as bus,
            connect(BrokerSettings(url=broker.url), "cam-0") as other,
        ):
            waits: list[float] = []
            arrivals = await other.subscribe(TOPICS.devices_of(EDGE, "packet"), limit=1024)
            await other.wait_connected(5)
            await bus.wait_connected(5)

            async def receive() -> None:
                async for delivery in arrivals:
                    waited = time.monotonic() - float(delivery.payload[:24])
                    waits.append(waited)

            async def send() -> None:
                for _ in range(50) if not size else iter(int, 1):
                    stamp = f"{time.monotonic():<24.9f}".encode()
                    await bus.publish(TOPICS.device_up("cam-1", "packet", EDGE), stamp + os.urandom(PACKET - 24))
                    await asyncio.sleep(EVERY)

            async with tasks(receive(), *_holding(bus, blob, await _requests(bus))):
                if size:
                    async with tasks(send()):
                        await _pull(other, "cam-0", blob, Path(folder))
                else:
                    await send()
            return waits


async def _merged() -> tuple[int, float]:
    """Bytes that an edge sent, and s until all had it."""
    blob = os.urandom(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        async with private_mosquitto(BROKER) as broker, contextlib.AsyncExitStack() as stack:
            names = [EDGE, *(f"cam-{number}" for number in range(DEVICES))]
            buses = [await stack.enter_async_context(connect(BrokerSettings(url=broker.url), name)) for name in names]
            for bus in buses:
                await bus.wait_connected(5)

            async def late(number: int, bus: Bus) -> None:
                await asyncio.sleep(APART * number)
                await _pull(bus, f"cam-{number}", blob, Path(folder))

            async with tasks(*_holding(buses[0], blob, await _requests(buses[0]))):
                began = time.monotonic()
                await asyncio.gather(*(late(number, bus) for number, bus in enumerate(buses[1:])))
                return buses[0].telemetry.counters["blob_sent_bytes"], time.monotonic() - began


async def _requests(bus: Bus) -> Subscription:
    return await bus.subscribe(TOPICS.devices_of(EDGE, "blob_request"), limit=1024)


def _holding(bus: Bus, blob: bytes, requests: Subscription) -> tuple[Coroutine[Any, Any, None], ...]:
    """The tasks of a holder, as the gateway runs them."""
    holder = Holder(bus, lambda asker, sha: TOPICS.edge_all(EDGE, "chunk", chunk_tag(sha)), merge=True)
    holder.offer(digest(blob), blob)

    async def hear() -> None:
        async for delivery in requests:
            holder.ask(TOPICS.parse(delivery.topic).node, BlobRequest.decode(delivery.payload))

    return hear(), holder.run()


async def _pull(bus: Bus, device: str, blob: bytes, folder: Path) -> None:
    await Puller(bus, BlobStore(folder / device)).pull(
        digest(blob),
        len(blob),
        request_topic=TOPICS.device_up(device, "blob_request", EDGE),
        chunk_filter=TOPICS.edge_all(EDGE, "chunk", chunk_tag(digest(blob))),
    )
