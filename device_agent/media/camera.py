"""A live camera as pictures at a regular rate; it may be plugged in and out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import av

from device_agent.media.chunks import Losses, Picture
from device_agent.media.images import ImageDecoder, Shots, Wish
from device_agent.media.live import Reader
from device_agent.media.pictures import PictureTrack
from device_agent.media.playback import play
from device_agent.media.reading import Reading
from device_agent.media.reconnecting import FIRST_WAIT, DeviceLost, reconnecting
from device_agent.media.video4linux import open_video4linux

SMALLEST = (320, 240)  # pixels to ask a camera for: less is rarely offered, more only costs


OpenCamera = Callable[[str, Wish], AbstractContextManager[Shots]]  # raises DeviceLost; MediaError where it never will


def camera(
    device: str,
    reading: Reading,
    losses: Losses,
    *,
    began: float,
    open_camera: OpenCamera = open_video4linux,
    speed: float = 1.0,
    repeat: bool = False,
    first_wait: float = FIRST_WAIT,
) -> Reader:
    """Pictures of a device such as /dev/video0, 0 s being `began` monotonic s, or of a film that is played instead."""
    if Path(device).is_file():
        seen = replace(reading, sound=False)
        return lambda stop: play(Path(device), seen, losses, stop, speed=speed, repeat=repeat)

    def read(stop: threading.Event) -> Iterator[Picture]:
        track = PictureTrack(reading, losses)
        wish = Wish(max(SMALLEST[0], reading.width), max(SMALLEST[1], reading.height or 0), 2 * reading.picture_rate)

        def attempt() -> Generator[Picture | None, None, None]:
            try:
                with open_camera(device, wish) as shots:
                    yield from _pictures(shots, track, losses, began)
            except DeviceLost:
                yield from track.flush()
                raise

        return reconnecting(attempt, stop, losses, "camera", first_wait=first_wait)

    return read


def _pictures(shots: Shots, track: PictureTrack, losses: Losses, began: float) -> Iterator[Picture | None]:
    decoder = ImageDecoder(shots)
    for image in shots.images:
        yield None
        if image is None:
            continue
        begun = time.perf_counter()
        try:
            frames = decoder.frames(image.data)
        except (av.error.FFmpegError, ValueError):  # a damaged image: cheap cables lose bytes
            losses.count("video_errors")
            continue
        finally:
            losses.took("decode_video", time.perf_counter() - begun)
        for frame in frames:
            yield from track.push(frame, image.at - began)
