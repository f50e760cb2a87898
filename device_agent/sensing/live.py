"""Live tracks of one device, a camera, a microphone, words, as windows on one clock."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from device_agent.clocks import grid_origin, unix_time
from device_agent.media.camera import camera
from device_agent.media.chunks import Chunk, Losses
from device_agent.media.live import arriving
from device_agent.media.microphone import microphone
from device_agent.media.reading import Reading
from device_agent.media.typed import typed_lines, typed_words
from device_agent.sensing.pipeline import Extraction, Pipeline, Sensed, live_clocks, live_cut
from device_agent.sensing.specs import Spec
from device_agent.sensing.windows import Account
from device_agent.windows import Window
from megace2_iot.bus import Bus
from megace2_iot.features import Modality
from megace2_iot.telemetry import Telemetry

WAITING = 32  # chunks on their way to extraction; behind them the readers' own queues drop the oldest
MODALITY: dict[str, Modality] = {"camera": "vision", "mic": "audio", "stdin": "text", "topic": "text"}
Arrived = tuple[Chunk, float]


def modalities_of(specs: Sequence[Spec]) -> set[Modality]:
    """What live sources give."""
    return {MODALITY[spec.kind] for spec in specs}


async def windows_of(
    specs: Sequence[Spec], extraction: Extraction, telemetry: Telemetry, bus: Bus, *, repeat: bool = False
) -> AsyncIterator[Window]:
    """Windows for ever, or until all sources end. `repeat` is of files that are played in place of a device.

    All times are s since sensing began, on the monotonic clock. Words are not waited for: nobody knows when they come.
    """
    account, began = Account(telemetry), time.monotonic()
    settings, given = extraction.settings, modalities_of(specs)
    origin = grid_origin(settings.window, monotonic=began, unix=time.time()) - began
    expected, clocks = given - {"text"}, live_clocks(given)
    pipeline = Pipeline(extraction, live_cut(settings, origin), settings.lateness, expected=expected, clocks=clocks)
    inbox: asyncio.Queue[Arrived | None] = asyncio.Queue(WAITING)
    sources = [_source(spec, extraction.reading(), account.losses, bus, began, repeat) for spec in specs]
    feeding = asyncio.create_task(_feed(sources, inbox), name="sensing")
    try:
        with ThreadPoolExecutor(1, "sensing") as thread:
            async for sensed in _sensed(pipeline, inbox, thread, began):
                account.tell_losses(pipeline.figures())
                at = unix_time(began + sensed.end, monotonic=time.monotonic(), unix=time.time())
                yield account.window(sensed, at)
        await feeding  # raises what ended a source
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])


async def _sensed(
    pipeline: Pipeline, inbox: asyncio.Queue[Arrived | None], thread: ThreadPoolExecutor, began: float
) -> AsyncIterator[Sensed]:
    """What the pipeline makes of what arrives, in time, and at last of what is left."""
    loop = asyncio.get_running_loop()
    while True:
        deadline = pipeline.next_deadline
        wait = None if deadline is None else max(0.0, began + deadline - time.monotonic())
        try:
            async with asyncio.timeout(wait):
                arrived = await inbox.get()
        except TimeoutError:
            windows = await loop.run_in_executor(thread, pipeline.advance, time.monotonic() - began)
        else:
            if arrived is None:
                break
            windows = await loop.run_in_executor(thread, pipeline.push, arrived[0], arrived[1] - began)
        for window in windows:
            yield window
    for window in await loop.run_in_executor(thread, pipeline.finish):
        yield window


def _source(
    spec: Spec, reading: Reading, losses: Losses, bus: Bus, began: float, repeat: bool
) -> AsyncGenerator[Arrived, None]:
    if spec.kind == "camera":
        reader = camera(spec.argument, reading, losses, began=began, repeat=repeat)
        return arriving(reader, losses, name=f"camera:{spec.argument}")
    if spec.kind == "mic":
        reader = microphone(spec.argument, reading, losses, began=began, repeat=repeat)
        return arriving(reader, losses, name=f"mic:{spec.argument}")
    if spec.kind == "stdin":
        return typed_lines(began, losses)
    return _from_topic(spec.argument, losses, bus, began)


async def _from_topic(topic: str, losses: Losses, bus: Bus, began: float) -> AsyncGenerator[Arrived, None]:
    async for delivery in await bus.subscribe(topic, limit=256):
        arrived = time.monotonic()
        if (words := typed_words(delivery.payload, arrived - began, losses)) is not None:
            yield words, arrived


async def _feed(sources: Sequence[AsyncGenerator[Arrived, None]], inbox: asyncio.Queue[Arrived | None]) -> None:
    """All sources into one queue, and None when the last has ended, in order or with an error."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for source in sources:
                tasks.create_task(_pass_on(source, inbox), name="source")
    finally:
        await inbox.put(None)


async def _pass_on(source: AsyncGenerator[Arrived, None], inbox: asyncio.Queue[Arrived | None]) -> None:
    async with contextlib.aclosing(source) as arriving_chunks:
        async for pair in arriving_chunks:
            await inbox.put(pair)
