"""What a batch's scores become: predictions for every device with a part in a sample, or a question to the cloud."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_gateway.coded import CodedWindow, embed
from edge_gateway.devices import DeviceRecord
from edge_gateway.forwarding import Forwarding
from edge_gateway.replies import Replies
from megace2_iot.examples import Embedded
from megace2_iot.features import Modality
from megace2_iot.messages import CloudAnswer, PacketWindow, Prediction, Timings
from megace2_iot.stem import Stem
from megace2_iot.telemetry import Telemetry

if TYPE_CHECKING:
    from edge_gateway.predictor import Answers as Batch


@dataclass(frozen=True, slots=True, eq=False)
class Recipient:
    """A device's window that is, or is a part of, a sample."""

    device: DeviceRecord
    epoch: int
    seq: int
    captured_at: float  # unix s
    received_at: float  # unix s


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A sample on its way through the model."""

    recipients: tuple[Recipient, ...]  # several where a scene's windows were joined
    stem: str
    window: CodedWindow
    embedder: Stem
    queued: float  # monotonic s
    masked: Mapping[Modality, str] = field(default_factory=dict)  # what was left out, and why

    def embed(self) -> Embedded:
        """Its Z[0]; raises ValueError where it has none."""
        (z,) = embed([self.window], self.embedder)
        if isinstance(z, str):
            raise ValueError(z)
        return z


class Answers:
    """One edge's answers."""

    def __init__(self, replies: Replies, forwarding: Forwarding, telemetry: Telemetry) -> None:
        self._replies, self._forwarding, self._telemetry = replies, forwarding, telemetry

    def answer(self, waiting: Waiting, batch: Batch, index: int, began: float, took: float) -> None:
        """Answer one sample of a batch that the model began at `began` (monotonic s) and ran for `took` s."""
        score = float(batch.scores[index])
        if not math.isfinite(score):  # of the model's making: its device must not send this for ever
            for recipient in waiting.recipients:
                self.refuse(recipient, "the model has no finite answer to it")
            return
        own = Prediction(
            epoch=0,
            seq=0,
            status="answered",
            score=score,
            label=_label(score),
            confidence=None if batch.confidences is None else float(batch.confidences[index]),
            version=batch.version,
            adapter=batch.adapter,
            masked=tuple(waiting.masked),
            reason="; ".join(waiting.masked.values()),
            scene=tuple(r.device.id for r in waiting.recipients) if len(waiting.recipients) > 1 else (),
        )
        times = began - waiting.queued, took
        stage = waiting.window.stage
        if stage is None or not self._forwarding.wants(own.confidence):
            self._tell(waiting, own, *times)
            return
        sequences = {m: coded.to_fields() for m, coded in waiting.window.sequences.items()}
        window = PacketWindow(seq=0, captured_at=waiting.recipients[0].captured_at, sequences=sequences)
        self._forwarding.ask(
            stage, waiting.stem, window, lambda answer: self._tell(waiting, _better(own, answer), *times)
        )

    def _tell(self, waiting: Waiting, prediction: Prediction, queue: float, inference: float) -> None:
        answered_at = time.time()
        for recipient in waiting.recipients:
            timings = Timings(
                received_at=recipient.received_at, answered_at=answered_at, queue=queue, inference=inference
            )
            ids = {"epoch": recipient.epoch, "seq": recipient.seq}
            payload = prediction.model_copy(update={**ids, "timings": timings}).encode()
            recipient.device.dedup.answer(recipient.epoch, recipient.seq, payload)
            self._telemetry.time("queue", queue)
            self._telemetry.count(f"answers_by_{prediction.tier}")
            self._replies.put(recipient.device.id, prediction.status, payload)

    def refuse(self, recipient: Recipient, reason: str) -> None:
        """Answer a window with why it has no answer."""
        payload = Prediction(epoch=recipient.epoch, seq=recipient.seq, status="refused", reason=reason).encode()
        recipient.device.dedup.answer(recipient.epoch, recipient.seq, payload)
        self._telemetry.count("windows_refused")
        self._replies.put(recipient.device.id, "refused", payload)


def _label(score: float) -> str:
    return "non-negative" if score >= 0 else "negative"


def _better(own: Prediction, answer: CloudAnswer | None) -> Prediction:
    """The cloud's answer where there is one, else the edge's own."""
    if answer is None or answer.score is None:
        return own
    score = answer.score
    of_cloud = {"score": score, "label": _label(score), "confidence": answer.confidence, "version": answer.version}
    return own.model_copy(update={**of_cloud, "tier": "cloud", "adapter": False})
