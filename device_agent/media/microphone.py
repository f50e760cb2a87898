"""A live microphone as pieces of clean mono sound; it may be absent, in use, or plugged in and out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import av

from device_agent.media.alsa import Heard, open_alsa
from device_agent.media.chunks import Losses, Sound
from device_agent.media.live import Reader
from device_agent.media.playback import play
from device_agent.media.reading import Reading
from device_agent.media.reconnecting import FIRST_WAIT, DeviceLost, reconnecting
from device_agent.media.sound import SoundTrack

OpenMicrophone = Callable[[str], AbstractContextManager[Iterator[Heard]]]  # raises DeviceLost


def microphone(
    device: str,
    reading: Reading,
    losses: Losses,
    *,
    began: float,
    open_microphone: OpenMicrophone = open_alsa,
    speed: float = 1.0,
    repeat: bool = False,
    first_wait: float = FIRST_WAIT,
) -> Reader:
    """Sound of an ALSA device such as plughw:1, 0 s being `began` monotonic s, or of a file that is played instead."""
    if Path(device).is_file():
        heard = replace(reading, pictures=False)
        return lambda stop: play(Path(device), heard, losses, stop, speed=speed, repeat=repeat)

    def read(stop: threading.Event) -> Iterator[Sound]:
        track = SoundTrack(reading, losses)

        def attempt() -> Generator[Sound | None, None, None]:
            try:
                with open_microphone(device) as frames:
                    yield from _sounds(frames, track, losses, began)
            except DeviceLost:
                yield from track.flush()
                raise

        return reconnecting(attempt, stop, losses, "microphone", first_wait=first_wait)

    return read


def _sounds(frames: Iterator[Heard], track: SoundTrack, losses: Losses, began: float) -> Iterator[Sound | None]:
    for frame, at in frames:
        yield None
        try:
            sounds = track.push(frame, at - began)
        except (av.error.FFmpegError, ValueError):
            losses.count("audio_errors")
            continue
        yield from sounds
