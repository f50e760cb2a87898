"""The bridge from a reader's thread to asyncio, and files played in place of devices."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
from written_media import tone, write_film, write_sound

from device_agent.media.camera import camera
from device_agent.media.chunks import Chunk, Losses, MediaError, Picture, Sound
from device_agent.media.live import arriving
from device_agent.media.microphone import microphone
from device_agent.media.reading import Reading


def picture(k: int) -> Picture:
    return Picture(np.full((2, 2, 3), k % 256, np.uint8), k / 15)


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


async def test_chunks_arrive_in_order_with_their_times() -> None:
    """And the iterator ends when the reader does."""

    def read(stop: threading.Event) -> Iterator[Chunk]:
        for k in range(5):
            time.sleep(0.01)
            yield picture(k)

    before = time.monotonic()
    pairs = [pair async for pair in arriving(read, Losses(), name="test-order")]
    assert [chunk.start for chunk, _ in pairs] == [k / 15 for k in range(5)]
    arrivals = [arrived for _, arrived in pairs]
    assert arrivals == sorted(arrivals)
    assert before < arrivals[0] < arrivals[-1] < time.monotonic()


async def test_a_slow_taker_gets_the_newest() -> None:
    """The queue is bounded; what is given up is counted, and is the oldest."""
    losses = Losses()
    done = threading.Event()

    def read(stop: threading.Event) -> Iterator[Chunk]:
        yield from (picture(k) for k in range(100))
        done.set()

    async with aclosing(arriving(read, losses, name="test-slow", capacity=10)) as pairs:
        await anext(pairs)
        await asyncio.to_thread(done.wait)
        rest = [chunk.start async for chunk, _ in pairs]
    assert rest[-9:] == [k / 15 for k in range(91, 100)]
    assert len(rest) <= 10
    assert losses.counts["queue_dropped"] == 99 - len(rest)


async def test_leaving_stops_the_thread() -> None:
    """A device that is closed holds no camera and no thread."""

    def read(stop: threading.Event) -> Iterator[Chunk]:
        for k in range(10**9):
            if stop.wait(0.01):
                return
            yield picture(k)

    async with aclosing(arriving(read, Losses(), name="test-leaving")) as pairs:
        await anext(pairs)
        assert threads("test-leaving")
    assert not threads("test-leaving")


async def test_cancelling_stops_the_thread() -> None:
    """Ctrl-C is a cancelled task."""

    async def take() -> None:
        async with aclosing(
            arriving(lambda stop: iter(lambda: stop.wait(0.01) or picture(0), True), Losses(), name="c")
        ) as p:
            async for _ in p:
                pass

    task = asyncio.create_task(take())
    await asyncio.sleep(0.05)
    assert threads("c")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not threads("c")


async def test_a_failure_of_the_reader_reaches_the_task() -> None:
    """After what came before it; a thread that dies silently would look like silence."""

    def read(stop: threading.Event) -> Iterator[Chunk]:
        yield picture(0)
        raise MediaError("gone")

    pairs = arriving(read, Losses(), name="test-failure")
    assert await anext(pairs)
    with pytest.raises(MediaError, match="gone"):
        await anext(pairs)


async def test_a_film_plays_as_a_camera_does(tmp_path: Path) -> None:
    """At its own pace times the speed, pictures only."""
    source = camera(str(write_film(tmp_path / "film.mp4")), Reading(), Losses(), began=time.monotonic(), speed=4)
    began = time.monotonic()
    pairs = [pair async for pair in arriving(source, Losses(), name="test-film")]
    assert all(isinstance(chunk, Picture) for chunk, _ in pairs)
    assert len(pairs) == 30
    assert all(-0.02 < arrived - began - chunk.start / 4 < 0.2 for chunk, arrived in pairs)


async def test_a_sound_file_plays_again_and_again(tmp_path: Path) -> None:
    """Time goes on over the seam, for a demo that runs all day."""
    path = write_sound(tmp_path / "tone.wav", tone(0.5, 16_000, 0.1, 0.3), 16_000)
    source = microphone(str(path), Reading(), Losses(), began=time.monotonic(), speed=10, repeat=True)
    chunks: list[Sound] = []
    async with aclosing(arriving(source, Losses(), name="test-repeat")) as pairs:
        async for chunk, _ in pairs:
            assert isinstance(chunk, Sound)
            chunks.append(chunk)
            if chunk.end > 2.2:
                break
    assert all(-1e-9 < b.start - a.end < 0.1 for a, b in itertools.pairwise(chunks))


async def test_a_file_that_is_no_film_ends_the_source_at_once(tmp_path: Path) -> None:
    """It will not become one by trying again."""
    (tmp_path / "film.mp4").write_text("no film")
    with pytest.raises(MediaError, match="convert it"):
        await anext(
            arriving(camera(str(tmp_path / "film.mp4"), Reading(), Losses(), began=0), Losses(), name="test-bad")
        )


@pytest.mark.parametrize("speed", [0, -1])
def test_a_film_needs_a_speed(tmp_path: Path, speed: float) -> None:
    """As fast as possible is for files that are read, not played: the queue would drop most of them."""
    source = camera(str(write_film(tmp_path / "film.mp4")), Reading(), Losses(), began=0, speed=speed)
    with pytest.raises(MediaError, match="speed"):
        next(source(threading.Event()))
