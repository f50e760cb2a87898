"""The updates of edges on their way in: offers answered from the ledger, large ones pulled, all queued in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from cloud_aggregator.store import Store
from megace2_iot.blobs import Blob, BlobGone, HolderSilent, Puller
from megace2_iot.bus import Bus, Delivery, NotPublished
from megace2_iot.codec import DecodeError
from megace2_iot.messages import UpdateOffer, Verdict
from megace2_iot.offers import body_of
from megace2_iot.topics import Topics

_log = logging.getLogger("megace2.cloud")
QUEUED_OFFERS = 256  # of all edges; one more is dropped and offered again
PULLS = 16  # large updates on their way at once; one more is dropped and offered again


class Updates:
    """What `next` returns can be read at once by `body`, and gets its verdict by `answer`."""

    def __init__(self, bus: Bus, topics: Topics, store: Store, puller: Puller) -> None:
        self._bus, self._topics, self._store, self._puller = bus, topics, store, puller
        self._telemetry = bus.telemetry
        self._offers: asyncio.Queue[tuple[str, UpdateOffer]] = asyncio.Queue(QUEUED_OFFERS)
        self._pulling: set[str] = set()  # updates on their way, by id

    @property
    def waiting(self) -> bool:
        """Whether there is another one already."""
        return not self._offers.empty()

    async def next(self) -> tuple[str, UpdateOffer]:
        """The edge and the offer whose turn it is."""
        return await self._offers.get()

    async def hear(self, messages: AsyncIterator[Delivery], family: str, tasks: asyncio.TaskGroup) -> None:
        """Take offers for ever; only those of `family` are pulled, others are refused when their turn comes."""
        async for delivery in messages:
            edge = self._topics.parse(delivery.topic).node
            try:
                offer = UpdateOffer.decode(delivery.payload)
            except DecodeError as error:
                self._telemetry.count("messages_rejected")
                _log.warning("%s: %s", delivery.topic, error)
                continue
            known = self._store.verdict_of(offer.id)
            if known is not None and known.verdict != "received":
                self._telemetry.count("offers_repeated")
                await self.answer(edge, offer.id, known.verdict == "accepted", known.reason, known.version)
            elif offer.id in self._pulling:
                self._telemetry.count("offers_repeated")
            elif self._offers.full() or (offer.inline is None and len(self._pulling) >= PULLS):
                self._telemetry.count("offers_dropped")
            elif offer.inline is None:
                self._pulling.add(offer.id)
                tasks.create_task(self._fetch(edge, offer, family), name=f"cloud:pull:{edge}")
            else:
                self._offers.put_nowait((edge, offer))

    async def _fetch(self, edge: str, offer: UpdateOffer, family: str) -> None:
        """Pull a large update beside all others: a slow edge, or one that vanished, is not waited for by anybody."""
        try:
            await self.body(edge, offer, family)
        except HolderSilent as error:
            self._telemetry.count("pulls_given_up")  # it offers again when it is back
            _log.info("update of %s: %s", edge, error)
            return
        except (BlobGone, DecodeError):
            pass  # refused when its turn comes
        finally:
            self._pulling.discard(offer.id)
        await self._offers.put((edge, offer))

    async def body(self, edge: str, offer: UpdateOffer, family: str) -> Blob:
        """The delta's bytes, checked against their hash; raises `DecodeError` or `BlobGone`."""
        if offer.family != family:
            raise DecodeError(f"this cloud aggregates family {family}, the update is of {offer.family}")
        request_topic = self._topics.edge_down(edge, "blob_request")
        chunk_filter = self._topics.edge_up(edge, "chunk")
        return await body_of(offer, self._puller, request_topic=request_topic, chunk_filter=chunk_filter)

    async def answer(self, edge: str, update: str, accepted: bool, reason: str, version: int | None) -> None:
        """Tell an edge what became of its update."""
        verdict = Verdict(id=update, accepted=accepted, reason=reason[:2000], version=version)
        with contextlib.suppress(NotPublished):  # the sender offers again, or reads the pointer
            await self._bus.publish(self._topics.edge_down(edge, "verdict"), verdict.encode())
