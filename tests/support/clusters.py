"""The loop of two edges and six devices on a cluster of which one node dies, and what the tiers say of it then."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiers import Ear, Lab, corpus, played, running, until

from broker.cluster import Cluster
from cloud_aggregator.store import Store
from device_agent.agent import Device
from device_agent.learning import Learner
from device_agent.outbox import Outbox
from device_agent.settings import open_outbox
from device_agent.windows import Window
from megace2_iot.bus.opening import first_of
from megace2_iot.messages import Health
from megace2_iot.telemetry import Telemetry

EDGES, DEVICES = ("edge-1", "edge-2"), 6
PATIENCE = 60.0  # s


@dataclass
class Outcome:
    """What a run left behind, from the tiers' own figures."""

    devices: list[Device]
    edges: dict[str, Telemetry] = field(default_factory=dict)
    releases: list[Any] = field(default_factory=list)
    versions: dict[str, list[int]] = field(default_factory=dict)  # that each edge told, by its own clock
    folded: int = 0  # as the cloud counted
    folded_before: int = 0  # when the node died
    recovery: dict[str, float] = field(default_factory=dict)  # s from the node's death to the device's next answer
    reconnects: int = 0
    books: dict[str, tuple[int, int]] = field(default_factory=dict)  # accepted; waiting and ended, of each outbox

    def counted(self, name: str) -> int:
        """A counter, of all devices together."""
        return sum(device.telemetry.counters[name] for device in self.devices)


async def loop_with_a_death(
    lab: Lab,
    kill: Callable[[], Any],
    windows: int,
    pause: float,
) -> Outcome:
    """Stream `windows` of each device, `pause` s apart; `kill` takes a node when half of them are out.

    The other half, and the kill, wait for the first update.
    """
    go_on = asyncio.Event()

    async def stream(number: int) -> AsyncIterator[Window]:
        at = 0
        async for window in played(corpus(windows, site=number % 2), pause):
            if (at := at + 1) == windows // 2:
                await go_on.wait()
            yield window

    async with Learner() as learner:
        devices = [lab.device(f"cam-{n}", EDGES[n % 2], learner, share_labels=0.7) for n in range(DEVICES)]
        outcome = Outcome(devices)
        streams = [device.run(stream(number), stay=True) for number, device in enumerate(devices)]
        edges = [lab.edge(edge, scheduling={"share_labels": True}) for edge in EDGES]
        async with lab.listening() as ear, running(lab.cloud(), *edges, *streams):
            folded = lambda: ear.figures("cloud").counters["updates_folded"]  # noqa: E731
            try:
                await until(lambda: all(answered(device) >= windows // 3 for device in devices), PATIENCE)
            except TimeoutError:
                told = sorted({(at.tier, at.node, at.kind) for at, _ in ear.heard})
                raise AssertionError(f"{[dict(d.telemetry.counters) for d in devices]}, heard: {told}") from None
            await until(folded, PATIENCE)
            go_on.set()
            await asyncio.sleep(5 * pause)  # windows are on their way
            outcome.folded_before, before = folded(), [answered(device) for device in devices]
            await kill()
            async with asyncio.TaskGroup() as tasks:
                for device, count in zip(devices, before, strict=True):
                    tasks.create_task(_recovers(device, count, outcome))
            await until(lambda: all(answered(device) == windows for device in devices), PATIENCE)
            await until(lambda: folded() > outcome.folded_before, PATIENCE)
            received = lambda edge: ear.figures(edge).counters["windows_received"]  # noqa: E731
            await until(lambda: sum(map(received, EDGES)) >= DEVICES * windows, PATIENCE)
            await until(lambda: all(device.telemetry.gauges.get("outbox_windows", 1) == 0 for device in devices))
            await _after(ear, time.time())
    return _books(outcome, lab, ear)


def answered(device: Device) -> int:
    return device.telemetry.counters["windows_answered"]


async def _recovers(device: Device, before: int, outcome: Outcome) -> None:
    """Note when answers come again: of the second window since, as one may have been on its way down."""
    began = time.monotonic()
    await until(lambda: answered(device) >= before + 2, PATIENCE)
    outcome.recovery[device.settings.id] = time.monotonic() - began


async def _after(ear: Ear, now: float) -> None:
    """Wait for figures of each tier that are newer than `now`."""
    told = lambda node: [m.at for at, m in ear.heard if at.node == node and type(m) is Health]  # noqa: E731
    await until(lambda: all(max(told(node), default=0.0) > now for node in (*EDGES, "cloud")), PATIENCE)


def _books(outcome: Outcome, lab: Lab, ear: Ear) -> Outcome:
    for edge in EDGES:
        told = sorted((m for at, m in ear.heard if at.node == edge and type(m) is Health), key=lambda m: m.at)
        outcome.edges[edge] = Telemetry.from_snapshot(told[-1].figures)
        outcome.versions[edge] = [m.facts["version"] for m in told if m.facts.get("version") is not None]
    cloud = sorted((m for at, m in ear.heard if at.node == "cloud" and type(m) is Health), key=lambda m: m.at)
    outcome.folded = Telemetry.from_snapshot(cloud[-1].figures).counters["updates_folded"]
    with Store.open(lab.folder / "cloud", durable=False) as store:
        outcome.releases = list(store.releases(store.family().family))
    for device in outcome.devices:
        outcome.reconnects += device.telemetry.counters["bus_disconnects"]
        outbox: Outbox = open_outbox(device.settings)
        totals = dict(outbox.totals)
        outcome.books[device.settings.id] = (totals.pop("accepted"), len(outbox) + sum(totals.values()))
        outbox.close()
    return outcome


def check_invariant(outcome: Outcome, windows: int) -> None:
    """Processed and shed are what was accepted; no window counted twice, no update folded twice, versions rise."""
    for device in outcome.devices:
        counters = device.telemetry.counters
        assert counters["windows_accepted"] == counters["windows_answered"] == windows, device.settings.id
        assert sum(count for name, count in counters.items() if name.startswith("windows_shed")) == 0
        assert counters["windows_lost"] == 0
    for accepted, ended in outcome.books.values():
        assert accepted == ended == windows
    for edge, figures in outcome.edges.items():
        served = sum(device.settings.edge == edge for device in outcome.devices)
        assert figures.counters["windows_received"] == served * windows, "a window was inferred twice"
        assert figures.counters["inferred_again"] == figures.counters["windows_missing"] == 0
        versions = outcome.versions[edge]
        assert versions == sorted(versions)
    numbers = [release.version for release in outcome.releases]
    assert sorted(set(numbers)) == sorted(numbers)
    updates = [release.update_id for release in outcome.releases if release.update_id]
    assert max(Counter(updates).values(), default=1) == 1
    unheard = len(updates) - outcome.folded  # folded after the cloud's last word: one of each edge at most
    assert 0 <= unheard <= len(EDGES), "an update was folded twice, or a release of one is missing"


def home_of(cluster: Cluster, node: str) -> int:
    """Which node of the cluster a node of ours connects to first."""
    return first_of(Lab(cluster.url, Path()).broker, node)
