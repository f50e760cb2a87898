"""A media file played in real time, in place of a camera or microphone."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from device_agent.media.chunks import Losses, MediaError, Picture, Sound
from device_agent.media.files import read_file
from device_agent.media.reading import Reading


def play(
    path: Path,
    reading: Reading,
    losses: Losses,
    stop: threading.Event,
    *,
    speed: float = 1.0,
    repeat: bool = False,
) -> Iterator[Sound | Picture]:
    """Each chunk when a device would give it: sound once it has sounded, a picture once it is shown.

    Times are the file's own, going on from one repetition to the next, whatever the `speed` (file seconds a second).
    """
    if speed <= 0:
        raise MediaError(f"a file cannot be played at speed {speed:g}: give a number above 0")
    began, offset = time.monotonic(), 0.0
    for _ in itertools.count() if repeat else range(1):
        end = offset
        for chunk in read_file(path, reading, losses):
            moved = replace(chunk, start=chunk.start + offset)
            due = moved.end if isinstance(moved, Sound) else moved.start
            if stop.wait(max(0.0, began + due / speed - time.monotonic())):
                return
            end = max(end, due)
            yield moved
        # pictures stay on their ticks, and the last one has its own before the next repetition begins
        offset = (math.floor(end * reading.picture_rate + 1e-6) + 1) / reading.picture_rate
