"""A device's part in synchronous rounds: its private set, training in a child process, the update and its verdict."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from device_agent.thermal import held_off, temperature
from device_agent.windows import Window, embed
from megace2_iot.blobs import Blob, BlobGone, Holder, Puller, chunk_tag
from megace2_iot.bus import Bus, NotPublished
from megace2_iot.deltas import encode_delta
from megace2_iot.examples import pack
from megace2_iot.messages import ModelPointer, RoundStart, Verdict
from megace2_iot.offers import Offers, make_offer
from megace2_iot.stem import Stem
from megace2_iot.topics import Topics
from megace2_iot.workers import Worker, WorkerError, worker

_log = logging.getLogger("megace2.learning")
PART_OF_DEADLINE = 0.6  # of a round that training may take, where the edge does not say


class TrainingSettings(BaseModel):
    """How training yields to sensing: a child process of the lowest priority, within these bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    memory: int = Field(2 << 30, ge=256 << 20)  # bytes of data of the child; torch alone takes 300 MiB
    cores: int = Field(1, ge=1)  # it runs on so many, the last ones
    warmest: float = Field(75.0, gt=0)  # degrees Celsius from which training waits
    look_every: float = Field(2.0, gt=0)  # s between two looks at the temperature


class Learner:
    """The child process in which the devices of one process train, one after another, with one torch thread.

    It is stopped (SIGSTOP) while the machine is too warm; `run` watches that.
    """

    def __init__(
        self, settings: TrainingSettings | None = None, warmth: Callable[[], float | None] = temperature
    ) -> None:
        self._settings, self._warmth = settings or TrainingSettings(), warmth
        self.is_held_off = False
        self._stack = contextlib.AsyncExitStack()
        self._turn = asyncio.Lock()
        self._worker: Worker | None = None
        self._loaded = ""

    async def __aenter__(self) -> Learner:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.is_held_off and self._worker is not None and self._worker.alive:
            os.kill(self._worker.pid, signal.SIGCONT)  # a stopped process does not see that its input is closed
        await self._stack.aclose()

    async def train(
        self, base: Blob, start: RoundStart, config: str, examples: Mapping[str, Any], scores: np.ndarray[Any, Any]
    ) -> dict[str, Any]:
        """Train on packed `examples`; returns delta, num_examples, steps, loss, duration. Raises `WorkerError`."""
        async with self._turn:
            process = await self.process()
            if self._loaded != start.sha256:
                await process.call("load", config=config, blob=base)
                self._loaded = start.sha256
            return await process.call(
                "train", examples=dict(examples), scores=scores, seed=start.round, settings=dict(start.training)
            )

    async def process(self) -> Worker:
        """The child, started or started anew where there is none that lives."""
        if self._worker is None:
            bounds = json.dumps({"memory": self._settings.memory, "cores": self._settings.cores})
            self._worker = await self._stack.enter_async_context(worker("device_agent.learner", bounds))
        elif not self._worker.alive:
            self._loaded = ""  # it crashed, or a device that left while it trained took it along
            await self._worker.restart()
        return self._worker

    async def watch(self) -> None:
        """Hold training off while the machine is too warm, for ever."""
        while True:
            held = held_off(self.is_held_off, self._warmth(), self._settings.warmest)
            if held != self.is_held_off:
                self.is_held_off = held
                _log.info("training %s: %.0f degrees", "waits" if held else "goes on", self._warmth() or 0.0)
                if self._worker is not None and self._worker.alive:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self._worker.pid, signal.SIGSTOP if held else signal.SIGCONT)
            await asyncio.sleep(self._settings.look_every)


class Participant:
    """One device in its edge's rounds. `add` grows the private set, which holds the newest `limit` windows."""

    def __init__(
        self, bus: Bus, topics: Topics, device: str, edge: str, learner: Learner, puller: Puller, *, limit: int
    ) -> None:
        self._bus, self._topics, self._device, self._edge = bus, topics, device, edge
        self._learner, self._puller = learner, puller
        self._private: deque[Window] = deque(maxlen=limit)
        self._embedded: deque[tuple[dict[Any, Any], float]] = deque(maxlen=limit)
        self._starts: asyncio.Queue[RoundStart] = asyncio.Queue(1)
        self._residual: np.ndarray[Any, Any] | None = None
        self._stem: Stem | None = None
        self._pointer: ModelPointer | None = None
        self.holder = Holder(bus, lambda asker, sha: topics.device_up(device, "chunk", edge), merge=False)
        self.offers = Offers(bus, topics.device_up(device, "update", edge), self.holder, edge)

    # -- what comes in ----------------------------------------------------------------
    def add(self, window: Window) -> None:
        """A labelled window joins the private set, once it was sent."""
        self._private.append(window)
        if self._stem is not None:
            self._embedded.append(self._example(window, self._stem))
        self._bus.telemetry.gauge("private_windows", len(self._private))

    def use_stem(self, stem: Stem) -> None:
        """Train above this stem from now on."""
        self._stem = stem
        self._embedded = deque((self._example(w, stem) for w in self._private), maxlen=self._private.maxlen)

    def use_model(self, pointer: ModelPointer) -> None:
        self._pointer = pointer

    def round_opened(self, start: RoundStart) -> None:
        """Remember the newest round that wants this device; one that trains now is finished first."""
        if self._device not in start.participants:
            return
        if self._starts.full():
            self._starts.get_nowait()
            self._bus.telemetry.count("rounds_missed")
        self._starts.put_nowait(start)

    # -- what it does -----------------------------------------------------------------
    async def run(self) -> None:
        """Serve rounds for ever; a round that cannot be served is left, the edge's deadline closes it."""
        while True:
            start = await self._starts.get()
            try:
                await self._serve(start)
            except (BlobGone, NotPublished) as error:
                _log.info("round %d left: %s", start.round, error)
            except WorkerError as error:
                _log.error("training failed: %s", error)
                self._bus.telemetry.count("training_failures")
                self._decline(start)

    async def _serve(self, start: RoundStart) -> None:
        pointer = self._pointer
        if pointer is None or pointer.family != start.family or not self._embedded:
            self._decline(start)
            return
        if self._learner.is_held_off:
            self._bus.telemetry.count("rounds_held_off")
            self._decline(start)
            return
        base = await self._puller.pull(
            start.sha256,
            start.size,
            request_topic=self._topics.device_up(self._device, "blob_request", self._edge),
            chunk_filter=self._topics.edge_all(self._edge, "chunk", chunk_tag(start.sha256)),
        )
        self._puller.keep_only([start.sha256, pointer.stem])
        start = start.model_copy(
            update={"training": {"max_seconds": PART_OF_DEADLINE * start.deadline, **start.training}}
        )
        examples, scores = zip(*self._embedded, strict=True)
        began = time.monotonic()
        result = await self._learner.train(base, start, pointer.config, pack(examples), np.array(scores, np.float32))
        self._bus.telemetry.count("rounds_trained")
        self._bus.telemetry.time("training", time.monotonic() - began)
        self._bus.telemetry.gauge("training_loss", float(result["loss"]))
        codec = str(start.training.get("codec", "int8"))
        try:
            body, residual = encode_delta(result["delta"], codec, self._residual)
        except ValueError as error:  # training diverged: nothing of it is given, and its leftovers go with it
            _log.error("round %d: %s", start.round, error)
            self._bus.telemetry.count("training_failures")
            self._residual = None
            self._decline(start)
            return
        duration = time.monotonic() - began
        examples_behind = result["num_examples"]
        offer = make_offer(
            self._device, start.family, start.base_version, start.round, examples_behind, codec, body, duration
        )
        self.offers.put(offer, body).add_done_callback(lambda answer: self._judged(answer, start.round, residual))

    def _decline(self, start: RoundStart) -> None:
        """Tell the edge not to wait."""
        declined = make_offer(self._device, start.family, start.base_version, start.round, {}, "float32", b"")
        self.offers.put(declined, b"")

    def _judged(self, answer: asyncio.Future[Verdict], number: int, residual: np.ndarray[Any, Any] | None) -> None:
        if answer.cancelled():
            self._bus.telemetry.count("updates_unanswered")
        elif answer.result().accepted:
            self._residual = residual  # what int8 left over goes into the next update
        else:
            _log.info("update of round %d refused: %s", number, answer.result().reason)

    @staticmethod
    def _example(window: Window, stem: Stem) -> tuple[dict[Any, Any], float]:
        assert window.label is not None
        return dict(embed(window, stem)), window.label
