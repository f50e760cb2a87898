"""Which local model answers, and when: follows the edge's configuration and its releases of the local model."""

from __future__ import annotations

import asyncio
import logging
from typing import get_args

from device_agent.local import LocalAnswer, LocalModel, Opener, opener
from device_agent.windows import Window, embed
from megace2_iot.blobs import BlobGone, Puller, chunk_tag
from megace2_iot.bus import NotPublished
from megace2_iot.codec import DecodeError
from megace2_iot.messages import DeviceConfig, Policy
from megace2_iot.messages import LocalModel as Pointer
from megace2_iot.problems import Problem
from megace2_iot.stem import Stem
from megace2_iot.telemetry import Telemetry
from megace2_iot.topics import Topics
from megace2_iot.workers import WorkerError

_log = logging.getLogger("megace2.local")
LATEST = 0.25  # s after which a window goes on without a local answer


def policies(insist: Policy | None) -> tuple[Policy, ...]:
    """What a device offers its edge. Raises `Problem` where it insists on what cannot run here."""
    able = opener() is not None
    if insist is None:
        return get_args(Policy) if able else ("edge",)
    if insist != "edge" and not able:
        raise Problem(f"answers = {insist!r} needs ONNX Runtime: pip install 'megace2-iot[sense]'")
    return (insist,)


class LocalAnswers:
    """One device's local model; `answer` is None as long as there is none, or none is wanted."""

    def __init__(self, puller: Puller, topics: Topics, device: str, edge: str, telemetry: Telemetry) -> None:
        self._puller, self._topics, self._device, self._edge = puller, topics, device, edge
        self._telemetry = telemetry
        self._open: Opener | None = opener()
        self._config: DeviceConfig | None = None
        self._stem: Stem | None = None
        self._pointer: Pointer | None = None
        self._model: LocalModel | None = None
        self._opened = ""  # sha256 of the model
        self._turn = asyncio.Lock()

    async def close(self) -> None:
        if self._model is not None:
            await self._model.close()
        self._model, self._opened = None, ""

    async def use_config(self, config: DeviceConfig, stem: Stem | None) -> None:
        """Answer by this configuration from now on."""
        self._config, self._stem = config, stem
        await self._follow()

    async def use_pointer(self, pointer: Pointer) -> None:
        """Answer with this release from now on, where it stands on our stem."""
        self._pointer = pointer
        await self._follow()

    async def _follow(self) -> None:
        """Open what configuration and pointer name together, or close what they no longer do."""
        async with self._turn:
            config, pointer, stem = self._config, self._pointer, self._stem
            wanted = config is not None and config.answers != "edge" and stem is not None and self._open is not None
            if not wanted or pointer is None or config is None or pointer.stem != config.stem:
                await self.close()
            elif pointer.sha256 != self._opened:
                try:
                    await self._change_to(pointer)
                except (BlobGone, NotPublished, DecodeError, ValueError, WorkerError) as error:
                    _log.warning("no local model: %s", error)
                    self._telemetry.count("local_models_unusable")

    async def _change_to(self, pointer: Pointer) -> None:
        assert self._open is not None
        assert self._stem is not None
        release = await self._puller.pull(
            pointer.sha256,
            pointer.size,
            request_topic=self._topics.device_up(self._device, "blob_request", self._edge),
            chunk_filter=self._topics.edge_all(self._edge, "chunk", chunk_tag(pointer.sha256)),
        )
        opened = await self._open(bytes(release), pointer.version, self._stem.width)
        await self.close()
        self._model, self._opened = opened, pointer.sha256
        self._telemetry.count("local_models_opened")
        self._telemetry.gauge("local_model_version", pointer.version)
        _log.info("local model %d answers", pointer.version)

    async def answer(self, window: Window) -> LocalAnswer | None:
        """The local answer; None where there is none in time."""
        model, stem, config = self._model, self._stem, self._config
        if model is None or stem is None or config is None or window.stem not in (None, config.stem):
            return None
        try:
            async with asyncio.timeout(LATEST):
                found = await model.answer(embed(window, stem))
        except (TimeoutError, ValueError, WorkerError) as error:
            _log.debug("no local answer: %s", error)
            found = None
        if found is None:
            self._telemetry.count("local_answers_missing")
        return found
