"""End to end through the whole stack: 4 devices x 5 Hz, preset mult, training off, each tier a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from benchmarks.model import STEM, best_of, embedded, loaded
from benchmarks.rows import Row
from benchmarks.windows import packet, process
from broker.mosquitto import MosquittoSettings, private_mosquitto
from edge_gateway.inference import InferenceSettings
from megace2_iot.bus import BrokerSettings, connect
from megace2_iot.cli.processes import Child, stop_all
from megace2_iot.cli.watching import Watch
from megace2_iot.recording import Recorder
from megace2_iot.telemetry import Histogram, Telemetry
from megace2_iot.topics import Topics

DEVICES, RATE, WARM_UP, SECONDS = 4, 5.0, 6.0, 25.0
PHASES = ("generation", "transmission", "queue", "inference", "result")


def measure() -> list[Row]:
    predictor, stem = loaded("mult")
    sample = embedded(stem, 1)
    alone = best_of(30, lambda: predictor.run(STEM, sample))
    target = 1000 * (alone + InferenceSettings().max_queue_delay) + 5
    rows = [
        Row("model at batch 1, in a hot loop: the bar stands on it", 1000 * alone, "ms"),
        Row(
            "model at batch 1, median at the devices' pace", 1000 * _at_pace(lambda: predictor.run(STEM, sample)), "ms"
        ),
    ]
    for broker in ("embedded", "mosquitto"):
        figures = asyncio.run(_run(broker))
        times = figures.histograms["end_to_end"]
        split = ", ".join(f"{name} {_ms(figures.histograms[name], 0.5):.1f}" for name in PHASES)
        note = f"{len(times)} windows; p50 of {split}"
        rows.append(Row(f"{broker}: end to end, p50", _ms(times, 0.5), "ms", 1000 * alone, target, note=note))
        note = f"p95 {_ms(times, 0.95):.1f}, p99 of inference {_ms(figures.histograms['inference'], 0.99):.1f}"
        rows.append(Row(f"{broker}: end to end, p99", _ms(times, 0.99), "ms", 1000 * alone, 45.0, note=note))
    return rows


def _at_pace(work: Callable[[], object]) -> float:
    """Median seconds at the pace of the devices: the caches are as cold as they are in the stack."""
    taken = []
    for _ in range(60):
        time.sleep(1 / RATE / DEVICES)
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _ms(histogram: Histogram, q: float) -> float:
    return 1000 * (histogram.quantile(q) or 0.0)


async def _run(broker: str) -> Telemetry:
    """The devices' figures between the warm-up and the end."""
    with tempfile.TemporaryDirectory(prefix="megace2-latency-") as name:
        folder = Path(name)
        _record(folder / "windows.rec")
        async with _broker(broker, folder) as url, connect(BrokerSettings(url=url), "observer") as bus:
            watch = Watch(bus, Topics())
            following = asyncio.create_task(watch.run())
            try:
                async with _tiers(folder, url):
                    await asyncio.sleep(WARM_UP)
                    before = watch.total("device")
                    await asyncio.sleep(SECONDS)
                    return _since(before, watch.total("device"))
            finally:
                following.cancel()
                await asyncio.wait([following])


def _record(path: Path) -> None:
    """Four streams; their first gaps differ, so that they do not stay in step as one clock's sensors would."""
    with Recorder(path) as recorder:
        for number in range(DEVICES):
            for seq in range(int((WARM_UP + SECONDS + 10) * RATE)):
                at = 1e9 + seq / RATE + (number / DEVICES / RATE if seq else 0.0)
                device = f"cam-{number}"
                recorder.add(at, device, packet(device, seq, process(seq % 8)).encode())


@contextlib.asynccontextmanager
async def _broker(kind: str, folder: Path) -> AsyncIterator[str]:
    if kind == "mosquitto":
        async with private_mosquitto(MosquittoSettings()) as broker:
            yield broker.url
        return
    log = folder / "broker.log"
    child = await Child.start("broker", ["broker", "--port", "0"], log, {})
    try:
        await child.until_ready()
        yield next(line for line in log.read_text().splitlines() if line.startswith("mqtt://"))
    finally:
        await child.stop()


def settings_of(folder: Path, url: str, preset: str, dims: dict[Any, int]) -> Path:
    """A settings file for all tiers, training off."""
    model = ", ".join(f"{modality} = {dim}" for modality, dim in dims.items())
    path = folder / "megace2.toml"
    path.write_text(
        f"""[broker]
url = {json.dumps(url)}
[cloud]
state_dir = "{folder}/cloud"
durable = false
model = {{ preset = "{preset}", dims = {{ {model} }} }}
[edge]
state_dir = "{folder}/edge"
health_interval = 0.5
learning = {{ rounds = false, adapters = false }}
[device]
state_dir = "{folder}/devices"
health_interval = 0.5
train = false
"""
    )
    return path


@contextlib.asynccontextmanager
async def _tiers(folder: Path, url: str) -> AsyncIterator[None]:
    config = ["--config", str(settings_of(folder, url, "mult", {"text": 300, "audio": 74, "vision": 35}))]
    children: list[Child] = []
    try:
        children.append(await Child.start("cloud", ["cloud", *config], folder / "cloud.log", {}))
        edge = ["edge", "--id", "edge-1", *config]
        children.append(await Child.start("edge", edge, folder / "edge.log", {}))
        await asyncio.gather(*(child.until_ready() for child in children))
        replay = ["replay", str(folder / "windows.rec"), "--edge", "edge-1", "--devices", str(DEVICES), "--stay"]
        children.insert(0, await Child.start("replay", [*replay, *config], folder / "replay.log", {}))
        await children[0].until_ready()
        yield
    finally:
        for child in children:
            await stop_all([child])


def _since(before: Telemetry, after: Telemetry) -> Telemetry:
    counts = {n: h.counts - before.histograms.get(n, Histogram()).counts for n, h in after.histograms.items()}
    return Telemetry(after.counters - before.counters, {}, {name: Histogram(count) for name, count in counts.items()})
