"""Parts of an edge to measure: an intake over any predictor, a load process, and tasks that end with their block."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_gateway.answers import Answers
from edge_gateway.devices import Devices
from edge_gateway.forwarding import Forwarding, ForwardingSettings
from edge_gateway.inference import Inference, InferenceSettings
from edge_gateway.intake import Intake, SceneSettings
from edge_gateway.labels import LabelledStore
from edge_gateway.quota import FairQueue, QuotaSettings
from edge_gateway.receiving import Receiving
from edge_gateway.replies import Replies
from edge_gateway.scheduling import SchedulingSettings
from megace2_iot.bus import Bus
from megace2_iot.examples import Embedded
from megace2_iot.quality import DEFAULT_FLOORS
from megace2_iot.stem import Stem
from megace2_iot.telemetry import Telemetry
from megace2_iot.topics import Topics

TOPICS, EDGE = Topics(), "edge-1"


@dataclass(frozen=True, slots=True)
class Zeros:
    """What a model that does nothing answers."""

    scores: npt.NDArray[np.float32]
    confidences: None = None
    version: int = 1
    adapter: bool = False


class NoModel:
    """A predictor that costs nothing."""

    def run(self, stem: str, samples: Sequence[Embedded]) -> Zeros:
        return Zeros(np.zeros(len(samples), np.float32))


class Silent:
    """In the place of a bus: answers are made and encoded, and go nowhere."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()

    async def publish(self, topic: str, payload: bytes) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The parts of an edge that answer packets."""

    intake: Intake
    receiving: Receiving
    inference: Inference
    replies: Replies

    def work(self, packets: AsyncIterator[Any]) -> tuple[Coroutine[Any, Any, None], ...]:
        """What must run for `packets` to be answered."""
        room, turn = self.inference.until_room, InferenceSettings().max_batch_size
        taking = self.receiving.run(packets, self.intake.take, room, turn)
        return taking, self.inference.run_model(), self.replies.send()


@contextlib.contextmanager
def serving(bus: Bus | Silent, predictor: Any, stem: tuple[str, Stem], folder: Path, thread: ThreadPoolExecutor) -> Any:
    """An edge's serving path as the gateway builds it."""
    settings = InferenceSettings()
    devices = Devices(SchedulingSettings(), "", settings.remembered_answers)
    with contextlib.closing(LabelledStore(folder / "labelled.sqlite")) as labels:
        some_bus: Any = bus
        replies = Replies(some_bus, TOPICS, EDGE, 4 * settings.max_queued)
        answers = Answers(replies, Forwarding(some_bus, TOPICS, EDGE, ForwardingSettings()), bus.telemetry)
        inference = Inference(answers, predictor, thread, bus.telemetry, settings)
        parts = devices, labels, answers, replies, bus.telemetry
        intake = Intake(TOPICS, *parts, DEFAULT_FLOORS, SceneSettings(), inference.put)
        intake.use_stem(stem[0], stem[1], 1)
        each = settings.max_queued  # a load of any kind: no device is held back or loses anything
        queue = FairQueue[Any](QuotaSettings(windows=0, bytes=0), each, settings.max_queued_bytes, each)
        yield Serving(intake, Receiving(TOPICS, devices, queue, bus.telemetry), inference, replies)


@contextlib.asynccontextmanager
async def tasks(*work: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Run these beside the block; they end with it, and a crash of one ends it."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(part) for part in work]
        yield
        for task in running:
            task.cancel()


@contextlib.asynccontextmanager
async def load(port: int, mode: str, packets: Path, core: int = -1) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that holds its packets ready; a line on its input starts it."""
    arguments = ["-m", "benchmarks.load", str(port), mode, str(packets), str(core)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield process
    finally:
        process.stdin.close()
        await ended(process)


async def ended(process: asyncio.subprocess.Process) -> None:
    """Wait for a process that was told to end; kill it after 5 s."""
    try:
        async with asyncio.timeout(5):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def begin(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")
