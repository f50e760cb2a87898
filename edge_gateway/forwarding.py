"""Windows of which the edge's model is not sure go to the cloud's; what comes back in time is the answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from megace2_iot.bus import Bus, NotPublished
from megace2_iot.messages import CloudAnswer, Forward, PacketWindow, Stage
from megace2_iot.topics import Topics

OnAnswer = Callable[[CloudAnswer | None], None]  # None: the cloud gave none in time
IDLE = 1.0  # s between two looks at deadlines where nothing happens


class ForwardingSettings(BaseModel):
    """When an edge asks the cloud."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    below: float = Field(0.0, ge=0, le=1)  # confidence under which a window is forwarded; 0: never
    timeout: float = Field(1.0, gt=0, le=60)  # s for the cloud's answer, then the edge's own counts
    max_waiting: int = Field(64, ge=1)  # windows at the cloud at a time


@dataclass(slots=True)
class _Asked:
    message: Forward
    on_answer: OnAnswer
    deadline: float  # monotonic s
    sent: bool = False


class Forwarding:
    """One edge's questions to the cloud; `run` must be running."""

    def __init__(self, bus: Bus, topics: Topics, edge: str, settings: ForwardingSettings) -> None:
        self._bus, self._topics, self._edge, self._settings = bus, topics, edge, settings
        self._asked: dict[int, _Asked] = {}
        self._next = 0
        self._news = asyncio.Event()
        self.cloud_is_online = False

    def wants(self, confidence: float | None) -> bool:
        """Whether an answer of this confidence should be the cloud's; counts what finds no room."""
        if confidence is None or confidence >= self._settings.below or not self.cloud_is_online:
            return False
        if len(self._asked) >= self._settings.max_waiting:
            self._bus.telemetry.count("forwards_dropped")
            return False
        return True

    def ask(self, stage: Stage, stem: str, window: PacketWindow, on_answer: OnAnswer) -> None:
        """Ask about one window; `on_answer` is called once, in time or with None."""
        self._next += 1
        message = Forward(id=self._next, stage=stage, stem=stem, window=window)
        self._asked[self._next] = _Asked(message, on_answer, time.monotonic() + self._settings.timeout)
        self._news.set()

    def arrived(self, answer: CloudAnswer) -> None:
        """Take the cloud's answer; one that comes too late is counted."""
        asked = self._asked.pop(answer.id, None)
        if asked is None:
            self._bus.telemetry.count("cloud_answers_late")
            return
        if answer.score is None:
            self._bus.telemetry.count("cloud_answers_refused")
        asked.on_answer(answer if answer.score is not None else None)

    async def run(self) -> None:
        """Publish questions and keep their deadlines, for ever."""
        topic = self._topics.edge_up(self._edge, Forward.kind)
        while True:
            self._news.clear()
            for asked in [asked for asked in self._asked.values() if not asked.sent]:
                asked.sent = True
                self._bus.telemetry.count("windows_forwarded")
                with contextlib.suppress(NotPublished):  # its deadline passes
                    await self._bus.publish(topic, asked.message.encode())
            self._expire(time.monotonic())
            wait = min((asked.deadline for asked in self._asked.values()), default=time.monotonic() + IDLE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wait - time.monotonic())):
                    await self._news.wait()

    def _expire(self, now: float) -> None:
        for number in [number for number, asked in self._asked.items() if asked.deadline <= now]:
            self._bus.telemetry.count("cloud_answers_missing")
            self._asked.pop(number).on_answer(None)
