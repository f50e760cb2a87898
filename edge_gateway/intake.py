"""From packets to samples: decode, drop duplicates, mask what is too poor, join scenes.

A bad packet is counted, quarantined and answered with a reason, never fatal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from edge_gateway.answers import Answers, Recipient, Waiting
from edge_gateway.coded import CodedWindow
from edge_gateway.devices import DeviceRecord, Devices
from edge_gateway.gaps import Gaps
from edge_gateway.labels import LabelledStore
from edge_gateway.quota import Bucket
from edge_gateway.replies import Replies
from edge_gateway.scenes import Joined, Joiner
from megace2_iot.bus import Delivery
from megace2_iot.codec import DecodeError
from megace2_iot.features import Modality
from megace2_iot.messages import FeaturePacket, PacketWindow, Prediction, Refusal, Stage
from megace2_iot.quality import under_floor
from megace2_iot.quantize import Quantized
from megace2_iot.stem import Stem
from megace2_iot.telemetry import Telemetry
from megace2_iot.topics import Topics

_log = logging.getLogger("megace2.intake")
BAD, BAD_OF_ONE = 40.0, 2.0  # bad packets a second that are spoken of: of all devices, of one
BAD_BURST = 8.0  # s of either that may come at once


class SceneSettings(BaseModel):
    """How windows of several devices that watch one scene are joined."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    slot: float = Field(4.0, gt=0)  # s between two windows of such a device: its [sense] window
    deadline: float = Field(1.0, gt=0)  # s that the first window of a sample waits for the others


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """One device's part of a sample."""

    recipient: Recipient
    stem: str
    window: PacketWindow
    masked: Mapping[Modality, str]


class Intake:
    """One edge's packets. `put` takes a sample to the model and says whether there was room; `quarantine` is told of
    each packet that cannot be read: device, bytes, why.
    """

    def __init__(
        self,
        topics: Topics,
        devices: Devices,
        labels: LabelledStore,
        answers: Answers,
        replies: Replies,
        telemetry: Telemetry,
        floors: Mapping[str, float],
        scenes: SceneSettings,
        put: Callable[[Waiting], bool],
        quarantine: Callable[[str, bytes, str], None] | None = None,
    ) -> None:
        self._topics, self._devices, self._labels = topics, devices, labels
        self._answers, self._replies, self._telemetry = answers, replies, telemetry
        self._floors, self._put, self._quarantine = floors, put, quarantine
        self.gaps = Gaps(replies, telemetry)
        self._scenes: Joiner[_Piece, tuple[Stage, Quantized]] = Joiner(scenes.slot, scenes.deadline)
        self._joining = asyncio.Event()
        self._stems: dict[str, Stem] = {}
        self._newest: tuple[str, int] | None = None
        self._bad = Bucket()

    def use_stem(self, sha256: str, stem: Stem, size: int) -> None:
        """Take packets of this stem, and remember the one before it."""
        self._stems[sha256] = stem
        self._newest = (sha256, size)
        for old in [name for name in self._stems if name != sha256][:-1]:
            del self._stems[old]

    def take(self, delivery: Delivery) -> int:
        """Take one packet; returns how many windows it held."""
        sender = self._topics.parse(delivery.topic).node
        received_at = time.time()
        try:
            packet = FeaturePacket.decode(delivery.payload)
            if packet.device != sender:
                raise DecodeError(f"packet: it says {packet.device}, the topic says {sender}")
        except DecodeError as error:
            self._reject(sender, str(error), delivery.payload)
            return 1
        record = self._devices.get(packet.device)
        if record is None:
            self._reject(sender, "this edge has no room for one more device")
            return 1
        self._telemetry.count("packets_received")
        self._telemetry.count("packet_bytes", len(delivery.payload))
        self.gaps.take(record, packet)
        for window in packet.windows:
            recipient = Recipient(record, packet.epoch, window.seq, window.captured_at, received_at)
            if self._is_new(recipient) and self._can_answer(recipient, packet):
                self._take_window(recipient, packet, window)
        return len(packet.windows)

    def _reject(self, sender: str, reason: str, unreadable: bytes = b"") -> None:
        """Count it; keep it and speak of it while few are bad: a flood of them is to cost no disk and no answers."""
        self._telemetry.count("packets_rejected")
        record = self._devices.get(sender)
        if not self._may_speak_of(record):
            return
        _log.warning("packet of %s rejected: %s", sender, reason)
        if self._quarantine is not None and unreadable:
            self._quarantine(sender, unreadable, reason)
        if record is not None:
            self._replies.put(
                record.id, "refused", Refusal(about="packet", reason=reason).encode(), Refusal.kind
            )  # which windows it held is not known

    def _may_speak_of(self, record: DeviceRecord | None) -> bool:
        now = time.monotonic()
        of_one = record is None or record.bad.pay(BAD_OF_ONE, BAD_BURST, now)
        return of_one and self._bad.pay(BAD, BAD_BURST, now)

    def _is_new(self, recipient: Recipient) -> bool:
        """Whether a window is to be inferred; a duplicate that was answered is answered again."""
        verdict = recipient.device.dedup.see(recipient.epoch, recipient.seq)
        if verdict.kind in ("waiting", "answered"):
            self._telemetry.count("duplicates")
            if verdict.answer is not None:
                self._replies.put(recipient.device.id, "repeated", verdict.answer)
            return False
        if verdict.kind == "again":
            self._telemetry.count("inferred_again")
        return True

    def _can_answer(self, recipient: Recipient, packet: FeaturePacket) -> bool:
        """Whether a model can answer; without any the window waits at its device, an unknown stem is said so."""
        if self._stem_of(packet) in self._stems:
            return True
        recipient.device.dedup.forget(recipient.epoch, recipient.seq)
        if self._newest is None:
            self._telemetry.count("windows_early")
            return False
        name, size = self._newest
        self._telemetry.count("stem_gone")
        gone = Prediction(epoch=recipient.epoch, seq=recipient.seq, status="stem_gone", stem=name, stem_size=size)
        self._replies.put(recipient.device.id, gone.status, gone.encode())
        return False

    def _stem_of(self, packet: FeaturePacket) -> str:
        """The stem of an embedded packet is its own, features are embedded by the newest."""
        newest = self._newest[0] if self._newest else ""
        return (packet.stem or newest) if packet.stage == "embedded" else newest

    def _take_window(self, recipient: Recipient, packet: FeaturePacket, window: PacketWindow) -> None:
        stem = self._stem_of(packet)
        try:
            coded = CodedWindow.read(packet.stage, window, self._stems[stem])
        except (ValueError, DecodeError) as error:
            self._telemetry.count("windows_rejected")
            self._answers.refuse(recipient, str(error))
            return
        poor = under_floor(window.quality, self._floors)
        masked = {m: reason for m, reason in poor.items() if m in coded.sequences}
        for modality in masked:
            self._telemetry.count(f"masked_{modality}")
        if len(masked) == len(coded.sequences):
            self._answers.refuse(recipient, f"nothing of it is good enough: {'; '.join(masked.values())}")
            return
        piece = _Piece(recipient, stem, window, masked)
        if scene := recipient.device.scene:
            self._join(scene, piece, coded.without(masked))
        else:
            self._send_on([piece], coded.without(masked))

    # -- scenes -----------------------------------------------------------------------
    def _join(self, scene: str, piece: _Piece, coded: CodedWindow) -> None:
        members = [record.id for record in self._devices if record.online and record.scene == scene]
        parts = {m: (coded.stages[m], sequence) for m, sequence in coded.sequences.items()}
        name, device, now = f"{scene} {piece.stem}", piece.recipient.device.id, time.monotonic()
        joined = self._scenes.put(name, device, piece, parts, piece.window.captured_at, now, members)
        self._send_joined(joined)
        self._joining.set()

    def device_gone(self, device: str) -> None:
        """It is not waited for any longer."""
        self._send_joined(self._scenes.gone(device))

    async def keep_deadlines(self) -> None:
        """Send on what was waited for long enough, for ever."""
        while True:
            self._joining.clear()
            deadline = self._scenes.next_deadline()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
                    await self._joining.wait()
            self._send_joined(self._scenes.due(time.monotonic()))

    def _send_joined(self, leaving: Sequence[Joined[_Piece, tuple[Stage, Quantized]]]) -> None:
        for joined in leaving:
            stages = {m: stage for m, (stage, _) in joined.parts.items()}
            coded = CodedWindow(stages, {m: sequence for m, (_, sequence) in joined.parts.items()})
            self._send_on([piece for _, piece in joined.members], coded)
        for how, count in self._scenes.counters.items():
            self._telemetry.counters[f"scenes_{how}"] = count

    # -- to the model -----------------------------------------------------------------
    def _send_on(self, pieces: Sequence[_Piece], coded: CodedWindow) -> None:
        """A sample, of one window or of a scene's, goes to the model; without room its devices send it again."""
        stem, recipients = pieces[0].stem, tuple(piece.recipient for piece in pieces)
        masked = {m: reason for piece in pieces for m, reason in piece.masked.items() if m not in coded.sequences}
        if stem not in self._stems:  # given up while it waited for its scene
            for recipient in recipients:
                recipient.device.dedup.forget(recipient.epoch, recipient.seq)
            return
        sample = Waiting(recipients, stem, coded, self._stems[stem], time.monotonic(), masked)
        if not self._put(sample):
            self._telemetry.count("windows_dropped", len(recipients))
            for recipient in recipients:
                recipient.device.dedup.forget(recipient.epoch, recipient.seq)
            return
        for piece in pieces:
            piece.recipient.device.windows += 1
            self._telemetry.count("windows_received")
            self._remember(piece.recipient, piece.window, sample)

    def _remember(self, recipient: Recipient, window: PacketWindow, sample: Waiting) -> None:
        """Keep it in case its label follows, or label it now."""
        key = (recipient.device.id, recipient.epoch, recipient.seq)
        self._labels.remember(
            *key, sample.stem, sample.embed, sample.window.size, window.group, window.features_saw_label
        )
        if window.score is not None and self._labels.label(*key, window.score):
            self._telemetry.count("labels")
