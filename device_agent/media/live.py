"""Blocking readers in threads of their own, bridged to asyncio through bounded queues."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress

from device_agent.media.chunks import Chunk, Losses

Reader = Callable[[threading.Event], Iterator[Chunk]]  # ends soon after the event is set; raises MediaError

CAPACITY = 128  # chunks: 12 s of sound or 8 s of pictures at 15 Hz, 2 MB of them at 80 pixels
STOPPING = 3.0  # s that a reader has to end; one that a driver holds is a daemon thread and left behind


async def arriving(
    read: Reader, losses: Losses, *, name: str, capacity: int = CAPACITY
) -> AsyncGenerator[tuple[Chunk, float], None]:
    """Chunks of a blocking reader, each with its arrival in monotonic s, until the reader ends or fails.

    While nobody takes them, the oldest are dropped and counted (`queue_dropped`). Closing it (`aclosing`) stops the
    thread.
    """
    inbox = Inbox(asyncio.get_running_loop(), losses, capacity)
    stop = threading.Event()
    thread = threading.Thread(target=_pump, args=(read, stop, inbox), name=name, daemon=True)
    thread.start()
    try:
        while (pair := await inbox.get()) is not None:
            yield pair
    finally:
        stop.set()
        await asyncio.to_thread(thread.join, STOPPING)


class Inbox:
    """A queue from one thread to one task; full, it gives up its oldest for the newest, as live data ages."""

    def __init__(self, loop: asyncio.AbstractEventLoop, losses: Losses, capacity: int) -> None:
        self._loop = loop
        self._losses = losses
        self._capacity = capacity
        self._held: deque[tuple[Chunk, float]] = deque()
        self._lock = threading.Lock()
        self._filled = asyncio.Event()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, chunk: Chunk, arrived: float) -> None:
        """From the thread; never waits."""
        with self._lock:
            if len(self._held) >= self._capacity:
                self._held.popleft()
                self._losses.count("queue_dropped")
            self._held.append((chunk, arrived))
        self._wake()

    def close(self, error: BaseException | None = None) -> None:
        """From the thread: nothing more comes; the task gets `error` after what is held."""
        self._error, self._closed = error, True
        self._wake()

    async def get(self) -> tuple[Chunk, float] | None:
        """The oldest chunk, or None once the reader has ended."""
        while True:
            self._filled.clear()
            closed = self._closed  # before looking: what was put before closing must be found
            with self._lock:
                if self._held:
                    return self._held.popleft()
            if closed:
                if self._error is not None:
                    raise self._error
                return None
            await self._filled.wait()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop has ended before the thread
            self._loop.call_soon_threadsafe(self._filled.set)


def _pump(read: Reader, stop: threading.Event, inbox: Inbox) -> None:
    """The thread's whole life."""
    try:
        for chunk in read(stop):
            inbox.put(chunk, time.monotonic())
            if stop.is_set():
                break
    except BaseException as error:  # whatever ends the thread belongs to the task that waits for it
        inbox.close(error)
    else:
        inbox.close()
