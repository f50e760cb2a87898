"""A device in its edge's rounds: what it gives, and what it would rather not give."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from device_agent.learning import Learner, Participant
from device_agent.windows import Window
from megace2_iot.blobs import BlobStore, Puller, digest
from megace2_iot.bus import BrokerSettings, connect
from megace2_iot.features import Features
from megace2_iot.messages import ModelPointer, RoundStart, UpdateOffer
from megace2_iot.model.fusion import CrossModalTransformer, preset
from megace2_iot.model.state import base_tensors, stem_of
from megace2_iot.tensors import encode_tensors
from megace2_iot.topics import Topics

MODEL = CrossModalTransformer.seeded(preset("nano", {"text": 4, "audio": 3, "vision": 2}), 0)
BASE = encode_tensors(base_tensors(MODEL), {})
SITE = Topics(site="test")
POINTER = ModelPointer(
    family="f",
    config=MODEL.config.to_json(),
    version=1,
    sha256=digest(BASE),
    size=len(BASE),
    stem="a" * 64,
    stem_size=1,
    created_at=0.0,
)
HUGE = 1e38  # a learning rate by which any training diverges


def start(number: int, learning_rate: float) -> RoundStart:
    return RoundStart(
        round=number,
        family="f",
        base_version=1,
        sha256=POINTER.sha256,
        size=POINTER.size,
        participants=("cam-1",),
        deadline=60.0,
        training={"epochs": 1, "batch_size": 4, "learning_rate": learning_rate},
    )


async def test_a_round_in_which_its_training_diverges_is_declined(run_embedded, tmp_path: Path) -> None:
    """The edge hears at once that nothing comes, not a number of it leaves the device, and the next round is served."""
    rng = np.random.default_rng(0)
    blobs = BlobStore(tmp_path)
    blobs.put(BASE)
    async with (
        run_embedded() as broker,
        Learner() as learner,
        connect(BrokerSettings(url=broker.url), "edge-1") as edge,
        connect(BrokerSettings(url=broker.url), "cam-1") as bus,
        asyncio.timeout(40),
    ):
        heard = await edge.subscribe(SITE.devices_of("edge-1", "update"))
        await edge.wait_connected(5)
        device = Participant(bus, SITE, "cam-1", "edge-1", learner, Puller(bus, blobs), limit=100)
        device.use_stem(stem_of(MODEL))
        device.use_model(POINTER)
        for _ in range(12):
            device.add(Window({"text": Features(rng.standard_normal((5, 4), np.float32))}, label=1.0))
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(task.run()) for task in (device, device.offers)]
            offers = []
            for number, rate in ((1, HUGE), (2, 1e-3)):
                device.round_opened(start(number, rate))
                offers.append(UpdateOffer.decode((await anext(heard)).payload))
            for task in running:
                task.cancel()
    declined, given = offers
    assert (declined.round, declined.num_examples, declined.inline) == (1, {}, b"")
    assert (given.round, bool(given.num_examples), bool(given.inline)) == (2, True, True)
    assert bus.telemetry.counters["training_failures"] == 1
