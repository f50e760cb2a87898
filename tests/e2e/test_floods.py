"""A client that floods, beside honest devices on real brokers: it waits for itself, and is counted by its name."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiers import SITE, Lab, corpus, launch, played, running, until

from broker.codec import encode
from broker.packets import Publish
from broker.server import EmbeddedBroker
from broker.settings import Access
from device_agent import agent
from megace2_iot.bus import connect
from megace2_iot.messages import FeaturePacket, Health, PacketWindow, Prediction, Refusal
from megace2_iot.quantize import quantize
from megace2_iot.telemetry import Telemetry

FLOOD, RATE = "flooder", 40.0  # windows a second that the edge takes of one device, fewer than it could
EDGE = {"learning": {"rounds": False, "adapters": False}, "quota": {"windows": RATE, "burst": 1.0}}


def valid(device: str, seq: int) -> bytes:
    values = np.random.default_rng(seq).normal(size=(5, 24)).astype(np.float32)
    window = PacketWindow(seq=seq, captured_at=0.0, sequences={"text": quantize(values, 0.02).to_fields()})
    return FeaturePacket(device=device, epoch=1, sent_at=0.0, stage="features", windows=(window,)).encode()


FLOODS: dict[str, Callable[[], Iterable[tuple[str, bytes]]]] = {
    "valid packets": lambda: ((FLOOD, valid(FLOOD, seq)) for seq in range(100)),
    "garbage": lambda: ((FLOOD, bytes([seq % 256]) * 3000) for seq in range(100)),
    "another device's packets": lambda: ((FLOOD, valid("cam-1", seq)) for seq in range(100)),
}


@contextlib.asynccontextmanager
async def flooding(
    broker: Any, file: Path, packets: Iterable[tuple[str, bytes]], rate: float = 0.0
) -> AsyncIterator[None]:
    """These, each with whose topic it goes to, from a process of its own again and again while the block runs.

    At most `rate` packets a second, 0: as many as the broker takes.
    """
    encoded = [
        encode(Publish(SITE.device_up(device, "packet", "edge-1"), payload, 1, packet_id=1 + number))
        for number, (device, payload) in enumerate(packets)
    ]
    file.write_bytes(len(encoded).to_bytes(4, "big") + b"".join(encoded))
    place = str(Path(__file__).parents[1] / "support")
    pause = len(encoded) / rate if rate else 0.0
    child = await launch(str(broker.port), str(pause), str(file), module="flooder", PYTHONPATH=place)
    try:
        yield
        assert child.returncode is None
    finally:
        child.kill()
        await child.communicate()


class Figures:
    """What an edge says of itself, and what it says to the flooder."""

    def __init__(self) -> None:
        self.edge, self.facts, self.waiting = Telemetry(), dict[str, object](), 0.0
        self.answers, self.refusals = set[int](), 0

    async def hear(self, heard: AsyncIterator[object]) -> None:
        async for delivery in heard:
            kind, payload = SITE.parse(delivery.topic).kind, delivery.payload  # type: ignore[attr-defined]
            if kind == "health":
                health = Health.decode(payload)
                self.edge, self.facts = Telemetry.from_snapshot(health.figures), dict(health.facts)
                self.waiting = max(self.waiting, self.edge.gauges.get("packets_waiting", 0.0))
            elif kind == "prediction":
                self.answers.add(Prediction.decode(payload).seq)
            elif kind == "refusal":
                self.refusals += Refusal.decode(payload).about == "packet"


@contextlib.asynccontextmanager
async def listening(lab: Lab) -> AsyncIterator[Figures]:
    figures = Figures()
    async with connect(lab.broker, "ear") as bus:
        filters = SITE.edge_all("edge-1", "health"), SITE.device_inbox(FLOOD)
        heard = [await bus.subscribe(topic_filter, limit=10_000) for topic_filter in filters]
        hearing = [asyncio.create_task(figures.hear(messages)) for messages in heard]
        try:
            yield figures
        finally:
            for task in hearing:
                task.cancel()
            await asyncio.wait(hearing)


@pytest.mark.parametrize("flood", FLOODS)
async def test_honest_devices_are_answered_beside_a_flood(run_broker, make_lab, tmp_path, flood):
    """Every window, and none behind the flood's backlog; the flood is counted under its name, and stays bounded.

    The embedded broker takes from a flooder what its readers take. Mosquitto takes all: what is more than an edge can
    read it drops itself, whosever it is, so there it is spared that here.
    """
    async with run_broker() as broker:
        lab = make_lab(broker.url)
        async with running(lab.cloud(), lab.edge(**EDGE)), listening(lab) as figures:
            await lab.device("warm").run(played(corpus(2)))
            began = time.monotonic()
            rate = 0 if isinstance(broker, EmbeddedBroker) else 1000
            async with flooding(broker, tmp_path / "flood", FLOODS[flood](), rate):
                await until(lambda: figures.facts.get(f"flooded.{FLOOD}", 0) > 200)
                honest = [lab.device(name) for name in ("cam-2", "cam-3")]
                async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
                    for device in honest:
                        tasks.create_task(device.run(played(corpus(24), pause=0.05)))
                flooded, took = figures.facts[f"flooded.{FLOOD}"], time.monotonic() - began
            for device in honest:
                counters, times = device.telemetry.counters, device.telemetry.histograms["end_to_end"]
                assert (counters["windows_answered"], counters["windows_sent"]) == (len(corpus(24)),) * 2
                assert times.quantile(1.0) < flooded / RATE  # what it would wait in one line with the flood
            assert set(figures.facts) >= {f"flooded.{FLOOD}"}
            assert not {"flooded.cam-2", "flooded.cam-3", "missing.cam-2", "missing.cam-3"} & set(figures.facts)
            assert figures.waiting <= 2 * 32 + 8  # its own share, and what is honest
            assert len(figures.answers) + figures.refusals <= RATE * (took + 2)
            if flood != "valid packets":
                assert 0 < figures.refusals <= 16 + 2 * (took + 2)  # enough to know, too few to hurt
                assert len(list((lab.folder / "edges" / "edge-1" / "quarantine").iterdir())) <= 2 * 32


async def test_a_flood_under_many_names_fills_no_memory(run_broker, make_lab, tmp_path):
    """An open broker lets anybody say any name: each gets its share, none is kept for ever, honest devices go on."""
    names = [f"name-{number}" for number in range(600)]
    async with run_broker() as broker:
        lab = make_lab(broker.url)
        async with running(lab.cloud(), lab.edge(**EDGE)), listening(lab) as figures:
            packets = [(name, valid(name, 1)) for name in names]
            async with flooding(broker, tmp_path / "flood", packets, 400):
                await until(lambda: figures.edge.counters["packets_received"] > 600)
                device = lab.device("cam-2")
                async with asyncio.timeout(60):
                    await device.run(played(corpus(24), pause=0.05))
            assert device.telemetry.counters["windows_answered"] == len(corpus(24))
            assert "missing.cam-2" not in figures.facts
            assert figures.waiting <= 512


async def test_a_flood_beyond_what_an_edge_can_read_costs_no_window(run_broker, make_lab, tmp_path):
    """What Mosquitto drops of an honest device while it lasts comes again; the embedded broker drops nothing."""
    async with run_broker() as broker:
        lab = make_lab(broker.url)
        async with running(lab.cloud(), lab.edge(**EDGE)), listening(lab) as figures:
            await lab.device("warm").run(played(corpus(2)))
            device = lab.device("cam-2")
            async with (
                asyncio.timeout(60),
                asyncio.TaskGroup() as tasks,
                flooding(broker, tmp_path / "flood", FLOODS["valid packets"]()),
            ):
                await until(lambda: figures.facts.get(f"flooded.{FLOOD}", 0) > 200)
                tasks.create_task(device.run(played(corpus(24), pause=0.05)))
                await asyncio.sleep(3)
            assert device.telemetry.counters["windows_answered"] == len(corpus(24))
            assert "missing.cam-2" not in figures.facts


@pytest.mark.parametrize("kind", ["profile", "config"])
async def test_what_is_said_once_is_said_again_where_it_was_dropped(run_embedded, make_lab, monkeypatch, kind):
    """A broker whose queues are full drops the profile of a device that starts, or its edge's word on it."""
    monkeypatch.setattr(agent, "ASK_AGAIN", 0.3)
    dropped = list[str]()

    def full(client_id: str, topic: str) -> bool:
        drop = f"/{kind}/" in topic and not dropped
        if drop:
            dropped.append(topic)
        return not drop

    async with run_embedded(access=Access(may_publish=full)) as broker:
        lab = replace(make_lab(broker.url), protocol="3.1.1")  # nobody is told there
        async with running(lab.cloud(), lab.edge(**EDGE)):
            async with asyncio.timeout(30):
                await lab.device("cam-1").run(played(corpus(4)))
    assert len(dropped) == 1
