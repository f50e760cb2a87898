"""From both edges holding a finished update to both answering with the release that folds both; loopback.

Inside the span: encoding the delta, offer, pull of what is above 128 KiB, journal, fold and release of each update in
turn, pointer, pull by both edges, loading it into the predictor. Cloud and edges are real processes with the wiring of
their tiers; only the rounds before the span are left out. The ceiling is the same bytes (up once, down once, by both)
through the same broker in chunks of 64 KiB, with nothing done to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.latency import settings_of
from benchmarks.parts import ended
from benchmarks.rows import Row
from benchmarks.windows import DIMS
from broker.mosquitto import MosquittoSettings, private_mosquitto
from megace2_iot.bus import BULK_WINDOW, BrokerSettings, Bus, Subscription, connect
from megace2_iot.cli.processes import Child
from megace2_iot.messages import CHUNK_SIZE
from megace2_iot.model.config import preset
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.state import base_tensors

EDGES = ("edge-1", "edge-2")
PATIENCE = 60.0  # s
CASES = (
    ("nano", "int8", 0.15, 5),
    ("nano", "float32", 0.15, 5),
    ("paper", "float32", 2.0, 3),
    ("paper", "int8", 2.0, 3),
)


def measure() -> list[Row]:
    rows = []
    for name, codec, target, runs in CASES:
        model = CrossModalTransformer.seeded(preset(name, DIMS), 0)
        size = sum(tensor.nbytes for tensor in base_tensors(model).values())
        up = size if codec == "float32" else size // 4
        taken, raw = zip(*(asyncio.run(_run(name, codec, up, size)) for _ in range(runs)), strict=True)
        note = f"each edge {up / 1e6:.2f} MB up, {size / 1e6:.2f} MB down; all runs {_listed(taken)}"
        rows.append(Row(f"{name}, {codec} deltas, best of {runs}", min(taken), "s", min(raw), target, note=note))
    return rows


def _listed(taken: tuple[float, ...]) -> str:
    return ", ".join(f"{seconds:.2f}" for seconds in taken)


async def _run(name: str, codec: str, up: int, down: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="megace2-release-") as folder:
        async with private_mosquitto(MosquittoSettings()) as broker:
            raw = await _raw(broker.url, up, down)
            return await _released(Path(folder), broker.url, name, codec), raw


async def _released(folder: Path, url: str, name: str, codec: str) -> float:
    config = settings_of(folder, url, name, dict(DIMS))
    config.write_text(config.read_text().replace("durable = false\n", ""))  # wait for the disk, as a cloud does
    cloud = await Child.start("cloud", ["cloud", "--config", str(config)], folder / "cloud.log", {})
    try:
        await cloud.until_ready()
        async with contextlib.AsyncExitStack() as stack:
            edges = [await stack.enter_async_context(_edge(config, edge, codec)) for edge in EDGES]
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(_until(edge, "ready") for edge in edges))
                began = time.monotonic()
                for edge in edges:
                    _write(edge)
                ended = await asyncio.gather(*(_until_folded(edge) for edge in edges))
            return max(ended) - began
    finally:
        await cloud.stop()


@contextlib.asynccontextmanager
async def _edge(config: Path, edge: str, codec: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    with (config.parent / f"{edge}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.release_edge", str(config), edge, codec),
            stdin=pipe,
            stdout=pipe,
            stderr=log,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ConnectionError):
            _write(process)
        await ended(process)


def _write(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        yield line.decode().strip()
    raise RuntimeError("an edge of the benchmark ended: see its log")


async def _until(process: asyncio.subprocess.Process, word: str) -> None:
    async for line in _lines(process):
        if line == word:
            return


async def _until_folded(process: asyncio.subprocess.Process) -> float:
    """When this edge answered with a release that folds both updates."""
    async for line in _lines(process):
        if line.split()[2] == str(len(EDGES)):
            return float(line.split()[1])
    raise AssertionError


# -- the ceiling ----------------------------------------------------------------------
async def _raw(url: str, up: int, down: int) -> float:
    """s for both edges' bytes up, and then one model down to both, as nothing but chunks."""
    async with contextlib.AsyncExitStack() as stack:
        names = ("raw-cloud", "raw-1", "raw-2")
        cloud, *edges = [await stack.enter_async_context(connect(BrokerSettings(url=url), name)) for name in names]
        sink = await cloud.subscribe("raw/up", limit=1024)
        sinks = [await edge.subscribe("raw/down", limit=1024) for edge in edges]
        for bus in (cloud, *edges):
            await bus.wait_connected(5)
        began = time.monotonic()
        await asyncio.gather(_read(sink, 2 * up), *(_push(edge, "raw/up", up) for edge in edges))
        await asyncio.gather(_push(cloud, "raw/down", down), *(_read(each, down) for each in sinks))
        return time.monotonic() - began


async def _push(bus: Bus, topic: str, size: int) -> None:
    chunk = os.urandom(CHUNK_SIZE)
    sizes = iter([CHUNK_SIZE] * (size // CHUNK_SIZE) + [size % CHUNK_SIZE])

    async def lane() -> None:
        for part in sizes:
            await bus.publish(topic, chunk[:part])

    await asyncio.gather(*(lane() for _ in range(BULK_WINDOW)))


async def _read(subscription: Subscription, size: int) -> None:
    async for delivery in subscription:
        size -= len(delivery.payload)
        if size <= 0:
            return
