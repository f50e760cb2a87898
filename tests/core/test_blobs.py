"""Blobs over real brokers: verified, merged, resumed, and out of the way of small messages."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from link import ShapedLink

from megace2_iot.blobs import BlobGone, BlobStore, Holder, Puller, chunk_tag, digest
from megace2_iot.bus import BrokerSettings, Bus, connect
from megace2_iot.messages import CHUNK_SIZE, BlobChunk, BlobRequest
from megace2_iot.telemetry import Telemetry
from megace2_iot.topics import Topics

T = Topics()


@contextlib.asynccontextmanager
async def holding(url: str, *, merge: bool = True) -> AsyncIterator[tuple[Bus, Holder]]:
    """A cloud that holds blobs and serves who asks."""
    async with connect(BrokerSettings(url=url), "cloud") as bus:
        holder = Holder(bus, lambda asker, sha: T.cloud_all("chunk", chunk_tag(sha)), merge=merge)
        requests = await bus.subscribe(T.edges_up("blob_request"))
        await bus.wait_connected(5)

        async def serve() -> None:
            async for delivery in requests:
                holder.ask(T.parse(delivery.topic).node, BlobRequest.decode(delivery.payload))

        tasks = [asyncio.create_task(serve()), asyncio.create_task(holder.run())]
        try:
            yield bus, holder
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def pull(bus: Bus, store: BlobStore, name: str, sha: str, size: int) -> bytes:
    return await Puller(bus, store).pull(
        sha,
        size,
        request_topic=T.edge_up(name, "blob_request"),
        chunk_filter=T.cloud_all("chunk", chunk_tag(sha)),
    )


async def test_two_neighbours_pull_one_blob_for_the_price_of_one(run_broker, tmp_path: Path):
    """Requests for one blob are merged, and one answer serves every asker."""
    data = os.urandom(3_000_000)
    async with run_broker() as broker, holding(broker.url) as (bus, holder):
        holder.offer(digest(data), data)
        names = [f"edge-{number}" for number in range(4)]
        async with contextlib.AsyncExitStack() as stack:
            edges = [await stack.enter_async_context(connect(BrokerSettings(url=broker.url), name)) for name in names]
            jobs = [
                pull(edge, BlobStore(tmp_path / name), name, digest(data), len(data))
                for edge, name in zip(edges, names, strict=True)
            ]
            assert set(await asyncio.gather(*jobs)) == {data}
        assert bus.telemetry.counters["blob_sent_bytes"] <= 1.5 * len(data)


async def test_an_interrupted_pull_goes_on_where_it_was(run_embedded, tmp_path: Path):
    """What came before a restart is not asked for again."""
    data, store = os.urandom(40 * CHUNK_SIZE), BlobStore(tmp_path)
    async with run_embedded() as broker, holding(broker.url) as (bus, holder):
        holder.offer(digest(data), data)
        async with ShapedLink(broker.port, rate_bit_s=20e6) as link:
            slow = BrokerSettings(url=f"mqtt://127.0.0.1:{link.port}")
            async with connect(slow, "edge-1") as edge:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.6):
                        await pull(edge, store, "edge-1", digest(data), len(data))
        first = bus.telemetry.counters["blob_sent_bytes"]
        assert 2 * CHUNK_SIZE < first < len(data)
        async with connect(BrokerSettings(url=broker.url), "edge-1") as edge:
            assert await pull(edge, store, "edge-1", digest(data), len(data)) == data
        assert bus.telemetry.counters["blob_sent_bytes"] < len(data) + 8 * CHUNK_SIZE


async def test_a_damaged_part_is_pulled_again(run_embedded, tmp_path: Path):
    """The hash decides, whatever was on disk."""
    data, store = os.urandom(3 * CHUNK_SIZE), BlobStore(tmp_path)
    part = store.path(digest(data)).with_suffix(".part")
    part.write_bytes(bytes(len(data)))
    part.with_suffix(".map").write_bytes(b"\x01\x00\x00")
    async with run_embedded() as broker, holding(broker.url) as (_, holder):
        holder.offer(digest(data), data)
        async with connect(BrokerSettings(url=broker.url), "edge-1") as edge:
            assert await pull(edge, store, "edge-1", digest(data), len(data)) == data


async def test_a_blob_that_is_not_offered_is_gone(run_embedded, tmp_path: Path):
    """The asker is told instead of waiting for ever."""
    async with run_embedded() as broker, holding(broker.url), connect(BrokerSettings(url=broker.url), "e") as edge:
        with pytest.raises(BlobGone, match="not offered"):
            async with asyncio.timeout(5):
                await pull(edge, BlobStore(tmp_path), "e", "ab" * 32, 100)


async def test_a_blob_is_served_only_to_whom_it_was_offered(run_embedded, tmp_path: Path):
    """An update is for the cloud, not for a neighbour."""
    async with run_embedded() as broker, holding(broker.url, merge=False) as (bus, holder):
        holder.offer("ab" * 32, b"secret", ["edge-1"])
        async with connect(BrokerSettings(url=broker.url), "edge-2") as edge:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await pull(edge, BlobStore(tmp_path), "edge-2", "ab" * 32, 6)
        assert bus.telemetry.counters["blob_requests_refused"] > 0
        assert bus.telemetry.counters["blob_sent_bytes"] == 0


@pytest.mark.slow
async def test_a_model_leaves_room_for_feature_packets(run_embedded, tmp_path: Path):
    """On 20 Mbit/s a packet that follows a model's chunks waits for at most four of them (< 200 ms)."""
    data = os.urandom(6_000_000)
    async with (
        run_embedded(max_packet_size=1 << 20) as broker,
        ShapedLink(broker.port, rate_bit_s=20e6) as link,
        holding(f"mqtt://127.0.0.1:{link.port}") as (bus, holder),
        connect(BrokerSettings(url=broker.url), "edge-1") as edge,
    ):
        holder.offer(digest(data), data)
        packets = await edge.subscribe("packet")
        await edge.wait_connected(5)
        pulling = asyncio.create_task(pull(edge, BlobStore(tmp_path), "edge-1", digest(data), len(data)))
        await asyncio.sleep(0.4)
        waits = []
        for _ in range(10):
            began = time.monotonic()
            await bus.publish("packet", bytes(14_000))
            await anext(packets)
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.05)
        assert not pulling.done()
        assert await pulling == data
        assert sorted(waits)[len(waits) // 2] < 0.2


async def test_a_neighbour_that_leaves_does_not_take_a_shared_pull_along(run_embedded, tmp_path: Path):
    """Two devices of one process share a transfer; the other begins again on its own connection."""
    data, store = os.urandom(60 * CHUNK_SIZE), BlobStore(tmp_path)
    async with run_embedded() as broker, holding(broker.url) as (_, holder), ShapedLink(broker.port, 20e6) as link:
        holder.offer(digest(data), data)
        slow, fast = BrokerSettings(url=f"mqtt://127.0.0.1:{link.port}"), BrokerSettings(url=broker.url)
        chunks = T.cloud_all("chunk", chunk_tag(digest(data)))
        topics = {"request_topic": T.edge_up("edge-1", "blob_request"), "chunk_filter": chunks}
        async with connect(fast, "edge-2") as staying:
            async with connect(slow, "edge-1") as leaving:
                first, second = Puller(leaving, store), Puller(staying, store)
                pulls = [asyncio.create_task(p.pull(digest(data), len(data), **topics)) for p in (first, second)]
                await asyncio.sleep(0.3)
                pulls[0].cancel()
                first.close()
                await asyncio.wait([pulls[0]])
            async with asyncio.timeout(10):
                assert await pulls[1] == data


class Recorder:
    """In the place of a bus: the topics and chunks that a holder sends."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self.sent: list[int] = []

    async def publish_bulk(self, topic: str, payload: bytes) -> None:
        self.sent.append(BlobChunk.decode(payload).index)


@contextlib.asynccontextmanager
async def sending(blobs: dict[str, bytes]) -> AsyncIterator[tuple[Holder, Recorder]]:
    bus = Recorder()
    holder = Holder(bus, lambda asker, sha: sha, merge=True)  # type: ignore[arg-type]
    for sha, data in blobs.items():
        holder.offer(sha, data)
    running = asyncio.create_task(holder.run())
    try:
        yield holder, bus
    finally:
        running.cancel()
        await asyncio.wait([running])


def asking(sha: str, *chunks: int) -> BlobRequest:
    return BlobRequest(sha256=sha, chunks=chunks)


A, B = "a" * 64, "b" * 64


async def test_who_came_after_a_chunk_was_sent_gets_it_at_once():
    """A neighbour that subscribed a moment later cannot have heard it; one that listened already has."""
    async with sending({A: bytes(3 * CHUNK_SIZE)}) as (holder, bus):
        holder.ask("edge-1", asking(A, 0))
        await asyncio.sleep(0.01)
        holder.ask("edge-2", asking(A, 0))
        await asyncio.sleep(0.01)
        assert bus.sent == [0, 0]
        holder.ask("edge-1", asking(A, 1))
        await asyncio.sleep(0.01)
        holder.ask("edge-2", asking(A, 1))
        await asyncio.sleep(0.01)
        assert bus.sent == [0, 0, 1]
        holder.ask("edge-2", asking(A, 1))  # it was lost
        await asyncio.sleep(0.01)
        assert bus.sent == [0, 0, 1, 1]


async def test_a_release_that_is_being_pulled_stays_on_offer():
    """An edge slower than releases come must finish one, or it would never get any."""
    async with sending({A: bytes(8 * CHUNK_SIZE), B: bytes(10)}) as (holder, bus):
        holder.ask("edge-1", asking(A, 0))
        holder.keep_only([B])
        holder.ask("edge-1", asking(A, 1))
        await asyncio.sleep(0.01)
        assert bus.telemetry.counters["blob_sent_bytes"] == 2 * CHUNK_SIZE
        holder.ask("edge-1", asking(B, 0))  # it went on to the next
        holder.keep_only([B])
        holder.ask("edge-1", asking(A, 2))
        await asyncio.sleep(0.01)
        assert bus.telemetry.counters["blob_sent_bytes"] == 2 * CHUNK_SIZE + 10


async def test_a_chunk_beyond_the_end_is_not_answered():
    """An empty chunk means that the blob is gone, and everybody who pulls it would hear that."""
    async with sending({A: bytes(2 * CHUNK_SIZE)}) as (holder, bus):
        holder.ask("edge-1", asking(A, 2, 1 << 40))
        await asyncio.sleep(0.01)
        assert bus.sent == []
        assert bus.telemetry.counters["blob_requests_refused"] == 2
