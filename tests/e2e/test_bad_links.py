"""The loop on links as they are: cut, slow, half-open; a large model over a link that breaks again and again."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from link import ShapedLink
from tiers import Lab, corpus, played, running, until

from device_agent.learning import Learner, TrainingSettings
from megace2_iot.blobs import BlobStore, Holder, Puller, chunk_tag, digest
from megace2_iot.bus import BrokerSettings, Bus, connect
from megace2_iot.messages import BlobRequest, ModelPointer, Prediction
from megace2_iot.topics import Topics

RunBroker = Callable[..., AbstractAsyncContextManager[Any]]
TOPICS = Topics()
MODEL = os.urandom(1 << 20) * 50  # the paper's model has 50 MB
CUTS = 10


@pytest.mark.timeout(240)
async def test_the_loop_goes_round_on_links_that_break(run_embedded: RunBroker, make_lab: Callable[[str], Lab]) -> None:
    """Protects devices on bad Wi-Fi: one message of 20 takes its connection along, and each way takes 0.1 s.

    Every window is answered, a round closes, and the cloud releases a better model.
    """
    async with run_embedded() as broker, ShapedLink(broker.port, latency_s=0.1, cut_rate=0.05) as link:
        lab = make_lab(broker.url)
        bad = replace(lab, url=f"mqtt://127.0.0.1:{link.port}")
        samples = corpus(24)
        async with (
            lab.listening() as ear,
            Learner(TrainingSettings()) as learner,
            running(
                lab.cloud(),
                lab.edge(learning={"min_deadline": 60.0}),
                bad.device("cam-1", learner=learner).run(played(samples, 0.05), stay=True),
            ),
        ):
            await until(lambda: len({answer.seq for answer in ear.of(Prediction, "cam-1")}) == len(samples), 100)
            await until(lambda: any(pointer.version > 1 for pointer in ear.of(ModelPointer, "cloud")), 100)
        assert link.cuts > 0


@pytest.mark.timeout(240)
async def test_all_tiers_behind_such_links_still_answer(
    run_embedded: RunBroker, make_lab: Callable[[str], Lab]
) -> None:
    """Protects a site whose edge and cloud are on that Wi-Fi, too: all over one such link, every window answered."""
    async with run_embedded() as broker, ShapedLink(broker.port, latency_s=0.1, cut_rate=0.05) as link:
        lab = make_lab(broker.url)
        bad = replace(lab, url=f"mqtt://127.0.0.1:{link.port}")
        samples, seldom = corpus(24), {"health_interval": 5.0}  # as it is by default: each message may cost the link
        device = bad.device("cam-1", **seldom).run(played(samples, 0.05), stay=True)
        async with lab.listening() as ear, running(bad.cloud(**seldom), bad.edge(**seldom), device):
            await until(lambda: len({answer.seq for answer in ear.of(Prediction, "cam-1")}) == len(samples), 200)
        assert link.cuts > 0


async def test_a_half_open_link_is_noticed_and_left(run_embedded: RunBroker, make_lab: Callable[[str], Lab]) -> None:
    """Protects a device behind a router that forgot it: keepalive finds out, and what waited is answered."""
    async with run_embedded() as broker, ShapedLink(broker.port) as link:
        lab = make_lab(broker.url)
        behind = replace(lab, url=f"mqtt://127.0.0.1:{link.port}", keepalive=1)
        device = behind.device("cam-1").run(played(corpus(24), 0.1), stay=True)
        async with lab.listening() as ear, running(lab.cloud(), lab.edge(), device):
            await until(lambda: ear.of(Prediction, "cam-1"))
            link.half_open()
            await until(lambda: len({answer.seq for answer in ear.of(Prediction, "cam-1")}) == len(corpus(24)))


@contextlib.asynccontextmanager
async def serving(url: str, model: bytes) -> AsyncIterator[Bus]:
    """A cloud that offers one blob."""
    async with connect(BrokerSettings(url=url), "cloud") as bus:
        holder = Holder(bus, lambda asker, sha: TOPICS.cloud_all("chunk", chunk_tag(sha)), merge=True)
        holder.offer(digest(model), model)
        asked = await bus.subscribe(TOPICS.edges_up("blob_request"))

        async def hear() -> None:
            async for delivery in asked:
                holder.ask(TOPICS.parse(delivery.topic).node, BlobRequest.decode(delivery.payload))

        tasks = [asyncio.create_task(hear()), asyncio.create_task(holder.run())]
        try:
            yield bus
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def pull(url: str, folder: Path) -> memoryview:
    """Pull the model as an edge."""
    async with connect(BrokerSettings(url=url), "edge-1") as bus:
        topics = {
            "request_topic": TOPICS.edge_up("edge-1", "blob_request"),
            "chunk_filter": TOPICS.cloud_all("chunk", chunk_tag(digest(MODEL))),
        }
        return await Puller(bus, BlobStore(folder)).pull(digest(MODEL), len(MODEL), **topics)


async def test_a_large_model_arrives_over_a_link_cut_ten_times_and_a_restart(
    run_broker: RunBroker, tmp_path: Path
) -> None:
    """Protects the way of the paper's 50 MB model: what came stays, over cuts and over the end of the puller."""
    async with run_broker() as broker, serving(broker.url, MODEL), ShapedLink(broker.port) as link:
        url = f"mqtt://127.0.0.1:{link.port}"
        pulling = asyncio.create_task(pull(url, tmp_path))
        for cut in range(1, CUTS + 1):
            link.cut_after(len(MODEL) // (CUTS + 2))
            await until(lambda cut=cut: link.cuts >= cut)
            if cut == CUTS // 2:
                pulling.cancel()
                await asyncio.wait([pulling])
                pulling = asyncio.create_task(pull(url, tmp_path))
        async with asyncio.timeout(60):
            assert digest(await pulling) == digest(MODEL)
        assert link.bytes_down < 1.3 * len(MODEL)
