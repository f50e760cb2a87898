"""The edge's intake (receive, decode, dedup, batch, a model that does nothing) against a bare aiomqtt subscriber."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiomqtt

from benchmarks.load import write_packets
from benchmarks.model import STEM
from benchmarks.parts import EDGE, TOPICS, NoModel, Silent, begin, load, serving, tasks
from benchmarks.rows import Row
from benchmarks.windows import DIMS, MULT_WIDTH, payloads
from broker.mosquitto import MosquittoSettings, private_mosquitto
from megace2_iot.bus import BrokerSettings, Delivery, connect
from megace2_iot.stem import Stem

PACKETS, DEVICES, RUNS = 3000, 6, 4
PATIENCE = 30.0  # s
QUEUE = MosquittoSettings(max_queued_messages=PACKETS + 1)  # the load is faster than any reader: nothing may be dropped

Subscriber = Callable[[int, Path, Path], Awaitable[tuple[float, float]]]


def measure() -> list[Row]:
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    stem = Stem.random(DIMS, MULT_WIDTH, seed=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"features": _write(folder / "features", None), "Z[0]": _write(folder / "embedded", (STEM, stem))}
        sizes = {kind: path.stat().st_size / PACKETS / 1000 for kind, path in files.items()}
        rows = []
        for kind, path in files.items():
            answering = {
                "answers not published": lambda port, p, f: _intake(port, p, f, stem, publish=False),
                "answers published": lambda port, p, f: _intake(port, p, f, stem, publish=True),
            }
            found = {"bare": (0.0, 1e9)} | dict.fromkeys(answering, (0.0, 1e9))
            for number in range(RUNS):  # in turn, so that a busy moment of the machine hits all of them
                for what, subscriber in {"bare": _bare, **answering}.items():
                    work = folder / f"{kind}-{number}-{what}"
                    work.mkdir()
                    rate, cpu = await _rate(subscriber, path, work)
                    found[what] = (max(found[what][0], rate), min(found[what][1], cpu))
            rows += _rows(kind, sizes[kind], found)
    return rows


def _rows(kind: str, size: float, found: dict[str, tuple[float, float]]) -> list[Row]:
    raw, raw_cpu = found.pop("bare")
    rows = []
    for what, (rate, cpu) in found.items():
        # 14 kB packets without answers are the target's; the others are there to compare with
        target = 0.60 if kind == "features" and "not" in what else None
        note = f"of {1e6 * cpu:.0f} us CPU a packet, bare {1e6 * raw_cpu:.0f} us: {raw_cpu / cpu:.2f} x"
        rows.append(Row(f"{kind}, {size:.1f} kB, {what}", rate, "packets/s", raw, target, ">=", "ratio", note))
    return rows


def _write(path: Path, stem: tuple[str, Stem] | None) -> Path:
    devices = [f"cam-{number:02d}" for number in range(DEVICES)]
    streams = [payloads(device, PACKETS // DEVICES, stem) for device in devices]
    turns = zip(*streams, strict=True)
    write_packets(
        path, ((TOPICS.device_up(d, "packet", EDGE), p) for turn in turns for d, p in zip(devices, turn, strict=True))
    )
    return path


async def _rate(subscriber: Subscriber, packets: Path, folder: Path) -> tuple[float, float]:
    """Packets a second, and seconds of this process's CPU a packet, from the first to the last."""
    async with private_mosquitto(QUEUE) as broker:
        wall, cpu = await subscriber(broker.port, packets, folder)
        return PACKETS / wall, cpu / PACKETS


class _Clock:
    """From the first packet to the last."""

    def __init__(self) -> None:
        self.began = self.cpu = 0.0

    def start(self) -> None:
        if not self.began:
            self.began, self.cpu = time.perf_counter(), time.process_time()

    def lap(self) -> float:
        return time.perf_counter() - self.began

    def stop(self) -> tuple[float, float]:
        return self.lap(), time.process_time() - self.cpu


async def _bare(port: int, packets: Path, folder: Path) -> tuple[float, float]:
    """The README's subscriber, no more."""
    clock, seen = _Clock(), 0
    async with aiomqtt.Client("127.0.0.1", port) as client, load(port, "flood", packets) as process:
        await client.subscribe(TOPICS.devices_of(EDGE, "packet"), qos=1)
        begin(process)
        async for _ in client.messages:
            clock.start()
            seen += 1
            if seen == PACKETS:
                break
        return clock.stop()


async def _intake(port: int, packets: Path, folder: Path, stem: Stem, *, publish: bool) -> tuple[float, float]:
    """Until the batcher gave every window to the model and every answer was made.

    With answers the load is what devices do: 32 windows of each unanswered, and the next when one is answered.
    """
    clock = _Clock()

    async def timed(subscription: AsyncIterator[Delivery]) -> AsyncIterator[Delivery]:
        async for delivery in subscription:
            clock.start()
            yield delivery

    settings = BrokerSettings(url=f"mqtt://127.0.0.1:{port}")
    with ThreadPoolExecutor(1) as thread:
        async with connect(settings, EDGE) as bus, load(port, "closed" if publish else "flood", packets) as process:
            out = bus if publish else Silent()
            with serving(out, NoModel(), (STEM, stem), folder, thread) as edge:
                subscription = await bus.subscribe(TOPICS.devices_of(EDGE, "packet"), limit=512, patient=True)
                await bus.wait_connected(5)
                async with tasks(*edge.work(timed(subscription))):
                    begin(process)
                    while out.telemetry.counters["answers_answered"] < PACKETS:
                        await asyncio.sleep(0.002)
                        assert not clock.began or clock.lap() < PATIENCE, out.telemetry.counters
                    taken = clock.stop()
                dropped = {n: c for n, c in out.telemetry.counters.items() if "drop" in n or "reject" in n}
                assert not dropped, dropped
                return taken
