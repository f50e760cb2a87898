"""From packets to predictions: decode, drop duplicates, batch, run the model in its thread, answer.

The event loop decodes the next packets while the model thread restores, embeds and runs a batch; weights are swapped
between batches in that same thread, so the model needs no lock. While the batcher is nearly full no packet is taken,
and the broker waits. A window that finds it full all the same is dropped and counted: its device has the only copy
that matters and sends it again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from edge_gateway.batcher import Batcher, Pace, length_bucket
from edge_gateway.coded import CodedWindow, embed
from edge_gateway.devices import DeviceRecord, Devices
from edge_gateway.labels import LabelledStore
from edge_gateway.replies import Replies
from megace2_iot.bus import Bus, Delivery
from megace2_iot.codec import DecodeError
from megace2_iot.examples import Embedded
from megace2_iot.features import MODALITIES
from megace2_iot.messages import FeaturePacket, PacketWindow, Prediction, Refusal, Timings
from megace2_iot.stem import Stem
from megace2_iot.telemetry import Telemetry
from megace2_iot.topics import Topics

if TYPE_CHECKING:
    from edge_gateway.predictor import Answers, Predictor

_log = logging.getLogger("megace2.inference")


class InferenceSettings(BaseModel):
    """How an edge batches."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_batch_size: int = Field(32, ge=1, le=1024)
    max_queue_delay: float = Field(0.005, ge=0, le=10)  # s a window waits for company, where any is expected by then
    max_queued: int = Field(512, ge=1)  # windows
    max_queued_bytes: int = Field(64 << 20, ge=1 << 20)  # of them
    remembered_answers: int = Field(64, ge=0)  # of each device


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A window in the batcher."""

    device: DeviceRecord
    epoch: int
    seq: int
    stem: str
    window: CodedWindow
    embedder: Stem
    received_at: float  # unix s
    queued: float  # monotonic s

    def embed(self) -> Embedded:
        """Its Z[0]; raises ValueError where it has none."""
        (z,) = embed([self.window], self.embedder)
        if isinstance(z, str):
            raise ValueError(z)
        return z


class Inference:
    """One edge's serving path. `quarantine` is told of each packet that cannot be read: device, bytes, why."""

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        edge: str,
        devices: Devices,
        labels: LabelledStore,
        predictor: Predictor,
        thread: ThreadPoolExecutor,
        settings: InferenceSettings,
        quarantine: Callable[[str, bytes, str], None] | None = None,
    ) -> None:
        self._topics = topics
        self._devices, self._labels = devices, labels
        self._predictor, self._thread, self._settings = predictor, thread, settings
        self._quarantine = quarantine
        self._telemetry: Telemetry = bus.telemetry
        self._batcher: Batcher[Waiting] = Batcher(
            max_batch_size=settings.max_batch_size,
            max_queue_delay=settings.max_queue_delay,
            capacity=settings.max_queued,
            capacity_bytes=settings.max_queued_bytes,
        )
        self._pace = Pace()
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        self.replies = Replies(bus, topics, edge, 4 * settings.max_queued)
        self._stems: dict[str, Stem] = {}
        self._newest: tuple[str, int] | None = None
        self.busy_seconds = 0.0  # of the model thread

    def use_stem(self, sha256: str, stem: Stem, size: int) -> None:
        """Take packets of this stem, and remember the one before it."""
        self._stems[sha256] = stem
        self._newest = (sha256, size)
        for old in [name for name in self._stems if name != sha256][:-1]:
            del self._stems[old]

    @property
    def queued(self) -> int:
        return len(self._batcher)

    # -- in ---------------------------------------------------------------------------
    async def intake(self, packets: Any) -> None:
        """Take packets for ever; a bad one is counted and answered with a reason."""
        taken = 0
        async for delivery in packets:
            self.take(delivery)
            taken += 1
            if taken % self._settings.max_batch_size == 0:  # an inbox that is never empty does not suspend this task
                await asyncio.sleep(0)  # the model and the senders need the loop; oftener, and the inbox overflows
            while not self._batcher.has_room:
                self._room.clear()
                await self._room.wait()

    def take(self, delivery: Delivery) -> None:
        """Take one packet."""
        sender = self._topics.parse(delivery.topic).node
        received_at, queued = time.time(), time.monotonic()
        try:
            packet = FeaturePacket.decode(delivery.payload)
            if packet.device != sender:
                raise DecodeError(f"packet: it says {packet.device}, the topic says {sender}")
        except DecodeError as error:
            self._reject(sender, str(error))
            if self._quarantine is not None:
                self._quarantine(sender, delivery.payload, str(error))
            return
        record = self._devices.get(packet.device)
        if record is None:
            self._reject(sender, "this edge has no room for one more device")
            return
        self._telemetry.count("packets_received")
        self._telemetry.count("packet_bytes", len(delivery.payload))
        for window in packet.windows:
            self._take_window(record, packet, window, received_at, queued)

    def _reject(self, device: str, reason: str) -> None:
        self._telemetry.count("packets_rejected")
        _log.warning("packet of %s rejected: %s", device, reason)
        record = self._devices.get(device)
        if record is not None:
            self.replies.put(
                record.id, "refused", Refusal(about="packet", reason=reason).encode(), Refusal.kind
            )  # which windows it held is not known

    def _take_window(
        self, record: DeviceRecord, packet: FeaturePacket, window: PacketWindow, received_at: float, queued: float
    ) -> None:
        verdict = record.dedup.see(packet.epoch, window.seq)
        if verdict.kind == "waiting":
            self._telemetry.count("duplicates")
            return
        if verdict.kind == "answered":
            self._telemetry.count("duplicates")
            assert verdict.answer is not None
            self.replies.put(record.id, "repeated", verdict.answer)
            return
        if verdict.kind == "stale_epoch":
            self._refuse(record, packet.epoch, window.seq, "this epoch ended: the outbox was made anew since")
            return
        if verdict.kind == "again":
            self._telemetry.count("inferred_again")
        if not self._predictor_ready(record, packet, window):
            return
        stem = self._stem_of(packet)
        try:
            coded = CodedWindow.read(packet.stage, window, self._stems[stem])
        except (ValueError, DecodeError) as error:
            self._reject_window(record, packet.epoch, window.seq, str(error))
            return
        waiting = Waiting(record, packet.epoch, window.seq, stem, coded, self._stems[stem], received_at, queued)
        bucket = (stem, *(length_bucket(coded.steps(modality)) for modality in MODALITIES))
        if not self._batcher.add(waiting, bucket, queued, coded.size):
            self._telemetry.count("windows_dropped")
            record.dedup.forget(packet.epoch, window.seq)
            return
        self._pace.note(queued)
        record.windows += 1
        self._telemetry.count("windows_received")
        self._remember(packet, window, waiting)
        self._arrived.set()

    def _stem_of(self, packet: FeaturePacket) -> str:
        """The stem of an embedded packet is its own, features are embedded by the newest."""
        newest = self._newest[0] if self._newest else ""
        return (packet.stem or newest) if packet.stage == "embedded" else newest

    def _predictor_ready(self, record: DeviceRecord, packet: FeaturePacket, window: PacketWindow) -> bool:
        """Whether a model can answer; without any the window waits at its device, an unknown stem is said so."""
        if self._stem_of(packet) in self._stems:
            return True
        record.dedup.forget(packet.epoch, window.seq)
        if self._newest is None:
            self._telemetry.count("windows_early")
            return False
        name, size = self._newest
        self._telemetry.count("stem_gone")
        gone = Prediction(epoch=packet.epoch, seq=window.seq, status="stem_gone", stem=name, stem_size=size)
        self.replies.put(record.id, gone.status, gone.encode())
        return False

    def _remember(self, packet: FeaturePacket, window: PacketWindow, waiting: Waiting) -> None:
        key = (packet.device, packet.epoch, window.seq)
        self._labels.remember(
            *key, waiting.stem, waiting.embed, waiting.window.size, window.group, window.features_saw_label
        )
        if window.score is not None and self._labels.label(*key, window.score):
            self._telemetry.count("labels")

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
                    self._reject_window(waiting.device, waiting.epoch, waiting.seq, z)
            if answers is not None:
                sound = [waiting for waiting, z in zip(batch, embedded, strict=True) if not isinstance(z, str)]
                self._answer(sound, answers, began, took)

    def _run(self, batch: list[Waiting]) -> tuple[list[Embedded | str], Answers | None]:
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

    def _answer(self, batch: list[Waiting], answers: Answers, began: float, took: float) -> None:
        answered_at = time.time()
        for index, waiting in enumerate(batch):
            score = float(answers.scores[index])
            if not math.isfinite(score):  # of the model's making: its device must not send this for ever
                self._refuse(waiting.device, waiting.epoch, waiting.seq, "the model has no finite answer to it")
                continue
            confidences = answers.confidences
            prediction = Prediction(
                epoch=waiting.epoch,
                seq=waiting.seq,
                status="answered",
                score=score,
                label="non-negative" if score >= 0 else "negative",
                confidence=None if confidences is None else float(confidences[index]),
                version=answers.version,
                adapter=answers.adapter,
                timings=Timings(
                    received_at=waiting.received_at,
                    answered_at=answered_at,
                    queue=began - waiting.queued,
                    inference=took,
                ),
            )
            payload = prediction.encode()
            waiting.device.dedup.answer(waiting.epoch, waiting.seq, payload)
            self._telemetry.time("queue", began - waiting.queued)
            self.replies.put(waiting.device.id, prediction.status, payload)

    # -- out --------------------------------------------------------------------------
    def _reject_window(self, record: DeviceRecord, epoch: int, seq: int, reason: str) -> None:
        self._telemetry.count("windows_rejected")
        self._refuse(record, epoch, seq, reason)

    def _refuse(self, record: DeviceRecord, epoch: int, seq: int, reason: str) -> None:
        payload = Prediction(epoch=epoch, seq=seq, status="refused", reason=reason).encode()
        record.dedup.answer(epoch, seq, payload)
        self._telemetry.count("windows_refused")
        self.replies.put(record.id, "refused", payload)
