"""One edge of the release benchmark: a real gateway whose next round is already closed over a made-up delta.

Arguments: settings file, edge id, codec. It prints `ready` once it runs release 1, waits for a line, lets its lesson
go on as if a round had just closed, and prints each adopted version with the monotonic time at which it answered
with it, and whether both edges' updates are folded in.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from edge_gateway.gateway import Gateway, _start_predictor, _state
from edge_gateway.labels import LabelledStore
from edge_gateway.learning import Learning, LearningSettings
from edge_gateway.rounds import Closed
from edge_gateway.settings import EdgeSettings
from edge_gateway.store import EdgeStore
from megace2_iot.bus import BrokerSettings, Presence, connect
from megace2_iot.service import Settings
from megace2_iot.topics import Topics
from megace2_iot.workers import worker


async def main(file: Path, edge: str, codec: str) -> None:
    settings = Settings(file)
    learning = LearningSettings(adapters=False, codec=codec)
    chosen = settings.section("edge", EdgeSettings).model_copy(update={"id": edge, "learning": learning})
    store, topics = EdgeStore(chosen.state_dir / edge), Topics()
    with (
        contextlib.closing(LabelledStore(store.directory / "labelled.sqlite")) as labels,
        ThreadPoolExecutor(1, "model") as thread,
    ):
        predictor = await _start_predictor(chosen, thread)
        presence = Presence(topic=topics.edge_all(edge, "state"), payload=_state)
        broker = settings.section("broker", BrokerSettings)
        async with worker("edge_gateway.personalizer") as trainer, connect(broker, edge, presence=presence) as bus:
            gateway = Gateway(chosen, topics, bus, labels, predictor, thread, trainer, store)
            await _play(gateway.learning, edge, gateway)


async def _play(learning: Learning, edge: str, gateway: Gateway) -> None:
    lines = await _stdin()
    go, prepared = asyncio.Event(), asyncio.Event()

    async def hold_round() -> Closed | None:
        """In the place of a round: its outcome, which is there already when the edge is told to go on."""
        if go.is_set():
            return None  # nobody takes part in a second one
        closed = _closed(learning, edge)
        prepared.set()
        await go.wait()
        return closed

    held: Any = learning
    held._hold_round = hold_round
    running = asyncio.create_task(gateway.run(None))
    watching = asyncio.create_task(_tell(learning))
    await prepared.wait()
    print("ready", flush=True)
    await lines.readline()
    go.set()
    await lines.readline()
    for task in (running, watching):
        task.cancel()
    await asyncio.wait([running, watching])


def _closed(learning: Learning, edge: str) -> Closed:
    assert learning.pointer is not None
    layout: Any = learning._adoption.layout
    rng = np.random.default_rng(len(edge) + ord(edge[-1]))
    delta = (rng.standard_normal(layout.size, np.float32) * 1e-3).astype(np.float32)
    return Closed(1, learning.pointer.version, delta, dict.fromkeys(layout.groups, 100), (edge,), 1.0)


async def _tell(learning: Learning) -> None:
    """Print what this edge answers with, as soon as it does."""
    version = None
    while True:
        if learning.facts["version"] != version and learning.pointer is not None:
            version = learning.facts["version"]
            print(f"{version} {time.monotonic()} {len(learning.pointer.folded)}", flush=True)
        await asyncio.sleep(0.001)


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
