"""One device that senses: its sources, its agent, and what it prints."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Literal

from device_agent.agent import Device, torch_is_installed
from device_agent.answers import Answer, Listener
from device_agent.extraction.settings import SenseSettings
from device_agent.fleet import ReplaySettings
from device_agent.learning import Learner
from device_agent.sensing import live, recorded
from device_agent.sensing.pipeline import Extraction
from device_agent.sensing.specs import Spec, read_specs
from device_agent.settings import DeviceSettings
from device_agent.windows import Window
from megace2_iot.blobs import BlobStore
from megace2_iot.bus import BrokerSettings, Bus
from megace2_iot.features import Modality
from megace2_iot.problems import Problem
from megace2_iot.service import tell_ready
from megace2_iot.telemetry import prometheus
from megace2_iot.topics import Topics

_log = logging.getLogger("megace2.sensing")
PrintAs = Literal["text", "json", "none"]


class Sensor:
    """What a device senses with, ready to run. Raises `Problem` where a source or a setting cannot be used."""

    def __init__(self, device: DeviceSettings, sense: SenseSettings, played: ReplaySettings) -> None:
        self._device, self._played = device, played
        self.specs: tuple[Spec, ...] = read_specs(device.sources)
        given = {m for m in sense.modalities if self._is_recorded or m in live.modalities_of(self.specs)}
        if not given:
            raise Problem(f"[sense] modalities = {list(sense.modalities)}: the sources give none of them")
        modalities = tuple(m for m in sense.modalities if m in given)
        self.extraction = Extraction(sense.model_copy(update={"modalities": modalities}))
        if self._is_recorded:
            recorded.recorded_clips(self.specs[0])  # says at once where there is nothing to play

    @property
    def _is_recorded(self) -> bool:
        return self.specs[0].is_recorded

    @property
    def dims(self) -> dict[Modality, int]:
        return self.extraction.dims

    @property
    def rate(self) -> float:
        """Windows a second to expect."""
        return (self._played.speed or 1.0) / self.extraction.settings.window

    def windows(self, bus: Bus, device: Device) -> AsyncIterator[Window]:
        """The stream."""
        if self._is_recorded:
            return recorded.play(
                lambda: recorded.recorded_clips(self.specs[0], self._played.seed),
                self.extraction,
                device.telemetry,
                speed=self._played.speed,
                repeat=self._played.repeat,
            )
        return live.windows_of(self.specs, self.extraction, device.telemetry, bus, repeat=self._played.repeat)

    async def run(self, topics: Topics, broker: BrokerSettings) -> None:
        """Sense until all sources have ended and every window is answered, or for ever."""
        settings = self._device
        try:
            blobs = BlobStore(settings.state_dir / "blobs", settings.id)
        except OSError as error:
            raise Problem(f"{settings.state_dir} cannot be used: {error.strerror}; choose another state_dir") from None
        async with contextlib.AsyncExitStack() as stack:
            learner = None
            if settings.train and recorded.has_labels(self.specs[0]) and torch_is_installed():
                learner = await stack.enter_async_context(Learner(settings.training))
            told = printer(settings.print_answers)
            device = Device(settings, topics, broker, self.dims, blobs, learner, rate=self.rate, listener=told)
            stack.enter_context(prometheus(lambda: device.telemetry, settings.metrics_port))
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(learner.watch(), name="thermal") if learner is not None else None
                await device.run(lambda bus: self.windows(bus, device), stay=self._played.stay, ready=tell_ready)
                if watching is not None:
                    watching.cancel()


def printer(how: PrintAs) -> Listener | None:
    """Prints each answer as a line, for people or for programs."""
    if how == "none":
        return None
    line_of = _as_json if how == "json" else _as_text

    def tell(answer: Answer) -> None:
        with contextlib.suppress(BrokenPipeError):  # whoever read them has gone, and sensing goes on
            print(line_of(answer), flush=True)

    return tell


def _as_json(answer: Answer) -> str:
    return json.dumps(answer.to_json())


def _as_text(answer: Answer) -> str:
    sure = "" if answer.confidence is None else f" ({100 * answer.confidence:.0f} %)"
    masked = f", without {' and '.join(answer.masked)}" if answer.masked else ""
    corrects = ", corrected" if answer.corrects else "" if answer.final else ", for now"
    clock = time.strftime("%H:%M:%S", time.localtime(round(answer.captured_at)))
    found = f"{clock} window {answer.seq}: {answer.score:+.2f} {answer.label}{sure}"
    return f"{found} by {answer.tier} after {answer.after:.3f} s{masked}{corrects}"
