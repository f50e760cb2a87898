"""The edge's answers as lessons for the local model: kept for a while, distilled in a child process, released below.

What is kept is Z[0] of answered windows and their scores, in memory and bounded. Nothing is kept, and no process is
started, while no device is to answer by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edge_gateway.store import EdgeStore
from megace2_iot.blobs import Blob, Holder, digest
from megace2_iot.bus import Bus, NotPublished
from megace2_iot.examples import Embedded, pack
from megace2_iot.messages import LocalModel, ModelPointer
from megace2_iot.topics import Topics
from megace2_iot.workers import Worker, WorkerError, worker

_log = logging.getLogger("megace2.distillation")
LINE = "local"  # of its blobs at the holder
EVERY_GATE = 5  # of the kept windows each fifth is held out


class DistillationSettings(BaseModel):
    """How an edge makes the local model of its devices; see also `[edge.scheduling] answers`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    min_windows: int = Field(64, ge=16)  # answered ones behind the first release, and new ones behind each other
    max_windows: int = Field(2048, ge=16)  # kept: the newest
    max_bytes: int = Field(64 << 20, ge=1 << 20)  # of them
    every: float = Field(60.0, ge=0)  # s at least between two releases
    training: dict[str, float | int | str] = {}


class _Lesson(NamedTuple):
    number: int
    z: Embedded
    score: float
    size: int


class Distillation:
    """One edge's local model; `note` gathers, `run` distils and releases."""

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        edge: str,
        store: EdgeStore,
        down: Holder,
        teacher: Callable[[], ModelPointer | None],
        settings: DistillationSettings,
    ) -> None:
        """`teacher` tells which release answers now."""
        self._bus, self._topics, self._edge = bus, topics, edge
        self._store, self._down, self._teacher, self._settings = store, down, teacher, settings
        self._lessons: deque[_Lesson] = deque()
        self._bytes, self._seen, self._distilled = 0, 0, 0
        self._stem = ""  # of what is kept
        self._noted = asyncio.Event()
        self._version = 0

    def note(self, stem: str, samples: Sequence[Embedded], scores: np.ndarray[Any, Any]) -> None:
        """Keep what was answered; called after each batch. Windows of an older stem teach nothing."""
        teacher = self._teacher()
        if teacher is None or stem != teacher.stem:
            return
        if stem != self._stem:
            self._lessons.clear()
            self._stem, self._bytes = stem, 0
        for z, score in zip(samples, scores.tolist(), strict=True):
            if not np.isfinite(score):
                continue
            kept = {m: np.array(values, np.float32) for m, values in z.items()}  # a batch's memory is not held
            self._seen += 1
            lesson = _Lesson(self._seen, kept, score, sum(values.nbytes for values in kept.values()))
            self._lessons.append(lesson)
            self._bytes += lesson.size
        self._noted.set()
        while len(self._lessons) > self._settings.max_windows or self._bytes > self._settings.max_bytes:
            self._bytes -= self._lessons.popleft().size

    async def run(self) -> None:
        """Distil whenever there is enough to learn, for ever."""
        await self._resume()
        async with worker("edge_gateway.distiller") as distiller:
            while True:
                await self._until_enough()
                began = time.monotonic()
                try:
                    await self._distil(distiller)
                except (WorkerError, ValueError) as error:
                    _log.error("no local model: %s", error)
                    self._bus.telemetry.count("distillation_failures")
                    self._distilled = self._seen  # tried again with other windows
                    if not distiller.alive:
                        await distiller.restart()
                await asyncio.sleep(max(0.0, began + self._settings.every - time.monotonic()))

    async def _until_enough(self) -> None:
        enough = min(self._settings.min_windows, self._settings.max_windows)
        while min(self._seen - self._distilled, len(self._lessons)) < enough:
            self._noted.clear()
            await self._noted.wait()

    async def _distil(self, distiller: Worker) -> None:
        teacher, lessons = self._teacher(), list(self._lessons)
        assert teacher is not None
        self._distilled = self._seen
        fit = [lesson for lesson in lessons if lesson.number % EVERY_GATE]
        gate = [lesson for lesson in lessons if not lesson.number % EVERY_GATE]
        began = time.monotonic()
        made = await distiller.call(
            "distil",
            config=teacher.config,
            fit=pack([lesson.z for lesson in fit]),
            fit_scores=[lesson.score for lesson in fit],
            gate=pack([lesson.z for lesson in gate]),
            gate_scores=[lesson.score for lesson in gate],
            settings=dict(self._settings.training),
            seed=self._version + 1,
        )
        self._bus.telemetry.time("distillation", time.monotonic() - began)
        self._bus.telemetry.gauge("local_agreement", made["agreement"])
        blob: bytes = made["release"]
        pointer = LocalModel(
            family=made["family"],
            config=made["config"],
            version=self._version + 1,
            sha256=digest(blob),
            size=len(blob),
            stem=teacher.stem,
            stem_size=teacher.stem_size,
            created_at=time.time(),
            teacher=teacher.version,
            agreement=made["agreement"],
        )
        self._store.keep_local(pointer, blob)
        await self._release(pointer, blob)
        _log.info(
            "local model %d: the edge's label on %.1f %% of %d held-out windows, %d bytes",
            pointer.version,
            100 * pointer.agreement,
            len(gate),
            len(blob),
        )

    async def _resume(self) -> None:
        """Offer the last run's local model again: devices that start anew need not wait for the next."""
        if held := self._store.local():
            await self._release(*held)

    async def _release(self, pointer: LocalModel, blob: Blob) -> None:
        self._version = pointer.version
        self._down.offer(pointer.sha256, blob, line=LINE)
        self._down.keep_only([pointer.sha256], line=LINE)
        self._bus.telemetry.count("local_models")
        with contextlib.suppress(NotPublished):
            await self._bus.keep(self._topics.edge_all(self._edge, LocalModel.kind), pointer.encode())
