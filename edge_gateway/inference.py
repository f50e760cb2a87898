"""From samples to answers: batch, run the model in its thread.

The event loop decodes the next packets while the model thread restores, embeds and runs a batch; weights are swapped
between batches in that same thread, so the model needs no lock. While the batcher is nearly full no packet is taken,
and the broker waits. A window that finds it full all the same is dropped and counted: its device has the only copy
that matters and sends it again.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from edge_gateway.answers import Answers, Waiting
from edge_gateway.batcher import Batcher, Pace, length_bucket
from edge_gateway.coded import embed
from edge_gateway.distillation import Distillation
from megace2_iot.examples import Embedded
from megace2_iot.features import MODALITIES
from megace2_iot.telemetry import Telemetry

if TYPE_CHECKING:
    from edge_gateway.predictor import Answers as Batch
    from edge_gateway.predictor import Predictor


class InferenceSettings(BaseModel):
    """How an edge batches."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_batch_size: int = Field(32, ge=1, le=1024)
    max_queue_delay: float = Field(0.005, ge=0, le=10)  # s a window waits for company, where any is expected by then
    max_queued: int = Field(512, ge=1)  # windows
    max_queued_bytes: int = Field(64 << 20, ge=1 << 20)  # of them
    remembered_answers: int = Field(64, ge=0, le=4096)  # of each device


class Inference:
    """One edge's model side: what waits for the model, and the model."""

    def __init__(
        self,
        answers: Answers,
        predictor: Predictor,
        thread: ThreadPoolExecutor,
        telemetry: Telemetry,
        settings: InferenceSettings,
        distillation: Distillation | None = None,
    ) -> None:
        """`distillation` is told of every answer."""
        self._answers, self._distillation = answers, distillation
        self._predictor, self._thread, self._settings = predictor, thread, settings
        self._telemetry = telemetry
        self._batcher: Batcher[Waiting] = Batcher(
            max_batch_size=settings.max_batch_size,
            max_queue_delay=settings.max_queue_delay,
            capacity=settings.max_queued,
            capacity_bytes=settings.max_queued_bytes,
        )
        self._pace = Pace()
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        self.busy_seconds = 0.0  # of the model thread

    @property
    def queued(self) -> int:
        return len(self._batcher)

    # -- in ---------------------------------------------------------------------------
    async def until_room(self) -> None:
        """Wait while the batcher is nearly full."""
        while not self._batcher.has_room:
            self._room.clear()
            await self._room.wait()

    def put(self, sample: Waiting) -> bool:
        """Queue one sample for the model; False where there is no room."""
        bucket = (sample.stem, *(length_bucket(sample.window.steps(modality)) for modality in MODALITIES))
        if not self._batcher.add(sample, bucket, sample.queued, sample.window.size):
            return False
        self._pace.note(sample.queued)
        self._arrived.set()
        return True

    # -- through ----------------------------------------------------------------------
    async def run_model(self) -> None:
        """Run batches for ever, one at a time, in the model thread."""
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            began = time.monotonic()
            embedded, answers = await loop.run_in_executor(self._thread, self._run, batch)
            took = time.monotonic() - began
            self.busy_seconds += took
            self._telemetry.count("batches")
            self._telemetry.time("batch", took)
            for waiting, z in zip(batch, embedded, strict=True):
                if isinstance(z, str):
                    self._reject_sample(waiting, z)
            if answers is not None:
                sound = [(waiting, z) for waiting, z in zip(batch, embedded, strict=True) if not isinstance(z, str)]
                if self._distillation is not None:
                    self._distillation.note(batch[0].stem, [z for _, z in sound], answers.scores)
                for index, (waiting, _) in enumerate(sound):
                    self._answers.answer(waiting, answers, index, began, took)

    def _reject_sample(self, waiting: Waiting, reason: str) -> None:
        for recipient in waiting.recipients:
            self._telemetry.count("windows_rejected")
            self._answers.refuse(recipient, reason)

    def _run(self, batch: list[Waiting]) -> tuple[list[Embedded | str], Batch | None]:
        """In the model thread: what became of each window, and the answers to those that have a Z[0]."""
        embedded = embed([waiting.window for waiting in batch], batch[0].embedder)
        sound = [z for z in embedded if not isinstance(z, str)]
        return embedded, self._predictor.run(batch[0].stem, sound) if sound else None

    async def _next_batch(self) -> list[Waiting]:
        while True:
            self._arrived.clear()
            now = time.monotonic()
            alone = self._pace.gap > self._settings.max_queue_delay  # nobody is expected in that time: do not wait
            if batch := self._batcher.take(now, early=alone):
                self._room.set()
                return batch
            deadline = self._batcher.next_deadline()
            try:
                async with asyncio.timeout(None if deadline is None else max(0.0, deadline - now)):
                    await self._arrived.wait()
            except TimeoutError:
                continue
