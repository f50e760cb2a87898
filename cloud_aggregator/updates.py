"""The updates of edges on their way in: judged first, answered from the ledger, large ones pulled, queued in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator

from cloud_aggregator.folding import Folding
from cloud_aggregator.store import Store, UpdateRow, VerdictRow
from megace2_iot.blobs import Blob, BlobGone, HolderSilent, Puller
from megace2_iot.bus import Bus, Delivery, NotPublished
from megace2_iot.codec import DecodeError
from megace2_iot.messages import UpdateOffer, Verdict
from megace2_iot.offers import body_of
from megace2_iot.topics import Topics

_log = logging.getLogger("megace2.cloud")
QUEUED_OFFERS = 256  # of all edges; one more is dropped and offered again
PULLS = 16  # large updates on their way at once; one more is dropped and offered again
PULLS_EACH = 2  # of one edge: it replaces its update by a newer one, and others must have room
PARTS = 32  # of updates that stopped coming, kept for when their edges are back
HELD = "held for inspection: "


class Updates:
    """What `next` returns can be read at once by `body`, and gets its verdict by `answer`."""

    def __init__(self, bus: Bus, topics: Topics, store: Store, puller: Puller, folding: Folding) -> None:
        self._bus, self._topics, self._store, self._puller, self._folding = bus, topics, store, puller, folding
        self._telemetry = bus.telemetry
        self._offers: asyncio.Queue[tuple[str, UpdateOffer]] = asyncio.Queue(QUEUED_OFFERS)
        self._pulling: dict[str, str] = {}  # the edges of updates on their way, by id

    @property
    def waiting(self) -> bool:
        """Whether there is another one already."""
        return not self._offers.empty()

    async def next(self) -> tuple[str, UpdateOffer]:
        """The edge and the offer whose turn it is."""
        return await self._offers.get()

    async def hear(self, messages: AsyncIterator[Delivery], tasks: asyncio.TaskGroup) -> None:
        """Take offers for ever."""
        async for delivery in messages:
            edge = self._topics.parse(delivery.topic).node
            try:
                offer = UpdateOffer.decode(delivery.payload)
            except DecodeError as error:
                self._telemetry.count("messages_rejected")
                _log.warning("%s: %s", delivery.topic, error)
                continue
            if offer.id in self._pulling or await self.answered(edge, offer):
                self._telemetry.count("offers_repeated")
            elif not await self._judged(edge, offer):
                continue
            elif self._offers.full() or (offer.inline is None and not self._may_pull(edge)):
                self._telemetry.count("offers_dropped")
            elif offer.inline is None:
                self._pulling[offer.id] = edge
                tasks.create_task(self._fetch(edge, offer), name=f"cloud:pull:{edge}")
            else:
                self._offers.put_nowait((edge, offer))

    async def answered(self, edge: str, offer: UpdateOffer) -> bool:
        """Whether this update is in the ledger; who offers it again hears its verdict, where there is one."""
        known = self._store.journal.find(offer.id)
        if known is None:
            return False
        row, verdict = known
        if (row.edge, row.sha256) != (edge, offer.sha256):
            self._telemetry.count("updates_refused")
            _log.warning("update of %s refused: its id is that of another update", edge)
            await self.answer(edge, offer.id, False, "schema: its id is that of another update", None)
        elif verdict.verdict != "received":  # else it is being folded, and its answer follows
            await self.answer(edge, offer.id, verdict.verdict == "accepted", told(verdict), verdict.version)
        return True

    async def _judged(self, edge: str, offer: UpdateOffer) -> bool:
        """Before anything else is done for it: whether the update may come at all. One that may not is refused."""
        objection = self._folding.objection(UpdateRow.of(edge, offer, time.time()))
        if objection is not None:
            await self.turn_away(edge, offer, str(objection))
        return objection is None

    def _may_pull(self, edge: str) -> bool:
        return len(self._pulling) < PULLS and Counter(self._pulling.values())[edge] < PULLS_EACH

    async def _fetch(self, edge: str, offer: UpdateOffer) -> None:
        """Pull a large update beside all others: a slow edge, or one that vanished, is not waited for by anybody."""
        try:
            await self.body(edge, offer)
        except HolderSilent as error:
            self._telemetry.count("pulls_given_up")  # it offers again when it is back
            self._store.files.keep_parts(PARTS)
            _log.info("update of %s: %s", edge, error)
            return
        except (BlobGone, DecodeError):
            pass  # refused when its turn comes
        finally:
            self._pulling.pop(offer.id, None)
        await self._offers.put((edge, offer))

    async def body(self, edge: str, offer: UpdateOffer) -> Blob:
        """The delta's bytes, checked against their hash; raises `DecodeError` or `BlobGone`."""
        request_topic = self._topics.edge_down(edge, "blob_request")
        chunk_filter = self._topics.edge_up(edge, "chunk")
        return await body_of(offer, self._puller, request_topic=request_topic, chunk_filter=chunk_filter)

    async def turn_away(self, edge: str, offer: UpdateOffer, reason: str) -> None:
        """Refuse an update without its body: note it, and tell its edge."""
        self._telemetry.count("updates_refused")
        _log.info("update of %s refused: %s", edge, reason)
        await asyncio.to_thread(self._folding.turn_away, UpdateRow.of(edge, offer, time.time()), reason)
        await self.answer(edge, offer.id, False, reason, None)

    async def answer(self, edge: str, update: str, accepted: bool, reason: str, version: int | None) -> None:
        """Tell an edge what became of its update."""
        verdict = Verdict(id=update, accepted=accepted, reason=reason, version=version)
        with contextlib.suppress(NotPublished):  # the sender offers again, or reads the pointer
            await self._bus.publish(self._topics.edge_down(edge, "verdict"), verdict.encode())


def told(verdict: VerdictRow) -> str:
    """The reason of a verdict as its edge hears it."""
    if verdict.verdict == "accepted":
        return ""
    return HELD + verdict.reason if verdict.verdict == "quarantined" else verdict.reason
