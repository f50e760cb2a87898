"""The users of one cell of table 3: devices that send features, or uploaders of raw media; each times its own clips.

A user sends one clip, waits for the full answer, pauses, and sends the next. All of a cell begin together, spread over
a second. Clip n of user u is the same in both arms. The devices are the product's own; only extraction is a pause of
the time that it took by itself, because a user's device is a machine of its own and these share one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from device_agent.agent import Device
from device_agent.answers import Answer
from device_agent.settings import DeviceSettings
from device_agent.windows import Window
from megace2_iot.blobs import BlobStore
from megace2_iot.bus import BrokerSettings, connect
from megace2_iot.cli.experiments.clips import Extracted, RawClip
from megace2_iot.cli.experiments.latency import PAUSE, PHASES, STAGGER
from megace2_iot.cli.experiments.site import EDGE, SITE
from megace2_iot.cli.experiments.uploads import RawAnswer, RawChunk, chunks_of
from megace2_iot.features import Modality
from megace2_iot.topics import CLOUD

KEEPALIVE = 600  # s: a ping may wait behind minutes of media on a slow link, and nobody is gone
LOCAL_WITHIN = 20.0  # s that a device may take to open the local model before its cell begins
OF_TELEMETRY = dict(zip(PHASES, ("generation", "transmission", "queue", "inference", "result"), strict=True))
Timed = dict[str, Any]  # one clip: `first` and `full` s (None: cut), its phases, and `payload` bytes up


@dataclass(slots=True, eq=False)
class Script:
    """What the users of a cell do."""

    users: int
    rounds: int
    clips: Sequence[RawClip]
    extracted: Sequence[Extracted]
    go: asyncio.Event = field(default_factory=asyncio.Event)

    def number(self, user: int, turn: int) -> int:
        """Which clip a user sends."""
        return (user + turn) % len(self.clips)

    async def begin(self, user: int) -> None:
        """Wait until it is this user's time."""
        await self.go.wait()
        await asyncio.sleep(STAGGER * user / self.users)


class User(Protocol):
    """One user: `clips` is filled while it runs, `ready` set once it only waits for the cell to begin."""

    clips: list[Timed]
    ready: asyncio.Event

    async def run(self) -> None:
        """Send every clip and wait for its answer."""


class EdgeUser:
    """A device: features up, the edge's answer down, and its own answer before where there is a local model."""

    def __init__(
        self, number: int, script: Script, url: str, folder: Path, dims: dict[Modality, int], *, local: bool
    ) -> None:
        self.clips: list[Timed] = []
        self.ready = asyncio.Event()
        self._number, self._script, self._local = number, script, local
        self._answered, self._now = asyncio.Event(), Timed()
        settings = DeviceSettings(id=f"user-{number}", edge=EDGE, state_dir=folder, train=False)
        broker = BrokerSettings(url=url, keepalive=KEEPALIVE)
        blobs = BlobStore(folder / "blobs", settings.id)
        self._device = Device(settings, SITE, broker, dims, blobs, None, listener=self._heard)

    async def run(self) -> None:
        await self._device.run(self._windows())

    def _heard(self, answer: Answer) -> None:
        if self._now.get("first") is None:
            self._now["first"], self._now["tier"] = answer.after, answer.tier
        if answer.final and answer.tier != "device":
            self._now["full"] = answer.after
            self._answered.set()

    async def _windows(self) -> AsyncIterator[Window]:
        script = self._script
        yield script.extracted[script.number(self._number, 0)].window(time.time())  # brings stem and local model
        await self._answered.wait()
        await self._until_local()
        self.ready.set()
        await script.begin(self._number)
        for turn in range(script.rounds):
            clip = script.number(self._number, turn)
            self._now = {"user": self._number, "clip": clip, "first": None, "full": None}
            self.clips.append(self._now)
            self._answered.clear()
            captured, before = time.time(), self._totals()
            await asyncio.sleep(script.extracted[clip].generation)
            yield script.extracted[clip].window(captured)
            await self._answered.wait()
            self._now |= {name: total - before[name] for name, total in self._totals().items() if total > before[name]}
            await asyncio.sleep(PAUSE)

    async def _until_local(self) -> None:
        deadline = time.monotonic() + LOCAL_WITHIN
        while self._local and not self._device.telemetry.counters["local_models_opened"]:
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.05)

    def _totals(self) -> dict[str, float]:
        """The device's own figures: with one clip at a time, what they grow by is that clip's."""
        known = self._device.telemetry.histograms
        names = {**OF_TELEMETRY, "payload": "packet_bytes"}
        return {ours: known[name].total if name in known else 0.0 for ours, name in names.items()}


class CloudUser:
    """An uploader: raw files up in chunks of 64 KiB, the cloud's answer down."""

    def __init__(self, number: int, script: Script, url: str) -> None:
        self.clips: list[Timed] = []
        self.ready = asyncio.Event()
        self._number, self._script = number, script
        self._broker = BrokerSettings(url=url, keepalive=KEEPALIVE)

    async def run(self) -> None:
        node, script = f"user-{self._number}", self._script
        up = SITE.device_up(node, RawChunk.kind, CLOUD)
        async with connect(self._broker, node) as bus:
            answers = await bus.subscribe(SITE.device_down(node, RawAnswer.kind, CLOUD))
            await bus.wait_connected(10)
            self.ready.set()
            await script.begin(self._number)
            for turn in range(script.rounds):
                clip = script.number(self._number, turn)
                began = time.time()
                now: Timed = {"user": self._number, "clip": clip, "first": None, "full": None}
                self.clips.append(now)
                payloads = [chunk.encode() for chunk in chunks_of(turn, script.clips[clip].files)]
                await asyncio.gather(*(bus.publish(up, payload) for payload in payloads))
                answer = RawAnswer.decode((await anext(answers)).payload)
                now |= _timed(answer, began, time.time(), sum(map(len, payloads)))
                await asyncio.sleep(PAUSE)


def _timed(answer: RawAnswer, began: float, now: float, payload: int) -> Timed:
    """The first answer is the full one; all clocks are one machine's."""
    return {
        "first": now - began,
        "full": now - began,
        "tier": "cloud",
        "t_gen": answer.generation,
        "t_trans": answer.received_at - began,
        "queue": answer.queue,
        "t_infer": answer.inference,
        "t_trans_score": max(0.0, now - answer.answered_at),
        "payload": payload,
    }
