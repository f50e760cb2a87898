"""An edge that offers what a test tells it to, over a real connection: honest or hostile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
from tiers import PATIENCE, Lab

from megace2_iot.blobs import Holder
from megace2_iot.bus import Bus, Subscription, connect
from megace2_iot.deltas import encode_delta
from megace2_iot.messages import BlobRequest, ModelPointer, UpdateOffer, Verdict
from megace2_iot.offers import make_offer
from megace2_iot.parameters import Layout
from megace2_iot.tensors import decode_tensors
from megace2_iot.topics import Topics


class FakeEdge:
    """`pointer` is the newest release that it heard of, `layout` the model's."""

    def __init__(self, id: str, bus: Bus, topics: Topics, layout: Layout) -> None:
        self.id, self.bus, self.topics, self.layout = id, bus, topics, layout
        self.holder = Holder(bus, lambda asker, sha: topics.edge_up(id, "chunk"), merge=False)
        self.pointers: list[ModelPointer] = []
        self.verdicts: list[Verdict] = []
        self._news = asyncio.Event()
        self._rounds = 0

    @property
    def pointer(self) -> ModelPointer:
        return self.pointers[-1]

    async def hear(self, messages: Subscription) -> None:
        async for delivery in messages:
            kind = self.topics.parse(delivery.topic).kind
            if kind == "model":
                self.pointers.append(ModelPointer.decode(delivery.payload))
            elif kind == "verdict":
                self.verdicts.append(Verdict.decode(delivery.payload))
            elif kind == "blob_request":
                self.holder.ask("cloud", BlobRequest.decode(delivery.payload))
            self._news.set()

    def update(self, scale: float = 1e-3, codec: str = "int8", **changes: Any) -> tuple[UpdateOffer, bytes]:
        """An update of all groups by 10 examples, unlike any before; `changes` are of the offer."""
        self._rounds += 1
        dice = np.random.default_rng([self._rounds, *self.id.encode()])
        delta = np.float32(scale) * dice.normal(size=self.layout.size).astype(np.float32)
        body, _ = (delta.tobytes(), None) if codec == "float32" else encode_delta(delta, codec)
        counts: Mapping[str, float] = dict.fromkeys(self.layout.groups, 10.0)
        offer = make_offer(self.id, self.pointer.family, self.pointer.version, self._rounds, counts, codec, body)
        return offer.model_copy(update=changes), body

    async def offer(self, offer: UpdateOffer, body: bytes = b"") -> Verdict:
        """Offer an update (held to be pulled, where it is not inline) and wait for what the cloud says to it."""
        if offer.inline is None:
            self.holder.offer(offer.sha256, body, ["cloud"])
        heard = len(self.verdicts)
        await self.bus.publish(self.topics.update(self.id), offer.encode())
        return await self._until(lambda: next((v for v in self.verdicts[heard:] if v.id == offer.id), None))

    async def teach(self, **about: Any) -> Verdict:
        """An honest update, accepted."""
        verdict = await self.offer(*self.update(**about))
        assert verdict.accepted, verdict
        await self.released(verdict.version or 0)
        return verdict

    async def released(self, version: int) -> ModelPointer:
        """Wait for the announcement of a release as new as this one."""
        return await self._until(lambda: self.pointer if self.pointers and self.pointer.version >= version else None)

    async def _until(self, found: Any) -> Any:
        async with asyncio.timeout(PATIENCE):
            while (value := found()) is None:
                self._news.clear()
                await self._news.wait()
        return value


@contextlib.asynccontextmanager
async def fake_edge(lab: Lab, id: str) -> AsyncIterator[FakeEdge]:
    """An edge of this site, once it has heard of a release; its layout is read from the cloud's own folder."""
    async with connect(lab.broker, id) as bus:
        messages = await bus.subscribe(lab.topics.edge_inbox(id))
        pointers = await bus.subscribe(lab.topics.cloud_all("model"))
        blobs = lab.folder / "cloud" / "blobs"
        layout = Layout.of(decode_tensors(min(blobs.iterdir(), key=lambda p: -p.stat().st_size).read_bytes())[0])
        edge = FakeEdge(id, bus, lab.topics, layout)
        tasks = [asyncio.create_task(edge.hear(heard), name=f"{id}:hears") for heard in (messages, pointers)]
        tasks.append(asyncio.create_task(edge.holder.run(), name=f"{id}:holder"))
        try:
            await edge.released(0)
            yield edge
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
