"""Words that people or programs send: lines of standard input, and payloads of MQTT messages."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import time
from collections.abc import AsyncGenerator

from device_agent.media.chunks import Losses, Words
from device_agent.media.lines import MAX_LINE, LineCutter
from device_agent.media.text import cut, decoded

BLOCK = 64 * 1024  # bytes of one read


def typed_words(data: bytes, at: float, losses: Losses) -> Words | None:
    """A line or a payload as words that arrived `at` s on the track's clock; None where it says nothing.

    Its start and end are both its arrival: when it was said before is not known. It is cut at `MAX_LINE` bytes.
    """
    text = decoded(cut(data, MAX_LINE, losses), losses)
    return Words(text, at, at) if text else None


async def typed_lines(
    began: float, losses: Losses, descriptor: int | None = None
) -> AsyncGenerator[tuple[Words, float], None]:
    """Lines of standard input or another descriptor, each with its arrival in monotonic s, until its end.

    `began`, in monotonic s, is 0 s of the track.
    """
    cutter = LineCutter(losses)
    while True:
        block = await _block(sys.stdin.fileno() if descriptor is None else descriptor)
        arrived = time.monotonic()
        for line in cutter.push(block) if block else cutter.end():
            if (words := typed_words(line, arrived - began, losses)) is not None:
                yield words, arrived
        if not block:
            return


async def _block(descriptor: int) -> bytes:
    """The bytes that are there, once there are some; none at the end.

    The descriptor stays blocking: a terminal shares its flags with standard output, which would fail half way.
    """
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)):
        return await asyncio.to_thread(os.read, descriptor, BLOCK)  # a file: no event loop waits for one
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    try:
        return os.read(descriptor, BLOCK)
    except OSError:  # the terminal is gone
        return b""
