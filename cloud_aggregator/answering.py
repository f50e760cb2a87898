"""The cloud's answers to windows that edges are not sure of: queued, batched, run by a process with torch.

The process is the trainer's program, started with the first question: one that scores a release would let others wait
for seconds. It answers with the newest release, or with a larger model from a checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from cloud_aggregator.store import Release
from megace2_iot.blobs import Blob
from megace2_iot.bus import Bus, Delivery, NotPublished
from megace2_iot.codec import DecodeError
from megace2_iot.messages import CloudAnswer, Forward
from megace2_iot.topics import Topics
from megace2_iot.workers import Worker, WorkerError, worker

_log = logging.getLogger("megace2.answering")
QUEUED = 256  # questions that wait; the oldest goes first, its edge has an answer of its own
BATCH = 32


@dataclass(frozen=True, slots=True)
class Serves:
    """What answers at present."""

    release: Release
    config: str
    base: Blob
    stem: str  # sha256
    stem_blob: Blob


class Answering:
    """One cloud's answers. `newest` tells what the newest release is, `checkpoint` names a larger model's file."""

    def __init__(self, bus: Bus, topics: Topics, newest: Callable[[], Serves], checkpoint: str) -> None:
        self._bus, self._topics, self._newest, self._checkpoint = bus, topics, newest, checkpoint
        self._waiting: deque[tuple[str, Forward]] = deque()
        self._news = asyncio.Event()
        self._loaded = -1  # version

    async def hear(self, messages: AsyncIterator[Delivery]) -> None:
        """Take questions for ever."""
        async for delivery in messages:
            try:
                question = Forward.decode(delivery.payload)
            except DecodeError as error:
                self._bus.telemetry.count("messages_rejected")
                _log.warning("%s: %s", delivery.topic, error)
                continue
            if len(self._waiting) >= QUEUED:
                self._waiting.popleft()
                self._bus.telemetry.count("forwards_dropped")
            self._waiting.append((self._topics.parse(delivery.topic).node, question))
            self._news.set()

    async def run(self) -> None:
        """Answer for ever."""
        async with worker("cloud_aggregator.trainer") as process:
            while True:
                await self._until_asked()
                count = min(BATCH, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(count)]
                began = time.monotonic()
                try:
                    answers = await self._answer(process, [question for _, question in batch])
                except WorkerError as error:
                    _log.error("no answers: %s", error)
                    answers = [{"reason": str(error)}] * count
                    self._loaded = -1
                    if not process.alive:
                        await process.restart()
                self._bus.telemetry.time("cloud_batch", time.monotonic() - began)
                for (edge, question), answer in zip(batch, answers, strict=True):
                    await self._tell(edge, CloudAnswer(id=question.id, **answer))

    async def _until_asked(self) -> None:
        while not self._waiting:
            self._news.clear()
            await self._news.wait()

    async def _answer(self, process: Worker, questions: list[Forward]) -> list[dict[str, Any]]:
        serves = self._newest()
        wanted = 0 if self._checkpoint else serves.release.version
        if self._loaded != wanted:
            if self._checkpoint:
                await process.call("open_checkpoint", path=self._checkpoint)
            else:
                await process.call(
                    "open_release", config=serves.config, base=bytes(serves.base), stem=bytes(serves.stem_blob)
                )
            self._loaded = wanted
        asked = [
            {"stage": question.stage, "stem": question.stem, "sequences": question.window.sequences}
            for question in questions
        ]
        answers: list[dict[str, Any]] = (await process.call("answer", questions=asked))["answers"]
        version = serves.release.version if not self._checkpoint else None
        return [{**answer, "version": version if "score" in answer else None} for answer in answers]

    async def _tell(self, edge: str, answer: CloudAnswer) -> None:
        self._bus.telemetry.count("forwards_answered" if answer.score is not None else "forwards_refused")
        with contextlib.suppress(NotPublished):
            await self._bus.publish(self._topics.edge_down(edge, CloudAnswer.kind), answer.encode())
