"""Updates on their way up: repeated under one id, replaced by newer ones, ended by their verdict."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from megace2_iot import offers
from megace2_iot.blobs import BlobStore, Holder, Puller
from megace2_iot.bus import BrokerSettings, Subscription, connect
from megace2_iot.codec import DecodeError
from megace2_iot.messages import INLINE_LIMIT, BlobRequest, UpdateOffer, Verdict
from megace2_iot.offers import Offers, body_of, make_offer


def offer_of(body: bytes, number: int = 1) -> UpdateOffer:
    return make_offer("edge-1", "family", 3, number, {"head": 5.0}, "float32", body)


@contextlib.asynccontextmanager
async def offering(url: str) -> AsyncIterator[tuple[Offers, Holder, Subscription]]:
    """An edge that offers, and who hears it."""
    async with connect(BrokerSettings(url=url), "cloud") as cloud, connect(BrokerSettings(url=url), "edge-1") as bus:
        heard = await cloud.subscribe("updates")
        await cloud.wait_connected(5)
        holder = Holder(bus, lambda asker, sha: f"chunk/{asker}", merge=False)
        edge = Offers(bus, "updates", holder, "cloud")
        running = asyncio.create_task(edge.run())
        try:
            yield edge, holder, heard
        finally:
            running.cancel()
            await asyncio.wait([running])


async def next_offer(heard: Subscription) -> UpdateOffer:
    async with asyncio.timeout(5):
        return UpdateOffer.decode((await anext(heard)).payload)


async def test_an_offer_is_repeated_with_its_id_until_the_verdict(run_embedded, monkeypatch: pytest.MonkeyPatch):
    """A cloud that was away for hours still gets it."""
    monkeypatch.setattr(offers, "FIRST_REPEAT", 0.05)
    async with run_embedded() as broker, offering(broker.url) as (edge, _, heard):
        verdict = edge.put(offer_of(b"x"), b"x")
        first, second = await next_offer(heard), await next_offer(heard)
        assert first.id == second.id
        edge.verdict_arrived(Verdict(id=first.id, accepted=True, version=4))
        assert (await verdict).version == 4


async def test_a_newer_update_takes_the_place_of_an_unanswered_one(run_embedded):
    """The receiver keeps one update a node, so the older one is of no use."""
    async with run_embedded() as broker, offering(broker.url) as (edge, _, heard):
        old = edge.put(offer_of(b"x", 1), b"x")
        new = edge.put(offer_of(b"y", 2), b"y")
        assert old.cancelled()
        while (seen := await next_offer(heard)).round != 2:
            pass
        edge.verdict_arrived(Verdict(id=offer_of(b"x", 1).id, accepted=False))  # too late to matter
        edge.folded(seen.id, 9)
        assert (await new).accepted


async def test_a_large_update_is_held_for_its_receiver_until_the_verdict(run_embedded):
    """Above 128 KiB it is pulled, and nobody else may."""
    body = bytes(INLINE_LIMIT + 1)
    async with run_embedded() as broker, offering(broker.url) as (edge, holder, heard):
        edge.put(offer_of(body), body)
        seen = await next_offer(heard)
        assert seen.inline is None
        assert holder._offers[seen.sha256].askers == {"cloud"}
        edge.verdict_arrived(Verdict(id=seen.id, accepted=True))
        assert seen.sha256 not in holder._offers


async def test_the_bytes_of_an_offer_are_those_of_its_hash(run_embedded, tmp_path):
    """From within it or pulled from its sender; other bytes are refused by whoever receives."""
    large = bytes(INLINE_LIMIT + 1)
    async with (
        run_embedded() as broker,
        offering(broker.url) as (edge, holder, _),
        connect(BrokerSettings(url=broker.url), "reader") as bus,
        asyncio.timeout(10),
    ):
        requests = await holder._bus.subscribe("requests")
        serving = [asyncio.create_task(holder.run()), asyncio.create_task(answer(holder, requests))]
        puller = Puller(bus, BlobStore(tmp_path))
        edge.put(offer_of(large), large)
        for body in (b"x", large):
            topics = {"request_topic": "requests", "chunk_filter": "chunk/+"}
            assert bytes(await body_of(offer_of(body), puller, **topics)) == body
        with pytest.raises(DecodeError, match="does not have the hash"):
            await body_of(offer_of(b"x").model_copy(update={"inline": b"y"}), puller, **topics)
        puller.close()
        for task in serving:
            task.cancel()
        await asyncio.wait(serving)


async def answer(holder: Holder, requests: Subscription) -> None:
    async for delivery in requests:
        holder.ask("cloud", BlobRequest.decode(delivery.payload))


def test_the_id_tells_sender_round_base_and_content_apart():
    """Two updates are never taken for one another, and one is always itself."""
    assert offer_of(b"x").id == offer_of(b"x").id
    assert len({offer_of(b"x").id, offer_of(b"y").id, offer_of(b"x", 2).id}) == 3
