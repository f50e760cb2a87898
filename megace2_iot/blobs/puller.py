"""The receiver's side: pulls chunks into a sparse file, resumes, verifies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import mmap
import os
import time
from collections.abc import Iterable

from megace2_iot.blobs.store import BlobStore, Transfer, digest
from megace2_iot.bus import BULK_WINDOW, Bus, Delivery, NotPublished, Subscription
from megace2_iot.codec import DecodeError
from megace2_iot.messages import CHUNK_SIZE, BlobChunk, BlobRequest

_log = logging.getLogger("megace2.blobs")
MAX_BLOB = 4 << 30  # bytes
FIRST_WAIT, LAST_WAIT = 1.0, 10.0  # s without a chunk before asking again, where nothing is known of the link
TRIES = 3  # of a blob that comes whole but with a wrong hash: then its holder has another one
LEAST_WAIT, SLACK, SMOOTHING = 0.2, 8.0, 0.2  # else so many of its usual gaps between two chunks, at least so many s


class BlobGone(Exception):
    """The holder does not offer this blob to us (any more)."""


class HolderSilent(BlobGone):
    """The holder sent nothing for as long as we were ready to wait."""


class _Part:
    """A blob on its way: a sparse file and a map of the chunks that it has, both surviving a restart."""

    def __init__(self, store: BlobStore, sha256: str, size: int) -> None:
        self.sha256, self.size = sha256, size
        self.count = max(1, -(-size // CHUNK_SIZE))
        self._path = store.path(sha256).with_suffix(f".{store.owner}.part" if store.owner else ".part")
        self._map_path = self._path.with_suffix(".map")
        self._final = store.path(sha256)
        known = self._map_path.read_bytes() if self._map_path.exists() and self._path.exists() else b""
        have = known if len(known) == self.count else bytes(self.count)
        self.missing = [index for index in range(self.count) if not have[index]]
        self.missing.reverse()  # popped from the end, so asked for in order
        self._have = bytearray(have)
        self._data = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        self._map = os.open(self._map_path, os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(self._map, bytes(have), 0)

    @property
    def complete(self) -> bool:
        return all(self._have)

    def add(self, index: int, data: bytes) -> bool:
        """Take one chunk; False for one that is known or has the wrong size."""
        if index >= self.count or self._have[index] or len(data) != min(CHUNK_SIZE, self.size - index * CHUNK_SIZE):
            return False
        os.pwrite(self._data, data, index * CHUNK_SIZE)
        os.pwrite(self._map, b"\x01", index)
        self._have[index] = 1
        return True

    def has(self, index: int) -> bool:
        return bool(self._have[index])

    def finish(self) -> bool:
        """Verify and rename; on a wrong hash all is thrown away."""
        with (
            self._path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            memoryview(content) as view,
        ):
            sound = digest(view) == self.sha256
        if sound:
            os.replace(self._path, self._final)
            self._map_path.unlink(missing_ok=True)
        else:
            self.forget()
        return sound

    def forget(self) -> None:
        """Leave nothing of it on the disk."""
        self._path.unlink(missing_ok=True)
        self._map_path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._data)
        os.close(self._map)


class Puller:
    """Pulls blobs over one connection into a store; calls for one blob share one transfer."""

    def __init__(self, bus: Bus, store: BlobStore) -> None:
        self._bus, self._store = bus, store

    async def pull(
        self, sha256: str, size: int, *, request_topic: str, chunk_filter: str, patience: float = math.inf
    ) -> memoryview:
        """Return the blob, verified, from disk or from its holder; raises `BlobGone`.

        One that sends other bytes does not offer this blob. Waits for one that is away, or raises `HolderSilent`
        after about `patience` seconds without a chunk.
        """
        if not 0 < size <= MAX_BLOB:
            raise BlobGone(f"a blob of {size} bytes is not taken")
        while True:
            if not self._store.has(sha256):
                await self._shared(sha256, size, request_topic, chunk_filter, patience)
            with contextlib.suppress(FileNotFoundError):  # a neighbour that shares the store tidied up meanwhile
                return self._store.view(sha256)

    async def _shared(self, sha256: str, size: int, request_topic: str, chunk_filter: str, patience: float) -> None:
        transfers = self._store.transfers
        transfer = transfers.get(sha256)
        if transfer is None:
            work = self._transfer(sha256, size, request_topic, chunk_filter, patience)
            transfer = transfers[sha256] = Transfer(asyncio.create_task(work, name=f"pull:{sha256[:8]}"), self)
        transfer.callers += 1
        try:
            await asyncio.shield(transfer.task)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not transfer.task.cancelled() or (task is not None and task.cancelling()):
                raise  # we were cancelled; else its puller closed, and `pull` begins one of its own
        finally:
            transfer.callers -= 1
            if transfers.get(sha256) is transfer and (not transfer.callers or transfer.task.cancelled()):
                del transfers[sha256]
            if not transfer.callers:
                transfer.task.cancel()
                await asyncio.wait([transfer.task])

    def close(self) -> None:
        """End what runs on this connection; neighbours that share it begin again on theirs."""
        for transfer in list(self._store.transfers.values()):
            if transfer.owner is self:
                transfer.task.cancel()

    def forget(self, sha256: str) -> None:
        """Delete a pulled blob that was read and is not needed again."""
        self._store.path(sha256).unlink(missing_ok=True)

    def keep_only(self, names: Iterable[str]) -> None:
        """Delete every other finished blob of the store."""
        self._store.keep_only(names)

    async def _transfer(self, sha256: str, size: int, request_topic: str, chunk_filter: str, patience: float) -> None:
        chunks = await self._bus.subscribe(chunk_filter, limit=64)
        part = _Part(self._store, sha256, size)
        try:
            for _ in range(TRIES):
                await self._fill(part, request_topic, chunks, patience)
                if await asyncio.to_thread(part.finish):
                    return
                _log.warning("blob %s came with a wrong hash", sha256[:12])
                part.close()
                part = _Part(self._store, sha256, size)
            part.forget()
            raise BlobGone(f"blob {sha256[:12]} came {TRIES} times, each time with a wrong hash")
        finally:
            part.close()
            await self._bus.unsubscribe(chunks)

    async def _fill(self, part: _Part, request_topic: str, chunks: Subscription, patience: float) -> None:
        wait, silent, asked, usual = FIRST_WAIT, 0.0, set[int](), FIRST_WAIT / SLACK
        while not part.complete:
            began = time.monotonic()
            asked = {index for index in asked if not part.has(index)}
            if len(asked) <= BULK_WINDOW // 2:
                await self._ask(part, asked, request_topic)
            try:
                async with asyncio.timeout(wait):
                    progress = self._take(part, await anext(chunks))
            except TimeoutError:
                silent += wait
                if silent >= patience:
                    raise HolderSilent(f"nothing of blob {part.sha256[:12]} came for {silent:.0f} s") from None
                part.missing.extend(sorted(asked, reverse=True))
                asked, wait = set(), min(wait * 2, LAST_WAIT)
                self._bus.telemetry.count("blob_retries")
            else:
                if progress:
                    usual += SMOOTHING * (time.monotonic() - began - usual)
                    wait, silent = min(FIRST_WAIT, max(LEAST_WAIT, SLACK * usual)), 0.0

    async def _ask(self, part: _Part, asked: set[int], request_topic: str) -> None:
        batch: list[int] = []
        while part.missing and len(asked) < BULK_WINDOW:
            index = part.missing.pop()
            if not part.has(index):
                asked.add(index)
                batch.append(index)
        if batch:
            with contextlib.suppress(NotPublished):
                await self._bus.publish(request_topic, BlobRequest(sha256=part.sha256, chunks=tuple(batch)).encode())

    def _take(self, part: _Part, delivery: Delivery) -> bool:
        try:
            chunk = BlobChunk.decode(delivery.payload)
        except DecodeError:
            self._bus.telemetry.count("messages_rejected")
            return False
        if chunk.sha256 != part.sha256:
            return False
        if not chunk.data:
            raise BlobGone(f"blob {part.sha256[:12]} is not offered any more")
        return part.add(chunk.index, chunk.data)
