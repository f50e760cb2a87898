"""The release that an edge runs: pulled from the cloud, swapped into the predictor and the trainer, offered below."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from edge_gateway.intake import Intake
from edge_gateway.store import EdgeStore
from megace2_iot.blobs import Blob, Holder, Puller, chunk_tag
from megace2_iot.bus import Bus
from megace2_iot.messages import ModelPointer
from megace2_iot.parameters import Layout
from megace2_iot.stem import Stem
from megace2_iot.tensors import decode_tensors
from megace2_iot.topics import Topics
from megace2_iot.workers import Worker

if TYPE_CHECKING:
    from edge_gateway.predictor import Predictor

_log = logging.getLogger("megace2.learning")


class Adoption:
    """`pointer` and `layout` are of the release that answers; `adopted` is set from the first one on."""

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        edge: str,
        intake: Intake,
        predictor: Predictor,
        thread: ThreadPoolExecutor,
        trainer: Worker,
        store: EdgeStore,
        puller: Puller,
        down: Holder,
    ) -> None:
        self._bus, self._topics, self._edge, self._intake = bus, topics, edge, intake
        self._predictor, self._thread, self._trainer = predictor, thread, trainer
        self._store, self._puller, self._down = store, puller, down
        self._base: Blob = b""
        self._trains_from: ModelPointer | None = None
        self.pointer: ModelPointer | None = None
        self.layout: Layout | None = None
        self.adopted = asyncio.Event()

    async def resume(self) -> bool:
        """Go on with the release of the last run; False where none was kept."""
        held = self._store.release()
        if held is not None:
            await self._use(*held)
        return held is not None

    def is_news(self, pointer: ModelPointer) -> bool:
        return self.pointer is None or pointer.sha256 != self.pointer.sha256

    async def adopt(self, pointer: ModelPointer) -> bool:
        """Pull a release (and its stem, where that is new) and run it; False where it cannot be used.

        Raises `BlobGone` where the cloud does not offer it any more.
        """
        stem_blob = await self._pull(pointer.stem, pointer.stem_size)
        blob = await self._pull(pointer.sha256, pointer.size)
        try:
            await self._use(pointer, blob, stem_blob)
        except ValueError as error:  # of another version of this program: go on with what there is
            _log.error("release %d cannot be used: %s", pointer.version, error)
            self._bus.telemetry.count("releases_unusable")
            return False
        self._bus.telemetry.count("releases_adopted")
        return True

    async def _pull(self, sha256: str, size: int) -> memoryview:
        return await self._puller.pull(
            sha256,
            size,
            request_topic=self._topics.edge_up(self._edge, "blob_request"),
            chunk_filter=self._topics.cloud_all("chunk", chunk_tag(sha256)),
        )

    async def _use(self, pointer: ModelPointer, blob: memoryview, stem_blob: memoryview) -> None:
        """Answer with it, keep it, and offer it to the devices."""
        tensors, metadata = decode_tensors(stem_blob)
        stem = Stem.from_tensors(tensors, {"mult_compat": metadata.get("mult_compat") == "true"})
        await asyncio.get_running_loop().run_in_executor(
            self._thread, self._predictor.load, pointer.stem, pointer.config, blob, pointer.version
        )
        self._intake.use_stem(pointer.stem, stem, len(stem_blob))
        self.pointer, self._base = pointer, blob
        self.layout = Layout.of(decode_tensors(blob)[0])
        self.adopted.set()
        self._store.keep_release(pointer, blob, stem_blob)
        self._down.keep_only([pointer.sha256, pointer.stem])
        self._down.offer(pointer.sha256, blob)
        self._down.offer(pointer.stem, stem_blob)
        await self._bus.keep(self._topics.edge_all(self._edge, "model"), pointer.encode())

    async def trainer(self) -> Worker:
        """The trainer with the base of this release; a new one in place of one that died. Raises `WorkerError`."""
        if not self._trainer.alive:
            await self._trainer.restart()
            self._trains_from = None
        if (pointer := self.pointer) is not None and pointer is not self._trains_from:
            await self._trainer.call("load", config=pointer.config, blob=self._base)
            self._trains_from = pointer
        return self._trainer
