"""Model updates on their way up: one offer at a time, repeated with the same id until its verdict; and their bytes.

A newer update of the same node replaces one that is still unanswered: it was trained from a newer base, and the
receiver keeps one update a node. Small updates travel inside the offer, others are held for the receiver to pull.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from megace2_iot.blobs import Blob, Holder, Puller, digest
from megace2_iot.bus import Bus, NotPublished
from megace2_iot.codec import DecodeError
from megace2_iot.messages import INLINE_LIMIT, UpdateOffer, Verdict

PULL_PATIENCE = 15.0  # s without a chunk of an update after which its sender is taken for gone
FIRST_REPEAT, LAST_REPEAT = 5.0, 60.0  # s between two sendings of one offer, doubling


def make_offer(
    sender: str,
    family: str,
    base_version: int,
    round_number: int,
    num_examples: Mapping[str, float],
    codec: str,
    body: bytes,
    duration: float = 0.0,
) -> UpdateOffer:
    """Describe an update; its id follows from who made what from which base."""
    sha256 = digest(body)
    return UpdateOffer.model_validate(
        {
            "id": digest(f"{sender} {family} {round_number} {base_version} {sha256}".encode()),
            "family": family,
            "base_version": base_version,
            "round": round_number,
            "num_examples": dict(num_examples),
            "codec": codec,
            "sha256": sha256,
            "size": len(body),
            "inline": body if len(body) <= INLINE_LIMIT else None,
            "duration": duration,
        }
    )


async def body_of(offer: UpdateOffer, puller: Puller, *, request_topic: str, chunk_filter: str) -> Blob:
    """The bytes behind an offer, from within it or pulled from its sender, and of the hash that it says.

    Raises `DecodeError` for other bytes, and `BlobGone` where the sender does not hold them (any more).
    """
    if offer.inline is None:
        return await puller.pull(
            offer.sha256,
            offer.size,
            request_topic=request_topic,
            chunk_filter=chunk_filter,
            patience=PULL_PATIENCE,
        )
    if digest(offer.inline) != offer.sha256:
        raise DecodeError("the update does not have the hash that its offer says")
    return offer.inline


class Offers:
    """A node's updates to one receiver; `run` must be running."""

    def __init__(self, bus: Bus, topic: str, holder: Holder, receiver: str) -> None:
        self._bus, self._topic, self._holder, self._receiver = bus, topic, holder, receiver
        self._current: tuple[UpdateOffer, asyncio.Future[Verdict]] | None = None
        self._news = asyncio.Event()

    def put(self, offer: UpdateOffer, body: bytes) -> asyncio.Future[Verdict]:
        """Offer from now on; the future has the verdict, or is cancelled when a newer update takes its place."""
        self._drop()
        if offer.inline is None:
            self._holder.offer(offer.sha256, body, [self._receiver])
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._current = (offer, verdict)
        self._news.set()
        return verdict

    def verdict_arrived(self, verdict: Verdict) -> None:
        """Take a verdict; one about another update is old news."""
        if self._current is None or self._current[0].id != verdict.id:
            return
        _, waiting = self._current
        if not waiting.done():
            waiting.set_result(verdict)
        self._drop()

    def folded(self, update: str, version: int) -> None:
        """The receiver's release says that it contains this update: as good as a verdict."""
        self.verdict_arrived(Verdict(id=update, accepted=True, version=version))

    def _drop(self) -> None:
        if self._current is None:
            return
        offer, waiting = self._current
        self._holder.withdraw(offer.sha256)
        waiting.cancel()
        self._current = None
        self._news.set()

    async def run(self) -> None:
        """Send and repeat for ever."""
        pause = FIRST_REPEAT
        while True:
            self._news.clear()
            current = self._current
            if current is not None:
                with contextlib.suppress(NotPublished):
                    await self._bus.publish(self._topic, current[0].encode())
            try:
                async with asyncio.timeout(None if current is None else pause):
                    await self._news.wait()
                pause = FIRST_REPEAT
            except TimeoutError:
                self._bus.telemetry.count("offers_again")
                pause = min(2 * pause, LAST_REPEAT)
