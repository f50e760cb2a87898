"""A saturated edge with preset mult: the model thread alone on one core, everything else on the other."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.load import write_packets
from benchmarks.model import STEM, best_of, embedded, loaded
from benchmarks.parts import EDGE, TOPICS, begin, load, serving, tasks
from benchmarks.rows import Row
from benchmarks.windows import payloads
from broker.mosquitto import MosquittoSettings, private_mosquitto
from edge_gateway.predictor import Answers, Predictor
from megace2_iot.bus import BrokerSettings, connect
from megace2_iot.examples import Embedded
from megace2_iot.stem import Stem

DEVICES, WARM_UP, SECONDS, BATCH = 8, 2.0, 12.0, 32


class Timed:
    """A predictor that notes how long its thread was inside of it: by the wall, and by the thread's own CPU."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.wall = self.cpu = 0.0
        self.windows = self.batches = 0

    def run(self, stem: str, samples: Sequence[Embedded]) -> Answers:
        wall, cpu = time.perf_counter(), time.thread_time()
        answers = self._predictor.run(stem, samples)
        self.wall += time.perf_counter() - wall
        self.cpu += time.thread_time() - cpu
        self.windows += len(samples)
        self.batches += 1
        return answers

    def figures(self) -> tuple[float, float, float, int, int]:
        return time.perf_counter(), self.wall, self.cpu, self.windows, self.batches


def measure() -> list[Row]:
    cores = sorted(os.sched_getaffinity(0))
    try:
        return asyncio.run(_measure(cores[0], cores[-1]))
    finally:
        os.sched_setaffinity(0, cores)


async def _measure(load_core: int, model_core: int) -> list[Row]:
    predictor, stem = loaded("mult")
    samples = embedded(stem, BATCH)
    os.sched_setaffinity(0, {load_core})  # and with it the broker's and the load's, which are started from here
    with ThreadPoolExecutor(
        1, "model", lambda: os.sched_setaffinity(threading.get_native_id(), {model_core})
    ) as thread:
        raw = await asyncio.get_running_loop().run_in_executor(
            thread, lambda: best_of(4, lambda: predictor.run(STEM, samples))
        )
        wall, busy, cpu, windows, batches = await _saturate(Timed(predictor), stem, thread)
    size = f"{windows / batches:.1f} windows a batch"
    return [
        Row("model thread inside the model, of wall time", 100 * busy / wall, "%", 100.0, 85.0, ">=", note=size),
        Row("windows, against the model alone on that core", windows / wall, "1/s", BATCH / raw, note=size),
        Row("model thread's CPU, of wall time", 100 * cpu / wall, "%", 100.0, note="less where others use the core"),
    ]


async def _saturate(timed: Timed, stem: Stem, thread: ThreadPoolExecutor) -> tuple[float, float, float, int, int]:
    """Wall time, and in it: seconds inside the model, its thread's CPU seconds, windows, batches."""
    with tempfile.TemporaryDirectory() as name:
        folder, devices = Path(name), [f"cam-{number:02d}" for number in range(DEVICES)]
        packets = folder / "packets"
        write_packets(
            packets,
            ((TOPICS.device_up(d, "packet", EDGE), p) for d in devices for p in payloads(d, 600, (STEM, stem))),
        )
        async with (
            private_mosquitto(MosquittoSettings()) as broker,
            connect(BrokerSettings(url=broker.url), EDGE) as bus,
            load(broker.port, "closed", packets) as process,
        ):
            with serving(bus, timed, (STEM, stem), folder, thread) as edge:
                subscription = await bus.subscribe(TOPICS.devices_of(EDGE, "packet"), limit=512, patient=True)
                await bus.wait_connected(5)
                async with tasks(*edge.work(subscription)):
                    begin(process)
                    await asyncio.sleep(WARM_UP)
                    before = timed.figures()
                    await asyncio.sleep(SECONDS)
                    wall, busy, cpu, windows, batches = (b - a for a, b in zip(before, timed.figures(), strict=True))
                    return wall, busy, cpu, int(windows), int(batches)
