"""The holder's side: serves chunks of what it offers, each once for all who wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from megace2_iot.blobs.store import Blob
from megace2_iot.bus import BULK_WINDOW, Bus, NotPublished
from megace2_iot.messages import CHUNK_SIZE, BlobChunk, BlobRequest

MERGE_WITHIN = 0.5  # s in which a chunk that was sent is still on its way to who listened then
STILL_PULLING = 30.0  # s after its last request for which an asker is taken to be pulling; it asks every 10 s at least
QUEUED = 4096  # chunks waiting to be sent by one holder
MAX_ASKERS = 8192  # remembered; one more, and all are forgotten, which costs some chunks twice


@dataclass(slots=True)
class _Offer:
    data: Blob
    askers: frozenset[str] | None  # None: everybody who may write to us
    line: str  # of blobs that follow one another
    sent_at: dict[int, float] = field(default_factory=dict)
    asked_by: dict[int, set[str]] = field(default_factory=dict)  # since the chunk was queued last
    listening: dict[str, float] = field(default_factory=dict)  # asker: when it asked first, monotonic s

    @property
    def count(self) -> int:
        return max(1, -(-len(self.data) // CHUNK_SIZE))

    def chunk(self, index: int) -> bytes:
        return bytes(self.data[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE])

    def note_asker(self, asker: str, now: float) -> None:
        if len(self.listening) >= MAX_ASKERS:
            self.listening.clear()
            self.asked_by.clear()
        self.listening.setdefault(asker, now)

    def is_on_its_way(self, index: int, asker: str, now: float) -> bool:
        """Whether a sent chunk will still reach `asker`; who asks for it a second time has missed it."""
        sent, heard = self.sent_at.get(index, -1e9), self.asked_by.setdefault(index, set())
        if now - sent >= MERGE_WITHIN or sent < self.listening[asker] or asker in heard:
            return False
        heard.add(asker)
        return True


class Holder:
    """Serves blobs on one connection; `chunk_topic(asker, sha256)` says where chunks go.

    With `merge` one topic serves all askers, and requests for one chunk are answered once.
    """

    def __init__(self, bus: Bus, chunk_topic: Callable[[str, str], str], *, merge: bool) -> None:
        self._bus, self._chunk_topic, self._merge = bus, chunk_topic, merge
        self._offers: dict[str, _Offer] = {}
        self._last: dict[str, tuple[str, float]] = {}  # asker: the blob it asked for last, and when
        self._queue: asyncio.Queue[tuple[str, str, int]] = asyncio.Queue(QUEUED)
        self._queued: set[tuple[str, str, int]] = set()

    def offer(self, sha256: str, data: Blob, askers: Iterable[str] | None = None, *, line: str = "") -> None:
        self._offers.setdefault(sha256, _Offer(data, None if askers is None else frozenset(askers), line))

    def withdraw(self, sha256: str) -> None:
        self._offers.pop(sha256, None)

    def keep_only(self, names: Iterable[str], *, line: str = "") -> None:
        """Withdraw all others of this line, except what somebody is in the middle of: at most one blob an asker.

        Without the exception an asker on a slow link, that gets a model while five newer ones are made, gets none.
        """
        now = time.monotonic()
        self._last = {asker: last for asker, last in self._last.items() if now - last[1] < STILL_PULLING}
        wanted = {*names, *(sha256 for sha256, _ in self._last.values())}
        self._offers = {name: offer for name, offer in self._offers.items() if name in wanted or offer.line != line}

    def ask(self, asker: str, request: BlobRequest) -> None:
        """Queue what `asker` wants; what exceeds the queue is dropped and counted, it will be asked for again."""
        offer, to, now = self._offers.get(request.sha256), "" if self._merge else asker, time.monotonic()
        if offer is not None:
            if offer.askers is not None and asker not in offer.askers:
                self._bus.telemetry.count("blob_requests_refused")
                return
            offer.note_asker(asker, now)
            if len(self._last) < MAX_ASKERS or asker in self._last:
                self._last[asker] = (request.sha256, now)
        for index in request.chunks:
            if self._queue.full():
                self._bus.telemetry.count("blob_requests_dropped")
                return
            if offer is not None and index >= offer.count:  # never answered with "gone", which all would hear
                self._bus.telemetry.count("blob_requests_refused")
                continue
            self._queue_chunk(to, request.sha256, index, asker, now)

    def _queue_chunk(self, to: str, sha256: str, index: int, asker: str, now: float) -> None:
        offer, key = self._offers.get(sha256), (to, sha256, index)
        if key in self._queued:
            if offer is not None:
                offer.asked_by.setdefault(index, set()).add(asker)
            return
        if offer is not None:
            if self._merge and offer.is_on_its_way(index, asker, now):
                return
            offer.asked_by[index] = {asker}
        self._queued.add(key)
        self._queue.put_nowait(key)

    async def run(self) -> None:
        """Send for ever, `BULK_WINDOW` chunks at a time."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(BULK_WINDOW):
                tasks.create_task(self._send(), name=f"chunks-{number}")

    async def _send(self) -> None:
        while True:
            key = await self._queue.get()
            asker, sha256, index = key
            offer = self._offers.get(sha256)
            data = offer.chunk(index) if offer else b""
            if offer:
                offer.sent_at[index] = time.monotonic()
            chunk = BlobChunk(sha256=sha256, index=index, data=data).encode()
            with contextlib.suppress(NotPublished):  # the receiver asks again
                await self._bus.publish_bulk(self._chunk_topic(asker, sha256), chunk)
                self._bus.telemetry.count("blob_sent_bytes", len(data))
            self._queued.discard(key)
