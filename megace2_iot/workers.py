"""A child process that answers requests over its own pipes: how heavy work stays out of an event loop.

A frame is a 4-byte little-endian length and one envelope of `codec` (uncompressed). The child reads requests from
standard input, answers on standard output in order, and ends when its standard input closes, so it never outlives its
parent. Everything it prints goes to standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, BinaryIO

from megace2_iot import codec
from megace2_iot.problems import Problem

FRAME = struct.Struct("<I")
LIMIT, VALUES = 1 << 30, 1 << 24  # bytes and values of one request or answer: a parent trusts its child
STOP_GRACE = 5.0  # s between closing a child's input and killing it


class WorkerError(Exception):
    """The child refused a request (its text says why) or died."""


class Worker:
    """The parent's end of a child; one request at a time, in order."""

    def __init__(self, name: str, start: Callable[[], Awaitable[asyncio.subprocess.Process]]) -> None:
        self.name, self._start = name, start
        self._process: asyncio.subprocess.Process | None = None  # from the first request on
        self._turn = asyncio.Lock()
        self._ended = False  # killed here, or found dead: the process itself is waited for by `stop`

    @property
    def pid(self) -> int:
        """Of one that is alive."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None and not self._ended

    async def call(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Run one task in the child; raises `WorkerError`. Cancelling ends the child: half a frame cannot be undone."""
        async with self._turn:
            process = self._process = self._process or await self._start()
            try:
                return await self._exchange(process, task, arguments)
            except asyncio.CancelledError:
                self._ended = True
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                raise

    async def _exchange(
        self, process: asyncio.subprocess.Process, task: str, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        body = codec.encode({"task": task, **arguments}, level=0)
        try:
            process.stdin.write(FRAME.pack(len(body)) + body)
            await process.stdin.drain()
            (size,) = FRAME.unpack(await process.stdout.readexactly(FRAME.size))
            answer = codec.decode(await process.stdout.readexactly(size), limit=LIMIT, values=VALUES)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self._ended = True
            code = await process.wait()
            raise WorkerError(f"{self.name} died with status {code}; its last words are in the log above") from error
        if "error" in answer:
            raise WorkerError(f"{self.name}: {answer['error']}")
        return answer

    async def restart(self) -> None:
        """The next request goes to a new child, which knows nothing of what this one was told."""
        await self.stop()
        self._process, self._ended = None, False

    async def stop(self) -> None:
        """Close its input, wait, kill; nothing where there is none."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_GRACE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def worker(module: str, *arguments: str, threads: int = 1) -> AsyncIterator[Worker]:
    """`python -m module arguments` in its own session with `threads` compute threads, started by the first request."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=environment,
            limit=1 << 20,
        )

    child = Worker(module, start)
    try:
        yield child
    finally:
        await asyncio.shield(child.stop())


def serve(handlers: Mapping[str, Callable[..., Mapping[str, Any]]], *, niceness: int = 0) -> None:
    """The child's loop: answer requests until standard input closes.

    A `Problem` is answered; so is a `ValueError`, which may be a bug and leaves its traceback; others end the child.
    """
    os.nice(niceness)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not break a frame
    while (request := _read(source)) is not None:
        handler = handlers.get(str(request.pop("task", "")))
        try:
            answer = dict(handler(**request)) if handler else {"error": "unknown task"}
        except Problem as problem:
            answer = {"error": str(problem)}
        except ValueError as error:
            traceback.print_exc()
            answer = {"error": str(error)}
        body = codec.encode(answer, level=0)
        sink.write(FRAME.pack(len(body)) + body)
        sink.flush()


def _read(source: BinaryIO) -> dict[str, Any] | None:
    head = source.read(FRAME.size)
    if len(head) < FRAME.size:
        return None
    (size,) = FRAME.unpack(head)
    body = source.read(size)
    return codec.decode(body, limit=LIMIT, values=VALUES) if len(body) == size else None
