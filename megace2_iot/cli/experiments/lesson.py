"""How long training takes in both arms of table 3: a round of two devices, and as many steps in the cloud.

Scores are stand-ins: how long a step takes does not depend on them, and nothing is said of what was learned.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from device_agent.agent import Device
from device_agent.learning import Learner, TrainingSettings
from device_agent.settings import DeviceSettings
from device_agent.windows import Window
from megace2_iot.blobs import BlobStore
from megace2_iot.bus import BrokerSettings, Subscription, connect
from megace2_iot.cli.experiments.cell import Bench
from megace2_iot.cli.experiments.clips import Extracted
from megace2_iot.cli.experiments.link import ShapedLink
from megace2_iot.cli.experiments.site import EDGE, SITE, broker, edge_cloud
from megace2_iot.cli.experiments.users import KEEPALIVE
from megace2_iot.examples import pack
from megace2_iot.messages import RoundStart, UpdateOffer
from megace2_iot.problems import Problem
from megace2_iot.stem import Stem
from megace2_iot.tensors import decode_tensors
from megace2_iot.workers import worker

ROUNDS = 3  # measured, after a first that starts processes; the median counts
DEVICES, WINDOWS = 2, 32  # windows of each: two batches of 16, so that both arms take the same steps
MBIT_S = 20.0
WITHIN = 180.0  # s for all of it
Values = Mapping[str, Any]


def label(number: int) -> float:
    """A stand-in from -3 to 3."""
    return float(number % 7 - 3)


async def held(bench: Bench, training: Values) -> dict[str, Any]:
    """s of a round from its opening to the edge's update, and of as many steps in the cloud."""
    folder = bench.folder / "lesson"
    folder.mkdir(exist_ok=True)
    bench = replace(bench, folder=folder)
    async with (
        broker(folder) as (port, _),
        ShapedLink(port, MBIT_S * 1e6, bench.delay, shared=True) as link,
        edge_cloud(folder, port, bench.preset, bench.dims, training=training),
    ):
        found = await _rounds(bench, port, link)
    return {**found, "cloud": await _in_cloud(bench, training), "devices": DEVICES, "windows": WINDOWS}


async def _rounds(bench: Bench, port: int, link: ShapedLink) -> dict[str, Any]:
    async with contextlib.AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect(BrokerSettings(url=f"mqtt://127.0.0.1:{port}"), "observer"))
        await bus.wait_connected(10)
        learners = [await stack.enter_async_context(Learner(TrainingSettings())) for _ in range(DEVICES)]
        devices = [_device(bench, number, link.port, learner) for number, learner in enumerate(learners)]
        heard = [await bus.subscribe(SITE.edge_all(EDGE, "round")), await bus.subscribe(SITE.update(EDGE))]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(device.run(_windows(bench.extracted), stay=True)) for device in devices]
            try:
                found = await _measured(heard, link)
            finally:
                for task in running:
                    task.cancel()
    return found


async def _measured(heard: Sequence[Subscription], link: ShapedLink) -> dict[str, Any]:
    """Rounds in which every window of every device counted: the median of their s, and bytes over the link."""
    opened, found = dict[int, _Moment](), dict[int, _Moment]()

    async def note_starts() -> None:
        async for delivery in heard[0]:
            opened[RoundStart.decode(delivery.payload).round] = _Moment.of(link)

    starts = asyncio.create_task(note_starts(), name="rounds")
    try:
        async with asyncio.timeout(WITHIN):
            while len(found) <= ROUNDS:
                offer = UpdateOffer.decode((await anext(heard[1])).payload)
                whole = max(offer.num_examples.values()) >= DEVICES * WINDOWS
                if whole and offer.round in opened and offer.round not in found:  # an offer may be repeated
                    found[offer.round] = _Moment.of(link).since(opened[offer.round])
    except TimeoutError:
        raise Problem(f"no {ROUNDS} whole rounds of {DEVICES} devices within {WITHIN:.0f} s") from None
    finally:
        starts.cancel()
        await asyncio.wait([starts])
    took, up, down = (statistics.median(each) for each in zip(*list(found.values())[1:], strict=True))
    return {"round": took, "round_up": up, "round_down": down}


class _Moment(NamedTuple):
    """Monotonic s, and bytes over the link until then, or between two moments."""

    at: float
    up: int
    down: int

    @classmethod
    def of(cls, link: ShapedLink) -> _Moment:
        return cls(time.monotonic(), link.bytes_up, link.bytes_down)

    def since(self, other: _Moment) -> _Moment:
        return _Moment(self.at - other.at, self.up - other.up, self.down - other.down)


def _device(bench: Bench, number: int, port: int, learner: Learner) -> Device:
    folder = bench.folder / "devices" / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    settings = DeviceSettings(id=f"user-{number}", edge=EDGE, state_dir=folder)
    address = BrokerSettings(url=f"mqtt://127.0.0.1:{port}", keepalive=KEEPALIVE)
    return Device(settings, SITE, address, bench.dims, BlobStore(folder / "blobs", settings.id), learner)


async def _windows(extracted: Sequence[Extracted]) -> AsyncIterator[Window]:
    for number in range(WINDOWS):
        yield extracted[number % len(extracted)].window(time.time(), label(number))


async def _in_cloud(bench: Bench, training: Values) -> float:
    """s of the same steps in one process over everybody's windows, in a child like the devices' own."""
    release = await asyncio.to_thread(_release, bench)
    tensors, metadata = decode_tensors(release["stem"])
    stem = Stem.from_tensors(tensors, {"mult_compat": metadata.get("mult_compat") == "true"})
    numbers = range(DEVICES * WINDOWS)
    features = [bench.extracted[number % len(bench.extracted)].features for number in numbers]
    examples = pack([{m: stem.embed(m, f.values) for m, f in each.items()} for each in features])
    bounds = TrainingSettings()
    async with worker("device_agent.learner", json.dumps({"memory": bounds.memory, "cores": 1})) as child:
        await child.call("load", config=release["config"], blob=release["base"])
        took = list[float]()
        for seed in range(ROUNDS + 1):
            settings, scores = dict(training), [label(number) for number in numbers]
            began = time.monotonic()
            await child.call("train", examples=dict(examples), scores=scores, seed=seed, settings=settings)
            took.append(time.monotonic() - began)
    return statistics.median(took[1:])


def _release(bench: Bench) -> dict[str, Any]:
    from cloud_aggregator.trainer import Trainer

    return Trainer().first(bench.preset, bench.dims, 0, "")
